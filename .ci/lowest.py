"""The core with the lowest versions that `pyproject.toml` allows: readers, labeling and conversion.

    python .ci/lowest.py

Makes an environment in a temporary folder; a minute or two, most of it downloading.
"""

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
TESTS = [
    *(
        f"tests/data/formats/test_{name}.py"
        for name in ("coco", "voc", "yolo", "labelme", "cvat", "label_studio")
    ),
    *("tests/data/test_images.py", "tests/masks/test_rle.py", "tests/labeling/test_box_segmenter.py"),
]


def main() -> None:
    """Install and test."""
    project = (REPO / "pyproject.toml").read_text(encoding="utf-8")  # Python 3.10 has no parser of TOML
    core = re.findall('"(.+)"', project.partition("\ndependencies = [")[2].partition("\n]")[0])
    lowest = [re.sub(r">=([\d.]+).*", r"==\1", bound) for bound in core]
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder, "Scripts" if sys.platform == "win32" else "bin", "python"))
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *lowest, "pytest>=8.0", "hypothesis>=6.131"], check=True)
        subprocess.run([*pip, "--no-deps", str(REPO)], check=True)
        subprocess.run(
            [python, "-m", "pytest", "-q", "-m", "not slow", "-k", "not sbd", *TESTS], cwd=REPO, check=True
        )


if __name__ == "__main__":
    main()
