"""Does `BoxSegmenter` predict the masks of `boxel label`, and what does it cost in comparison?

    python benchmarks/box_segmenter.py

Both take the boxes of the first --images images of `coco/val_masks.json`, in turns, with one thread. CPU time hardly
depends on the load of the machine.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from _record import Table, arguments
from _runs import read_coco

import boxel
from boxel.data import Annotations
from boxel.masks import decode


def main() -> None:
    """Record the CPU time per box of both, their ratio, and how many masks differ."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    boxes = read_coco(args.data, "val_masks").without_masks().select_images(range(args.images))
    boxes = boxes.select_instances(~boxes.iscrowd)
    segment = boxel.BoxSegmenter(workers=1)
    spent: dict[str, list[float]] = {"label": [], "BoxSegmenter": []}
    for _ in range(args.repeats):
        began = time.process_time()
        labeled = boxel.label(boxes, workers=1)
        spent["label"].append(time.process_time() - began)
        began = time.process_time()
        results = [
            segment(boxes.image_path(image), boxes.boxes[boxes.instances_in(image)])
            for image in range(len(boxes))
        ]
        spent["BoxSegmenter"].append(time.process_time() - began)
    table = Table("label-quality", "box-segmenter", ["CPU ms per box"], title="BoxSegmenter and boxel label")
    for name, seconds in spent.items():
        table.add(name, round(1000 * statistics.median(seconds) / len(boxes.labels), 1))
    table.add("ratio", round(statistics.median(spent["BoxSegmenter"]) / statistics.median(spent["label"]), 2))
    table.add(f"of {len(boxes.labels)} masks that differ", count_different(labeled, results))
    table.write()


def count_different(labeled: Annotations, results: list[boxel.BoxMasks]) -> int:
    """Count the masks that differ in any pixel."""
    different = 0
    for image, result in enumerate(results):
        for mask, own in zip(result.rles, labeled.instances_in(image).tolist(), strict=True):
            different += not np.array_equal(decode(mask), decode(labeled.rle(own)))
    return different


if __name__ == "__main__":
    main()
