r"""What loose boxes cost the masks made from them, and what `--box-slack` gives back.

    python benchmarks/loose_boxes.py --teachers boxcaseg boxcaseg-boxes grabcut-ellipse rectangle \
        --plot docs/images/loose_labels.png

Each side of each box is moved by up to a share of the box's width or height, in or out. Masks are made by
`boxel.label` with its defaults, without slack and with as much slack.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from _record import Table, arguments
from _runs import jitter_boxes, read_coco

from boxel.evaluation.boxes import measure_masks
from boxel.labeling.api import label

MEASURES = ("mask_iou", "IoU@50", "IoU@75", "spearman", "calibration_error")


def main() -> None:
    """Print a row for each teacher, looseness and slack; draw a curve of each teacher."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--teachers", nargs="+", default=["boxcaseg"])
    parser.add_argument("--loose", type=float, nargs="+", default=[0, 0.05, 0.1, 0.2])
    parser.add_argument("--plot", type=Path, help="an image file for the curves")
    args = parser.parse_args()

    truth = read_coco(args.data, "val_masks")
    columns = ["sides off by up to", "`--box-slack`", *MEASURES]
    table = Table("label-quality", "loose-boxes", columns, first="teacher")
    found: dict[tuple[str, float, float], float] = {}
    for teacher in args.teachers:
        for loose in args.loose:
            boxes = jitter_boxes(truth.without_masks(), loose) if loose else truth.without_masks()
            for slack in sorted({0.0, loose}):
                made = label(boxes, teacher=teacher, box_slack=slack)
                row = measure_masks(truth, made)
                table.add(teacher, f"{loose:.0%}", slack, *(row[name] for name in MEASURES))
                found[teacher, loose, slack] = row["mask_iou"]
    table.write(seeds=[0])
    if args.plot:
        draw(found, args.plot)


def draw(found: Mapping[tuple[str, float, float], float], file: Path) -> None:
    """Mask IoU by teacher, looseness and slack: two curves a teacher, the one with slack dashed."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6))
    for k, teacher in enumerate(dict.fromkeys(teacher for teacher, _, _ in found)):
        points = {(loose, slack): iou for (name, loose, slack), iou in found.items() if name == teacher}
        without = [(100 * loose, iou) for (loose, slack), iou in points.items() if slack == 0]
        with_slack = [(100 * loose, iou) for (loose, slack), iou in points.items() if slack == loose]
        axes.plot(*zip(*without, strict=True), color=f"C{k}", marker="o", label=teacher)
        axes.plot(*zip(*with_slack, strict=True), color=f"C{k}", linestyle="dashed")
    axes.plot([], [], color="black", linestyle="dashed", label="with --box-slack")
    axes.set(xlabel="each side of a box is off by up to (%)", ylabel="mask IoU", ylim=(0, 1))
    axes.legend(ncols=2, loc="lower left")
    figure.tight_layout()
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    main()
