"""How many masks does a segmenter need beside boxes? Plot it from the runs of `retention.py`.

    python benchmarks/retention.py --sets tshirts teeth_xray --seeds 0 1 2 --kinds "BoxInst, masks" "BoxInst, boxes" \
        "BoxInst, boxes, 1% with masks" "BoxInst, boxes, 5% with masks" "BoxInst, boxes, 10% with masks" \
        "BoxInst, boxes, 50% with masks"
    python benchmarks/masks_needed.py tshirts teeth_xray
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from _record import REPO
from retention import HINTS, RUNS, SETS, read_rows

FROM_MASKS = "BoxInst, masks"

KINDS = {
    kind: 1.0 if run.base is None else run.share
    for kind, run in RUNS.items()
    if kind == FROM_MASKS or (run.base == FROM_MASKS and run.settings == HINTS)
}
"""Shares of the instances with masks, by the kind of run."""


def main() -> None:
    """Draw a curve per kind of images: mean and range of the mask AP over seeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", choices=SETS)
    parser.add_argument("--out", type=Path, default=REPO / "docs" / "images" / "masks_needed.png")
    args = parser.parse_args()
    rows, kinds = read_rows(semantic=False), sorted(KINDS, key=KINDS.__getitem__)
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for name in args.sets:
        found = [[row[0] for key, row in rows.items() if key[:2] == (SETS[name], kind)] for kind in kinds]
        mean = np.array([np.mean(values) for values in found])
        ends = [mean - [min(values) for values in found], [max(values) for values in found] - mean]
        axes.errorbar(range(len(kinds)), mean, ends, marker="o", capsize=3, label=SETS[name])
    axes.set_xticks(range(len(kinds)), [f"{KINDS[kind]:.0%}" for kind in kinds])
    axes.set(xlabel="share of the boxes that have a mask too", ylabel="mask AP on other images")
    axes.set_ylim(0, 1.1 * axes.dataLim.ymax)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(args.out, dpi=120)


if __name__ == "__main__":
    main()
