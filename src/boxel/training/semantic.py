"""Training of models that give each pixel a class."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from boxel.data.annotations import Annotations
from boxel.data.dataset import SemanticDataset, collate
from boxel.data.label_maps import has_pixel_labels
from boxel.data.samplers import AspectBatchSampler
from boxel.data.transforms import RandomScaleCrop
from boxel.evaluation.semantic import confusion, semantic_metrics
from boxel.models.semantic.inference import predict_probabilities, semantic_inference_config
from boxel.training.callbacks.progress import say
from boxel.training.lit_module import Task, from_all_processes
from boxel.training.loader import Samples, shared_out
from boxel.viz.overlays import overlay_labels


def views(training: Annotations, extra: Annotations | None, settings: Any, out: Path, model: Any) -> Samples:
    """Random squares of images, with the class of each pixel.

    Args:
        training: the set.
        extra: unused; this kind of training has one set.
        settings: the run's.
        out: unused.
        model: that is trained.
    """
    return _views(training, settings, model, instances=False)


def instance_views(
    training: Annotations, extra: Annotations | None, settings: Any, out: Path, model: Any
) -> Samples:
    """The same, with the instance of each pixel."""
    masked = np.unique(training.image_index[training.has_mask])
    return _views(training.select_images(masked), settings, model, instances=True)


def _views(training: Annotations, settings: Any, model: Any, instances: bool) -> Samples:
    labeled = has_pixel_labels(training)
    if not labeled.all():
        say("%d of %d images have boxes only and are left out", (~labeled).sum(), len(labeled))
        training = training.select_images(labeled)
    view = RandomScaleCrop(settings.views, model.padding_color.detach().clone())
    return crops_of(SemanticDataset(training, view, instances=instances), settings, model)


def crops_of(
    dataset: SemanticDataset, settings: Any, model: Any, repeats: NDArray[np.integer] | None = None
) -> Samples:
    """Batches of a data set's samples for a model, and a word on how much of a crop its classifier sees.

    Args:
        dataset: the samples.
        settings: the run's.
        model: that is trained.
        repeats: (I,) how often each image is shown in an epoch; once where None.
    """
    _check_field_of_view(model, settings)

    def batches(rank: int, processes: int) -> AspectBatchSampler:
        return AspectBatchSampler(
            dataset.data, settings.batch_size, settings.seed, rank, processes, repeats=repeats
        )

    return Samples(dataset, batches, len(dataset) if repeats is None else int(repeats.sum()), "crops")


def _check_field_of_view(model: Any, settings: Any) -> None:
    """Say how far the classifier sees, and warn where that is further than a crop reaches."""
    seen, crop = model.config.field_of_view, settings.views.crop
    say("the classifier's field of view is %d of %d pixels", seen, crop)
    if seen > crop:
        warnings.warn(
            f"the classifier's field of view, {seen} pixels, is larger than the crops of {crop}: the outer weights of "
            "its kernel see mostly padding; lower model.dilation or model.kernel, or raise views.crop.",
            stacklevel=1,
        )


class SemanticTask(Task):
    """Steps and validations of a model that gives each pixel a class."""

    measures: ClassVar[tuple[str, ...]] = ("val/mean_iou", "val/pixel_accuracy")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.matrices: dict[Any, NDArray[np.int64]] = {}

    def val_loader(self, truth: Annotations, processes: int, rank: int) -> DataLoader:
        """This process's share of the validation images, as they are on disk."""
        part = shared_out(truth.select_images(has_pixel_labels(truth)), processes, rank)
        return DataLoader(
            SemanticDataset(part, classes=self.model.categories), batch_size=1, collate_fn=collate
        )

    def validation_step(self, batch: tuple[list[Tensor], list[dict[str, Any]]], batch_idx: int) -> None:
        """Compare the classes of an image's pixels with the true ones."""
        for image, target in zip(*batch, strict=True):
            found = self._labels(image)
            self.matrices[target["image_id"]] = confusion(
                target["labels"].cpu().numpy(), found, self.model.num_classes
            )

    def on_validation_epoch_end(self) -> None:
        """Log the figures of all images under `val/`."""
        together = from_all_processes(self.matrices, self.trainer.world_size)
        self.matrices = {}
        names = [category.name for category in self.model.categories]
        total = np.sum(list(together.values()), axis=0)
        true, called = total.sum(1) > 0, total.sum(0) > 0
        if called.sum() == 1 < true.sum() and self.progress() >= 0.5:  # before that it is a beginning
            warnings.warn(
                f"every pixel is called {names[int(called.argmax())]}: the features may be lost for good; train "
                "anew with a lower optim.backbone_lr, or a lower optim.lr.",
                stacklevel=1,
            )
        figures = semantic_metrics(total, names)
        scalars = {name: value for name, value in figures.items() if name != "per_class"}
        # Every process has measured the same.
        self.log_dict({f"val/{n}": v for n, v in scalars.items() if math.isfinite(v)}, sync_dist=False)

    def picture(self, photo: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """A validation image with the classes of its pixels."""
        image = torch.from_numpy(photo).permute(2, 0, 1).to(self.device)
        return overlay_labels(
            photo, self._labels(image), [category.name for category in self.model.categories]
        )

    def _labels(self, image: Tensor) -> NDArray[np.int64]:
        return (
            predict_probabilities(self.model.network, image, semantic_inference_config(self.model))
            .argmax(0)
            .cpu()
            .numpy()
        )
