"""Are the generated scenes hard enough? Mean mask IoU of the filled box and of GrabCut in the true boxes.

    python benchmarks/scenes_gate.py --scenes 100

Exits with 1 if the filled box passes 0.65 or GrabCut 0.75. Also measures how often the color prior holds: of the
neighbors of similar color about a box, the share that lies on the same side of the outline.
"""

from __future__ import annotations

import sys
from collections import defaultdict

import numpy as np
import torch
from _record import Table, arguments

from boxel.data.synthetic import CLASSES, SceneObject, make_scene
from boxel.losses.affinity import color_similarity, edge_ends, edge_offsets
from boxel.masks.grabcut import grabcut_from_box

LIMITS = {"filled box": 0.65, "GrabCut": 0.75}
THRESHOLDS = (0.1, 0.3)


def main() -> int:
    """Print the measures; 1 if the gate is not passed."""
    parser = arguments(__doc__)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    ious: dict[str, list[float]] = defaultdict(list)
    labels: list[int] = []
    edges = np.zeros((len(THRESHOLDS), 3), dtype=np.int64)
    for index in range(args.scenes):
        image, instances = make_scene(args.seed, index)
        for instance in instances:
            filled = fill(instance)
            ious["filled box"].append(iou(filled, instance.mask))
            ious["GrabCut"].append(iou(grabcut_from_box(image, instance.box), instance.mask))
            labels.append(instance.label)
            edges += count_edges(image, filled, instance.mask)

    print(f"{args.scenes} scenes of seed {args.seed}, {len(labels)} instances")
    columns = ["instances", "mean IoU", "share > 0.75", *CLASSES, "limit"]
    table = Table("scenes", f"gate-{args.seed}", columns, first="method", title=f"Seed {args.seed}")
    for method, values in ious.items():
        by_class = [np.mean(np.array(values)[np.array(labels) == k]) for k in range(len(CLASSES))]
        above = np.mean(np.array(values) > 0.75)
        table.add(method, len(values), np.mean(values), above, *by_class, LIMITS[method])
    table.write([args.seed])
    for threshold, (true, alike, total) in zip(THRESHOLDS, edges, strict=True):
        print(
            f"similarity >= {threshold}: {alike / total:.3f} of the edges, {true / alike:.4f} of these true"
        )
    passed = all(np.mean(ious[method]) <= limit for method, limit in LIMITS.items())
    print("passed" if passed else "NOT passed", f"(at most {LIMITS})")
    return 0 if passed else 1


def fill(instance: SceneObject) -> np.ndarray:
    """(H, W) bool: the instance's box."""
    x0, y0, x1, y1 = instance.box.astype(int)
    filled = np.zeros_like(instance.mask)
    filled[y0:y1, x0:x1] = True
    return filled


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return (a & b).sum() / (a | b).sum()


def count_edges(image: np.ndarray, filled: np.ndarray, mask: np.ndarray, stride: int = 4) -> np.ndarray:
    """One row per threshold: alike edges with both ends on one side, alike edges, edges about the box."""
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    similarity = color_similarity(tensor, stride=stride)[0].numpy()
    offset = stride // 2
    filled, mask = filled[offset::stride, offset::stride], mask[offset::stride, offset::stride]
    counts = np.zeros((len(THRESHOLDS), 3), dtype=np.int64)
    height = len(mask)
    for (dy, dx), values in zip(edge_offsets(), similarity, strict=True):
        starts, ends = edge_ends(dy, dx, height - dy)
        about = filled[starts] | filled[ends]
        same = mask[starts] == mask[ends]
        for row, threshold in zip(counts, THRESHOLDS, strict=True):
            alike = about & (values[starts] >= threshold)
            row += (alike & same).sum(), alike.sum(), about.sum()
    return counts


if __name__ == "__main__":
    sys.exit(main())
