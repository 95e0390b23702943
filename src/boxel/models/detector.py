"""What all models that find instances have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from boxel.data.annotations import Category
from boxel.masks.paste import paste_windows
from boxel.models.predict import Instances, Photo, predict_photos

Target = dict[str, Any]


class Detections(NamedTuple):
    """What is found in one image, best first.

    Attributes:
        boxes: (N, 4) xyxy pixels of the image as the model got it.
        scores: (N,) in [0, 1].
        labels: (N,) int64.
        mask_logits: (N, h, w) over each instance's window.
        windows: (N, 4) xyxy pixels that these cells cover from edge to edge.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    mask_logits: Tensor
    windows: Tensor


def over_image(
    boxes: Tensor, scores: Tensor, labels: Tensor, mask_logits: Tensor, *, stride: int
) -> Detections:
    """What is found in one image with mask logits over the whole of it, and perhaps over padding.

    Args:
        boxes: as of :class:`Detections`.
        scores: likewise.
        labels: likewise.
        mask_logits: (N, h, w), from the image's corner on.
        stride: pixels to a cell.
    """
    height, width = mask_logits.shape[-2:]
    window = boxes.new_tensor([0, 0, stride * width, stride * height])
    return Detections(boxes, scores, labels, mask_logits, window.expand(len(boxes), 4))


class Detector(nn.Module):
    """A model that finds the instances of images.

    In training, ``model(images, targets)`` gives a dict of raw losses, to be summed with :meth:`loss_weights`; in
    eval, ``model(images)`` gives a list of dicts with `boxes`, `labels`, `scores` and `masks` (compressed run-length
    codes), as torchvision's detectors do.

    Args:
        num_classes: K, with no class for the background.
        config: every other choice.

    Attributes:
        categories: tuple of `Category`, what the labels mean; their numbers until a data set gives names.
        settings: dict, the configuration of the run that made the model; empty before.
    """

    def __init__(self, num_classes: int, config: Any):
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.categories = tuple(Category(label, str(label)) for label in range(num_classes))
        self.settings: dict[str, Any] = {}

    def forward(self, images: list[Tensor], targets: list[Target] | None = None) -> Any:
        """Losses in training, instances in eval.

        Args:
            images: (3, H, W) float RGB in [0, 1] each, of any sizes.
            targets: in training, what :meth:`losses` takes.

        Returns:
            A dict of scalar losses, or a list of dicts, an image each.
        """
        if not self.training:
            return [
                {
                    "boxes": found.boxes,
                    "labels": found.labels,
                    "scores": found.scores,
                    "masks": paste_windows(
                        found.mask_logits, found.boxes, found.windows, (image.shape[-2], image.shape[-1])
                    ),
                }
                for found, image in zip(self.detect(images), images, strict=True)
            ]
        if targets is None:
            raise ValueError("in training the model needs targets")
        return self.losses(images, targets)

    def predict(self, photos: Photo | Sequence[Photo], **options: Any) -> Instances | list[Instances]:
        """Instances of photos of any size; see :func:`~boxel.models.predict.predict_photos`."""
        return predict_photos(self, photos, **options)

    def detect(self, images: list[Tensor]) -> list[Detections]:
        """Instances of each image with their mask logits, before anything is pasted.

        Args:
            images: as in `forward`.
        """
        raise NotImplementedError

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Raw losses by name.

        Args:
            images: as in `forward`.
            targets: for each image at least `boxes` (N, 4) xyxy, `labels` (N,) and, where there are any, `iscrowd`
                (N,) bool, `masks` (N, H, W) and `has_mask` (N,) bool, which of these are learned from; all are where
                it is missing.
        """
        raise NotImplementedError

    def loss_weights(self, progress: float) -> dict[str, float]:
        """Weight of each loss at a point of the schedule.

        Args:
            progress: share of the schedule that is done, in [0, 1].

        Returns:
            The weight by the loss's name.
        """
        raise NotImplementedError

    def why_filled(self, progress: float) -> str:
        """What may be the cause where masks fill their boxes, and what to do; in words for a warning.

        Args:
            progress: share of the schedule that is done, in [0, 1].
        """
        raise NotImplementedError
