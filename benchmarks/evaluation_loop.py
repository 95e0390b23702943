"""Time of each step of measuring label maps, compared with reading the image.

    taskset -c 0 python benchmarks/evaluation_loop.py

The steps take turns on each validation image, on one thread; times are medians over the images.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from _record import Table, arguments

from boxel.data import read
from boxel.data.images import read_image
from boxel.data.label_maps import make_label_map, pixel_classes
from boxel.evaluation.semantic import confusion


def main() -> None:
    """Print a row for each step."""
    parser = arguments(__doc__, data=True)
    data = read(parser.parse_args().data / "camvid", split="val", classes="camvid")
    classes = len(pixel_classes(data))
    spent: dict[str, list[float]] = {"reading the image": [], "label map": [], "confusion matrix": []}
    for image in range(len(data)):
        began = time.perf_counter()
        read_image(data.image_path(image))
        photo_read = time.perf_counter()
        truth = make_label_map(data, image)
        map_read = time.perf_counter()
        found = np.roll(truth, 1).clip(max=classes - 1).astype(np.int64)  # what a network gives: mostly right
        counting = time.perf_counter()
        confusion(truth, found, classes)
        done = time.perf_counter()
        for step, seconds in zip(
            spent, (photo_read - began, map_read - photo_read, done - counting), strict=True
        ):
            spent[step].append(seconds)
    table = Table("fcrn", "evaluation-loop", ["ms"], first="step")
    for step, times in spent.items():
        table.add(step, round(1000 * statistics.median(times), 1))
    table.write()


if __name__ == "__main__":
    main()
