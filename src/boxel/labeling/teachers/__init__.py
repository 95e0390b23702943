"""Teachers: whatever predicts the masks of given boxes, behind the protocol `Teacher`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Category
from boxel.labeling.teachers import baselines
from boxel.labeling.teachers.base import SoftMask, Teacher
from boxel.labeling.teachers.boxcaseg import BoxCasegTeacher, identify, open_exported, open_network
from boxel.models.exported.file import is_exported
from boxel.models.pretrained import BUNDLED, model_folder
from boxel.utils.device import resolve_device
from boxel.utils.errors import UsageError, missing_extra, nearest

BoxFunction: TypeAlias = Callable[[NDArray[np.uint8], NDArray[np.float64]], SoftMask]
"""A function of an (H, W, 3) RGB image and one (4,) box of xyxy pixels that is partly inside it."""

SAM_BATCH = 8
"""Maximum number of images per pass of SAM's encoder on a GPU; each takes up to 1.5 GB."""

_FUNCTIONS: dict[str, BoxFunction] = {
    "rectangle": baselines.rectangle,
    "ellipse": baselines.ellipse,
    "inner-box": baselines.inner_box,
    "grabcut": baselines.grabcut,
    "grabcut-ellipse": baselines.grabcut_ellipse,
    "grabcut-agree": baselines.grabcut_agree,
}


@dataclass
class FunctionTeacher:
    """A teacher that predicts the mask of one box at a time."""

    name: str
    predict: BoxFunction

    def __call__(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64], labels: NDArray[np.int32]
    ) -> list[SoftMask]:
        """Predict one soft mask per box; see `Teacher`."""
        return [self.predict(image, box) for box in boxes]


def make_teacher(
    name: str,
    categories: Sequence[Category] = (),
    device: str = "auto",
    margin: float = 0.0,
    threads: int = 1,
) -> Teacher:
    """Make the teacher of a name.

    Args:
        name: ``boxcaseg`` or ``boxcaseg-boxes`` (bundled networks), ``rectangle``, ``ellipse``, ``inner-box``,
            ``grabcut``, ``grabcut-ellipse``, ``grabcut-agree``, ``crf``, ``sam:`` or ``sam-refine:`` and a path or hub
            id, a model folder or hub id, or an exported BoxCaseg.
        categories: Categories of the boxes, in the order of their labels.
        device: Where a network runs: ``cpu``, ``cuda``, ``mps``, or ``auto`` for CUDA if available.
        margin: How far masks may reach past their box, as a share of its width and height.
        threads: Threads per image on the CPU.

    Raises:
        BoxelError: There is no such teacher, its weights cannot be loaded, or it needs packages that are missing.

    Examples:
        >>> make_teacher("ellipse").name
        'ellipse'
    """
    if name in _FUNCTIONS:
        return FunctionTeacher(name, _FUNCTIONS[name])
    kind, _, source = name.partition(":")
    try:  # what needs PyTorch is imported when it is used
        if name == "crf":
            return FunctionTeacher(name, import_module("boxel.labeling.teachers.crf").segment)
        if kind in ("sam", "sam-refine") and source:
            sam = import_module("boxel.labeling.teachers.sam")
            refined = make_teacher("boxcaseg", (), device, margin, threads) if kind == "sam-refine" else None
            where = resolve_device(device)
            return sam.SamTeacher(source, where, margin, refined, batch=1 if where == "cpu" else SAM_BATCH)
        if is_exported(name):
            return open_exported(name, device, threads)
        is_here = name in BUNDLED or Path(name).is_dir()
        if is_here or "/" in name:
            network = open_network(name, threads) if is_here and resolve_device(device) == "cpu" else None
            if network is not None:
                shown, identity = Path(name).as_posix(), identify(model_folder(name))
                return BoxCasegTeacher(network.soft_masks, shown, identity, network.threshold)
            models = import_module("boxel.labeling.teachers.detector")
            return models.load_teacher(name, categories, resolve_device(device), threads)
    except ImportError as error:
        raise missing_extra(name, error) from error
    known = [*_FUNCTIONS, "crf", *BUNDLED, "sam:PATH", "sam-refine:PATH"]
    raise UsageError(
        f"there is no teacher {name!r} ({', '.join(known)}, or a model folder).{nearest(name, known)}"
    )
