"""How much does a click correct? Mask IoU after 0 to 5 clicks of a simulated user.

    python benchmarks/clicks.py
    python benchmarks/clicks.py --pictures runs/clicks

The masks are those of the bundled teacher in true boxes whose true IoU is below 0.75. The user clicks at the middle of
the largest wrong region: the pixel farthest from its border. The network of `boxel.masks.clicks` has learned from other
images (`benchmarks/fit_clicks.py`); what it sees was chosen by the results on `CHOSEN_ON`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from _record import Table, arguments
from _runs import read_coco
from domains import KINDS, SIDE, draw_part, read_domain
from numpy.typing import NDArray

import boxel
from boxel.data import Annotations
from boxel.data.images import read_image
from boxel.masks.clicks import correct_by_click
from boxel.viz.output import contact_sheet, save_image

Mask = NDArray[np.bool_]
Click = tuple[int, int, bool]

CHOSEN_ON = ("coco", "cables", "cwfid", "neu_seg")
OTHERS = ("crackforest", "magnetic_tile", "sat_buildings", "screws_mvtec", "surgical_tools", "teeth_xray")
SETS = (*CHOSEN_ON, *OTHERS, "wood_debris")
SHOWN = (0, 1, 2, 3, 5)
MIN_SIDE = 16.0
NOTE = (
    "Mean IoU with the true mask after so many clicks, and CPU time per click. Of at most 40 masks per kind of images "
    "whose IoU is below 0.75 at first. The disc has a radius of 10 % of the size of the box; the fill takes the "
    "connected pixels whose channels differ from the clicked one by at most 8, inside the box. The last row of each "
    "kind corrects the clicked region exactly. The second one clicks anywhere in the largest wrong region, the others "
    "in its middle. What the network sees, and its threshold, were chosen by the first four kinds."
)


class Case(NamedTuple):
    """A mask that is partly wrong."""

    image: NDArray[np.uint8]
    mask: Mask
    truth: Mask
    box: NDArray[np.float64]


def main() -> None:
    """Record a row per kind of images and way to correct."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--count", type=int, default=40, help="masks of each kind of images at most")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of each click")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    segmenter = boxel.BoxSegmenter()
    columns = ["corrected by", "masks", *(f"{n} clicks" if n != 1 else "1 click" for n in SHOWN), "CPU ms"]
    table = Table("clicks", "clicks", columns, "images", "Masks corrected by clicks", NOTE)
    results: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for name in args.sets:
        data = read_coco(args.data, "val_masks") if name == "coco" else read_domain(args.data, name)
        kind = "COCO images" if name == "coco" else KINDS[name]
        cases = list(find_cases(data, segmenter, 0.75, args.count))
        for way, (correct, find) in WAYS.items():
            ious, ms = measure(cases, correct, find)
            results[way].append([*ious, ms])
            table.add(kind, way, len(cases), *ious, round(ms, 1))
        if args.pictures:
            save_image(draw(cases[:8]), args.pictures / f"{name}.jpg")
    for label, left_out in (("mean of all kinds", ()), ("mean without the first four", CHOSEN_ON)):
        counted = [name not in left_out for name in args.sets]
        for way, rows in results.items():
            *ious, ms = np.mean(np.array(rows)[counted], axis=0).tolist()
            table.add(label, way, None, *ious, round(ms, 1))
    table.write()


def find_cases(
    data: Annotations, segmenter: boxel.BoxSegmenter, max_iou: float, count: int, seed: int = 0
) -> Iterator[Case]:
    """Find masks whose IoU is below a limit, at most six objects of an image."""
    rng, found = np.random.default_rng(seed), 0
    for index in rng.permutation(len(data)).tolist():
        sides = data.boxes[:, 2:] - data.boxes[:, :2]
        usable = data.has_mask & ~data.iscrowd & (sides.min(axis=1) >= MIN_SIDE)
        rows = rng.permutation([row for row in data.instances_in(index) if usable[row]])[:6].astype(int)
        if not len(rows):
            continue
        image = read_image(data.image_path(index))
        masks = segmenter(image, data.boxes[rows]).masks
        for row, mask in zip(rows.tolist(), masks, strict=True):
            truth = data.mask(row, image.shape[:2]) > 0
            if found < count and mask_iou(mask, truth) < max_iou:
                found += 1
                yield Case(image, mask, truth, data.boxes[row].astype(np.float64))
        if found >= count:
            return


def measure(
    cases: Sequence[Case], correct: Callable[..., Mask], find: Callable[[Mask], tuple[int, int]]
) -> tuple[list[float], float]:
    """Return the mean IoU after each number of clicks of `SHOWN`, and the CPU time per click in milliseconds."""
    ious, seconds, clicks = np.zeros((len(cases), max(SHOWN) + 1)), 0.0, 0
    for row, case in enumerate(cases):
        for done, mask, spent in click_through(case, correct, find, max(SHOWN)):
            ious[row, done:] = mask_iou(mask, case.truth)
            seconds, clicks = seconds + spent, clicks + (spent > 0)
    return ious.mean(axis=0)[list(SHOWN)].tolist(), 1000 * seconds / max(clicks, 1)


def click_through(
    case: Case, correct: Callable[..., Mask], find: Callable[[Mask], tuple[int, int]], clicks: int
) -> Iterator[tuple[int, Mask, float]]:
    """Click on what is wrong: yield the number of clicks, the mask after them, and the CPU seconds of the last one."""
    mask, fixed = case.mask, []
    yield 0, mask, 0.0
    for done in range(clicks):
        region, add = largest_wrong(mask, case.truth)
        if not region.any():
            return
        x, y = find(region)
        began = time.process_time()
        mask = correct(case, mask, (x, y), add, fixed, region)
        spent = time.process_time() - began
        fixed.append((x, y, add))
        yield done + 1, mask, spent


def largest_wrong(mask: Mask, truth: Mask) -> tuple[Mask, bool]:
    """Return the largest connected region that is missing or too much, and whether it is missing."""
    regions = []
    for add, wrong in ((True, truth & ~mask), (False, mask & ~truth)):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(wrong.astype(np.uint8), connectivity=8)
        stats[0, cv2.CC_STAT_AREA] = 0
        largest = int(stats[:, cv2.CC_STAT_AREA].argmax())
        regions.append((int(stats[largest, cv2.CC_STAT_AREA]), (labels == largest) & (largest > 0), add))
    _, region, add = max(regions, key=lambda found: found[0])
    return region, add


def find_middle(region: Mask) -> tuple[int, int]:
    """Return column and row of the pixel that is farthest from the border of a region."""
    padded = cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    y, x = np.unravel_index(padded[1:-1, 1:-1].argmax(), region.shape)
    return int(x), int(y)


def draw_pixel(region: Mask) -> tuple[int, int]:
    """Return column and row of any pixel of a region, the same one each time."""
    y, x = np.random.default_rng(int(region.sum())).choice(np.argwhere(region)).tolist()
    return x, y


def mask_iou(mask: Mask, truth: Mask) -> float:
    """Return the IoU of two masks."""
    return float((mask & truth).sum() / max((mask | truth).sum(), 1))


def by_network(
    case: Case, mask: Mask, click: tuple[int, int], add: bool, fixed: list[Click], _: Mask
) -> Mask:
    """Correct by `boxel.masks.clicks`."""
    return correct_by_click(case.image, mask, case.box, click, add, fixed)


def by_disc(case: Case, mask: Mask, click: tuple[int, int], add: bool, *_: object) -> Mask:
    """Change a disc around the click."""
    radius = 0.1 * np.sqrt((case.box[2:] - case.box[:2]).prod())
    return cv2.circle(mask.astype(np.uint8), click, max(int(radius), 1), int(add), cv2.FILLED) > 0


def by_fill(case: Case, mask: Mask, click: tuple[int, int], add: bool, *_: object) -> Mask:
    """Change the pixels of about the color of the clicked one that are connected with it."""
    left, top, right, bottom = case.box.round().astype(int).clip(0)
    closed = np.ones(np.add(mask.shape, 2), dtype=np.uint8)
    closed[1:-1, 1:-1][top:bottom, left:right] = mask[top:bottom, left:right] == add
    filled = closed.copy()
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (1 << 8)
    cv2.floodFill(case.image.copy(), filled, click, 0, (8,) * 3, (8,) * 3, flags)
    changed = mask.copy()
    changed[(filled > closed)[1:-1, 1:-1]] = add
    changed[click[1], click[0]] = add
    return changed


def exactly(_: Case, mask: Mask, __: tuple[int, int], add: bool, ___: list[Click], region: Mask) -> Mask:
    """Correct the clicked region as far as it is wrong."""
    return mask | region if add else mask & ~region


def draw(cases: Sequence[Case]) -> NDArray[np.uint8]:
    """Draw each mask before and after three clicks, and the true mask, in a row per case."""
    cells = []
    for case in cases:
        masks = [mask for _, mask, _ in click_through(case, by_network, find_middle, 3)]
        masks += [masks[-1]] * (4 - len(masks))
        cells += [draw_part(case.image, case.box, mask) for mask in (None, *masks, case.truth)]
    return contact_sheet(cells, columns=6, cell=SIDE)


WAYS: dict[str, tuple[Callable[..., Mask], Callable[[Mask], tuple[int, int]]]] = {
    "`correct_by_click`": (by_network, find_middle),
    "the same, clicks anywhere": (by_network, draw_pixel),
    "disc": (by_disc, find_middle),
    "fill": (by_fill, find_middle),
    "exactly the region": (exactly, find_middle),
}


if __name__ == "__main__":
    main()
