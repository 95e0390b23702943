"""BoxCaseg as a teacher: one crop per box through a small network."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boxel.labeling.teachers.base import SoftMask
from boxel.labeling.teachers.lines import add_line
from boxel.masks.crops import SoftMasks, extract_crops, predict_soft_masks
from boxel.models.pretrained import ONNX_FILE, export_command, model_digests, model_folder, read_method
from boxel.utils.errors import BoxelError
from boxel.utils.onnx import load_session

logger = logging.getLogger(__name__)


class BoxCasegTeacher:
    """A BoxCaseg network as a teacher; ``predict`` returns the soft masks of the boxes of an image.

    It is `calibrated` if it has no threshold of its own: then its logits are of probabilities, to which those of a line
    are added where it is in doubt.
    """

    def __init__(
        self,
        predict: Callable[[NDArray[np.uint8], NDArray[np.float64]], SoftMasks],
        name: str = "boxcaseg",
        identity: str = "",
        threshold: float | None = None,
    ) -> None:
        self._predict, self.name, self.identity = predict, name, identity
        self.calibrated = threshold is None

    def __call__(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64], labels: NDArray[np.int32]
    ) -> list[SoftMask]:
        """Predict one soft mask per box, whatever its label; see :class:`~boxel.labeling.teachers.base.Teacher`."""
        found = zip(*self._predict(image, boxes), strict=True)
        soft_masks = [SoftMask(logits, tuple(window), float(score)) for logits, window, score in found]
        if not self.calibrated:
            return soft_masks
        return [add_line(image, box, soft) for box, soft in zip(boxes, soft_masks, strict=True)]


class OnnxNetwork:
    """The ONNX file in the folder of a BoxCaseg, run by onnxruntime without PyTorch; several threads may call it."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self._session = load_session(folder / ONNX_FILE, threads)
        self._inputs = [node.name for node in self._session.get_inputs()]
        about = self._session.get_modelmeta().custom_metadata_map
        # Of the folder that it was made from.
        self.digests = {name: about.get(name) for name in ("weights", "settings")}
        self._side, self._margin = json.loads(about["side"]), json.loads(about["margin"])
        self.threshold: float | None = json.loads(about["threshold"])
        self._padding_color = np.round(255 * np.array(json.loads(about["mean"]))).tolist()

    def soft_masks(self, image: NDArray[np.uint8], boxes: NDArray[np.float64]) -> SoftMasks:
        """Predict the logits of the object in each of (N, 4) boxes of xyxy pixels in an (H, W, 3) RGB image."""
        return predict_soft_masks(partial(self._predict, image, boxes), boxes)

    def _predict(
        self, image: NDArray[np.uint8], others: NDArray[np.float64], boxes: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        crops = extract_crops(image, boxes, self._side, self._margin, self._padding_color, others)
        pixels = crops.pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255  # (N, 3, S, S)
        given = crops._asdict() | {"crops": pixels}
        return self._session.run(None, {name: given[name] for name in self._inputs})[0], crops.windows


def open_network(source: str, threads: int = 1) -> OnnxNetwork | None:
    """Open the ONNX file of a BoxCaseg; None if its folder has none, or one that is ignored with a warning."""
    folder = model_folder(source)
    if folder != Path(source):  # a bundled one, in which nothing changes
        return OnnxNetwork(folder, threads)
    path = folder / ONNX_FILE
    if read_method(folder) != "boxcaseg" or not (path.is_file() and (folder / "model.safetensors").is_file()):
        return None
    try:
        network = OnnxNetwork(folder, threads)
        if network.digests == model_digests(folder):
            return network
        reason = "it was made from other weights or settings"
    except (BoxelError, KeyError) as error:  # damaged, or another model's
        logger.debug("%s", error)
        reason = "it cannot be run"
    logger.warning("%s is ignored, since %s; `%s` writes it again.", path, reason, export_command(folder))
    return None


def identify(folder: Path) -> str:
    """Return the identity of the teacher in the folder of a BoxCaseg, whatever runs it."""
    return " ".join(model_digests(folder).values())
