"""What the core costs: install, disk, and CPU seconds of each command, in a clean environment without PyTorch.

    python benchmarks/core_install.py

Builds the wheel, installs it without extras into a new environment in a temporary folder, and runs each command in a
process of its own. CPU seconds are those of the process and its children from start to end, and hardly depend on what
else the machine does; install seconds do. The bundled photographs come from scikit-image's wheel, which is unpacked
beside the environment and not installed into it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _processes import run_process
from _record import REPO, Table, arguments

TARGETS = {
    "install": "40 s",
    "on disk": "400 MB",
    "import boxel; boxel.label": "0.7 s",
    "boxel --help": "0.3 s",
    "boxel train boxinst --help": "0.3 s",
    "boxel label, one box": "",
    "boxel label, bundled photos": "3 s",
    "boxel evaluate, small results file": "1.5 s",
}


def main() -> None:
    """Install, measure and record."""
    parser = arguments(__doc__)
    parser.add_argument("--keep", type=Path, help="keep the environment in this folder")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each command; the median counts")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        measure(folder.resolve(), args.repeats)


def measure(folder: Path, repeats: int) -> None:
    """Fill the table."""
    table = Table(
        "core-install",
        "core",
        ["CPU s", "wall s", "peak MB", "target"],
        title="The core: install, disk and start",
    )
    python, seconds = install(folder)
    table.add("install", None, round(seconds, 1), None, TARGETS["install"])
    sizes = package_sizes(python)
    table.add(f"on disk: {sum(sizes.values()):.0f} MB", None, None, None, TARGETS["on disk"])
    commands = prepare(folder, python)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for name, words in commands.items():
        runs: list[Any] = [run_process(words, folder, environment) for _ in range(repeats)]
        if None in runs:
            table.add(name, "fails", None, None, TARGETS[name])
            continue
        cpu, wall, peak = sorted(runs)[len(runs) // 2]
        table.add(name, round(cpu, 2), round(wall, 2), round(peak), TARGETS[name])
    table.write()
    packages = Table("core-install", "packages", ["MB"], first="package", title="The largest packages")
    for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:12]:
        packages.add(name, round(size, 1))
    packages.write()


def install(folder: Path) -> tuple[Path, float]:
    """Build the wheel and install it; returns the environment's Python and the seconds of the installation."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder / "dist", REPO],
        check=True,
    )
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    wheel = next((folder / "dist").glob("boxel-*.whl"))
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    began = time.monotonic()
    subprocess.run([*pip, "install", "--no-cache-dir", wheel], check=True)
    seconds = time.monotonic() - began
    photos = folder / "photos_package"
    subprocess.run([*pip, "install", "--no-deps", "--target", photos, "scikit-image"], check=True)
    return python, seconds


def package_sizes(python: Path) -> dict[str, float]:
    """Return MB by folder of site-packages, without pip and setuptools."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(
        subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    )
    sizes: dict[str, float] = {}
    for file in site.rglob("*"):
        name = file.relative_to(site).parts[0].removesuffix(".libs")
        if file.is_file() and not name.startswith(("pip", "setuptools", "_distutils")):
            sizes[name] = sizes.get(name, 0.0) + file.stat().st_size / 1e6
    return sizes


def prepare(folder: Path, python: Path) -> dict[str, list[str]]:
    """Write the inputs and return the command of each row."""
    photos = folder / "photos"
    code = "import sys; from boxel.data.samples import write_sample_images; write_sample_images(sys.argv[1])"
    environment = os.environ | {"PYTHONPATH": str(folder / "photos_package")}
    subprocess.run([python, "-c", code, photos], check=True, env=environment)
    boxes = json.loads((photos / "boxes.json").read_text())
    first = boxes["annotations"][0]
    one = boxes | {
        "images": [image for image in boxes["images"] if image["id"] == first["image_id"]],
        "annotations": [first],
    }
    (photos / "one.json").write_text(json.dumps(one))
    truth = json.loads((photos / "masks.json").read_text())
    keys = ("image_id", "category_id", "bbox")
    results = [{key: row[key] for key in keys} | {"score": 1.0} for row in truth["annotations"]]
    (folder / "results.json").write_text(json.dumps(results))
    boxel = str(python.with_name("boxel"))
    return {
        "import boxel; boxel.label": [str(python), "-c", "import boxel; boxel.label"],
        "boxel --help": [boxel, "--help"],
        "boxel train boxinst --help": [boxel, "train", "boxinst", "--help"],
        "boxel label, one box": [
            boxel,
            "label",
            "photos/one.json",
            "--images",
            "photos",
            "--out",
            "RUN/one.json",
        ],
        "boxel label, bundled photos": [
            *(boxel, "label", "photos/boxes.json", "--images", "photos", "--out", "RUN/masks.json")
        ],
        "boxel evaluate, small results file": [
            *(boxel, "evaluate", "results.json", "photos/masks.json", "--images", "photos")
        ],
    }


if __name__ == "__main__":
    main()
