"""Training of models that give each pixel a class."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassConfusionMatrix

from boxel.data.annotations import Annotations
from boxel.data.dataset import SemanticDataset, collate
from boxel.data.label_maps import IGNORE_INDEX, has_pixel_labels
from boxel.data.samplers import AspectBatchSampler
from boxel.data.transforms import RandomScaleCrop
from boxel.evaluation.semantic import semantic_metrics
from boxel.models.semantic.inference import predict_probabilities, semantic_inference_config
from boxel.training.lit_module import Task
from boxel.training.loader import SampleRequest, Samples, shard_for_rank
from boxel.training.log import rank_zero_logger
from boxel.viz.overlays import overlay_labels

logger = rank_zero_logger(__name__)


def make_semantic_samples(request: SampleRequest) -> Samples:
    """Make random squares of images with the class of each pixel."""
    return _make_samples(request, request.data.training, instances=False)


def make_voting_samples(request: SampleRequest) -> Samples:
    """Make random squares of images with the instance of each pixel, which votes for its box."""
    training = request.data.training
    masked = np.unique(training.image_index[training.has_mask])
    return _make_samples(request, training.select_images(masked), instances=True)


def _make_samples(request: SampleRequest, training: Annotations, instances: bool) -> Samples:
    labeled = has_pixel_labels(training)
    if not labeled.all():
        logger.info("%d of %d images have boxes only and are left out", (~labeled).sum(), len(labeled))
        training = training.select_images(labeled)
    view = RandomScaleCrop(request.settings.views, request.model.padding_color.detach().clone())
    return make_view_samples(SemanticDataset(training, view, instances=instances), request)


def make_view_samples(
    dataset: SemanticDataset, request: SampleRequest, repeats: NDArray[np.integer] | None = None
) -> Samples:
    """Make batches of random squares, and report how much of a square the classifier sees.

    Args:
        dataset: The squares.
        request: What the samples are made from.
        repeats: (I,) how often each image is used per epoch; None for once.
    """
    settings = request.settings
    _check_field_of_view(request.model.config.field_of_view, settings.views.crop)

    def batches(rank: int, processes: int) -> AspectBatchSampler:
        return AspectBatchSampler(
            dataset.data, settings.batch_size, settings.seed, rank, processes, repeats=repeats
        )

    return Samples(dataset, batches, len(dataset) if repeats is None else int(repeats.sum()), "crops")


def _check_field_of_view(field_of_view: int, crop: int) -> None:
    """Log how far the classifier sees, and warn if that is farther than a square reaches."""
    logger.info("the classifier's field of view is %d of %d pixels", field_of_view, crop)
    if field_of_view > crop:
        logger.warning(
            "the classifier's field of view, %d pixels, is larger than the crops of %d, so that the outer weights of "
            "its kernel see mostly padding; lower `model.dilation` or `model.kernel`, or raise `views.crop`.",
            field_of_view,
            crop,
        )


class SemanticTask(Task):
    """Steps and validations of a semantic segmenter."""

    measures: ClassVar[tuple[str, ...]] = ("val/mean_iou", "val/pixel_accuracy")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # (K, K) pixels by true and predicted class; it adds up the processes by itself.
        self.confusion = MulticlassConfusionMatrix(self.model.num_classes, ignore_index=IGNORE_INDEX)
        self.own_images = 0

    @classmethod
    def select_measure(cls, truth: Annotations) -> str:
        """Return the first measure: validation data of a segmenter has label maps or masks."""
        return cls.measures[0]

    def val_loader(self, truth: Annotations, processes: int, rank: int) -> DataLoader:
        """Return this process's share of the validation images, at their own size."""
        labeled = truth.select_images(has_pixel_labels(truth))
        self.own_images = len(
            range(rank, len(labeled), processes)
        )  # what comes after them is another process's
        part = shard_for_rank(labeled, processes, rank)
        return DataLoader(
            SemanticDataset(part, classes=self.model.categories), batch_size=1, collate_fn=collate
        )

    def compute_losses(self, batch: tuple[list[Tensor], list[dict[str, Any]]]) -> dict[str, Tensor]:
        """Compute the raw losses of a batch by name, at the current progress of the training."""
        return self.model(*batch, progress=self.progress())

    def validation_step(self, batch: tuple[list[Tensor], list[dict[str, Any]]], batch_idx: int) -> None:
        """Compare the predicted classes of an image's pixels with the true ones."""
        if batch_idx < self.own_images:
            for image, target in zip(*batch, strict=True):
                self.confusion.update(self._predict(image), target["labels"].long())

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all images under `val/`."""
        matrix = self.confusion.compute().cpu().numpy()
        self.confusion.reset()
        names = [category.name for category in self.model.categories]
        present, predicted = matrix.sum(1) > 0, matrix.sum(0) > 0
        # A network that has just started may do so, too.
        if predicted.sum() == 1 < present.sum() and self.progress() >= 0.5:
            logger.warning(
                "all pixels are predicted as %s, so that the features may be lost; train again with a lower "
                "`optim.backbone_lr`, or a lower `optim.lr`.",
                names[int(predicted.argmax())],
            )
        metrics = semantic_metrics(matrix, names)
        del metrics["per_class"]
        # Every process has the same metrics.
        self.log_dict({f"val/{n}": v for n, v in metrics.items() if math.isfinite(v)}, sync_dist=False)

    def picture(self, image: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """SeededIndex the predicted classes on a validation image."""
        labels = self._predict(torch.from_numpy(image).permute(2, 0, 1).to(self.device))
        return overlay_labels(image, labels.cpu().numpy(), [c.name for c in self.model.categories])

    def _predict(self, image: Tensor) -> Tensor:
        """Return the (H, W) classes of an image's pixels."""
        config = semantic_inference_config(self.model)
        return predict_probabilities(self.model.network, image, config).argmax(0)
