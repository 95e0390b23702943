"""Training of models that give each pixel a class."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from boxel.data.annotations import Annotations
from boxel.data.dataset import SemanticDataset
from boxel.data.label_maps import IGNORE_INDEX, build_class_lookup, has_pixel_labels, make_label_map
from boxel.data.samplers import AspectBatchSampler
from boxel.data.transforms import RandomScaleCrop
from boxel.evaluation.semantic import semantic_metrics
from boxel.models.semantic.inference import predict_probabilities, semantic_inference_config
from boxel.training.lit_module import Batch, Task
from boxel.training.loader import Samples
from boxel.training.log import rank_zero_logger
from boxel.training.prepare import TrainingData
from boxel.training.settings import Run
from boxel.viz.overlays import overlay_labels

logger = rank_zero_logger(__name__)


def make_semantic_samples(run: Run, data: TrainingData, model: Any) -> Samples:
    """Make random squares of images with the class of each pixel."""
    return _make_samples(run, data.training, model, instances=False)


def make_voting_samples(run: Run, data: TrainingData, model: Any) -> Samples:
    """Make random squares of images with the instance of each pixel, which votes for its box."""
    masked = np.unique(data.training.image_index[data.training.has_mask])
    return _make_samples(run, data.training.select_images(masked), model, instances=True)


def _make_samples(run: Run, training: Annotations, model: Any, instances: bool) -> Samples:
    labeled = has_pixel_labels(training)
    if not labeled.all():
        logger.info("%d of %d images have boxes only and are left out", (~labeled).sum(), len(labeled))
        training = training.select_images(labeled)
    view = RandomScaleCrop(run.settings.views, model.network.padding_color.detach().clone())
    return make_view_samples(run, SemanticDataset(training, view, instances=instances), model)


def make_view_samples(
    run: Run, dataset: SemanticDataset, model: Any, repeats: NDArray[np.integer] | None = None
) -> Samples:
    """Make batches of random squares, `repeats` (I,) of each image, and report how much of one the classifier sees."""
    settings, field_of_view, crop = run.settings, model.config.field_of_view, run.settings.views.crop
    logger.info("the classifier's field of view is %d of %d pixels", field_of_view, crop)
    if field_of_view > crop:
        logger.warning(
            "the classifier's field of view, %d pixels, is larger than the crops of %d, so that the outer weights of "
            "its kernel see mostly padding; lower `model.dilation` or `model.kernel`, or raise `views.crop`.",
            field_of_view,
            crop,
        )
    batches = partial(AspectBatchSampler, dataset.data, settings.batch_size, settings.seed, repeats=repeats)
    return Samples(dataset, batches, len(dataset) if repeats is None else int(repeats.sum()), "crops")


class SemanticTask(Task):
    """Steps and validations of a semantic segmenter."""

    measures: ClassVar[tuple[str, ...]] = ("val/mean_iou",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # (K, K) pixels by true and predicted class; it adds up the processes by itself.
        self.confusion = MulticlassConfusionMatrix(self.model.num_classes, ignore_index=IGNORE_INDEX)

    def val_dataset(self, truth: Annotations) -> SemanticDataset:
        """Return the validation images at their own size."""
        return SemanticDataset(truth.select_images(has_pixel_labels(truth)), classes=self.model.categories)

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the raw losses of a batch by name, at the current progress of the training."""
        return self.model(*batch, progress=self.progress())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Compare the predicted classes of an image's pixels with the true ones."""
        if batch_idx < self.own_images:
            for image, target in zip(*batch, strict=True):
                self.confusion.update(self.predict(image).argmax(0), target["labels"].long())

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
        self.log_metrics({name: value for name, value in metrics.items() if isinstance(value, float)})

    def picture(self, image: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """Draw the predicted classes on a validation image."""
        probabilities = self.predict(torch.from_numpy(image).permute(2, 0, 1).to(self.device))
        names = [category.name for category in self.model.categories]
        return overlay_labels(image, probabilities.argmax(0).cpu().numpy(), names)

    def truth_picture(self, data: Annotations, image: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """Draw the true classes on a validation image, if they are known."""
        if not has_pixel_labels(data)[index]:
            return super().truth_picture(data, image, index)
        table = build_class_lookup(data, self.model.categories)
        names = [category.name for category in self.model.categories]
        return overlay_labels(image, table[make_label_map(data, index, image.shape[:2])], names)

    def predict(self, image: Tensor) -> Tensor:
        """Return (K, H, W) the probabilities of the classes at each pixel of a (3, H, W) uint8 image."""
        return predict_probabilities(self.model.network, image, semantic_inference_config(self.model))
