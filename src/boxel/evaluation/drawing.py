"""One function that draws whatever states objects: datasets, results files and models."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from boxel.data import Annotations, read
from boxel.data.formats import share_class_list
from boxel.data.formats.builder import Builder
from boxel.data.issues import summarize_issues
from boxel.data.sources import find_images
from boxel.evaluation.matching import to_annotations
from boxel.evaluation.reading import read_results, read_scores
from boxel.evaluation.run import subject_kind
from boxel.evaluation.yolo_predictions import read_yolo_predictions
from boxel.utils.config import parse_config
from boxel.utils.errors import BoxelError, UsageError
from boxel.utils.progress import progress
from boxel.viz import DrawConfig, DrawSummary, draw_dataset

logger = logging.getLogger(__name__)


def draw(
    subject: str | Path,
    out: str | os.PathLike[str] | None,
    images: str | Path | None = None,
    truth: str | Path | None = None,
    results: str | Path | None = None,
    class_list: str | Path | None = None,
    config: DrawConfig | None = None,
    **settings: object,
) -> DrawSummary:
    """Draw a dataset, a results file or the predictions of a model.

    Args:
        subject: Annotations in any format that `boxel.read` knows; a COCO results file, or a folder of YOLO
            predictions; or a trained run, which is run on the images.
        out: Folder of the drawings; None for the contact sheet alone.
        images: Folder of the images if they are not beside the annotations.
        truth: Annotations of the same images, which are drawn on the left of the others.
        results: Detections to draw on the images of ``subject``, which is a dataset, instead of its own objects.
        class_list: Classes of label maps; see :func:`boxel.read`.
        config: The settings.
        **settings: Fields of :class:`~boxel.viz.DrawConfig` that override ``config``.

    Returns:
        Counts, paths and errors.

    Raises:
        UsageError: The images are unknown, or a setting is invalid.
        BoxelError: Something cannot be read, written, or found among the images.

    Examples:
        >>> from boxel.data import example_scenes
        >>> scenes = example_scenes(2)
        >>> summary = draw(scenes.file, scenes.root / "drawn", truth=scenes.file, count=1)
        >>> summary.requested, summary.errors
        (1, [])
    """
    config = parse_config(DrawConfig, {**(vars(config) if config else {}), **settings}, "draw")
    kind = subject_kind(subject)
    is_data = kind in ("dataset", "label_maps")  # whose images are drawn, so that the truth needs no files
    if class_list is not None and truth is None and not is_data:
        raise UsageError(f"`class_list` is for label maps, and {subject} has none; leave it out.")
    class_list, true_list = share_class_list(class_list, subject if is_data else None, truth)
    true = None if truth is None else _read(truth, images, true_list, needs_images=not is_data)
    errors: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        if is_data:
            data = _read(subject, images, class_list)
            data = data if results is None else _read_results(results, data, None)
        elif results is not None:
            raise UsageError(f"`results` needs a dataset, and {subject} is none; leave one of them out.")
        elif kind == "results":
            data = _read_results(subject, true, images)
            data = data if true is None else _add_images(true, data)
        elif kind == "box_to_mask" and true is None:
            raise UsageError(
                f"{subject} predicts masks of given boxes; give annotations with boxes as `truth`."
            )
        else:
            sources = _images_of_run(subject, images, true)
            if config.worst is None:
                sources = sources[: config.count]
            boxes = true if kind == "box_to_mask" else None
            data = _predict(subject, sources, boxes, Path(temporary), errors, config.min_score)
        if not len(data):
            return DrawSummary(len(errors), errors=errors, reason=f"{data.file} has no detections")
        summary = draw_dataset(data, out, true, config)
    return replace(summary, requested=summary.requested + len(errors), errors=[*errors, *summary.errors])


def _read(
    path: str | Path, images: str | Path | None, class_list: str | Path | None, needs_images: bool = True
) -> Annotations:
    data = read(path, images, class_list=class_list)
    if issues := [issue for issue in data.issues if needs_images or issue.kind != "ambiguous-image"]:
        logger.warning("%s", summarize_issues(issues))
    scored = read_scores(data)
    return data if scored is None else replace(data, quality=np.array([row["score"] for row in scored]))


# ---------------------------------------------------------------- results


def _read_results(file: str | Path, known: Annotations | None, images: str | Path | None) -> Annotations:
    """Return detections as a dataset, with the images of a known one or of a folder that have any."""
    if not Path(file).exists():
        raise BoxelError(f"{file}: there is no such file or folder; check the path.")
    place = known if known is not None else images
    if place is None:
        raise UsageError(
            f"{file} has detections and does not say where the images are; give their folder as `images`, or the "
            "annotations of the same images as `truth`."
        )
    if Path(file).is_dir():
        if known is None:
            raise UsageError(
                f"{file} has texts of a YOLO, which do not name the classes; give annotations of the same images as "
                "`truth`."
            )
        rows = read_yolo_predictions(file, known)[0]
    else:
        rows = read_results(file)
    found = to_annotations(rows, place, str(file)) if rows else Builder().build(Path(), [], Path())
    data = replace(found, file=str(file))
    return _relative_to(data, Path(str(images)) if known is None else known.root)


def _add_images(known: Annotations, data: Annotations) -> Annotations:
    """Return a dataset with its own instances and all images of another, which has the same image ids."""
    number = {image_id: image for image, image_id in enumerate(known.image_ids)}
    index = np.array([number[image_id] for image_id in data.image_ids], dtype=np.int32)
    names = ("root", "image_ids", "paths", "widths", "heights", "splits", "image_extras")
    columns = {name: getattr(known, name) for name in names}
    return replace(data, image_index=index[data.image_index], label_maps=[None] * len(known), **columns)


def _relative_to(data: Annotations, folder: Path) -> Annotations:
    """Return a dataset whose paths are relative to a folder, if all images are in it."""
    paths = [data.image_path(image) for image in range(len(data))]
    if not all(path.is_relative_to(folder) for path in paths):
        return data
    return replace(data, root=folder, paths=[path.relative_to(folder).as_posix() for path in paths])


# ---------------------------------------------------------------- models


def _images_of_run(run: str | Path, images: str | Path | None, truth: Annotations | None) -> list[Path]:
    if truth is not None:
        return [truth.image_path(image) for image in range(len(truth))]
    if images is None:
        raise UsageError(f"{run} is a model; give the folder of the images to predict on as `images`.")
    return find_images(images)


def _predict(
    run: str | Path,
    sources: Sequence[Path],
    boxes: Annotations | None,
    folder: Path,
    errors: list[str],
    min_score: float | None = None,
) -> Annotations:
    """Return the predictions of a model as a dataset; label maps are written into a folder.

    Instances have at least the minimum score, or if it is None the usual one of drawings.
    """
    from boxel.models.io import load_on
    from boxel.models.label_map import LabelMap
    from boxel.models.prediction import iter_predictions
    from boxel.models.thresholds import keep_confident, settle_draw_score

    model = load_on(run, "auto")
    threshold = settle_draw_score(model, min_score)
    rows, count = Builder(), 0
    with progress(len(sources), "images") as advance:
        for prediction in iter_predictions(model, sources, boxes=boxes, errors=errors):
            result, path = prediction.result, str(sources[prediction.index])
            height, width = prediction.size
            if isinstance(result, LabelMap):
                label_map = folder.resolve() / f"{prediction.index}.png"
                result.save(label_map)
                rows.add_image(prediction.index, path, width, height, str(label_map))
            else:
                image = rows.add_image(prediction.index, path, width, height)
                for instance in keep_confident(result, model, threshold):
                    count += 1
                    box, score = instance.boxes[0].tolist(), float(instance.scores[0])
                    code = msgspec.json.encode(instance.rles[0])
                    rows.add(count, image, int(instance.labels[0]), box, code, quality=score)
            advance(1)
    own = [category for category in model.categories if category.name != "background"]
    categories = own if boxes is None else list(boxes.categories)  # a mask has the category of its box
    data = replace(rows.build(Path(), categories, Path()), file=str(run))
    shared = os.path.commonpath([path.parent for path in sources]) if len(sources) else "."
    return _relative_to(data, Path(shared))
