"""`boxel.data` works where only the core dependencies are installed."""

import subprocess
import sys

import pytest

CODE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "skimage", "matplotlib", "scipy", "pandas"}:
            raise ImportError(name)

sys.meta_path.insert(0, Blocker())
import warnings

import numpy as np

warnings.simplefilter("ignore")
from boxel.data import check, convert, find_images, join, make_label_map, read, repair, to_image, write_scenes

data = write_scenes(sys.argv[1] + "/scenes", 2)
for format in ("yolo", "voc", "labelme", "semantic", "salient"):
    folder = f"{sys.argv[1]}/{format}"
    convert(sys.argv[1] + "/scenes/masks.json", folder, format)
    again = read(folder, class_list="voc" if format == "none" else None)
    assert len(again) == 2 and not [issue for issue in check(again) if "image" in issue.kind], format
repair(join([data, data]))
make_label_map(data, 0)
assert [to_image(path).shape for path in find_images(sys.argv[1] + "/scenes/images")] == [(192, 256, 3)] * 2
data._repr_html_()
"""


@pytest.mark.slow
def test_data_needs_neither_torch_nor_scipy(tmp_path):
    result = subprocess.run([sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("module", ["label_maps", "formats", "checks", "suspects"])
def test_modules_are_imported_in_any_order(module):
    """Readers and writers of `formats` need label maps, so label maps may not need these."""
    subprocess.run([sys.executable, "-c", f"import boxel.data.{module}"], check=True)
