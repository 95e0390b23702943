"""A trained model as an ONNX file that stands for it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from boxel.data.images import read_image
from boxel.data.samples import sample_images
from boxel.exporting.check import InstanceCheck, LogitCheck
from boxel.exporting.exporters import find_exporter
from boxel.exporting.trace import trace
from boxel.models.io import load
from boxel.utils.errors import BoxelError, first_line

PHOTOS = 4
"""Photos of the installed packages that a file is checked on, where none are given."""


def export(
    source: str | Path | nn.Module, path: str | Path, photos: Sequence[str | Path] | None = None
) -> InstanceCheck | LogitCheck:
    """Write a trained model as an ONNX file, once onnxruntime has agreed with torch on photos.

    The file takes batches and images of any size, and tells in its metadata what else must be known to run it
    without boxel.

    Args:
        source: a model folder, a name or hub id that :func:`~boxel.models.io.load` takes, or a model.
        path: of the file; its folder is made if needed.
        photos: image files to check it on; a few that come with installed packages where None.

    Returns:
        How the two agreed.

    Raises:
        BoxelError: the model can't be had or exported, the extra `onnx` is not installed, a photo can't be read, or
            the results differ. A file that was there is left as it was.
    """
    onnx = _onnx()
    path = Path(path)
    model: Any = load(source) if isinstance(source, (str, Path)) else deepcopy(source).cpu().eval()
    kind = find_exporter(model)
    if kind is None:
        raise BoxelError(f"{path}: a {type(model).__name__} can't be exported; name a BoxInst or a BoxCaseg.")
    graph = kind.graph(model).eval()
    pixels = [read_image(photo) for photo in photos or sample_images().paths[:PHOTOS]]

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        try:
            trace(graph, partial)
        except Exception as error:  # an operator without a translation, a shape that can't be traced
            raise BoxelError(
                f"{path}: the model can't be exported ({first_line(error)}); train it with another backbone."
            ) from error
        written = onnx.load(partial)
        onnx.helper.set_model_props(
            written, {"method": kind.method, "boxel": version("boxel"), **graph.about()}
        )
        onnx.save(written, partial)
        result = kind.check(model, partial, pixels)
        if not result.agrees:
            raise BoxelError(
                f"{path} is not written: onnxruntime and torch differ ({result}); try other versions of the two."
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return result


def _onnx() -> Any:
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise BoxelError(
            f"an export needs {error.name}, which is not installed; pip install 'boxel[onnx]'."
        ) from error
    return onnx
