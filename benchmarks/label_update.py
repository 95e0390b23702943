"""Time of BoxSup's label update of one image: costs through superpixels, compared with full masks.

    taskset -c 0 python benchmarks/label_update.py

500 x 375 pixels, 21 classes, 2,000 candidate segments, random boxes. The network is not included: its
log-probabilities are given. The two take turns; times are medians.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from _record import Table, arguments
from _runs import medians, take_turns
from numpy.typing import NDArray
from PIL import Image

from boxel.data.samples import sample_images
from boxel.models.boxsup import UpdateConfig
from boxel.models.boxsup.update import choose_candidates, compute_costs
from boxel.proposals import Candidates, propose

WIDTH, HEIGHT, CLASSES = 500, 375, 21


def main() -> None:
    """Print and record one row per setting."""
    parser = arguments(__doc__)
    parser.add_argument("--boxes", type=int, default=5)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    photo = np.array(Image.open(sample_images().image_path(0)).convert("RGB").resize((WIDTH, HEIGHT)))
    random = np.random.default_rng(0)
    corners = np.sort(random.uniform(0, 1, (args.boxes, 2, 2)), axis=1) * [WIDTH, HEIGHT]
    boxes, labels = corners.reshape(-1, 4), random.integers(1, CLASSES, args.boxes)
    boxes[:, 2:] += 20
    candidates = propose(photo)
    scores = random.standard_normal((CLASSES, HEIGHT, WIDTH)).astype(np.float32)
    log_probabilities = scores - np.log(np.exp(scores).sum(0))
    config = UpdateConfig()

    def through_superpixels() -> NDArray[np.floating]:
        found = compute_costs(candidates, boxes, labels, log_probabilities, config)
        choose_candidates(found, config.top_k, random)
        return found

    def through_masks() -> NDArray[np.floating]:
        return full(candidates, boxes, labels, log_probabilities, config)

    rows: dict[str, Callable[[], NDArray[np.floating]]] = {
        "superpixels": through_superpixels,
        "full masks": through_masks,
    }
    first, second = through_superpixels(), through_masks()
    seen = np.isfinite(first)
    print(
        f"{len(candidates)} candidates; largest relative difference {(abs(first / second - 1)[seen]).max():.1e}"
    )
    table = Table("boxsup", "update-speed", ["ms"])
    for name, ms in medians(take_turns(rows, args.turns, warmup=0)).items():
        table.add(name, round(ms))
    table.write()


def full(
    candidates: Candidates,
    boxes: NDArray[np.floating],
    labels: NDArray[np.integer],
    log_probabilities: NDArray[np.floating],
    config: UpdateConfig,
) -> NDArray[np.float64]:
    """The costs as they are written: each candidate's mask against the loss of each pixel around each box."""
    found = np.zeros((len(candidates), len(boxes)))
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = [(x >= b[0]) & (x < b[2]) & (y >= b[1]) & (y < b[3]) for b in boxes]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for number, box in enumerate(boxes):
        grow = config.enlarge / 2 * (box[2:] - box[:2])
        x0, y0, x1, y1 = *(box[:2] - grow), *(box[2:] + grow)
        across, down = 2 * x - box[0] - box[2], 2 * y - box[1] - box[3]
        ellipse = (across / (box[2] - box[0])) ** 2 + (down / (box[3] - box[1])) ** 2 <= 1
        counted = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        for other in range(len(boxes)):
            if other != number:
                counted &= ~(inside[other] & ((areas[other] < areas[number]) | ~inside[number]))
        background, thing = -log_probabilities[0], -log_probabilities[labels[number]]
        more = (thing - background)[counted & inside[number]]
        thing = thing - max(np.quantile(more, config.min_share), 0) if len(more) else thing
        for segment in range(len(candidates)):
            mask = candidates.mask(segment)
            loss = np.where(mask, thing, background)
            tight = candidates.boxes[segment]
            sides = np.minimum(tight[2:], box[2:]) - np.maximum(tight[:2], box[:2])
            common = sides.clip(min=0).prod()
            union = (tight[2:] - tight[:2]).prod() + areas[number] - common
            mean = loss[counted].sum() / max(counted.sum(), 1)
            found[segment, number] = 1 - common / union + config.regression_weight * mean
            shape = (mask & ellipse).sum() / (mask | ellipse).sum()
            found[segment, number] += config.shape_weight * (1 - shape)
    return found


if __name__ == "__main__":
    main()
