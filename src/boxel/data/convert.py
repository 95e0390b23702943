"""From any format to any other."""

from __future__ import annotations

import warnings
from pathlib import Path

from boxel.data.annotations import Annotations
from boxel.data.faults import Fault
from boxel.data.formats import LossWarning, read, write


def convert(
    source: str | Path,
    target: str | Path,
    to: str | None = None,
    images: str | Path | None = None,
    format: str | None = None,
    classes: str | Path | None = None,
) -> Annotations:
    """Read a data set and write it in another format.

    Original ids survive; a format that has none gets a small file beside it, ``boxel-ids.json``, that keeps them.
    What a format can't hold, as holes of masks in YOLO, is told in a `boxel.data.formats.LossWarning` with the mask
    IoU that it cost, measured on what was written; so is what was wrong in the source, once for each kind of fault.

    Args:
        source: an annotation file or the folder of a data set.
        target: the JSON file (COCO) or the folder (the others) to write.
        to: ``coco``, ``voc``, ``sbd``, ``yolo``, ``labelme`` or ``semantic``; COCO for a ``.json`` file if not given.
        images: the folder of the images; looked for if not given.
        format: of the source; recognized if not given.
        classes: the class list of a semantic set; see :func:`boxel.read`.

    Returns:
        The data set as read, its faults included.

    Raises:
        BoxelError: the source can't be read or the target can't be written.

    Example:
        >>> convert("boxes.json", "voc/", to="voc")  # doctest: +SKIP
    """
    data = read(source, images, format, classes=classes)
    for sentence in _faults_by_kind(data.faults):
        warnings.warn(sentence, LossWarning, stacklevel=2)
    write(data, target, to)
    return data


def _faults_by_kind(faults: list[Fault]) -> list[str]:
    """A sentence for each kind of fault: how many there are, and the first."""
    kinds: dict[str, list[str]] = {}
    for fault in faults:
        kinds.setdefault(fault.kind, []).append(fault.message)
    return [f"{len(messages)} x {kind}, the first: {messages[0]}" for kind, messages in kinds.items()]
