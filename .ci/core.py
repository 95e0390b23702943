"""What the core promises without PyTorch: check, label, draw, evaluate, a report, and `BoxSegmenter` in a notebook.

    python .ci/core.py

Run by the Python of an environment that has boxel's core, scikit-image (its photographs), nbclient and ipykernel.
"""

import importlib.util
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import nbclient
import nbformat

from boxel.data.samples import write_sample_images

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "get-started.ipynb"
COMMANDS = [
    "boxel --help",
    "boxel train boxinst --help",
    "boxel check photos/boxes.json --images photos",
    "boxel label photos/boxes.json --images photos --out masks.json --report report.html",
    "boxel draw masks.json --images photos --out drawn",
    "boxel evaluate masks.json photos/masks.json --images photos",
    "boxel convert masks.json yolo --to yolo",
    "boxel demo --out demo",
]


def main() -> None:
    """Run every command and the notebook in a folder of its own."""
    assert importlib.util.find_spec("torch") is None, "torch is installed; the core must do without"
    boxel = shutil.which("boxel", path=sysconfig.get_path("scripts"))  # on Windows not beside python.exe
    assert boxel, "boxel is not installed in this environment"
    # Windows keeps files that a process held for a moment longer.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        write_sample_images(Path(folder) / "photos")
        for command in COMMANDS:
            print(f"$ {command}", flush=True)
            subprocess.run([boxel, *command.split()[1:]], cwd=folder, check=True)
        print(f"$ jupyter execute {NOTEBOOK.name}", flush=True)
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        nbclient.NotebookClient(
            notebook, kernel_name="python3", resources={"metadata": {"path": folder}}
        ).execute()
        for file in ("masks.json", "report.html", "demo/report.html"):
            assert (Path(folder) / file).stat().st_size > 0, file
    print("the core works without PyTorch")


if __name__ == "__main__":
    main()
