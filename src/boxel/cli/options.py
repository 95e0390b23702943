"""What the commands share: the form of a command, flags of datasets and of inference, and checks of paths."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxel.utils.errors import BoxelError, UsageError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from boxel.cli.parser import Parser
    from boxel.data import Annotations
    from boxel.models.io import Model

logger = logging.getLogger(__name__)

INFERENCE = (
    "short_side",
    "long_side",
    "flip",
    "scales",
    "score_threshold",
    "batch_size",
    "tile",
    "shifts",
    "crf",
    "device",
)
"""Settings of how a model is run."""

JSON_HELP = "write the result as JSON to this file; - prints it instead of a table"
MODEL_HELP = "a model folder, boxcaseg, boxcaseg-boxes, or the id of a model on the Hugging Face hub"


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        help: What it does, in one sentence.
        example: A command line without `boxel` and the name of the command.
        add: Adds its arguments to a parser.
        run: Runs it on the arguments that were given, and returns the exit code.
    """

    help: str
    example: str
    add: Callable[[Parser], None]
    run: Callable[[Namespace], int]


def add_data(parser: Parser, *, several: bool = False, class_list: bool = True) -> None:
    """Add the arguments that name a dataset."""
    parser.add_positional(
        "annotations",
        "annotations in COCO, VOC, SBD, YOLO, LabelMe or label maps; the format is recognized"
        + (" (several are joined to one dataset)" if several else ""),
        several=several,
    )
    parser.add_flag(
        "images", str, "folder of the images, if it is not beside the annotations", metavar="FOLDER"
    )
    if class_list:
        parser.add_flag(
            "class_list",
            str,
            "classes of label maps: a text file of their values, or camvid, voc, cityscapes, pascal-context",
            metavar="FILE",
        )


def given_settings(given: Namespace, kind: type) -> dict[str, Any]:
    """Return the fields of a settings dataclass that were given."""
    return {field.name: given[field.name] for field in fields(kind) if field.name in given}


def read_data(given: Namespace, *, log_issues: bool = True, split: str | None = None) -> Annotations:
    """Read the annotations that a command line names."""
    from boxel.data import read, summarize_issues

    data = read(
        given.annotations, images=given.get("images"), split=split, class_list=given.get("class_list")
    )
    if data.issues and log_issues:
        logger.warning(summarize_issues(data.issues))
    return data


def load_model(folder: str, given: Namespace) -> Model:
    """Load a model on the device of `--device`."""
    from boxel.models.io import load
    from boxel.utils.device import resolve_device

    device = resolve_device(given.get("device", "auto"))
    return load(folder).to(device)


def split_names(text: str | None) -> list[str] | None:
    """Return the names that a text lists with commas between them.

    Examples:
        >>> split_names("yolo, voc")
        ['yolo', 'voc']
    """
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def write_json(value: object, path: str) -> None:
    """Write a value as JSON to a file, or print it if the path is `-`."""
    text = json.dumps(value, indent=1)
    if path == "-":
        print(text)
    else:
        Path(path).write_text(text)


def check_writable(name: str, *suffixes: str) -> Path:
    """Return the path of a file that is written at the end of a long command, after making its folder.

    Raises:
        UsageError: It is a folder, or its name ends on none of the suffixes.
        BoxelError: It cannot be written.
    """
    path = Path(name)
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file to write.")
    if suffixes and path.suffix.lower() not in suffixes:
        raise UsageError(f"{path}: end the name of this file with {' or '.join(suffixes)}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BoxelError(f"{path}: its folder cannot be made ({error}); name another file.") from error
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BoxelError(f"{path} cannot be written; name another file.")
    return path
