"""Exported models, run by onnxruntime instead of torch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from boxel.models.boxcaseg import BoxCaseg
from boxel.models.boxinst.losses import MASK_STRIDE
from boxel.models.detector import Detections, Detector, full_image_detections
from boxel.models.mask_rcnn.heads import grid_windows
from boxel.models.semantic.model import Segmenter
from boxel.utils.onnx import load_session


class OnnxBoxCaseg:
    """A BoxCaseg whose network is its exported file; for :func:`~boxel.models.boxcaseg.inference.soft_masks`."""

    def __init__(self, model: BoxCaseg, path: str | Path, threads: int | None = None) -> None:
        self.extract_crops = model.extract_crops
        self._session = load_session(path, threads or torch.get_num_threads())
        self._names = [node.name for node in self._session.get_inputs()]

    def predict_logits(
        self, crops: Tensor, rows: Tensor, columns: Tensor, neighbors: Tensor | None = None
    ) -> Tensor:
        """Return the logits of the object, as of `BoxCaseg.predict_logits`."""
        neighbors = torch.zeros_like(crops[:, 0]) if neighbors is None else neighbors
        given = {"crops": crops, "rows": rows, "columns": columns, "neighbors": neighbors}
        return torch.from_numpy(self._session.run(None, {n: given[n].cpu().numpy() for n in self._names})[0])


class OnnxDetector:
    """A detector whose `detect` is its exported file's; for :func:`~boxel.models.inference.predict_batch`."""

    def __init__(self, model: Detector, path: str | Path, threads: int | None = None) -> None:
        self.categories, self.config, self.settings = model.categories, model.config, model.settings
        self.parameters = model.parameters
        self._session = load_session(path, threads or torch.get_num_threads())

    def detect(self, images: list[Tensor]) -> list[Detections]:
        """Return the detections in each image, (3, H, W) float RGB in [0, 1], all of one size."""
        batch = torch.stack(images).cpu().numpy()
        *outputs, image_index = map(torch.from_numpy, self._session.run(None, {"images": batch}))
        return [
            self._detections(*(values[image_index == index] for values in outputs))
            for index in range(len(images))
        ]

    def _detections(self, boxes: Tensor, scores: Tensor, labels: Tensor, mask_logits: Tensor) -> Detections:
        """Return the detections in an image, from the outputs of the file for it."""
        raise NotImplementedError


class OnnxBoxInst(OnnxDetector):
    """The exported file of a BoxInst."""

    def _detections(self, boxes: Tensor, scores: Tensor, labels: Tensor, mask_logits: Tensor) -> Detections:
        margin = self.config.mask_margin
        return full_image_detections(boxes, scores, labels, mask_logits, stride=MASK_STRIDE, margin=margin)


class OnnxMaskRCNN(OnnxDetector):
    """The exported file of a Mask R-CNN."""

    def _detections(self, boxes: Tensor, scores: Tensor, labels: Tensor, mask_logits: Tensor) -> Detections:
        return Detections(boxes, scores, labels, mask_logits, grid_windows(boxes), boxes)


class OnnxSegmenter:
    """A segmenter whose network is its exported file; for `predict_label_map` of `boxel.models.semantic.inference`."""

    def __init__(self, model: Segmenter, path: str | Path, threads: int | None = None) -> None:
        self.categories, self.settings = model.categories, model.settings
        self.parameters = model.parameters
        self.network = OnnxFullyConvolutional(model, path, threads)


class OnnxFullyConvolutional:
    """The network of a segmenter, run from its exported file."""

    def __init__(self, model: Segmenter, path: str | Path, threads: int | None = None) -> None:
        self.stride, self.padding_color = model.network.stride, model.network.padding_color
        self._session = load_session(path, threads or torch.get_num_threads())

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits of cells, as of `FullyConvolutional`."""
        return self.predict_labels(images)[1]

    def predict_labels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (B, H, W) uint8 classes of (B, 3, H, W) float RGB in [0, 1], and the logits of cells."""
        labels, logits = map(torch.from_numpy, self._session.run(None, {"images": images.cpu().numpy()}))
        return labels, logits
