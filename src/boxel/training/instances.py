"""Training of models that find instances in whole images."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.copy_paste import CopyPasteDataset
from boxel.data.dataset import InstanceDataset
from boxel.data.samplers import AspectBatchSampler
from boxel.data.transforms import train_transforms
from boxel.evaluation import BOX_LIKE, box_agreement, choose_thresholds, coco_ap, mask_iou, mean_fill
from boxel.models.detector import Detector
from boxel.models.fcrn import FCRNInstances
from boxel.models.inference import inference_config_from_training, predict_batch
from boxel.models.mask_rcnn import MaskRCNN
from boxel.models.settings import InferenceConfig
from boxel.models.thresholds import SCORE_THRESHOLDS, ScoreThresholds
from boxel.training.lit_module import Batch, Task
from boxel.training.loader import Samples
from boxel.training.log import rank_zero_logger
from boxel.training.prepare import TrainingData
from boxel.training.settings import Run

logger = rank_zero_logger(__name__)

MIN_PICTURE_SCORE = 0.3  # minimum score of the instances drawn in sample pictures


def make_image_samples(run: Run, data: TrainingData, model: Any) -> Samples:
    """Make whole images with all their instances."""
    training, settings = data.training, run.settings
    hinted = getattr(settings.model, "hint_weight", 0) > 0
    batches = partial(AspectBatchSampler, training, settings.batch_size, settings.seed)
    transforms, share = train_transforms(settings.augment), settings.augment.copy_paste
    dataset = (
        CopyPasteDataset(training, transforms, hinted, share=share)
        if share
        else InstanceDataset(training, transforms, hinted)
    )
    return Samples(dataset, batches, len(training), "images")


class InstanceTask(Task):
    """Steps and validations of a model that finds instances."""

    measures: ClassVar[tuple[str, ...]] = ("val/mask_AP", "val/box_AP")
    val_batch_size: ClassVar[int] = 4
    score_thresholds: ScoreThresholds | None = None  # of the last validation

    def val_dataset(self, truth: Annotations) -> InstanceDataset:
        """Return the validation images at their own size."""
        return InstanceDataset(truth.without_masks())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Find the instances of a batch of images of their own size."""
        images = [image.permute(1, 2, 0).cpu().numpy() for image in batch[0]]
        predictions = predict_batch(self.model, images, self.inference_config())
        for instances, target in zip(predictions, batch[1], strict=True):
            self.results[target["image_id"]] = instances.to_coco(target["image_id"])

    def on_validation_epoch_end(self) -> None:
        """Compare the instances of all images with the truth, and log the metrics under `val/`."""
        assert self.truth is not None
        results = [row for rows in self.gather_results() for row in rows]
        metrics = validation_metrics(results, self.truth)
        if metrics.get("mask_fill", 0.0) > BOX_LIKE:
            cause = diagnose_filled_masks(self.model, self.progress())
            logger.warning("masks fill %.0f%% of their boxes: %s.", 100 * metrics["mask_fill"], cause)
        self.log_metrics(metrics)
        self.score_thresholds = choose_thresholds(self.truth, results)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the metrics of the weights with them, and the best score thresholds."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[SCORE_THRESHOLDS] = self.score_thresholds

    def picture(self, image: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """Draw the instances found in a validation image."""
        instances = predict_batch(self.model, [image], self.inference_config())[0]
        return instances[instances.scores >= MIN_PICTURE_SCORE].plot(image)

    def inference_config(self) -> InferenceConfig:
        """Return the size of the images in validation, which is that of the training."""
        return inference_config_from_training(asdict(self.config))


def diagnose_filled_masks(model: Detector, progress: float) -> str:
    """Name the likely cause of masks that fill their boxes, and a remedy, given the share of the schedule done."""
    if isinstance(model, FCRNInstances):
        return "the semantic network may have learned from boxes instead of masks; check what it predicts"
    if isinstance(model, MaskRCNN):
        return "the masks that it learns from may be boxes, or `model.mask_loss` asks for too little"
    weight, final = (model.loss_weights(at)["affinity"] for at in (progress, 1.0))
    if final == 0:
        return "the affinity loss is off (`model.affinity_weight` is 0)"
    if weight < final:
        return f"the affinity loss has weight {weight:.2f} of {final:.2f}, so wait for the end of its warm-up"
    edges = "too many edges across outlines count as positive, so raise `model.tau` (see `boxel inspect affinity`)"
    if model.loss_weights(progress).get("hint"):
        return f"{edges}, or the training is too short so far"
    return f"{edges}, or boxes alone are too little for so short a training, so set `model.hint_weight` to 1"


def validation_metrics(results: list[dict[str, Any]], truth: Annotations) -> dict[str, float]:
    """Compute the few metrics of COCO results that are worth following during training, those that are finite."""
    box = coco_ap(truth, results, "bbox")
    metrics = {"box_AP": box["AP"], "box_AP50": box["AP50"]}
    if truth.has_mask.any():
        mask = coco_ap(truth, results, "segm")
        metrics |= {"mask_AP": mask["AP"], "mask_AP50": mask["AP50"], "mask_AP75": mask["AP75"]}
        metrics["mask_iou"] = mask_iou(truth, results)["mask_iou"]
    else:
        metrics["box_agreement"] = box_agreement(truth, results)["mean"]
    metrics["mask_fill"] = mean_fill(results)
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
