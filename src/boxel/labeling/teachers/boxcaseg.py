"""BoxCaseg as a teacher: one crop per box through a small network."""

from __future__ import annotations

import logging
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boxel.labeling.teachers.base import SoftMask
from boxel.labeling.teachers.lines import add_line
from boxel.masks.crops import SoftMasks
from boxel.models.exported import ExportedBoxToMask, load_exported
from boxel.models.exported.file import ExportedFile
from boxel.models.pretrained import (
    BUNDLED,
    ONNX_FILE,
    export_command,
    model_digests,
    model_folder,
    read_method,
)
from boxel.utils.errors import BoxelError, UsageError

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


def open_network(source: str, threads: int = 1) -> ExportedBoxToMask | None:
    """Open the ONNX file of a BoxCaseg; None if its folder has none, or one that is ignored with a warning."""
    folder = model_folder(source)
    if source in BUNDLED and folder != Path(source):  # nothing changes in it
        return ExportedBoxToMask(ExportedFile(folder / ONNX_FILE, threads))
    path = folder / ONNX_FILE
    if read_method(folder) != "boxcaseg" or not (path.is_file() and (folder / "model.safetensors").is_file()):
        return None
    try:
        network = ExportedBoxToMask(ExportedFile(path, threads))
        digests = model_digests(folder)  # of the folder that it was made from
        same = {name: network.file.about.get(name) for name in digests} == digests
        precision = network.file.about.get("precision", "float32")
        if same and precision == "float32":
            return network
        reason = f"it is {precision}" if same else "it was made from other weights or settings"
    except BoxelError as error:  # damaged, or another model's
        logger.debug("%s", error)
        reason = "it cannot be run"
    logger.warning("%s is ignored, since %s; `%s` writes it again.", path, reason, export_command(folder))
    return None


def open_exported(path: str, device: str = "cpu", threads: int = 1) -> BoxCasegTeacher:
    """Open an exported BoxCaseg as a teacher, whose identity is the content of its file."""
    model = load_exported(path, threads).to("cpu" if device == "auto" else device)
    if not isinstance(model, ExportedBoxToMask):
        raise UsageError(
            f"{path} is of {model.file.method}, which takes no boxes; name an exported BoxCaseg."
        )
    identity = blake2b(Path(path).read_bytes(), digest_size=8).hexdigest()
    return BoxCasegTeacher(model.soft_masks, Path(path).as_posix(), identity, model.threshold)


def identify(folder: Path) -> str:
    """Return the identity of the teacher in the folder of a BoxCaseg, whatever runs it."""
    return " ".join(model_digests(folder).values())
