"""Exported models in the place of the networks of PyTorch models, with all that PyTorch adds to them.

They decode the outputs as `boxel.models.exported` does, which runs exported files without PyTorch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from boxel.models.boxcaseg import BoxCaseg
from boxel.models.boxcaseg.inference import CropSegmenter
from boxel.models.boxinst.losses import MASK_STRIDE
from boxel.models.detector import Detections, Detector
from boxel.models.exported.detector import MaskGrid, split_detections
from boxel.models.semantic.model import Segmenter
from boxel.utils.onnx import load_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class OnnxBoxCaseg(CropSegmenter):
    """A BoxCaseg whose network is its exported file."""

    def __init__(
        self, model: BoxCaseg, path: str | Path | InferenceSession, threads: int | None = None
    ) -> None:
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

    def __init__(
        self, model: Detector, path: str | Path | InferenceSession, threads: int | None = None
    ) -> None:
        self.categories, self.config, self.settings = model.categories, model.config, model.settings
        self.parameters = model.parameters
        self._session = load_session(path, threads or torch.get_num_threads())

    def detect(self, images: list[Tensor]) -> list[Detections]:
        """Return the detections in each image, (3, H, W) float RGB in [0, 1], all of one size."""
        outputs = self._session.run(None, {"images": torch.stack(images).cpu().numpy()})
        found = split_detections(outputs, len(images), self._grid())
        return [Detections(*map(torch.from_numpy, one)) for one in found]

    def _grid(self) -> MaskGrid | None:
        """Return how the masks lie over the image; None if they cover their boxes."""
        return None


class OnnxBoxInst(OnnxDetector):
    """The exported file of a BoxInst."""

    def _grid(self) -> MaskGrid | None:
        return MaskGrid(MASK_STRIDE, self.config.mask_margin)


class OnnxMaskRCNN(OnnxDetector):
    """The exported file of a Mask R-CNN."""


class OnnxSegmenter:
    """A segmenter whose network is its exported file; for `predict_label_map` of `boxel.models.semantic.inference`."""

    def __init__(
        self, model: Segmenter, path: str | Path | InferenceSession, threads: int | None = None
    ) -> None:
        self.categories, self.settings = model.categories, model.settings
        self.parameters = model.parameters
        self.network = OnnxFullyConvolutional(model, path, threads)


class OnnxFullyConvolutional:
    """The network of a segmenter, run from its exported file."""

    def __init__(
        self, model: Segmenter, path: str | Path | InferenceSession, threads: int | None = None
    ) -> None:
        self.stride, self.padding_color = model.network.stride, model.network.padding_color
        self._session = load_session(path, threads or torch.get_num_threads())

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits of cells, as of `FullyConvolutional`."""
        return self.predict_labels(images)[1]

    def predict_labels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (B, H, W) uint8 classes of (B, 3, H, W) float RGB in [0, 1], and the logits of cells."""
        labels, logits = map(torch.from_numpy, self._session.run(None, {"images": images.cpu().numpy()}))
        return labels, logits
