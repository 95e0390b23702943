"""Adapt BoxCaseg to a dataset: to a few true masks, or else to the boxes to label."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from boxel.data import Annotations
from boxel.data.checks.masks import drop_bad_masks
from boxel.data.formats.builder import read_utf8
from boxel.data.provenance import describe_input, describe_run
from boxel.exporting.onnx import export_beside
from boxel.labeling.calibration import correct_calibration, distrust_predicted
from boxel.labeling.quality import find_calibration, save_calibration
from boxel.labeling.teachers.detector import digest_model
from boxel.models import io
from boxel.models.boxcaseg import BoxCaseg
from boxel.models.io import load_folder
from boxel.models.pretrained import model_folder
from boxel.training.few_masks import MIN_MASKS, learn_masks
from boxel.training.log import rank_zero_logger
from boxel.training.own_masks import MIN_BOXES, learn_own_masks
from boxel.training.prepare import read_training, select_training
from boxel.training.settings import is_finished
from boxel.utils.device import resolve_device
from boxel.utils.errors import BoxelError, UsageError, one_line
from boxel.utils.files import write_text
from boxel.utils.locks import lock_folder

logger = rank_zero_logger(__name__)


def adapt(
    data: Annotations,
    out: str | Path,
    *,
    masks: Annotations | str | Path | None = None,
    teacher: str = "boxcaseg",
    minutes: float = 10.0,
) -> Path:
    """Adapt a BoxCaseg model to the images of a dataset.

    With at least `MIN_MASKS` true masks the model learns from them, unless masks that are left out get worse by more
    than chance; then it stays as it is. With fewer, it learns from its own masks of some of the boxes, unless the
    outlines of masks that are left out get worse.

    The folder also gets ``adapted.json``, with the model that it was adapted from, the minutes, and the masks, and
    ``quality.json``, that model's calibration of quality if it has one, corrected by the masks that were left out. With
    its ``model.onnx`` (extra `onnx`) the model labels without PyTorch.

    Args:
        data: The dataset; its trusted masks are learned from, but for predicted ones, which have a `source`. Of a
            dataset with splits, `train` is used.
        masks: True masks of some boxes of images like these, if they are not in `data`.
        out: Folder of the adapted model. A finished adaptation is not repeated.
        teacher: The BoxCaseg model to start from: name of a bundled model, or a model folder.
        minutes: Approximate duration of the training.

    Returns:
        The folder of the adapted model, which is a teacher for :func:`boxel.label`.

    Raises:
        UsageError: `minutes` is not above 0.
        BoxelError: `out` holds a model that was adapted from another one, or not adapted.

    Examples:
        >>> import boxel
        >>> teacher = boxel.adapt(boxel.read("boxes.json"), "adapted", minutes=10)  # doctest: +SKIP
        >>> masks = boxel.label("boxes.json", teacher=teacher)  # doctest: +SKIP
    """
    if not minutes > 0:
        raise UsageError(f"`minutes` is {minutes}; give a number above 0.")
    with lock_folder(out):
        return _adapt(data, Path(out), masks, teacher, minutes)


def _adapt(
    data: Annotations, out: Path, masks: Annotations | str | Path | None, teacher: str, minutes: float
) -> Path:
    """Adapt a model into a folder that no other process writes to; arguments and errors as for :func:`adapt`."""
    start = model_folder(teacher)
    note, origin = out / "adapted.json", digest_model(load_folder(start))
    done = {"from": origin, "minutes": minutes}
    earlier = _read_note(note) if note.exists() else None
    if earlier and earlier["from"] != origin:
        raise BoxelError(
            f"{out} was adapted from another model than {teacher}; remove it, or name another `out`."
        )
    if is_finished(out):
        if earlier is None:
            raise BoxelError(f"{out} holds a model that was not adapted; name another `out`.")
        logger.info(
            "%s was adapted already, in about %g min; remove it to adapt again", out, earlier["minutes"]
        )
        return out
    data = drop_bad_masks(distrust_predicted(select_training(read_training([data]))))[0]
    masked = data
    if masks is not None:
        masked = select_training(read_training([masks], data.root))
        masked = drop_bad_masks(distrust_predicted(masked))[0]
    write_text(note, json.dumps(done))
    if masked.has_mask.sum() >= MIN_MASKS:
        learned = _adapt_to_masks(masked, out, teacher, minutes)
    else:
        if masks is not None:
            logger.warning(
                "%s: %d true masks are too few to learn from (%d are needed), so the model learns from boxes",
                *(masked.file, masked.has_mask.sum(), MIN_MASKS),
            )
        masked = data
        learned = _adapt_to_boxes(data, out, teacher, minutes)
    about = describe_run("boxel.adapt") | {"input": describe_input(str(masked.file), masked)}
    write_text(note, json.dumps(done | learned | about))
    return out


def _read_note(note: Path) -> dict[str, Any]:
    """Read what the note in a folder states of its adaptation; raise a :class:`BoxelError` if it is damaged."""
    try:
        earlier = json.loads(read_utf8(note))
        return {"from": str(earlier["from"]), "minutes": float(earlier["minutes"])}
    except (BoxelError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BoxelError(
            f"{note}: is damaged ({one_line(error)}); remove the folder to adapt again, or name another `out`."
        ) from error


def _adapt_to_boxes(data: Annotations, out: Path, teacher: str, minutes: float) -> dict[str, Any]:
    """Adapt a model to boxes, write its folder, and return what it has learned from and what that changed."""
    start: Any = load_folder(model_folder(teacher))
    number = int(data.has_box.sum())
    logger.info("adapting %s to %d boxes in about %g min: %s", teacher, number, minutes, out)
    found = learn_own_masks(start.to(resolve_device("auto")), data, minutes)
    if found.masks < MIN_BOXES:
        logger.warning(
            "%d boxes are too few to learn from, %d are needed: the model stays as it is", number, MIN_BOXES
        )
    elif found.steps:
        logger.info(
            "learned from %d of its own masks; contrast across outlines of masks that were left out: %.3f, before %.3f",
            found.masks,
            *found.contrast[::-1],
        )
    else:
        logger.warning(
            "outlines of masks that were left out got worse (contrast %.3f, before %.3f): the model stays as it is",
            *found.contrast[::-1],
        )
    calibration = find_calibration(teacher)
    if calibration is not None:
        if found.steps:  # it has become more certain, but nobody knows whether it is better
            before, after = calibration.estimate(found.before), calibration.estimate(found.after)
            corrected = correct_calibration(calibration, after, before)
            calibration = replace(corrected, precision=calibration.precision)
        save_calibration(calibration, out / "quality.json")
    _save(found.model.cpu(), start, out, {"step": found.steps})
    return {"own_masks": found.masks, "steps": found.steps}


def _adapt_to_masks(data: Annotations, out: Path, teacher: str, minutes: float) -> dict[str, Any]:
    """Adapt a model to true masks, write its folder, and return what it has learned from and what that gained."""
    start: Any = load_folder(model_folder(teacher))
    number = int(data.has_mask.sum())
    logger.info("adapting %s to %d masks in about %g min: %s", teacher, number, minutes, out)
    found = learn_masks(start.to(resolve_device("auto")), data, minutes)
    if found.steps:
        logger.info(
            "IoU of masks that were left out: %.3f, before %.3f (%d masks, %d steps, %.0f %% of the way)",
            *(found.after, found.before, len(found.ious), found.steps, 100 * found.share),
        )
    else:
        logger.warning(
            "masks that were left out got worse (IoU %.3f, before %.3f): the model stays as it is",
            *(found.after, found.before),
        )
    calibration = find_calibration(teacher)
    if calibration is not None:
        estimates = calibration.estimate(found.cues)
        save_calibration(correct_calibration(calibration, estimates, found.ious), out / "quality.json")
    left_out_iou = found.after if found.share else found.before
    _save(found.model.cpu(), start, out, {"step": found.steps, "left_out_iou": left_out_iou})
    learned = {"masks": number, "steps": found.steps, "share": found.share}
    return learned | {"left_out_iou": [found.before, found.after]}


def _save(model: BoxCaseg, start: BoxCaseg, out: Path, metrics: dict[str, float]) -> None:
    write_text(out / "metrics.json", json.dumps(metrics))
    io.save(model, out, start.settings, start.categories)
    export_beside(out)
