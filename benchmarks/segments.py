"""Candidate segments of every source: seconds a photo, and the IoU of the best of them with each object.

    taskset -c 0 python benchmarks/segments.py ../shared/data/coco

Photos are made 500 pixels wide, on one core; objects are those of 16 pixels and more before that. "Anywhere" chooses
segments without the boxes, "fitted" with them; neither has GrabCut's. Seconds are medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np

from boxel.data import read
from boxel.data.images import read_image
from boxel.evaluation.proposals import overlaps
from boxel.proposals import propose
from boxel.proposals.candidates import Candidates
from boxel.proposals.config import SOURCES
from boxel.proposals.store import box_indices

WIDTH = 500


def main() -> None:
    """Print a row for each source."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("coco", type=Path, help="folder with images/ and val_masks.json")
    parser.add_argument("--split", default="val", choices=["train", "val"])
    parser.add_argument("--photos", type=int, help="the first so many")
    parser.add_argument("--count", type=int, default=2000)
    args = parser.parse_args()
    data = read(args.coco / f"{args.split}_masks.json", images=args.coco / "images")
    print("| source | | seconds | mean IoU | above 0.5 | above 0.7 |\n|---|---|---|---|---|---|")
    for source in SOURCES:
        for fitted in (False, True):
            seconds, best = [], []
            for image in range(len(data))[: args.photos]:
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
                began = time.perf_counter()
                found = propose(small, source, data.boxes[own] * scale if fitted else None, args.count)
                seconds.append(time.perf_counter() - began)
                size = photo.shape[1::-1]
                large = cv2.resize(found.superpixels, size, interpolation=cv2.INTER_NEAREST_EXACT)
                found = Candidates(large, found.members, found.boxes)
                best += overlaps(found, np.stack(masks).astype(bool)).max(0).tolist()
            ious = np.array(best)
            print(
                f"| {source} | {'fitted' if fitted else 'anywhere'} | {statistics.median(seconds):.2f} "
                f"| {ious.mean():.3f} | {(ious > 0.5).mean():.1%} | {(ious > 0.7).mean():.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
