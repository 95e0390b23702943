"""CPU seconds and memory of large datasets: read, check and convert COCO files, and convert masks to every format.

    python benchmarks/million.py

Each command runs in a process of its own. The first table grows a COCO file of polygons (20 to 60 vertices each) to a
million annotations; pycocotools and, if it is installed, hotcoco read the same files. The second converts 1,000 masks
of generated scenes to each format, and gives CPU milliseconds per mask without the start of the command.
"""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from _record import Table, arguments

import boxel
from boxel.data.synthetic import write_scenes

PER_IMAGE = 8
CATEGORY_IDS = range(1, 81)
SCENES = 280  # of about 3.6 objects each
FOLDERS = ("yolo", "labelme", "voc", "sbd", "cvat", "label-studio", "fiftyone", "semantic", "salient")

READERS = {
    "boxel": "import boxel; boxel.read({file!r})",
    "pycocotools": "from pycocotools.coco import COCO; COCO({file!r})",
    "hotcoco": "from hotcoco import COCO; COCO({file!r})",
}


def generate(path: Path, count: int) -> None:
    """Write a COCO file of this many polygons."""
    draw = random.Random(0)
    images = -(-count // PER_IMAGE)
    with open(path, "w") as file:
        file.write('{"images": [')
        for i in range(images):
            comma = ", " if i else ""
            file.write(f'{comma}{{"id": {i}, "file_name": "{i:012}.jpg", "width": 640, "height": 480}}')
        file.write('], "annotations": [')
        for i in range(count):
            x, y, w, h = (round(draw.uniform(1, 240), 2) for _ in range(4))
            numbers = []
            for _ in range(draw.randint(20, 60)):
                numbers.append(f"{x + w * draw.random():.2f}")
                numbers.append(f"{y + h * draw.random():.2f}")
            comma = ", " if i else ""
            file.write(
                f'{comma}{{"segmentation": [[{", ".join(numbers)}]], "area": {w * h:.4f}, "iscrowd": 0, '
                f'"image_id": {i // PER_IMAGE}, "bbox": [{x}, {y}, {w}, {h}], '
                f'"category_id": {draw.choice(CATEGORY_IDS)}, "id": {i + 1}}}'
            )
        categories = ", ".join(f'{{"id": {k}, "name": "class {k}"}}' for k in CATEGORY_IDS)
        file.write(f'], "categories": [{categories}]}}')


def run(command: list[str]) -> tuple[float, float]:
    """Run a command and return its CPU seconds and peak MB."""
    with open(os.devnull, "w") as quiet:
        process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        _, _, usage = os.wait4(process.pid, 0)
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6


def python(code: str) -> list[str]:
    """Return the command that runs this code."""
    return [sys.executable, "-c", code]


def boxel_command(*words: object) -> list[str]:
    """Return a command of boxel."""
    return [sys.executable, "-m", "boxel", *map(str, words)]


def measure_growth(folder: Path, counts: list[int]) -> None:
    """Fill the table of reading, checking and converting."""
    table = Table(
        "scale",
        "million",
        [f"{count:,}: CPU s / MB" for count in counts],
        title="A COCO file of polygons",
        note="Whole processes. `check` without the images.",
    )
    cells: dict[str, list[str]] = {}
    for count in counts:
        file = folder / f"{count}.json"
        generate(file, count)
        readers = {name: code for name, code in READERS.items() if importlib.util.find_spec(name)}
        commands = {
            **{f"read: {name}": python(code.format(file=str(file))) for name, code in readers.items()},
            "boxel check": boxel_command("check", file),
            "boxel convert to COCO": boxel_command("convert", file, folder / "copy.json"),
        }
        for name, command in commands.items():
            seconds, peak = run(command)
            print(f"{count:,} {name}: {seconds:.2f} s, {peak:.0f} MB", flush=True)
            cells.setdefault(name, []).append(f"{seconds:.1f} / {peak:.0f}")
        file.unlink()
    for name, values in cells.items():
        table.add(name, *values)
    table.write()


def measure_formats(folder: Path) -> None:
    """Fill the table of conversions."""
    masks = write_scenes(folder / "scenes", SCENES, height=480, width=640, seed=0)
    few = masks.select_images(range(1))
    for name, data in (("few", few), ("masks", masks)):
        boxel.write(data, folder / f"scenes/{name}.json")
    table = Table(
        "scale",
        "formats",
        ["CPU ms per mask"],
        title=f"Converting {len(masks.labels):,} masks of 640 x 480 images",
        note="CPU time of the command less that of one image, per mask.",
    )
    ways = {
        "COCO": ["{}.json"],
        "COCO, polygons": ["{}_polygons.json", "--polygons"],
        **{name: [f"{{}}_{name}", "--to", name] for name in FOLDERS},
    }
    for name, (target, *flags) in ways.items():
        costs = [
            run(
                boxel_command(
                    "convert", folder / f"scenes/{size}.json", folder / target.format(f"{size}_out"), *flags
                )
            )[0]
            for size in ("few", "masks")
        ]
        table.add(name, round(1000 * (costs[1] - costs[0]) / (len(masks.labels) - len(few.labels)), 2))
    table.write(seeds=[0])


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument(
        "--counts",
        type=int,
        nargs="*",
        default=[10_000, 100_000, 1_000_000],
        help="sizes of the first table; without a number, it is left out",
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if given.counts:
            measure_growth(Path(scratch), given.counts)
        measure_formats(Path(scratch))
