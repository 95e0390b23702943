"""Exported models run by onnxruntime, in place of the models they were made of."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from boxel.models.boxcaseg import BoxCaseg
from boxel.models.boxinst import BoxInst
from boxel.models.boxinst.losses import MASK_STRIDE
from boxel.models.detector import Detections, full_image_detections
from boxel.utils.onnx import load_session


class OnnxBoxCaseg:
    """A BoxCaseg whose network is an exported file; for :func:`~boxel.models.boxcaseg.inference.soft_masks`.

    Args:
        model: the file was made of; it goes on cutting the crops.
        path: the file.
        threads: for one batch; as many as torch takes where None.

    Raises:
        BoxelError: onnxruntime can't run the file.
    """

    def __init__(self, model: BoxCaseg, path: str | Path, threads: int | None = None) -> None:
        self.extract_crops = model.extract_crops
        self._session = load_session(path, threads or torch.get_num_threads())
        self._names = [put.name for put in self._session.get_inputs()]

    def predict_logits(self, crops: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return (B, S / 4, S / 4) logits of the object, as of `BoxCaseg.predict_logits`."""
        given = {"crops": crops, "rows": rows, "columns": columns}
        return torch.from_numpy(self._session.run(None, {n: given[n].cpu().numpy() for n in self._names})[0])


class OnnxBoxInst:
    """A BoxInst whose `detect` is an exported file's; for :func:`~boxel.models.inference.predict_batch`.

    Args:
        model: the file was made of.
        path: the file.
        threads: for one batch; as many as torch takes where None.

    Raises:
        BoxelError: onnxruntime can't run the file.
    """

    def __init__(self, model: BoxInst, path: str | Path, threads: int | None = None) -> None:
        self.categories, self.config, self.settings = model.categories, model.config, model.settings
        self.parameters = model.parameters
        self._session = load_session(path, threads or torch.get_num_threads())

    def detect(self, images: list[Tensor]) -> list[Detections]:
        """What is found in each image.

        Args:
            images: (3, H, W) float, RGB in [0, 1], all of one size.
        """
        batch = torch.stack(images).cpu().numpy()
        *found, image = (torch.from_numpy(values) for values in self._session.run(None, {"images": batch}))
        return [
            full_image_detections(*(values[image == index] for values in found), stride=MASK_STRIDE)
            for index in range(len(images))
        ]
