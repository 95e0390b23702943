"""Without PyTorch and the other extras, everything of the core still imports."""

import subprocess
import sys
from pathlib import Path

import pytest

from boxel.data import example_scenes, read

CORE = [
    *("boxel", "boxel.utils", "boxel.data", "boxel.data.formats", "boxel.data.checks", "boxel.masks"),
    *("boxel.labeling", "boxel.labeling.api", "boxel.evaluation", "boxel.viz", "boxel.viz.report"),
    *(
        "boxel.models.exported.loading",
        "boxel.models.prediction",
        "boxel.cli.main",
        "boxel.methods",
        "boxel.demo.photos",
        "boxel.review",
        "boxel.review.export",
    ),
]
CODE = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "timm", "lightning", "skimage", "higra", "matplotlib",
                                      "supervision", "joblib", "transformers", "huggingface_hub", "onnx", "pandas",
                                      "fastapi", "starlette", "uvicorn"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
for name in sys.argv[1:]:
    importlib.import_module(name)
import boxel
boxel.read, boxel.write, boxel.label, boxel.BoxSegmenter, boxel.evaluate, boxel.check, boxel.convert, boxel.load
"""


@pytest.mark.slow
def test_the_core_imports_without_the_extras() -> None:
    done = subprocess.run([sys.executable, "-c", CODE, *CORE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


EXPORT = """
import sys
from pathlib import Path
sys.modules |= dict.fromkeys(("fastapi", "starlette", "pydantic", "uvicorn"))
from boxel.cli import main
from boxel.data import example_scenes
from boxel.review import DecisionStore, Review, decisions_path
data = example_scenes()
Review(data, DecisionStore(decisions_path(data.file))).decide(0, 0, state="deleted")
assert main(["review", data.file, "--images", str(data.root), "--export", sys.argv[1]]) == 0
assert main(["review", data.file, "--images", str(data.root)]) == 1
"""


@pytest.mark.slow
def test_decisions_are_exported_without_the_extra_of_the_page(tmp_path: Path) -> None:
    command = [sys.executable, "-c", EXPORT, str(tmp_path / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "which is not installed; pip install 'boxel[review]'" in done.stderr
    assert len(read(tmp_path / "out.json").ids) == len(example_scenes().ids) - 1
