"""What all exported models share: the file with its metadata, and how it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Category
from boxel.methods import METHODS
from boxel.utils.config import Config
from boxel.utils.device import available_cores
from boxel.utils.errors import BoxelError, UsageError, first_line, one_line
from boxel.utils.onnx import load_session

ModelT = TypeVar("ModelT", bound="ExportedModel")


def is_exported(source: object) -> bool:
    """Return whether a path names an ONNX file, by its suffix.

    Examples:
        >>> is_exported("runs/model.onnx")
        True
    """
    return (
        isinstance(source, str | Path)
        and Path(source).suffix.lower() == ".onnx"
        and not Path(source).is_dir()
    )


class ExportedFile:
    """An ONNX file that `boxel export` has written; several threads may run it.

    Args:
        path: The file.
        threads: Threads per call; one per core if None.

    Attributes:
        path: The file.
        method: The method of its model, e.g. `boxinst`.
        about: All of its metadata, as text.

    Raises:
        BoxelError: The file is missing, damaged or not one of boxel's.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise BoxelError(f"{path}: there is no such file; check the path.")
        self._session = load_session(path, threads or available_cores())
        try:
            self.about: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise BoxelError(f"{path}: its metadata are damaged ({error}); export the run again.") from error
        self.inputs = [node.name for node in self._session.get_inputs()]
        self.method = self.about.get("method", "")
        if not {"method", "boxel"} <= set(self.about):
            raise BoxelError(
                f"{path}: this ONNX file is not one of boxel, which states its method in the metadata; name a file "
                "that `boxel export` has written."
            )
        if self.method not in METHODS:
            raise BoxelError(
                f"{path}: this version of boxel does not know the method {one_line(self.method, 40)!r} of the file, "
                f"which boxel {one_line(self.about['boxel'], 40)} has written; upgrade boxel."
            )

    def state(self, name: str, kind: Any) -> Any:
        """Return an entry of the metadata, of a type of msgspec.

        Raises:
            BoxelError: The file lacks the entry, or it is of another type.
        """
        try:
            return msgspec.json.decode(self.about[name], type=kind)
        except (KeyError, msgspec.MsgspecError, RecursionError) as error:
            what = f"has no {name}" if name not in self.about else f"has a damaged {name} ({one_line(error)})"
            raise BoxelError(
                f"{self.path}: the metadata {what}; export the run again with this version of boxel."
            ) from error

    def check_names(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Raise a :class:`BoxelError` unless the file takes some of these inputs only, and gives these outputs."""
        given = [node.name for node in self._session.get_outputs()]
        if not set(self.inputs) <= set(inputs) or given != list(outputs):
            raise BoxelError(
                f"{self.path}: a file of {self.method} takes {', '.join(inputs)} and gives {', '.join(outputs)}, but "
                f"this one {', '.join(self.inputs)} and {', '.join(given)}; export the run again."
            )

    def run(self, given: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the outputs of the network, floats as float32, for its inputs; others that are given are ignored."""
        try:
            outputs = self._session.run(None, {name: given[name] for name in self.inputs})
        except Exception as error:  # out of memory, a shape that some operator does not take
            shape = " x ".join(map(str, next(iter(given.values())).shape))
            raise BoxelError(
                f"{self.path}: onnxruntime cannot run it on an input of {shape} ({one_line(first_line(error), 200)}); "
                "try smaller images, or export the run again."
            ) from error
        return [value.astype(np.float32) if value.dtype == np.float16 else value for value in outputs]


class ExportedModel:
    """Base class of exported models.

    Attributes:
        file: The file.
        categories: The categories of the labels.
        settings: What the file states of the training, as the settings of a run do.
    """

    kind: ClassVar[Literal["detector", "segmenter", "box_to_mask"]]  # as of :class:`~boxel.methods.Method`
    categories: tuple[Category, ...]

    def __init__(self, file: ExportedFile) -> None:
        self.file = file
        self.settings: dict[str, Any] = {}

    def __repr__(self) -> str:
        """Return the class and the file."""
        return f"{type(self).__name__}({str(self.file.path)!r}, {self.file.method})"

    def to(self: ModelT, device: object) -> ModelT:
        """Return the model itself, which runs on the CPU.

        Raises:
            UsageError: Another device is wanted.
        """
        if str(device) != "cpu":
            raise UsageError(
                f"`device` is {device}, but exported files run on the CPU; leave it out, or name the run that "
                f"{self.file.path} was exported from."
            )
        return self

    def refuse(self, settings: Mapping[str, Any], config: Config, followed: Sequence[str]) -> None:
        """Raise a :class:`UsageError` for a setting that the file cannot follow, unless it has the default."""
        for name, value in settings.items():
            if name not in followed and value not in (getattr(config, name, None), None, False):
                raise UsageError(
                    f"`{name}` cannot be used with an exported file; leave it out, or name the run that "
                    f"{self.file.path} was exported from."
                )


def run_by_size(images: Sequence[NDArray[np.uint8]], run: Any) -> list[Any]:
    """Return what a function of (B, 3, H, W) float images in [0, 1] gives for each, those of one size in one call."""
    results: dict[int, Any] = {}
    for size in dict.fromkeys(image.shape for image in images):
        alike = [index for index, image in enumerate(images) if image.shape == size]
        batch = np.stack([images[index] for index in alike]).transpose(0, 3, 1, 2)
        results |= zip(alike, run(batch.astype(np.float32) / 255), strict=True)
    return [results[index] for index in range(len(images))]
