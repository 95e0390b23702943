"""One function that evaluates whatever predicts: models, results files, labeled datasets and folders of label maps."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np

from boxel.data import Annotations, read, recognize, select_split
from boxel.data.annotations import OBJECT
from boxel.data.formats.yolo_files import NoSplitError
from boxel.data.images import describe_missing
from boxel.data.issues import summarize_issues
from boxel.data.pairing import pair_images
from boxel.evaluation.baselines import label_with_baseline
from boxel.evaluation.boxes import MIN_SIDE, format_masks, instance_ious, summarize_masks
from boxel.evaluation.breakdown import break_down
from boxel.evaluation.config import EvaluateConfig
from boxel.evaluation.reading import clean_results, is_results_file, read_scores, read_with_positions
from boxel.evaluation.report import write_report_on
from boxel.evaluation.results import Result, drop_unsound_masks, fill_in_sizes
from boxel.evaluation.saliency import measure_saliency
from boxel.evaluation.scores import MaskScores, PixelScores, Scores
from boxel.evaluation.semantic import format_semantic, score_label_maps, score_segmenter
from boxel.evaluation.summary import compare_detections, format_detections, without_nan
from boxel.evaluation.yolo_predictions import holds_predictions, read_yolo_predictions
from boxel.methods import get_method
from boxel.models.exported.file import is_exported
from boxel.utils.config import parse_config
from boxel.utils.errors import BoxelError, UsageError, check_path
from boxel.utils.files import is_file, write_text
from boxel.utils.printable import count_noun

if TYPE_CHECKING:
    from boxel.models.detector import Detector
    from boxel.models.instances import Instances
    from boxel.models.io import Model
    from boxel.models.settings import InferenceConfig

logger = logging.getLogger(__name__)

Kind: TypeAlias = Literal["detector", "segmenter", "box_to_mask", "results", "dataset", "label_maps"]
"""What can be evaluated: three kinds of models, and three kinds of files."""


@dataclass(frozen=True)
class Evaluation:
    """The result of :func:`evaluate`.

    Attributes:
        kind: What was evaluated.
        metrics: Plain JSON; None for what is undefined. See :func:`evaluate` for its keys.
        results: The detections, in the COCO results format; None unless instances were detected.
        errors: A message per image that could not be used; each is also logged as a warning.
        scores: What was compared, image by image.
    """

    kind: Kind
    metrics: dict[str, Any]
    results: list[Result] | None = None
    errors: list[str] = field(default_factory=list)
    scores: Scores | None = field(default=None, repr=False, compare=False)

    def table(self) -> str:
        """Format the metrics as text."""
        if self.kind in ("detector", "results"):
            return format_detections(self.metrics)
        if self.kind in ("segmenter", "label_maps"):
            return format_semantic(self.metrics)
        return format_masks(self.metrics)

    __str__ = table


def evaluate(
    subject: str | Path | Annotations | Sequence[Result],
    truth: str | Path | Annotations,
    *,
    images: str | Path | None = None,
    class_list: str | Path | None = None,
    config: EvaluateConfig | None = None,
    **settings: object,
) -> Evaluation:
    """Evaluate a model, a results file, a labeled dataset or a folder of label maps against ground truth.

    Args:
        subject: A model folder, the name of a bundled model or an ONNX file of `boxel export`, which is run on the
            images; a file or list of COCO results, or a folder of YOLO texts with confidences; a labeled dataset, or
            its file or folder in any format (if each of its annotations has a score, they are detections); or a folder
            of label maps.
        truth: The annotations to compare with, or their file or folder in any format that `boxel.read` knows.
        images: Folder of the images if they are not beside ``truth`` or a labeled dataset.
        class_list: Classes of label maps: a text file, or the name of a known list.
        config: The settings.
        **settings: Fields of :class:`EvaluateConfig` that override ``config``.

    Returns:
        The metrics, all in [0, 1]:

        * of detections, those of :func:`~boxel.evaluation.summary.evaluate_detections`;
        * of label maps and semantic models, those of :func:`~boxel.evaluation.semantic.semantic_metrics`, and `images`;
        * of labeled datasets and BoxCaseg, for `masks` and each baseline those of
          :func:`~boxel.evaluation.boxes.measure_masks`, of `masks` also those of
          :func:`~boxel.evaluation.breakdown.break_down` and, if `saliency` is set, of
          :func:`~boxel.evaluation.saliency.saliency_metrics`.

        Undefined metrics are None.

    Raises:
        UsageError: A setting does nothing for this subject.
        BoxelError: The subject or the truth cannot be read, or they have nothing in common.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.evaluation import to_results
        >>> truth = example_scenes()
        >>> evaluate(to_results(truth), truth, boundary=False).metrics["mask"]["AP50"]
        1.0
        >>> print(evaluate(truth, truth).table().partition("\\n\\n")[0])
               mask_iou  IoU@50  IoU@75  mask_iou_by_class
        masks     1.000   1.000   1.000              1.000
        3 boxes with a side of 16 pixels or more
    """
    overrides = {**(asdict(config) if config else {}), **settings}
    config = parse_config(EvaluateConfig, overrides, "evaluate")
    name = str(subject) if isinstance(subject, (str, Path)) else "results"
    model = _load(subject, config.device) if is_exported(subject) else None
    kind = model.kind if model else subject_kind(subject)
    if not isinstance(truth, Annotations):
        _refuse_results(truth, kind, name)
    if kind == "dataset":
        if not isinstance(subject, Annotations):
            subject = read(cast(str | Path, subject), images=images)
        scored = read_scores(subject)
        if scored is not None:
            logger.info("%s: each annotation has a score, so they are evaluated as detections", name)
            kind, subject = "results", scored
    _refuse_unused(name if name != "results" else "this", kind, config)
    if not isinstance(truth, Annotations):
        truth = _read_truth(truth, images, class_list)
    elif "val" in truth.splits and set(truth.splits) != {"val"}:  # as of a file
        truth = select_split(truth, "val")
        logger.info("%s: compared on its split val: %s", truth.file, count_noun(len(truth), "image"))
    truth.select_categories(config.categories or [])  # an unknown category is reported before a model is run
    if kind in ("segmenter", "label_maps"):
        return _evaluate_maps(model or subject, kind, truth, config, name)
    if kind in ("box_to_mask", "dataset"):
        return _evaluate_masks(subject, kind, truth, config, name)
    return _evaluate_detections(model or subject, kind, truth, config, name)


def subject_kind(subject: str | Path | Annotations | Sequence[Result]) -> Kind:
    """Return what kind of subject :func:`evaluate` is given; a path that does not exist counts as a results file.

    Examples:
        >>> subject_kind([])
        'results'
    """
    if isinstance(subject, Annotations):
        return "dataset"
    if isinstance(subject, Sequence) and not isinstance(subject, str):
        return "results"
    check_path("subject", subject, "a path, Annotations or COCO results")
    path = Path(subject)
    if path.is_file():
        return "results" if is_results_file(path) else "dataset"
    from boxel.models.pretrained import read_method

    method = read_method(path)
    if method is not None:
        return get_method(method).kind
    if (path / "config.yaml").exists():
        return "detector"  # loading it reports what is wrong with the folder
    if path.is_dir() and holds_predictions(path):
        return "results"
    if path.is_dir():
        return "label_maps" if recognize(path) == "semantic" else "dataset"
    return "results"  # reading it reports what is wrong with the path


_OF_DETECTIONS = ("categories", "class_agnostic", "boundary", "regions", "baselines", "results")
_OF_DETECTOR = ("short_side", "score_threshold", "class_agnostic_nms", "mask_nms", "tile", "flip", "scales")
_OF_SEGMENTER = ("long_side", "tile", "shifts", "crf", "flip", "scales")
_KINDS: dict[Kind, tuple[str, tuple[str, ...]]] = {
    "results": ("a results file", _OF_DETECTIONS),
    "detector": ("an instance model", (*_OF_DETECTIONS, *_OF_DETECTOR, "batch_size", "true_classes")),
    "dataset": ("a labeled dataset", ("categories", "baselines", "plain")),
    "box_to_mask": (
        "a model that predicts masks of given boxes",
        ("categories", "baselines", "plain", "saliency"),
    ),
    "label_maps": ("a folder of label maps", ("trimap",)),
    "segmenter": ("a semantic model", ("trimap", *_OF_SEGMENTER)),
}
"""What each kind is called, and the settings that have an effect beside `device` and `report`."""


def _read_truth(path: str | Path, images: str | Path | None, class_list: str | Path | None) -> Annotations:
    """Read the split `val` of a dataset, or all of it if it is not split, e.g. lists `train` alone."""
    try:
        truth = read(path, images=images, split="val", class_list=class_list)
    except NoSplitError:
        truth = read(path, images=images, class_list=class_list)
        logger.info("%s lists no `val`, so all of its %d images are compared", path, len(truth))
    if "val" in truth.splits:
        logger.info("%s: compared on its split val: %s", path, count_noun(len(truth), "image"))
    if truth.issues:
        logger.warning("%s", summarize_issues(truth.issues))
    return truth


def _refuse_results(truth: str | Path, kind: Kind, subject: str) -> None:
    """Raise an error if the ground truth is a file of results."""
    check_path("data", truth, "a path or Annotations")
    if Path(truth).is_file() and is_results_file(truth):
        remedy = "name the annotations of the images predicted on"
        if kind == "dataset":
            remedy = f"swap {subject} and {truth}"
        raise BoxelError(f"{truth}: these are results and not ground truth; {remedy}.")


def _refuse_unused(what: str, kind: Kind, config: EvaluateConfig) -> None:
    """Raise a `UsageError` if a setting was changed that does nothing."""
    called, used = _KINDS[kind]
    for name, default in asdict(EvaluateConfig()).items():
        if getattr(config, name) != default and name not in (*used, "device", "report"):
            raise UsageError(f"`{name}` does nothing here, since {what} is {called}; leave it out.")


def _evaluate_detections(
    subject: Any, kind: Kind, truth: Annotations, config: EvaluateConfig, source: str
) -> Evaluation:
    errors: list[str] = []
    positions: Sequence[int] | None = None
    if kind == "detector":
        model = _load(subject, config.device)
        config = replace(config, class_agnostic=config.class_agnostic or is_class_agnostic(model))
        inference = model.configure(**_settings(config, _OF_DETECTOR))
        how = config.batch_size, config.class_agnostic, errors, config.true_classes
        results = predict_dataset(model, truth, inference, *how)
        positions = range(len(results))
    elif isinstance(subject, (str, Path)) and Path(subject).is_dir():
        results, errors = read_yolo_predictions(subject, truth)
    else:
        named = isinstance(subject, (str, Path))
        results, positions = read_with_positions(Path(subject)) if named else clean_results(subject, source)
    if config.results is not None:
        write_text(config.results, json.dumps(results))
    metrics, scores = compare_detections(truth, results, config, source, positions)
    return Evaluation(kind, metrics, results, errors, scores)


def _evaluate_masks(
    subject: Any, kind: Kind, truth: Annotations, config: EvaluateConfig, source: str
) -> Evaluation:
    """Compare masks for given boxes: those of a dataset, or those that BoxCaseg predicts."""
    if kind == "dataset" and not subject.has_segmentation.any():
        raise BoxelError(
            f"{subject.file} has no masks to evaluate, and its boxes have no scores; make masks with `boxel label`, or "
            "name the results of a detector (of a YOLO, with `save_conf=True`)."
        )
    truth = truth if config.categories is None else truth.select_categories(config.categories)
    truth = drop_unsound_masks(fill_in_sizes(truth, required=False))
    if not (truth.has_mask & ~truth.iscrowd).any():
        raise BoxelError(f"{truth.file} has no true masks to compare with; name annotations that have.")
    # Masks are predicted from boxes, whatever else the dataset states about the instances.
    boxes = replace(truth.without_masks(), quality=None, source=None, trusted=None)  # type: ignore[arg-type]
    if kind == "dataset":
        _announce_missing_images(truth, subject)
        pred = drop_unsound_masks(fill_in_sizes(subject, required=False), "masks")
        if "grabcut" in config.baselines:
            boxes = _with_images(boxes, pred.root)
    else:
        from boxel.labeling.api import label

        raw: dict[str, Any] = {"merge": "none", "min_component": 0} if config.plain else {}
        pred = label(boxes, teacher=str(subject), device=config.device, **raw)
    predicted = {"masks": pred} | {name: label_with_baseline(boxes, name) for name in config.baselines}
    min_side = 0 if config.plain else MIN_SIDE
    compared = {name: instance_ious(truth, pred, min_side) for name, pred in predicted.items()}
    metrics: dict[str, dict[str, Any]] = {
        name: {**summarize_masks(truth, pred, compared[name], min_side)} for name, pred in predicted.items()
    }
    ious, _, instances = compared["masks"]
    metrics["masks"] |= break_down(truth, instances, ious)
    if config.saliency:
        from boxel.labeling.teachers import make_teacher

        metrics["masks"] |= measure_saliency(truth, make_teacher(str(subject), device=config.device))
    metrics = without_nan(metrics)
    scores = MaskScores(truth, pred, compared["masks"])
    if config.report is not None:
        write_report_on(scores, metrics, config.report, source if source != "results" else pred.file)
    return Evaluation(kind, metrics, scores=scores)


def _announce_missing_images(truth: Annotations, pred: Annotations) -> None:
    """Warn that a dataset lacks images of the ground truth, whose masks count as missed."""
    lacking = np.array([image is None for image in pair_images(truth, pred)], dtype=bool)
    if lacking.any():
        boxes = int((lacking[truth.image_index] & ~truth.iscrowd).sum())
        logger.warning(
            "%s lacks %d of the %d images of %s: their %d boxes count as boxes without a mask; compare with "
            "annotations of the same images",
            *(pred.file, lacking.sum(), len(truth), truth.file, boxes),
        )


def _with_images(data: Annotations, other: Path) -> Annotations:
    """Return a dataset whose images are in its own root or in another folder."""
    for root in (data.root, other):
        if any(is_file(root / path) for path in data.paths):
            return replace(data, root=root)
    raise BoxelError(f"{data.file}: {describe_missing(map(data.image_path, range(len(data))))}")


def _evaluate_maps(
    subject: Any, kind: Kind, truth: Annotations, config: EvaluateConfig, source: str
) -> Evaluation:
    errors: list[str] = []
    if kind == "label_maps":
        maps = score_label_maps(truth, subject, config.trimap, errors)
    else:
        model = _load(subject, config.device)
        truth = truth.class_agnostic() if is_class_agnostic(model) else truth
        inference = model.configure(**_settings(config, _OF_SEGMENTER))
        maps = score_segmenter(truth, model, inference, config.trimap, errors)
    metrics, scores = without_nan(maps.metrics()), PixelScores(maps)
    if config.report is not None:
        write_report_on(scores, metrics, config.report, source)
    return Evaluation(kind, metrics, errors=errors, scores=scores)


def _load(subject: Any, device: str) -> Any:
    from boxel.models.io import load_on

    return load_on(subject, device) if isinstance(subject, str | Path) else subject


def _settings(config: EvaluateConfig, names: Sequence[str]) -> dict[str, Any]:
    """Return the settings with these names, without those that are left to the model."""
    return {name: value for name in names if (value := getattr(config, name)) is not None}


# ---------------------------------------------------------------- detections of a model


def is_class_agnostic(model: Model) -> bool:
    """Return whether a model only separates objects from background, by its settings or its category `OBJECT`."""
    merged = model.settings.get("data", {}).get("class_agnostic", False)
    return merged or [c.name for c in model.categories if c.name != "background"] == [OBJECT]


def predict_dataset(
    model: Detector,
    data: Annotations,
    config: InferenceConfig | None = None,
    batch_size: int = 1,
    class_agnostic: bool = False,
    errors: list[str] | None = None,
    true_classes: bool = False,
) -> list[Result]:
    """Predict the instances of every image of a dataset, under its own image and category ids.

    Detections of categories that the dataset lacks are left out, which is logged.

    Args:
        model: An instance segmenter in eval mode.
        data: The images, with any categories for a class-agnostic model (see :func:`is_class_agnostic`).
        config: Preprocessing and test-time augmentation. None: as in the training of the model.
        batch_size: Images per forward pass.
        class_agnostic: Keep detections of any category, for an evaluation without classes.
        errors: Gets a message per image that cannot be read, whose instances count as missed; each is also logged.
        true_classes: Vote on the true classes of pixels instead of the predicted ones (models of `fcrn-instances`).

    Returns:
        Detections in the COCO results format.

    Raises:
        BoxelError: The dataset has none of the model's categories, or none of its images can be read.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.models import InferenceConfig, build
        >>> data, model = example_scenes(), build("boxinst", 5, {"backbone": "resnet10t", "weights": "none"})
        >>> model.categories = data.categories
        >>> predict_dataset(model.eval(), data, InferenceConfig(short_side=64))  # it has learned nothing yet
        []
    """
    from boxel.models.prediction import iter_predictions

    ids = {category.name: category.id for category in data.categories}
    class_agnostic = class_agnostic or is_class_agnostic(model)
    if not class_agnostic:
        _check_categories(model, data)
    paths = [data.image_path(index) for index in range(len(data))]
    results: list[Result] = []
    if true_classes:
        from boxel.evaluation.true_classes import predict_with_true_classes

        predictions = predict_with_true_classes(model, data, config, errors)
    else:
        found = iter_predictions(model, paths, config, batch_size, errors=errors)
        predictions = ((one.index, cast("Instances", one.result)) for one in found)
    done = 0
    for index, instances in predictions:
        done += 1
        rows = instances.to_coco(data.image_ids[index])
        for row, name in zip(rows, instances.names, strict=True):
            if class_agnostic or name in ids:
                results.append({**row, "category_id": ids.get(name, row["category_id"])})
    if paths and not done:
        raise BoxelError(
            f"{data.file}: none of its {len(paths)} images can be read in {data.root}; set `images` to their folder."
        )
    return results


def _check_categories(model: Detector, data: Annotations) -> None:
    """Raise an error if a dataset has none of a model's categories; log those that it lacks."""
    known = {category.name for category in data.categories}
    lacking = [category.name for category in model.categories if category.name not in known]
    if not lacking:
        return
    names = ", ".join(lacking[:10]) + ", ..." * (len(lacking) > 10)
    if len(lacking) == len(model.categories):
        raise BoxelError(
            f"{data.file} has none of the model's categories ({names}); set `class_agnostic` to evaluate without them."
        )
    logger.warning("%s lacks some of the model's categories, which are left out: %s.", data.file, names)
