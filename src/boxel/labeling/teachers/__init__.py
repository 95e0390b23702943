"""Teachers: whatever draws the masks of given boxes, behind the one protocol of `boxel.labeling.teachers.base`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Category
from boxel.labeling.teachers import grabcut, shapes
from boxel.labeling.teachers.base import SoftMask, Teacher
from boxel.models.pretrained import SHIPPED
from boxel.utils.errors import UsageError, nearest

Draw = Callable[[NDArray[np.uint8], NDArray[np.float64]], SoftMask]
"""A function of an image and one box."""


def _crf(image: NDArray[np.uint8], box: NDArray[np.float64]) -> SoftMask:
    # Imported when it is asked for, as networks are.
    return import_module("boxel.labeling.teachers.crf").segment(image, box)


_DRAWN: dict[str, Draw] = {
    "rectangle": shapes.rectangle,
    "ellipse": shapes.ellipse,
    "inner-box": shapes.inner_box,
    "grabcut": grabcut.cut,
    "grabcut-ellipse": grabcut.cut_from_ellipse,
    "crf": _crf,
}


@dataclass
class PerBox:
    """A teacher that looks at one box at a time.

    Attributes:
        name: of the teacher.
        draw: its function of an image and a box.
    """

    name: str
    draw: Draw

    def __call__(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64], labels: NDArray[np.int32]
    ) -> list[SoftMask]:
        """One soft mask a box; see `Teacher`."""
        return [self.draw(image, box) for box in boxes]


def make_teacher(
    name: str,
    categories: Sequence[Category],
    device: str = "auto",
    margin: float = 0.0,
    threads: int = 1,
) -> Teacher:
    """The teacher of a name.

    A teacher may have an ``identity``, a text that changes whenever its masks would: a digest of its weights. Masks
    made under another one are never mixed with its own.

    Args:
        name: ``boxcaseg`` or ``boxcaseg-boxes`` (models that come with boxel), ``rectangle``, ``ellipse``,
            ``inner-box``, ``grabcut``, ``grabcut-ellipse``, ``crf``, ``sam:`` and a path or hub id, or a model folder
            or hub id.
        categories: of the boxes, in the order of their labels.
        device: where a network runs: `cpu`, `cuda`, `mps`, or `auto` for a GPU where there is one.
        margin: how far masks may reach past their box, as a share of its width and height.
        threads: that an image may take on the CPU, where several images are under way at once.

    Raises:
        BoxelError: there is no such teacher, or its weights can't be loaded.
    """
    if name in _DRAWN:
        return PerBox(name, _DRAWN[name])
    # Networks are imported when they are asked for, so that a rectangle does not wait for torch.
    kind, _, source = name.partition(":")
    if kind == "sam" and source:
        return import_module("boxel.labeling.teachers.sam").SamTeacher(source, _device(device), margin=margin)
    if name in SHIPPED or "/" in name or Path(name).is_dir():
        models = import_module("boxel.labeling.teachers.detector")
        return models.load_teacher(name, categories, _device(device), threads)
    known = [*_DRAWN, *SHIPPED, "sam:PATH"]
    raise UsageError(
        f"there is no teacher {name!r} ({', '.join(known)}, or a model folder).{nearest(name, known)}"
    )


def _device(name: str) -> str:
    """The device of a name, known to be there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"device {name} can't be had here ({reason[:120]}); try cpu.") from error
    return name
