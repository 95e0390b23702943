"""Rate and memory of labeling a dataset of 100,000 boxes with the `rectangle` teacher.

    python benchmarks/label_memory.py

Writes a COCO file of 10,000 images with ten boxes each to a temporary folder; all images are one PNG of 320 x 240 under
many names. Labels it in a fresh process, then again when all of it is done, and records what that took. `--images
100000` shows what grows with the dataset.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _record import Table, arguments

IMAGES, BOXES = 10_000, 10
WIDTH, HEIGHT = 320, 240


def generate(folder: Path, images: int) -> None:
    """Write the images and ``boxes.json``."""
    import numpy as np
    from PIL import Image

    from boxel.data import write
    from boxel.data.annotations import Category
    from boxel.data.formats.builder import Builder

    rng = np.random.default_rng(0)
    first = folder / "0.png"
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(first)
    rows = Builder()
    for k in range(images):
        if k:
            os.link(first, folder / f"{k}.png")
        image = rows.add_image(k + 1, f"{k}.png", WIDTH, HEIGHT)
        corners = rng.uniform(0, 0.8, (BOXES, 2)) * (WIDTH, HEIGHT)
        ends = np.minimum(corners + rng.uniform(8, 120, (BOXES, 2)), (WIDTH, HEIGHT))
        for box in np.hstack([corners, ends]).round(2).tolist():
            rows.add(len(rows.ids) + 1, image, 0, box)
    write(rows.build(folder, [Category(1, "thing")], folder / "boxes.json"), folder / "boxes.json")


def measure(folder: Path) -> None:
    """Label the dataset and record the cost; to be run in a process of its own."""
    from boxel.labeling.api import label_data

    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9

    print(f"imports: peak RSS {peak():.2f} GB", flush=True)
    columns = ["seconds", "boxes per second", "peak GB"]
    table = Table("scale", "label-memory", columns, title="100,000 boxes in 10,000 images")
    for what in ("label", "again, everything done"):
        start = time.perf_counter()
        outcome = label_data(folder / "boxes.json", out=folder / "out" / "masks.json", teacher="rectangle")
        seconds = time.perf_counter() - start
        assert outcome.data.has_segmentation.all() and not outcome.failures
        boxes = len(outcome.data.labels)
        table.add(what, round(seconds, 1), round(boxes / seconds), round(peak(), 2))
        del outcome
    table.write()
    for name in ("masks.json", "masks.sqlite"):
        print(f"{name}: {(folder / 'out' / name).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--folder", type=Path, help="measure on this folder, in this process")
    args = parser.parse_args()
    if args.folder:
        measure(args.folder)
    else:
        with tempfile.TemporaryDirectory() as name:
            generate(Path(name), args.images)
            subprocess.run([sys.executable, __file__, "--folder", name], check=True)
