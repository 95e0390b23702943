"""Load an exported file as the kind of model that it is."""

from __future__ import annotations

from pathlib import Path

from boxel.methods import METHODS
from boxel.models.exported.box_to_mask import ExportedBoxToMask
from boxel.models.exported.detector import ExportedDetector
from boxel.models.exported.file import ExportedFile
from boxel.models.exported.segmenter import ExportedSegmenter


def load_exported(
    path: str | Path, threads: int | None = None
) -> ExportedDetector | ExportedSegmenter | ExportedBoxToMask:
    """Load a file of `boxel export`.

    Args:
        path: The file.
        threads: Threads per image; one per core if None.

    Returns:
        A model that is used like that of the run folder, see :func:`boxel.load`.

    Raises:
        BoxelError: The file is missing, damaged, not one of boxel's or lacks something.

    Examples:
        >>> import numpy as np
        >>> from boxel.models.pretrained import model_folder
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> len(load_exported(model_folder("boxcaseg") / "model.onnx").predict(image, [[0, 0, 4, 4]]))
        1
    """
    file = ExportedFile(path, threads)
    kind = METHODS[file.method].kind
    if kind == "detector":
        return ExportedDetector(file)
    return ExportedSegmenter(file) if kind == "segmenter" else ExportedBoxToMask(file)
