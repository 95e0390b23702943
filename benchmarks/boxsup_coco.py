"""Semantic segmenters of 20 COCO classes, trained from boxes with different labels, compared with one from masks.

    python benchmarks/boxsup_coco.py --out runs/boxsup_coco
    python benchmarks/boxsup_coco.py --out runs/boxsup_persons --categories person --epochs 6 --stride 8 \
        --long-side 480 --val --rows rectangles GrabCut "BoxSup without sampling" BoxSup "boxel label" masks
    python benchmarks/boxsup_coco.py --out runs/boxsup_objects --class-agnostic --epochs 4 --stride 8 \
        --long-side 480 --val --rows rectangles GrabCut "BoxSup without sampling" BoxSup "boxel label" masks

Each row is `boxsup-small --label segments` with the changes of the row, trained on five sixths of the 455 training
images and measured on the rest, or with --val trained on all of them and measured on the validation images. With 20
classes in so few images a mean over all classes is noisy, so the rows have the IoU of the foreground, whatever its
class, and the mean IoU of the classes with at least ten objects; of a single class, recall and precision. IoUs are also
given relative to the last row named, with a 95 % interval from 2,000 paired draws of images. The last column does not
depend on recognition: the mean IoU of the masks that the network predicts in true boxes, as a teacher of `boxel
label`. With --crf the probabilities are refined by a CRF that is tuned for each row on 30 images of the sixth. Rows
already in --out are not trained again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _record import Table, arguments, spread
from _runs import read_coco, row_folder, train_once
from numpy.typing import NDArray

import boxel
from boxel.crf import CRFConfig
from boxel.data import Annotations
from boxel.data.images import read_image
from boxel.data.label_maps import make_label_map, pixel_classes
from boxel.evaluation.boxes import instance_ious
from boxel.evaluation.semantic import confusion, semantic_metrics
from boxel.evaluation.tune_crf import best_crf, format_trials, tune_crf
from boxel.models.semantic.inference import predict_label_map, semantic_inference_config
from boxel.training.prepare import split

CLASSES = (
    "airplane bicycle bird boat bottle bus car cat chair cow dining_table dog horse motorcycle person potted_plant "
    "sheep couch train tv"
)
VOC = [name.replace("_", " ") for name in CLASSES.split()]
ROWS: dict[str, dict[str, Any]] = {
    "rectangles": {"teacher": "rectangle"},
    "inner boxes": {"teacher": "inner-box"},
    "GrabCut": {"teacher": "grabcut"},
    "CRF in each box": {"teacher": "crf"},
    "rectangles, re-estimated": {"teacher": "rectangle", "model.box_bias": 2.0},
    "boxel label": {"teacher": "boxcaseg"},
    "boxel label, `boxcaseg-boxes`": {"teacher": "boxcaseg-boxes"},
    "segments chosen once": {"updates.every": 0},
    "BoxSup without sampling": {"updates.top_k": 1},
    "BoxSup, selective search": {"segments.source": "selective-search"},
    "BoxSup, gop": {"segments.source": "gop"},
    "BoxSup, printed normalizer": {"updates.normalizer": "printed"},
    "BoxSup": {},
    "masks": {"masks": True},
}
OBJECTS = 10
"""Fewest objects of a class that the mean IoU counts."""
COMPARED = {"foreground IoU": "relative to the last", "mean IoU": "relative"}
"""Columns of the measures that are also given relative to the last row."""
TITLES = {"persons": "Persons in COCO images", "objects": "Objects of any class in COCO images"}
NOTE = (
    "IoU of the pixels of the objects on 95 other images, with its share of that of the last row (95 % interval over "
    "2,000 paired draws of images); the last column is the mean IoU of the masks that the network makes in true boxes, "
    "as a teacher."
)
Measure = Callable[[NDArray[np.int64]], float]


def main() -> None:
    """Train what is missing, then record the rows."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--out", type=Path, default=Path("runs/boxsup_coco"))
    parser.add_argument("--recipe", default="boxsup-small")
    parser.add_argument(
        "--rows", nargs="+", choices=ROWS, default=["rectangles", "GrabCut", "BoxSup", "masks"]
    )
    parser.add_argument("--epochs", type=float, help="instead of those of the recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--categories", nargs="+", default=VOC, help="of COCO")
    parser.add_argument("--class-agnostic", action="store_true", help="all categories of COCO as one")
    parser.add_argument("--stride", type=int, help="of the network, instead of that of the recipe")
    parser.add_argument("--long-side", type=int, help="of the images, instead of that of the recipe")
    parser.add_argument("--val", action="store_true", help="measure on the validation images")
    parser.add_argument("--crf", action="store_true", help="measure after a CRF tuned to each row")
    args = parser.parse_args()
    training, truth = (choose(read_coco(args.data, name), args) for name in ("train_masks", "val_masks"))
    apart = truth
    if not args.val or args.crf:
        training, apart = split(training, 1 / 6, seed=0)
        truth = truth if args.val else apart
    names = [category.name for category in truth.categories]
    found: dict[str, list[NDArray[np.int64]]] = {}
    for row in args.rows:
        found[row] = []
        for seed in args.seeds:
            model, crf = trained(row, seed, training, args), None
            if args.crf:
                tries = tune_crf(model, apart, count=30)
                crf = best_crf(tries)
                print(f"{row}, tuned: {format_trials(tries)}", flush=True)
            found[row].append(confusions(model, truth, crf))
    counts = np.bincount(truth.labels[~truth.iscrowd], minlength=len(names))
    often = np.flatnonzero(counts >= OBJECTS) + 1
    print(f"{len(truth)} images; classes with {OBJECTS} objects: {', '.join(names[k - 1] for k in often)}")
    measures: dict[str, Measure] = {"foreground IoU": foreground_iou}
    if len(names) == 1:
        measures |= {"recall": recall, "precision": precision}
    else:
        measures["mean IoU"] = lambda matrix: mean_iou(matrix, often)
        measures["all classes"] = lambda matrix: semantic_metrics(matrix, ["", *names])["mean_iou"]
    kind = "objects" if args.class_agnostic else "persons" if args.categories == ["person"] else ""
    parts = ["photos", kind, "val" if args.val else "held-out", "crf" * args.crf]
    columns = [column for name in measures for column in (name, COMPARED.get(name)) if column]
    table = Table(
        "boxsup",
        "-".join(filter(None, parts)),
        [*columns, "in true boxes"],
        first="learned from",
        title=TITLES.get(kind, ""),
        note=NOTE if kind else "",
    )
    draws = np.random.default_rng(0).integers(len(truth), size=(2000, len(truth)))
    for row in args.rows:
        cells: list[Any] = []
        own, last = found[row], found[args.rows[-1]]
        for name, measure in measures.items():
            cells.append(spread([measure(matrices.sum(0)) for matrices in own]))
            if name in COMPARED:
                ratios = [over_seeds(measure, own, draw) / over_seeds(measure, last, draw) for draw in draws]
                low, high = np.percentile(ratios, [2.5, 97.5])
                ratio = over_seeds(measure, own) / over_seeds(measure, last)
                cells.append(f"{ratio:.3f} ({low:.3f} to {high:.3f})")
        runs = [row_folder(args.out, row, seed) for seed in args.seeds]
        made = [boxel.label(truth.without_masks(), teacher=run) for run in runs]
        cells.append(np.mean([instance_ious(truth, each)[0].mean() for each in made]))
        table.add(row, *cells)
    table.write(args.seeds)


def choose(data: Annotations, args: argparse.Namespace) -> Annotations:
    """The dataset with the categories that are asked for."""
    return data.class_agnostic() if args.class_agnostic else data.select_categories(args.categories)


def over_seeds(
    measure: Measure,
    matrices: Sequence[NDArray[np.int64]],
    draw: NDArray[np.intp] | slice = slice(None),
) -> float:
    """Mean of a measure over the seeds' (I, K, K) matrices, each summed over some images."""
    return float(np.mean([measure(one[draw].sum(0)) for one in matrices]))


def trained(row: str, seed: int, training: Annotations, args: argparse.Namespace) -> Any:
    """The model of a row, trained if it is not there yet."""
    changes = dict(ROWS[row])
    out = row_folder(args.out, row, seed)
    teacher, with_masks = changes.pop("teacher", None), changes.pop("masks", False)
    if args.epochs:
        changes["epochs"] = args.epochs
    if args.stride:
        changes["model.output_stride"] = args.stride
    if args.long_side:
        changes["views.long_side"] = args.long_side
    own = training if with_masks else training.without_masks()
    data = labeled(training, teacher, args) if teacher else own
    settings = {"config": args.recipe, "seed": seed, "label": "segments"} | changes
    train_once("boxsup", data, out, segments_folder=str(args.out / "segments"), **settings)
    return boxel.load(out)


def labeled(training: Annotations, teacher: str, args: argparse.Namespace) -> Annotations:
    """The set with masks that a teacher made of its boxes."""
    folder = args.out / "masks"
    folder.mkdir(parents=True, exist_ok=True)
    return boxel.label(training.without_masks(), teacher=teacher, out=folder / f"{teacher}.json")


def confusions(model: Any, truth: Annotations, crf: CRFConfig | None) -> NDArray[np.int64]:
    """(I, K, K) the confusion matrix of each image."""
    looks = semantic_inference_config(model, crf=crf)
    matrices = []
    for image in range(len(truth)):
        photo = read_image(truth.image_path(image))
        labels = predict_label_map(model, photo, looks).labels
        matrices.append(
            confusion(make_label_map(truth, image, labels.shape), labels, len(pixel_classes(truth)))
        )
    return np.stack(matrices)


def foreground_iou(matrix: NDArray[np.int64]) -> float:
    """IoU of the foreground."""
    return float(matrix[1:, 1:].sum() / (matrix.sum() - matrix[0, 0]))


def recall(matrix: NDArray[np.int64]) -> float:
    """Share of the true foreground that is found."""
    return float(matrix[1:, 1:].sum() / matrix[1:].sum())


def precision(matrix: NDArray[np.int64]) -> float:
    """Share of the predicted foreground that is true."""
    return float(matrix[1:, 1:].sum() / matrix[:, 1:].sum())


def mean_iou(matrix: NDArray[np.int64], classes: NDArray[np.intp]) -> float:
    """Mean IoU of some classes; one that is nowhere in a draw counts 0 in both of a ratio."""
    hits = matrix.diagonal()[classes]
    union = matrix.sum(0)[classes] + matrix.sum(1)[classes] - hits
    return float((hits / np.maximum(union, 1)).mean())


if __name__ == "__main__":
    main()
