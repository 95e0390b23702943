"""Training of models that make masks of boxes from crops about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from boxel.data.annotations import Annotations
from boxel.data.crops import CropDataset
from boxel.data.dataset import InstanceDataset, collate
from boxel.data.formats.salient import select_single_objects
from boxel.data.samplers import MixedBatchSampler
from boxel.evaluation.boxes import compare_masks, summarize_validation
from boxel.masks.rle import encode
from boxel.training.callbacks.progress import say
from boxel.training.lit_module import Task, from_all_processes
from boxel.training.loader import Samples, shared_out
from boxel.training.pseudo_masks import with_hints
from boxel.utils.errors import BoxelError
from boxel.viz.overlays import overlay


def crops(training: Annotations, extra: Annotations | None, settings: Any, out: Path, model: Any) -> Samples:
    """Crops of boxed instances and of salient images.

    Args:
        training: the boxed set.
        extra: the salient images, or None; only those of a single object are taken.
        settings: the run's.
        out: folder of the run, where hints are kept.
        model: that is trained.
    """
    boxed = training.select_instances(training.has_box & ~training.iscrowd)
    if not len(boxed.labels):
        raise BoxelError(
            f"{training.file}: not one box has an area; `boxel check` lists what is wrong with them."
        )
    if settings.model.hint_weight > 0:
        boxed = with_hints(boxed, out / "hints.json", say)
    if extra is not None:
        salient = select_single_objects(extra)
        if not len(salient):
            raise BoxelError(
                f"{extra.file}: none of its {len(extra)} images shows a single object with its mask; name another "
                "--salient, or leave it out to learn from boxes alone."
            )
        say("%d of %d salient images show a single object and are learned from", len(salient), len(extra))
        extra = salient
        if settings.crops.salient_count is not None:
            order = np.random.default_rng(settings.seed).permutation(len(extra))
            extra = extra.select_images(np.sort(order[: settings.crops.salient_count]))
    count = 0 if extra is None else len(extra)

    def batches(rank: int, processes: int) -> MixedBatchSampler:
        return MixedBatchSampler(
            boxed, count, settings.crops, settings.batch_size, settings.seed, rank, processes
        )

    dataset = CropDataset(boxed, extra, settings.crops, settings.model.margin, model.padding_color)
    return Samples(dataset, batches, len(batches(0, 1)) * settings.batch_size, "crops")


class CropTask(Task):
    """Steps and validations of a model that is given the boxes."""

    measures: ClassVar[tuple[str, ...]] = ("val/mask_iou", "val/box_agreement")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.measured: dict[Any, tuple[Any, Any, Any]] = {}

    def val_loader(self, truth: Annotations, processes: int, rank: int) -> DataLoader:
        """This process's share of the validation images, as they are on disk, with their masks."""
        part = shared_out(truth, processes, rank)
        part = part.select_instances(part.has_box & ~part.iscrowd)
        return DataLoader(InstanceDataset(part), batch_size=1, collate_fn=collate)

    def validation_step(self, batch: tuple[list[Tensor], list[dict[str, Any]]], batch_idx: int) -> None:
        """Make masks of the boxes of an image, and compare them with the true ones."""
        for image, target in zip(*batch, strict=True):
            masks, _ = self.model([image.float() / 255], [target["boxes"]])
            ious, agreement = compare_masks(target, masks[0])
            self.measured[target["image_id"]] = (ious.tolist(), agreement.tolist(), target["labels"].tolist())

    def on_validation_epoch_end(self) -> None:
        """Log the figures of all images under `val/`."""
        together = from_all_processes(self.measured, self.trainer.world_size)
        self.measured = {}
        figures = summarize_validation(list(together.values()))
        # Every process has measured the same.
        self.log_dict({f"val/{name}": value for name, value in figures.items()}, sync_dist=False)

    def picture(self, photo: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """A validation image with the masks of its boxes."""
        assert self.truth is not None
        own = self.truth.instances_in(index)
        boxes = torch.from_numpy(self.truth.boxes[own])
        image = torch.from_numpy(photo).permute(2, 0, 1).float() / 255
        device = next(self.model.parameters()).device
        masks, _ = self.model([image.to(device)], [boxes.to(device)])
        codes = [encode(mask.cpu().numpy()) for mask in masks[0]]
        names = [category.name for category in self.truth.categories]
        return overlay(photo, self.truth.boxes[own], codes, self.truth.labels[own], names)
