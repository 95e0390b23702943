"""How good are rough masks made from boxes without learning? Mask IoU and time of each way.

    python benchmarks/hints.py

The ways are the filled box, the ellipse in it, GrabCut from the box, and GrabCut from the ellipse, which is what
`model.hint_weight` uses.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
from _record import Table, arguments
from _runs import read_coco
from numpy.typing import NDArray

from boxel.data.images import read_image
from boxel.masks.grabcut import grabcut_from_box, grabcut_from_ellipse

Mask = NDArray[np.bool_]


def main() -> None:
    """Print a row per way of making masks."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--count", type=int, default=100, help="images to look at, the first of the set")
    parser.add_argument("--min-side", type=float, default=24, help="shortest side of a box, in pixels")
    args = parser.parse_args()

    cv2.setNumThreads(1)
    data = read_coco(args.data, "train_masks")
    ious: dict[str, list[float]] = {name: [] for name in WAYS}
    seconds = dict.fromkeys(WAYS, 0.0)
    sizes = []
    for index in range(min(args.count, len(data))):
        image = read_image(data.image_path(index))
        for instance in data.instances_in(index):
            box, truth = data.boxes[instance], data.mask(int(instance))
            if data.iscrowd[instance] or truth is None or (box[2:] - box[:2]).min() < args.min_side:
                continue
            sizes.append(np.sqrt((box[2:] - box[:2]).prod()))
            for name, way in WAYS.items():
                began = time.perf_counter()
                mask = way(image, box)
                seconds[name] += time.perf_counter() - began
                ious[name].append((mask & (truth > 0)).sum() / (mask | (truth > 0)).sum())

    large = np.array(sizes) >= 96
    print(f"{len(sizes)} objects, {large.sum()} of them of 96 pixels or more\n")
    columns = ["mask IoU", "large objects", "share above 0.75", "ms per box"]
    table = Table("boxinst", "hints", columns, first="masks")
    for name in WAYS:
        values = np.array(ious[name])
        ms = 1000 * seconds[name] / len(values)
        table.add(name, values.mean(), values[large].mean(), (values > 0.75).mean(), round(ms))
    table.write()


def filled_box(image: NDArray[np.uint8], box: NDArray[np.float64]) -> Mask:
    """Every pixel whose middle is in the box."""
    across, down = _from_middle(image, box)
    return np.maximum(across, down) <= 1


def ellipse(image: NDArray[np.uint8], box: NDArray[np.float64]) -> Mask:
    """The ellipse that touches the box's sides."""
    return np.hypot(*_from_middle(image, box)) <= 1


def hint(image: NDArray[np.uint8], box: NDArray[np.float64]) -> Mask:
    """GrabCut from the ellipse, as a mask of the image."""
    window, left, top = grabcut_from_ellipse(image, box)
    mask = np.zeros(image.shape[:2], dtype=bool)
    mask[top : top + window.shape[0], left : left + window.shape[1]] = window
    return mask


def _from_middle(image: NDArray[np.uint8], box: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """Distances across and down from the box's middle to each pixel's; 1 at the sides."""
    height, width = image.shape[:2]
    (x, y), (half_width, half_height) = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    across = np.abs(np.arange(width) + 0.5 - x) / half_width
    down = np.abs(np.arange(height) + 0.5 - y) / half_height
    return np.broadcast_to(across, (height, width)), np.broadcast_to(down[:, None], (height, width))


WAYS: dict[str, Callable[[NDArray[np.uint8], NDArray[np.float64]], Mask]] = {
    "filled box": filled_box,
    "ellipse in the box": ellipse,
    "GrabCut from the box": grabcut_from_box,
    "GrabCut from the ellipse": hint,
}


if __name__ == "__main__":
    main()
