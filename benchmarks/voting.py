"""Time of voting, from class scores and boxes to instances: a grid of 63 x 63 (500 pixels at stride 8), 20 classes.

    taskset -c 0 python benchmarks/voting.py

`scene` is what a fair network predicts: objects of random classes with soft edges, the box of each pixel off by a tenth
of its object's size. The others are those of bad networks. `noise`: random scores and boxes at each pixel. `untrained
boxes`: two classes compete for the grid, and each box is a small one around its own pixel, so that hundreds survive.
`no overlap`: boxes smaller than a cell, so that all survive, and three competing classes. All take turns in one run, on
one thread; times are medians of wall time and of CPU time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from _record import Table, arguments
from torch import Tensor
from torchvision.ops import box_convert

from boxel.models.fcrn.config import VotingConfig
from boxel.models.fcrn.voting import vote

CELLS, STRIDE, CLASSES = 63, 8, 20
SIDE = CELLS * STRIDE
Drawn = tuple[Tensor, Tensor]


def scene(random: torch.Generator, objects: int = 20) -> Drawn:
    """Ellipses, the later over the earlier; scores are smooth, with doubt along the edges."""
    y, x = centers()
    around = torch.stack([x, y, torch.full_like(x, 60), torch.full_like(x, 60)])  # off all objects
    logits, owner = torch.zeros(CLASSES + 1, CELLS, CELLS), around.clone()
    logits[0] = 6
    for _ in range(objects):
        size = SIDE * (0.05 + 0.45 * torch.rand(2, generator=random))
        center = SIDE * torch.rand(2, generator=random)
        inside = ((x - center[0]) / size[0]) ** 2 + ((y - center[1]) / size[1]) ** 2 < 0.25
        logits[:, inside] = 0
        logits[int(torch.randint(1, CLASSES + 1, (), generator=random)), inside] = 6
        owner[:, inside] = torch.cat([center, size])[:, None]
    doubt = 2 * torch.randn(1, CLASSES + 1, 16, 16, generator=random)
    logits = F.avg_pool2d(logits, 5, 1, 2) + F.interpolate(doubt, (CELLS, CELLS), mode="bilinear")[0]
    noise = 0.1 * torch.randn(CLASSES, 4, CELLS, CELLS, generator=random)
    moved = owner[:2] + noise[:, :2] * owner[2:]
    return logits.softmax(0), xyxy(torch.cat([moved, owner[2:] * noise[:, 2:].exp()], 1))


def noise(random: torch.Generator) -> Drawn:
    """Nothing agrees with its neighbor."""
    scores = 2 * torch.randn(CLASSES + 1, CELLS, CELLS, generator=random)
    boxes = SIDE * torch.rand(CLASSES, 4, CELLS, CELLS, generator=random)
    return scores.softmax(0), xyxy(boxes)


def untrained_boxes(random: torch.Generator) -> Drawn:
    """Boxes of 24 to 40 pixels around each pixel, and two classes that contend for the grid."""
    return contended(random, classes=2, smallest=24, largest=40)


def no_overlap(random: torch.Generator) -> Drawn:
    """Boxes of 2 to 4 pixels, and three classes."""
    return contended(random, classes=3, smallest=2, largest=4)


def contended(random: torch.Generator, classes: int, smallest: float, largest: float) -> Drawn:
    """At each pixel a few classes are far ahead of the others, in an order of chance; boxes are around the pixel."""
    logits = 0.5 * torch.randn(CLASSES + 1, CELLS, CELLS, generator=random)
    logits[1 : classes + 1] += 5
    sizes = smallest + (largest - smallest) * torch.rand(CLASSES, 2, CELLS, CELLS, generator=random)
    y, x = centers()
    return logits.softmax(0), xyxy(torch.cat([torch.stack([x, y]).expand_as(sizes), sizes], 1))


def centers() -> tuple[Tensor, Tensor]:
    """Rows and columns of the pixels, each (CELLS, CELLS)."""
    axis = STRIDE * (torch.arange(CELLS) + 0.5)
    return torch.meshgrid(axis, axis, indexing="ij")


def xyxy(boxes: Tensor) -> Tensor:
    """From center, width and height, in the second dimension."""
    return box_convert(boxes.movedim(1, -1), "cxcywh", "xyxy").movedim(-1, 1)


SCENES: dict[str, Callable[[torch.Generator], Drawn]] = {
    "scene": scene,
    "noise": noise,
    "untrained boxes": untrained_boxes,
    "no overlap": no_overlap,
}


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--top-n", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = VotingConfig(top_n=args.top_n)
    passed: dict[str, list[float]] = {name: [] for name in SCENES}
    used: dict[str, list[float]] = {name: [] for name in SCENES}
    found: dict[str, list[int]] = {name: [] for name in SCENES}
    with torch.inference_mode():
        for repeat in range(args.repeats + 1):  # the first is not counted
            for name, draw in SCENES.items():
                scores, boxes = draw(torch.Generator().manual_seed(repeat))
                start, start_used = time.perf_counter(), time.process_time()
                instances = vote(scores, boxes, config)
                passed[name].append(1000 * (time.perf_counter() - start))
                used[name].append(1000 * (time.process_time() - start_used))
                found[name].append(len(instances.masks))
    print(f"{CELLS}x{CELLS}, {CLASSES} classes, top-{args.top_n}, median of {args.repeats} images")
    table = Table("fcrn", "voting-speed", ["ms", "CPU ms", "instances"], first="votes")
    for name in SCENES:
        wall, core, count = (statistics.median(values[name][1:]) for values in (passed, used, found))
        table.add(name, round(wall, 1), round(core, 1), round(count))
    table.write()


if __name__ == "__main__":
    main()
