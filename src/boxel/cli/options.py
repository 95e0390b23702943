"""What the commands share: the form of a command, flags of datasets and of inference, and checks of paths."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxel.utils.errors import UsageError
from boxel.utils.files import make_parent, write_text

if TYPE_CHECKING:
    from boxel.data import Annotations

logger = logging.getLogger(__name__)

JSON_HELP = "write the result as JSON to this file; - prints it instead of a table"
MODEL_HELP = (
    "a model folder, a file of `boxel export`, boxcaseg, boxcaseg-boxes, boxinst, or OWNER/NAME[@REVISION] on the "
    "Hugging Face Hub"
)


RESUMES = "the same command resumes, and nothing that is done is lost"
AGAIN = "what is written is complete, and the same command starts from scratch"


@dataclass(frozen=True)
class Option:
    """A positional argument or a flag."""

    dest: str  # name of the setting, with dots for those of a section
    help: str  # what it does, in one or two sentences
    hint: Any = str  # type of the value
    metavar: str = ""  # what stands for its value in the help; by default that of its type
    default: Any = None  # value if it is not given; None if there is none
    aliases: tuple[str, ...] = ()  # shorter names; the help shows the first
    positional: bool = False  # not a flag
    several: bool = False  # takes several values with spaces between them
    is_input: bool = False  # names files or folders that must be there
    is_output: bool = False  # names what one process at a time writes; `-` is standard output
    is_setting: bool = False  # the library has the default, so that only a value that was given counts
    group: str = ""  # title of its group in the help; empty for none
    hidden: bool = False  # only `--help-all` shows it
    value_optional: bool = False  # the flag may stand without a value, which is then empty

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return self.dest.upper() if self.positional else self.flags[0]

    @property
    def flags(self) -> tuple[str, ...]:
        """The flag and its longer spellings."""
        names = () if self.positional else (*self.aliases, self.dest)
        return tuple("--" + name.replace("_", "-") for name in names)

    @property
    def spellings(self) -> tuple[str, ...]:
        """All flags, with the one that turns a switch off."""
        return (*self.flags, f"--no-{self.name[2:]}") if self.is_switch else self.flags

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value."""
        return self.hint in (bool, bool | None)


@dataclass(frozen=True)
class Command:
    """A command of the command line."""

    help: str  # what it does, in one sentence
    example: str  # a command line without `boxel` and the name of the command
    options: Callable[[], list[Option]]  # lists its options; only then what they need is imported
    run: Callable[[dict[str, Any]], int]  # takes the values of its options by name, and returns the exit code
    on_stop: str = ""  # what a user reads who has stopped it


ANNOTATIONS_HELP = (
    "annotations in COCO, YOLO, Darknet, VOC, SBD, LabelMe, CVAT, Label Studio, FiftyOne, Parquet or label maps; the "
    "format is recognized"
)
IMAGES_HELP = "folder of the images, if it is not beside the annotations"
CLASSES_HELP = (
    "classes of label maps: a text file of their values, or camvid, voc, cityscapes, pascal-context"
)
DATA = (
    Option("annotations", ANNOTATIONS_HELP, positional=True, is_input=True),
    Option("images", IMAGES_HELP, metavar="FOLDER", is_input=True),
    Option("class_list", CLASSES_HELP, metavar="FILE"),
)
"""The options that name a dataset."""


def given_settings(given: dict[str, Any], kind: type) -> dict[str, Any]:
    """Return the fields of a settings dataclass that were given."""
    return {field.name: given[field.name] for field in fields(kind) if field.name in given}


def read_data(given: dict[str, Any], split: str | None = None) -> Annotations:
    """Read the annotations that a command line names."""
    from boxel.data import read, summarize_issues

    data = read(given["annotations"], given.get("images"), split=split, class_list=given.get("class_list"))
    if data.issues:
        logger.warning(summarize_issues(data.issues))
    return data


def write_json(value: object, path: str) -> None:
    """Write a value as JSON to a file, or print it if the path is `-`."""
    text = json.dumps(value, indent=1)
    if path == "-":
        print(text)
    else:
        write_text(path, text)


def check_writable(name: str, *suffixes: str) -> Path:
    """Return the path of a file that a long command writes at its end; make its folder, or raise if it cannot be."""
    path = Path(name)
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file to write.")
    if suffixes and path.suffix.lower() not in suffixes:
        raise UsageError(f"{path}: end the name of this file with {' or '.join(suffixes)}.")
    make_parent(path)
    return path
