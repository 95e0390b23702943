"""Errors that a user is meant to read.

A message is one sentence: what is wrong, where (file, id, field) and what to do. It names a setting in backticks, by
its name in Python (`val_images`); the command line renders it as the flag (`--val-images`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from os import PathLike
from typing import Any


class BoxelError(Exception):
    """The data, a file or a setting is invalid; the command line prints one sentence and exits with 1."""


class UsageError(BoxelError):
    """The arguments make no sense, whatever the data is; the command line exits with 2."""


class OutputError(BoxelError):
    """A file or folder cannot be written; all others of a job could not be either."""


class MissingExtraError(BoxelError, ImportError):
    """An optional package is not installed."""


def check_path(name: str, value: object, forms: str = "a path") -> None:
    """Raise a :class:`UsageError` unless an argument is a path; `forms` describes what else it could have been.

    Examples:
        >>> check_path("data", 5, "a path or Annotations")
        Traceback (most recent call last):
        boxel.utils.errors.UsageError: `data` is 5; give a path or Annotations.
    """
    if not isinstance(value, (str, PathLike)):
        raise UsageError(f"`{name}` is {one_line(repr(value))}; give {forms}.")


def nearest(name: str, known: list[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name closest to ``name``, or an empty string.

    The dashes of flags make no two names alike.

    Examples:
        >>> nearest("yollo", ["yolo", "voc"])
        " Did you mean 'yolo'?"
    """
    names = {one.lstrip("-"): one for one in known}
    close = get_close_matches(name.lstrip("-"), names, n=1)
    return f" Did you mean {names[close[0]]!r}?" if close else ""


EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "timm", "lightning", "safetensors", "tensorboard"), "train"),
    **dict.fromkeys(("matplotlib", "huggingface_hub"), "train"),
    **dict.fromkeys(("scipy", "skimage", "higra", "joblib"), "boxsup"),
    **dict.fromkeys(("fastapi", "starlette", "pydantic", "uvicorn"), "review"),
    "pyarrow": "parquet",
    "rasterio": "geo",
    "transformers": "sam",
    "onnx": "onnx",
    **dict.fromkeys(("ray", "fsspec"), "ray"),
}
"""The extra that brings a package, by the name of its module."""

CPU_BUILD = "without a GPU, install PyTorch's much smaller CPU build first: choose CPU on pytorch.org"


@contextmanager
def naming_extra(what: str) -> Iterator[None]:
    """Raise the error of :func:`missing_extra` for a package of an extra that is not installed; also a decorator."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRAS:
            raise
        raise missing_extra(what, error) from error


def missing_extra(what: str, error: ImportError, extra: str | None = None) -> MissingExtraError:
    """Return the error that names the optional dependencies to install; by default, the extra that has the package.

    Examples:
        >>> print(missing_extra("a plot", ImportError(name="matplotlib.pyplot")))
        a plot needs matplotlib, which is not installed; pip install 'boxel[train]'.
    """
    package = (error.name or "a package").partition(".")[0]
    extra = extra or EXTRAS.get(package, "train")
    hint = f" ({CPU_BUILD})" if extra == "train" and package != "matplotlib" else ""
    return MissingExtraError(
        f"{what} needs {package}, which is not installed; pip install 'boxel[{extra}]'{hint}."
    )


def import_package(name: str, what: str) -> Any:
    """Import a package of no extra, or raise a :class:`BoxelError` that names what needs it.

    Examples:
        >>> import_package("no_such", "a plot")
        Traceback (most recent call last):
        boxel.utils.errors.BoxelError: a plot needs no_such, which is not installed; pip install no_such.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise BoxelError(f"{what} needs {name}, which is not installed; pip install {name}.") from error


def one_line(error: object, limit: int = 120) -> str:
    """Return the text of an error as one short line without a full stop, for use within a sentence.

    The name of its type stands for an empty text, and a text above the limit of characters ends in an ellipsis.

    Examples:
        >>> one_line(ValueError("bad\\n value.")), one_line(KeyError("points"))
        ('bad value', 'it has no points')
    """
    text = f"it has no {error.args[0]}" if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(text.split()).rstrip(".") or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def first_line(error: object) -> str:
    """Return the first line of an error's text without a full stop, for errors whose further lines are details."""
    return one_line((str(error).splitlines() or [type(error).__name__])[0], limit=300)
