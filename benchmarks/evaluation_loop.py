"""Time of each step of measuring label maps, beside that of reading the photo.

    taskset -c 0 python benchmarks/evaluation_loop.py ../shared/data/camvid

The steps take turns on each validation image, on one thread; the figures are medians over the images.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from boxel.data import read
from boxel.data.images import read_image
from boxel.data.label_maps import classes_of, label_map
from boxel.evaluation.semantic import confusion


def main() -> None:
    """Print a row for each step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("camvid", type=Path, help="the folder that has val and valannot")
    data = read(parser.parse_args().camvid, split="val", classes="camvid")
    classes = len(classes_of(data))
    spent: dict[str, list[float]] = {"reading the photo": [], "label map": [], "confusion matrix": []}
    for image in range(len(data)):
        began = time.perf_counter()
        read_image(data.image_path(image))
        photo_read = time.perf_counter()
        truth = label_map(data, image)
        map_read = time.perf_counter()
        found = np.roll(truth, 1).clip(max=classes - 1).astype(np.int64)  # what a network gives: mostly right
        counting = time.perf_counter()
        confusion(found, truth, classes)
        done = time.perf_counter()
        for step, seconds in zip(
            spent, (photo_read - began, map_read - photo_read, done - counting), strict=True
        ):
            spent[step].append(seconds)
    print("| step | ms |\n|---|---|")
    for step, times in spent.items():
        print(f"| {step} | {1000 * statistics.median(times):.1f} |")


if __name__ == "__main__":
    main()
