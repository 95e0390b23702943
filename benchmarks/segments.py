"""Candidate segments of every source: seconds per image, and the IoU of the best of them with each object.

    taskset -c 0 python benchmarks/segments.py

Images are resized to a width of 500 pixels; objects are those of at least 16 pixels before that. "Anywhere" ignores the
boxes, "fitted" uses them; neither includes GrabCut. Seconds are medians of processor time.
"""

from __future__ import annotations

import statistics
import time

import cv2
import numpy as np
from _record import Table, arguments
from _runs import read_coco

from boxel.data.images import read_image
from boxel.evaluation.proposals import candidate_ious
from boxel.proposals import propose
from boxel.proposals.candidates import Candidates
from boxel.proposals.sources import GENERATORS
from boxel.proposals.store import box_indices

WIDTH = 500


def main() -> None:
    """Print a row for each source."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--split", default="val", choices=["train", "val"])
    parser.add_argument("--images", type=int, help="only the first of them")
    parser.add_argument("--count", type=int, default=2000)
    args = parser.parse_args()
    data = read_coco(args.data, f"{args.split}_masks")
    columns = ["", "seconds", "mean IoU", "share above 0.5", "share above 0.7"]
    table = Table("segments", "sources", columns, first="source")
    for source in GENERATORS:
        for fitted in (False, True):
            seconds, best = [], []
            for image in range(len(data))[: args.images]:
                photo = read_image(data.image_path(image))
                own = box_indices(data, image)
                own = own[(data.boxes[own, 2:] - data.boxes[own, :2]).min(1, initial=np.inf) >= 16]
                masks = [data.mask(instance, photo.shape[:2]) for instance in own.tolist()]
                if not masks:
                    continue
                scale = WIDTH / photo.shape[1]
                small = cv2.resize(
                    photo, (WIDTH, round(photo.shape[0] * scale)), interpolation=cv2.INTER_AREA
                )
                began = time.process_time()
                found = propose(small, source, data.boxes[own] * scale if fitted else None, args.count)
                seconds.append(time.process_time() - began)
                size = photo.shape[1::-1]
                large = cv2.resize(found.superpixels, size, interpolation=cv2.INTER_NEAREST_EXACT)
                found = Candidates(large, found.members, found.boxes)
                best += candidate_ious(found, np.stack(masks).astype(bool)).max(0).tolist()
            ious = np.array(best)
            shares = [f"{100 * (ious > limit).mean():.1f} %" for limit in (0.5, 0.7)]
            way = "fitted" if fitted else "anywhere"
            table.add(source, way, round(statistics.median(seconds), 2), ious.mean(), *shares)
    table.write()


if __name__ == "__main__":
    main()
