"""Adapt BoxCaseg to a dataset: to a few true masks, or else to the boxes to label, like the paper."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from boxel.data import Annotations
from boxel.data.checks.masks import drop_bad_masks
from boxel.data.dataset import collate
from boxel.data.provenance import describe_input, describe_run
from boxel.exporting.onnx import export_beside
from boxel.labeling.api import label_data
from boxel.labeling.calibration import correct_calibration, distrust_predicted
from boxel.labeling.quality import find_calibration, save_calibration
from boxel.labeling.teachers.detector import digest_model
from boxel.models import io
from boxel.models.io import load, read_config_file
from boxel.models.pretrained import model_folder
from boxel.training.crops import make_crop_samples
from boxel.training.few_masks import MIN_MASKS, learn_masks
from boxel.training.loader import Stream
from boxel.training.log import rank_zero_logger
from boxel.training.prepare import TrainingData, read_training, select_training
from boxel.training.run import train
from boxel.training.settings import LAST, Run, is_finished, resolve_run
from boxel.utils.device import resolve_device
from boxel.utils.errors import BoxelError, UsageError
from boxel.utils.files import write_text

logger = rank_zero_logger(__name__)

CHANGES: dict[str, Any] = {
    "label": None,
    "model.hint_weight": 1.0,
    "optim.lr": 2e-4,
    "data.mask_classes": None,
    "data.val_share": 0.0,
}
"""Settings of the adaptation that differ from those of the training that it continues."""

_PROBE_STEPS = 3


def adapt(
    data: Annotations,
    out: str | Path,
    *,
    masks: Annotations | str | Path | None = None,
    teacher: str = "boxcaseg",
    minutes: float = 10.0,
    **settings: Any,
) -> Path | None:
    """Adapt a BoxCaseg model to the images of a dataset.

    With at least `MIN_MASKS` true masks the model learns from them, for as long as masks that are left out get better;
    if none do, it stays as it is. With fewer, it learns from the boxes: the model's own masks of them serve as hints,
    so that it keeps what it knows while lines across boxes and colors teach it what these images look like.

    The folder also gets ``adapted.json``, with the model that it was adapted from, the minutes, and the masks, and
    ``quality.json``, that model's calibration of quality if it has one, corrected by the masks that were left out. With
    its ``model.onnx`` (extra `onnx`) the model labels without PyTorch.

    Args:
        data: The dataset; its trusted masks are learned from, but for predicted ones, which have a `source`. Of a
            dataset with splits, `train` is used.
        masks: True masks of some boxes of images like these, if they are not in `data`.
        out: Folder of the adapted model. An interrupted adaptation is resumed, a finished one is not repeated.
        teacher: The BoxCaseg model to start from: name of a bundled model, or a model folder.
        minutes: Approximate duration of the training.
        **settings: Settings of :func:`boxel.train` by their path, if it learns from boxes.

    Returns:
        The folder of the adapted model, which is a teacher for :func:`boxel.label`, or None if the training was
        interrupted; the same call resumes it.

    Raises:
        UsageError: `minutes` is not above 0.
        BoxelError: `out` holds a model that was adapted from another one.

    Examples:
        >>> import boxel
        >>> teacher = boxel.adapt(boxel.read("boxes.json"), "adapted", minutes=10)  # doctest: +SKIP
        >>> masks = boxel.label("boxes.json", teacher=teacher)  # doctest: +SKIP
    """
    if not minutes > 0:
        raise UsageError(f"`minutes` is {minutes}; give a number above 0.")
    out, start = Path(out), model_folder(teacher)
    note, origin = out / "adapted.json", digest_model(load(start))
    done = {"from": origin, "minutes": minutes}
    if note.exists():
        done = json.loads(note.read_text(encoding="utf-8"))
    if done["from"] != origin:
        raise BoxelError(
            f"{out} was adapted from another model than {teacher}; remove it, or name another `out`."
        )
    if is_finished(out):
        logger.info("%s was adapted already, in about %g min; remove it to adapt again", out, done["minutes"])
        return out
    data = distrust_predicted(select_training(read_training([data])))
    masked = data if masks is None else select_training(read_training([masks], data.root))
    masked = drop_bad_masks(distrust_predicted(masked))[0]
    write_text(note, json.dumps(done))
    if masked.has_mask.sum() >= MIN_MASKS:
        learned = _adapt_to_masks(masked, out, teacher, minutes)
        about = describe_run("boxel.adapt") | {"input": describe_input(str(masked.file), masked)}
        write_text(note, json.dumps(done | learned | about))
        return out
    logger.info("adapting %s to %d boxes in about %g min: %s", teacher, data.has_box.sum(), minutes, out)
    labeled = label_data(data, teacher=teacher)
    hinted = replace(labeled.data, trusted=data.trusted & data.has_segmentation & ~labeled.made)
    changes, recipe, resume = CHANGES | settings, start / "config.yaml", (out / LAST).exists()
    if resume:
        steps = read_config_file(out)["steps"]
    else:
        seconds = _measure_step(start, hinted, resolve_run("boxcaseg", recipe, None, out, changes))
        steps = max(round(60 * minutes / seconds), 1)
    changes["steps"] = steps
    if train("boxcaseg", hinted, out=out, config=recipe, init=start, resume=resume, **changes) is None:
        return None
    calibration = find_calibration(teacher)
    if calibration is not None:
        save_calibration(calibration, out / "quality.json")
    return out


def _adapt_to_masks(data: Annotations, out: Path, teacher: str, minutes: float) -> dict[str, Any]:
    """Adapt a model to true masks, write its folder, and return what it has learned from and what that gained."""
    start: Any = load(model_folder(teacher))
    number = int(data.has_mask.sum())
    logger.info("adapting %s to %d masks in about %g min: %s", teacher, number, minutes, out)
    found = learn_masks(start.to(resolve_device("auto")), data, minutes)
    if found.steps:
        logger.info(
            "masks that were left out rose from %.2f to %.2f IoU (%d masks, %d steps)",
            *(found.before, found.after, len(found.ious), found.steps),
        )
    else:
        logger.warning(
            "no masks that were left out got better (IoU %.2f): the model stays as it is", found.before
        )
    calibration = find_calibration(teacher)
    if calibration is not None:
        estimates = calibration.estimate(found.cues)
        save_calibration(correct_calibration(calibration, estimates, found.ious), out / "quality.json")
    model = found.model.cpu()
    write_text(out / "metrics.json", json.dumps({"step": found.steps, "left_out_iou": found.after}))
    io.save(model, out, start.settings, start.categories)
    export_beside(out)
    return {"masks": number, "steps": found.steps, "left_out_iou": [found.before, found.after]}


def _measure_step(start: Path, data: Annotations, run: Run) -> float:
    """Measure the seconds that a training step takes on this machine, by making a few."""
    model: Any = load(start).train()
    samples = make_crop_samples(run, TrainingData(data, None, (), None), model)
    device = resolve_device(run.settings.device)
    model.to(device)
    seconds = []
    for batch in Stream(samples.batches(0, 1), _PROBE_STEPS):
        began = time.perf_counter()
        crops, targets = collate([samples.dataset[pick] for pick in batch])
        losses = model([crop.to(device) for crop in crops], targets)
        torch.stack(list(losses.values())).sum().backward()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
