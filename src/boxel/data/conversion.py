"""Convert a dataset from any format to any other."""

from __future__ import annotations

import warnings
from pathlib import Path

from boxel.data.annotations import Annotations
from boxel.data.formats import ConversionWarning, read, write
from boxel.data.issues import group_by_kind


def convert(
    source: str | Path,
    target: str | Path,
    to: str | None = None,
    images: str | Path | None = None,
    format: str | None = None,
    class_list: str | Path | None = None,
) -> Annotations:
    """Read a dataset and write it in another format.

    Original ids survive: formats without ids get a small file beside them, ``boxel-ids.json``. What the target format
    cannot hold, e.g. holes of masks in YOLO, is reported in a `ConversionWarning` with the mask IoU that it costs,
    measured on what was written. What is wrong with the source is reported too, once per kind of issue.

    Args:
        source: Annotation file or folder of a dataset.
        target: The JSON file (COCO) or the folder (other formats) to write.
        to: ``coco``, ``voc``, ``sbd``, ``yolo``, ``labelme``, ``salient`` or ``semantic``; if None, COCO for a
            ``.json`` file.
        images: Folder of the images; searched for if None.
        format: Format of the source; recognized if None.
        class_list: Class list of a semantic dataset; see :func:`boxel.read`.

    Returns:
        The dataset as read, with its issues.

    Raises:
        BoxelError: The source cannot be read, or the target cannot be written.

    Examples:
        >>> import tempfile
        >>> from boxel.data.samples import write_sample_images
        >>> folder = Path(tempfile.mkdtemp())
        >>> data = write_sample_images(folder)
        >>> _ = convert(folder / "boxes.json", folder / "voc", to="voc")
        >>> len(read(folder / "voc")) == len(data)
        True
    """
    data = read(source, images, format, class_list=class_list)
    for kind, issues in group_by_kind(data.issues).items():
        sentence = f"{len(issues)} x {kind}, the first: {issues[0].message}"
        warnings.warn(sentence, ConversionWarning, stacklevel=2)
    write(data, target, to)
    return data
