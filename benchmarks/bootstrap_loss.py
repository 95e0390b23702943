"""Bootstrapped cross-entropy against plain cross-entropy: time of forward and backward.

Both get the same random logits and labels, 21 classes with 5% of the pixels void, at two sizes: the stride-8 grid of 16
crops of 504 x 504, and 4 such crops at full size. They take turns in one run, so that what else the machine does slows
both; the ratio is the median of the turns' ratios. The grid, whose turns are short, gets ten times as many.

Run: taskset -c 1 python benchmarks/bootstrap_loss.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from _record import Table, arguments
from torch import Tensor

from boxel.losses.bootstrap import bootstrapped_cross_entropy

CLASSES, VOID = 21, 255
SETTINGS = [
    ((batch, side), min_kept, threshold)
    for (batch, side), min_kept in (((16, 63), 512), ((4, 504), 512 * 64))
    for threshold in (None, 0.6)
]


def draw_batch(batch: int, side: int) -> tuple[Tensor, Tensor]:
    """Logits, higher at the true class by 0 to 5, and labels."""
    labels = torch.randint(CLASSES, (batch, side, side))
    logits = torch.randn(batch, CLASSES, side, side)
    logits.scatter_add_(1, labels[:, None], 5 * torch.rand(batch, 1, side, side))
    labels[torch.rand(labels.shape) < 0.05] = VOID
    return logits.requires_grad_(), labels


def seconds(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> float:
    """Of one forward and backward."""
    logits.grad = None
    start = time.perf_counter()
    loss(logits, labels).backward()
    return time.perf_counter() - start


def plain(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over all pixels with a label."""
    return F.cross_entropy(logits, labels, ignore_index=VOID)


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=31, help="turns at full size")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    print(f"threads: {args.threads}")
    columns = ["kept", "rule", "cross-entropy, ms", "bootstrapped, ms", "ratio"]
    table = Table("fcrn", "loss-speed", columns, first="logits")
    for (batch, side), min_kept, threshold in SETTINGS:

        def bootstrapped(
            logits: Tensor, labels: Tensor, k: int = min_kept, t: float | None = threshold
        ) -> Tensor:
            return bootstrapped_cross_entropy(logits, labels, k, t, ignore_index=VOID)

        data = draw_batch(batch, side)
        repeats = args.repeats * (10 if side == 63 else 1)
        turns = [(seconds(plain, *data), seconds(bootstrapped, *data)) for _ in range(repeats + 3)][3:]
        a, b = (1000 * statistics.median(times) for times in zip(*turns, strict=True))
        ratio = statistics.median(ours / theirs for theirs, ours in turns)
        rule = "exactly this many" if threshold is None else f"up to {threshold}"
        table.add(f"{batch} x {CLASSES} x {side} x {side}", min_kept, rule, round(a, 1), round(b, 1), ratio)
    table.write([args.seed])


if __name__ == "__main__":
    main()
