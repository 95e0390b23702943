"""Without PyTorch and the other extras, everything of the core still imports."""

import subprocess
import sys

import pytest

CORE = [
    *("boxel", "boxel.utils", "boxel.data", "boxel.data.formats", "boxel.data.checks", "boxel.masks"),
    *("boxel.labeling", "boxel.labeling.api", "boxel.evaluation", "boxel.viz", "boxel.viz.report"),
    *("boxel.cli.main", "boxel.methods", "boxel.demo.photos"),
]
CODE = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "timm", "lightning", "skimage", "higra", "matplotlib",
                                      "supervision", "joblib", "transformers", "huggingface_hub", "onnx", "pandas"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
for name in sys.argv[1:]:
    importlib.import_module(name)
import boxel
boxel.read, boxel.write, boxel.label, boxel.BoxSegmenter, boxel.evaluate, boxel.check, boxel.convert
"""


@pytest.mark.slow
def test_the_core_imports_without_the_extras() -> None:
    done = subprocess.run([sys.executable, "-c", CODE, *CORE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
