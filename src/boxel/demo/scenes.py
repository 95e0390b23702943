"""What boxel does, without data: masks of boxes on real photos, then a network trained from boxes and from masks."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from boxel.data import Annotations
from boxel.data.images import read_image
from boxel.data.synthetic import write_scenes
from boxel.demo.photos import label_photos
from boxel.evaluation import coco_ap, fill_boxes, mask_iou
from boxel.evaluation.run import predict_dataset
from boxel.models.io import load
from boxel.training import train
from boxel.training.recipe import read_config
from boxel.viz.overlays import contact_sheet, overlay, save_image

TRAINING_SEED, HIDDEN_SEED = 1, 3
"""Seeds of the scenes; those that settings were chosen on had seed 2."""


def demo(
    out: str | Path = "demo", steps: int | None = None, scenes: int = 600, hidden: int = 100
) -> dict[str, Any]:
    """Label real photos; then train from boxes and from masks, with the same steps, on generated scenes.

    Both are measured, the trainings on hidden masks of other scenes.

    Args:
        out: folder for everything it makes. Masks and trainings already in it are not made again.
        steps: optimizer steps of each training; the recipe's where None.
        scenes: to train on.
        hidden: scenes to measure on.

    Returns:
        What it prints, also written to `summary.json`; what there is of it where it was asked to stop.
    """
    out = Path(out)
    summary: dict[str, Any] = {"photos": label_photos(out)}

    print(f"\ngenerating {scenes} scenes to train on and {hidden} with hidden masks")
    write_scenes(out / "train", scenes, seed=TRAINING_SEED)
    truth = write_scenes(out / "hidden", hidden, seed=HIDDEN_SEED)

    changes: dict[str, Any] = {"steps": steps} if steps else {}
    results = {}
    for kind in ("boxes", "masks"):
        run = out / f"from_{kind}"
        began = time.monotonic()
        if not (run / "model.safetensors").exists():
            print(f"\ntraining from {kind}: {run}")
            trained = train(
                "boxinst",
                out / "train" / f"{kind}.json",
                images=out / "train" / "images",
                out=run,
                config=read_config("demo", **changes),
                resume=(run / "checkpoints" / "last.ckpt").exists(),
            )
            if trained is None:
                print("The demo was stopped; the same command goes on.")
                return summary
        results[kind] = predict_dataset(load(run), truth, batch_size=4)
        summary[kind] = figures(results[kind], truth) | {"minutes": round((time.monotonic() - began) / 60, 1)}
    summary["box filled"] = figures(fill_boxes(truth, results["boxes"]), truth)
    summary["ratio of mask AP"] = round(
        summary["boxes"]["mask_AP"] / max(summary["masks"]["mask_AP"], 1e-9), 3
    )

    (out / "predictions.json").write_text(json.dumps(results["boxes"]))
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    _draw(out, truth, results)
    _print(out, summary)
    return summary


def figures(results: list[dict[str, Any]], truth: Annotations) -> dict[str, float]:
    """What a row of a table of results holds: APs of masks and boxes, and the mask IoU of what was found."""
    mask, box = coco_ap(truth, results, "segm"), coco_ap(truth, results, "bbox")
    row = {
        "mask_AP": mask["AP"],
        "mask_AP50": mask["AP50"],
        "mask_AP75": mask["AP75"],
        "box_AP": box["AP"],
    }
    # A network that found nothing has no mask IoU; 0 keeps the table and the JSON readable.
    return {name: round(float(np.nan_to_num(v)), 4) for name, v in (row | mask_iou(truth, results)).items()}


def _draw(out: Path, truth: Annotations, results: dict[str, list[dict[str, Any]]], count: int = 4) -> None:
    """Each row: the scene, masks of the network trained from boxes, masks of its twin."""
    names = [category.name for category in truth.categories]
    label_of = {category.id: label for label, category in enumerate(truth.categories)}
    cells = []
    for index in range(min(count, len(truth))):
        photo = read_image(truth.image_path(index))
        cells.append(photo)
        for kind in ("boxes", "masks"):
            found = [
                r for r in results[kind] if r["image_id"] == truth.image_ids[index] and r["score"] >= 0.3
            ]
            corners = np.array([r["bbox"] for r in found]).reshape(-1, 4)
            corners[:, 2:] += corners[:, :2]
            labels = np.array([label_of[r["category_id"]] for r in found], dtype=int)
            cells.append(overlay(photo, corners, [r["segmentation"] for r in found], labels, names))
    save_image(contact_sheet(cells, columns=3, cell=320), out / "scenes_boxes_masks.jpg")


def _print(out: Path, summary: dict[str, Any]) -> None:
    print("\nmeasured on scenes whose masks no training saw:")
    print("                   mask AP   AP50   AP75   box AP   mask IoU   minutes")
    for kind in ("boxes", "masks", "box filled"):
        row = summary[kind]
        minutes = f"{row['minutes']:9.1f}" if "minutes" in row else ""
        print(
            f"  {kind:<16} {row['mask_AP']:7.3f} {row['mask_AP50']:6.3f} {row['mask_AP75']:6.3f} "
            f"{row['box_AP']:8.3f} {row['mask_iou']:10.3f} {minutes}"
        )
    print(f"mask AP from boxes / from masks: {summary['ratio of mask AP']:.3f}")
    print(f"pictures (scene, from boxes, from masks): {out / 'scenes_boxes_masks.jpg'}")
    print(f"curves: {out / 'from_boxes' / 'curves.png'}   detections: {out / 'predictions.json'}")
