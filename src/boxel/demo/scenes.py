"""The training demo: an instance segmenter trained from boxes and its twin trained from masks, on generated scenes."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any, cast

import numpy as np

from boxel.data import Annotations
from boxel.data.images import read_image
from boxel.data.synthetic import write_scenes
from boxel.demo.photos import DemoResult
from boxel.evaluation import Result, coco_ap, fill_boxes, mask_iou, predict_dataset
from boxel.models import Detector, load
from boxel.training import train
from boxel.training.recipe import read_config
from boxel.utils.files import write_text
from boxel.viz.output import contact_sheet, save_image

logger = logging.getLogger(__name__)

TRAINING_SEED, HIDDEN_SEED = 1, 3
"""Seeds of the scenes; settings were chosen on scenes of seed 2."""

_MIN_SCORE = 0.3  # of the instances drawn


def demo_train(
    out: str | Path = "demo", steps: int | None = None, scenes: int = 600, hidden: int = 100
) -> DemoResult:
    """Train from boxes and from masks, with the same steps, and evaluate both on the hidden masks of other scenes.

    Args:
        out: Folder for everything it makes. Finished trainings that it already has are kept.
        steps: Optimizer steps of each training. None: those of the recipe `demo`.
        scenes: Number of scenes to train on.
        hidden: Number of scenes to evaluate on.

    Returns:
        By `boxes`, `masks` and `box filled` the metrics of :func:`summarize_detections`, and the `ratio of mask AP`;
        also written to `summary.json`. Empty if the training was stopped, which the same call resumes.
    """
    out = Path(out)
    logger.info("generating %d scenes to train on and %d with hidden masks", scenes, hidden)
    write_scenes(out / "train", scenes, seed=TRAINING_SEED)
    truth = write_scenes(out / "hidden", hidden, seed=HIDDEN_SEED)
    summary: dict[str, Any] = {}
    models: list[Detector] = []
    for kind in ("boxes", "masks"):
        start = time.monotonic()
        model = _train(kind, out, steps)
        if model is None:
            return DemoResult({}, "The demo was stopped; the same command resumes it.")
        models.append(model)
        results = predict_dataset(model, truth, batch_size=4)
        minutes = round((time.monotonic() - start) / 60, 1)
        summary[kind] = summarize_detections(truth, results) | {"minutes": minutes}
        if kind == "boxes":
            summary["box filled"] = summarize_detections(truth, fill_boxes(truth, results))
            write_text(out / "predictions.json", json.dumps(results))
    ratio = summary["boxes"]["mask_AP"] / max(summary["masks"]["mask_AP"], 1e-9)
    summary["ratio of mask AP"] = round(ratio, 3)
    write_text(out / "summary.json", json.dumps(summary, indent=1))
    _draw(out / "scenes_boxes_masks.jpg", truth, models)
    return DemoResult(summary, _format(out, summary))


def _train(kind: str, out: Path, steps: int | None) -> Detector | None:
    """Train from boxes or masks unless that is done; return None if the training was stopped."""
    run = out / f"from_{kind}"
    changes: dict[str, Any] = {"steps": steps} if steps else {}
    if (run / "model.safetensors").exists():
        return cast("Detector", load(run))
    logger.info("training from %s: %s", kind, run)
    model = train(
        "boxinst",
        out / "train" / f"{kind}.json",
        images=out / "train" / "images",
        out=run,
        config=read_config("demo", **changes),
        resume=(run / "checkpoints" / "last.ckpt").exists(),
    )
    return cast("Detector | None", model)


def summarize_detections(truth: Annotations, results: list[Result]) -> dict[str, float]:
    """Return APs of masks and boxes, and the mask IoU of matched detections, as a row of a table of results has them.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.evaluation import to_results
        >>> scenes = example_scenes()
        >>> summarize_detections(scenes, to_results(scenes))["mask_iou"]
        1.0
    """
    mask, box = coco_ap(truth, results, "segm"), coco_ap(truth, results, "bbox")
    row = {"mask_AP": mask["AP"], "mask_AP50": mask["AP50"], "mask_AP75": mask["AP75"]}
    row |= {"box_AP": box["AP"], **mask_iou(truth, results)}
    # Without a detection there is not a mask IoU; 0 keeps the table and the JSON readable.
    return {name: round(float(np.nan_to_num(value)), 4) for name, value in row.items()}


def _draw(path: Path, truth: Annotations, models: list[Detector]) -> None:
    """Draw rows of a scene, the masks of the network trained from boxes, and those of its twin."""
    cells = []
    for index in range(min(4, len(truth))):
        cells.append(read_image(truth.image_path(index)))
        for instances in (model.predict(truth.image_path(index)) for model in models):
            cells.append(instances[instances.scores >= _MIN_SCORE].plot())
    save_image(contact_sheet(cells, columns=3, cell=320), path)


def _format(out: Path, summary: dict[str, Any]) -> str:
    lines = []
    for kind in ("boxes", "masks", "box filled"):
        row = summary[kind]
        minutes = f"{row['minutes']:9.1f}" if "minutes" in row else ""
        lines.append(
            f"  {kind:<16} {row['mask_AP']:7.3f} {row['mask_AP50']:6.3f} {row['mask_AP75']:6.3f} "
            f"{row['box_AP']:8.3f} {row['mask_iou']:10.3f} {minutes}"
        )
    table = "\n".join(lines)
    return f"""\
Evaluated on scenes whose masks no training saw:
                   mask AP   AP50   AP75   box AP   mask IoU   minutes
{table}
mask AP from boxes / from masks: {summary["ratio of mask AP"]:.3f}

Look at:
  {out / "scenes_boxes_masks.jpg"}   scene, masks learned from boxes, masks learned from masks
  {out / "from_boxes" / "curves.png"}   the curves of the training from boxes
  {out / "predictions.json"}   its detections, in COCO's format"""
