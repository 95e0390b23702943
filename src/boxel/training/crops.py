"""Training of models that predict masks of boxes from crops around them."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.config import CropConfig
from boxel.data.crops import CropDataset
from boxel.data.dataset import InstanceDataset
from boxel.data.formats.salient import select_single_objects
from boxel.data.samplers import MixedBatchSampler
from boxel.evaluation.boxes import compare_masks, summarize_validation
from boxel.masks.rle import encode
from boxel.training.lit_module import Batch, Task
from boxel.training.loader import Samples
from boxel.training.log import rank_zero_logger
from boxel.training.prepare import TrainingData
from boxel.training.settings import Run
from boxel.utils.errors import BoxelError
from boxel.viz.overlays import overlay

logger = rank_zero_logger(__name__)


def make_crop_samples(run: Run, data: TrainingData, model: Any) -> Samples:
    """Make crops of boxed instances and of salient images."""
    training, salient, settings = data.training, data.salient, run.settings
    boxed = training.select_instances(training.has_box & ~training.iscrowd)
    if not len(boxed.labels):
        raise BoxelError(f"{training.file}: not one box has an area; `boxel check` lists their issues.")
    if salient is not None:
        salient = _select_salient(salient, settings.crops, settings.seed)
    count = 0 if salient is None else len(salient)
    batches = partial(MixedBatchSampler, boxed, count, settings.crops, settings.batch_size, settings.seed)
    dataset = CropDataset(boxed, salient, settings.crops, settings.model.margin, model.padding_color)
    return Samples(dataset, batches, len(batches(0, 1)) * settings.batch_size, "crops")


def _select_salient(data: Annotations, config: CropConfig, seed: int) -> Annotations:
    """Return the images of single objects, or `salient_count` of them."""
    salient = select_single_objects(data)
    if not len(salient):
        raise BoxelError(
            f"{data.file}: none of its {len(data)} images shows a single object with its mask; name another "
            "`salient`, or leave it out to learn from boxes alone."
        )
    logger.info("%d of %d salient images show a single object and are used", len(salient), len(data))
    if config.salient_count is None:
        return salient
    order = np.random.default_rng(seed).permutation(len(salient))
    return salient.select_images(np.sort(order[: config.salient_count]))


class CropTask(Task):
    """Steps and validations of a box-to-mask model."""

    measures: ClassVar[tuple[str, ...]] = ("val/mask_iou", "val/box_agreement")

    def val_dataset(self, truth: Annotations) -> InstanceDataset:
        """Return the validation images at their own size, with their masks."""
        return InstanceDataset(truth.select_instances(truth.has_box & ~truth.iscrowd))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Predict masks of the boxes of an image, and compare them with the true ones."""
        for image, target in zip(*batch, strict=True):
            masks, _ = self.model([image.float() / 255], boxes=[target["boxes"]])
            ious, agreement = compare_masks(target, masks[0])
            self.results[target["image_id"]] = (ious.tolist(), agreement.tolist(), target["labels"].tolist())

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all images under `val/`."""
        self.log_metrics(summarize_validation(self.gather_results()))

    def picture(self, image: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """Draw the masks of the boxes on a validation image."""
        assert self.truth is not None
        own = self.truth.instances_in(index)
        boxes = torch.from_numpy(self.truth.boxes[own])
        pixels = torch.from_numpy(image).permute(2, 0, 1).float() / 255
        masks, _ = self.model([pixels.to(self.device)], boxes=[boxes.to(self.device)])
        codes = [encode(mask.cpu().numpy()) for mask in masks[0]]
        names = [category.name for category in self.truth.categories]
        return overlay(image, self.truth.boxes[own], codes, self.truth.labels[own], names)
