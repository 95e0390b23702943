"""The training demo: an instance segmenter trained from boxes and its twin trained from masks, on generated scenes."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np

from boxel.data import Annotations
from boxel.data.images import read_image
from boxel.data.synthetic import write_scenes
from boxel.demo.photos import DemoResult
from boxel.evaluation import Result, coco_ap, fill_boxes, mask_iou, predict_dataset
from boxel.models.io import load
from boxel.training import train
from boxel.training.recipe import read_config
from boxel.viz.overlays import contact_sheet, overlay, save_image

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
    results: dict[str, list[Result]] = {}
    for kind in ("boxes", "masks"):
        start = time.monotonic()
        if not _train(kind, out, steps):
            return DemoResult({}, "The demo was stopped; the same command resumes it.")
        results[kind] = predict_dataset(load(out / f"from_{kind}"), truth, batch_size=4)  # type: ignore[arg-type]
        minutes = round((time.monotonic() - start) / 60, 1)
        summary[kind] = summarize_detections(truth, results[kind]) | {"minutes": minutes}
    summary["box filled"] = summarize_detections(truth, fill_boxes(truth, results["boxes"]))
    ratio = summary["boxes"]["mask_AP"] / max(summary["masks"]["mask_AP"], 1e-9)
    summary["ratio of mask AP"] = round(ratio, 3)
    (out / "predictions.json").write_text(json.dumps(results["boxes"]))
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    _draw(out / "scenes_boxes_masks.jpg", truth, results)
    return DemoResult(summary, _format(out, summary))


def _train(kind: str, out: Path, steps: int | None) -> bool:
    """Train from boxes or masks unless that is done; return False if the training was stopped."""
    run = out / f"from_{kind}"
    changes: dict[str, Any] = {"steps": steps} if steps else {}
    if (run / "model.safetensors").exists():
        return True
    logger.info("training from %s: %s", kind, run)
    model = train(
        "boxinst",
        out / "train" / f"{kind}.json",
        images=out / "train" / "images",
        out=run,
        config=read_config("demo", **changes),
        resume=(run / "checkpoints" / "last.ckpt").exists(),
    )
    return model is not None


def summarize_detections(truth: Annotations, results: list[Result]) -> dict[str, float]:
    """Return APs of masks and boxes, and the mask IoU of matched detections, as a row of a table of results has them.

    Examples:
        >>> import tempfile
        >>> from boxel.evaluation import to_results
        >>> scenes = write_scenes(tempfile.mkdtemp(), 1, height=64, width=96)
        >>> summarize_detections(scenes, to_results(scenes))["mask_iou"]
        1.0
    """
    mask, box = coco_ap(truth, results, "segm"), coco_ap(truth, results, "bbox")
    row = {
        "mask_AP": mask["AP"],
        "mask_AP50": mask["AP50"],
        "mask_AP75": mask["AP75"],
        "box_AP": box["AP"],
    }
    # Without a detection there is no mask IoU; 0 keeps the table and the JSON readable.
    return {name: round(float(np.nan_to_num(v)), 4) for name, v in (row | mask_iou(truth, results)).items()}


def _draw(path: Path, truth: Annotations, results: dict[str, list[Result]], count: int = 4) -> None:
    """Draw rows of a scene, the masks of the network trained from boxes, and those of its twin."""
    names = [category.name for category in truth.categories]
    label_by_id = {category.id: label for label, category in enumerate(truth.categories)}
    cells = []
    for index in range(min(count, len(truth))):
        image = read_image(truth.image_path(index))
        cells.append(image)
        for kind in ("boxes", "masks"):
            kept = [
                result
                for result in results[kind]
                if result["image_id"] == truth.image_ids[index] and result["score"] >= _MIN_SCORE
            ]
            boxes = np.array([result["bbox"] for result in kept]).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            labels = np.array([label_by_id[result["category_id"]] for result in kept], dtype=int)
            cells.append(overlay(image, boxes, [result["segmentation"] for result in kept], labels, names))
    save_image(contact_sheet(cells, columns=3, cell=320), path)


def _format(out: Path, summary: dict[str, Any]) -> str:
    lines = [
        "Evaluated on scenes whose masks no training saw:",
        "                   mask AP   AP50   AP75   box AP   mask IoU   minutes",
    ]
    for kind in ("boxes", "masks", "box filled"):
        row = summary[kind]
        minutes = f"{row['minutes']:9.1f}" if "minutes" in row else ""
        lines.append(
            f"  {kind:<16} {row['mask_AP']:7.3f} {row['mask_AP50']:6.3f} {row['mask_AP75']:6.3f} "
            f"{row['box_AP']:8.3f} {row['mask_iou']:10.3f} {minutes}"
        )
    return "\n".join(
        [
            *lines,
            f"mask AP from boxes / from masks: {summary['ratio of mask AP']:.3f}",
            "",
            "Look at:",
            f"  {out / 'scenes_boxes_masks.jpg'}   scene, masks learned from boxes, masks learned from masks",
            f"  {out / 'from_boxes' / 'curves.png'}   the curves of the training from boxes",
            f"  {out / 'predictions.json'}   its detections, in COCO's format",
        ]
    )
