"""Seconds and memory to read a COCO file of train2017's size.

Writes 118,000 images and 860,000 polygons (20 to 60 vertices each; more than 400 MB) to a temporary folder,
reads it in a fresh process and prints what that took:

    python benchmarks/read_coco.py
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _record import Table, arguments

IMAGES = 118_000
INSTANCES = 860_000
CATEGORY_IDS = range(1, 81)


def generate(path: Path) -> None:
    """Write the file."""
    draw = random.Random(0)
    with open(path, "w") as file:
        file.write('{"images": [')
        for i in range(IMAGES):
            comma = ", " if i else ""
            file.write(f'{comma}{{"id": {i}, "file_name": "{i:012}.jpg", "width": 640, "height": 480}}')
        file.write('], "annotations": [')
        for i in range(INSTANCES):
            x, y, w, h = (round(draw.uniform(1, 240), 2) for _ in range(4))
            numbers = []
            for _ in range(draw.randint(20, 60)):
                numbers.append(f"{x + w * draw.random():.2f}")
                numbers.append(f"{y + h * draw.random():.2f}")
            comma = ", " if i else ""
            file.write(
                f'{comma}{{"segmentation": [[{", ".join(numbers)}]], "area": {w * h:.4f}, "iscrowd": 0, '
                f'"image_id": {draw.randrange(IMAGES)}, "bbox": [{x}, {y}, {w}, {h}], '
                f'"category_id": {draw.choice(CATEGORY_IDS)}, "id": {i + 1}}}'
            )
        categories = ", ".join(f'{{"id": {k}, "name": "class {k}"}}' for k in CATEGORY_IDS)
        file.write(f'], "categories": [{categories}]}}')


def measure(path: Path) -> None:
    """Read the file and record the cost; to be run in a process of its own."""
    import boxel.data

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    data = boxel.data.read(path)
    seconds = time.perf_counter() - start
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    assert len(data) == IMAGES and len(data.labels) == INSTANCES and not data.issues
    print(data)
    print(f"of which imports {before * unit / 1e9:.2f} GB")
    table = Table("scale", "read-coco", ["seconds", "peak GB"], title="Reading a COCO file")
    table.add("boxel.read", round(seconds, 1), round(peak / 1e9, 2))
    table.write()


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--file", type=Path, help="measure on this file, in this process")
    given = parser.parse_args().file
    if given:
        measure(given)
    else:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "instances_large.json"
            generate(file)
            print(f"{file.stat().st_size / 1e6:.0f} MB, {IMAGES} images, {INSTANCES} instances", flush=True)
            subprocess.run([sys.executable, __file__, "--file", str(file)], check=True)
