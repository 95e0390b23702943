"""The command that opens the review page, and writes the dataset as the reviewer leaves it."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxel.cli.options import AGAIN, ANNOTATIONS_HELP, DATA, Command, Option, check_writable, read_data

if TYPE_CHECKING:
    from boxel.data import Annotations

logger = logging.getLogger(__name__)


def _review_options() -> list[Option]:
    from boxel.labeling.review import DOUBT
    from boxel.utils.config import NonNegativeInt, OpenUnitInterval

    _, images, _ = DATA
    annotations = Option(
        "annotations", f"{ANNOTATIONS_HELP}; or a folder of images", positional=True, is_input=True
    )
    classes = "classes of the objects that you draw, if there are only images"
    decisions = (
        "SQLite file of what you decide, for this and later sessions; by default beside the annotations"
    )
    teacher = (
        "what predicts masks in boxes that you move or add, like that of `boxel label`; `none` for nothing"
    )
    export = "write the dataset with what you decided so far to this file or folder, and open no page"
    guarantee = "IoU with the true masks to guarantee, by what you decide in the random order"
    to = "format to write, as of `boxel convert`; by default coco for a .json file"
    return [
        annotations,
        images,
        Option("classes", classes, list[str], metavar="NAME,..."),
        Option("export", export, metavar="OUT", is_output=True),
        Option("format", to, aliases=("to",), metavar="FORMAT"),
        Option("decisions", decisions, metavar="FILE"),
        Option("teacher", teacher, default="boxcaseg"),
        Option("guarantee", guarantee, OpenUnitInterval, default=DOUBT),
        Option("port", "port of the page; 8765 if it is free", NonNegativeInt),
        Option("device", "`cpu`, `cuda`, `mps`, or `auto` for CUDA if available", default="auto"),
    ]


def _review(given: dict[str, Any]) -> int:
    from boxel.data import write
    from boxel.review import ReviewConfig, apply_decisions, decisions_path, is_folder_of_images

    source = given["annotations"]
    decisions = Path(given.get("decisions") or decisions_path(source))
    takes_images = "images" not in given and is_folder_of_images(source)
    data = _read_images(given) if takes_images else read_data(given)
    if "export" in given:
        reviewed, counts = apply_decisions(data, decisions)
        write(reviewed, given["export"], given.get("format"))
        print(f"{_describe(counts)}\nwritten to {given['export']}")
        return 0
    from boxel.review import serve_review  # which needs the extra, unlike what is above

    if len(data.ids) and not data.has_segmentation.any():
        logger.warning("%s has boxes only; `boxel label` predicts their masks first", source)
    check_writable(str(decisions))
    teacher = "" if given["teacher"] == "none" else given["teacher"]
    config = ReviewConfig(Path(source).name, teacher, given["guarantee"], takes_images)
    counts = serve_review(data, decisions, config, given.get("port"), given["device"], on_start=_print_link)
    words = [source, *(word for flag in ("images", "classes", "decisions") for word in _repeat(given, flag))]
    command = shlex.join(["boxel", "review", *words, "--export", "reviewed.json"])
    print(f"\n{_describe(counts)}\ndecisions: {decisions}\nto write them: {command}")
    return 0


def _read_images(given: dict[str, Any]) -> Annotations:
    from boxel.review import images_as_dataset

    return images_as_dataset(given["annotations"], given.get("classes", ()))


def _repeat(given: dict[str, Any], flag: str) -> list[str]:
    """Return a flag as it was given."""
    value = given.get(flag)
    if not value:
        return []
    return [f"--{flag}", ",".join(value) if isinstance(value, list) else value]


def _print_link(link: str) -> None:
    print(f"open {link}\nCtrl-C ends; every decision is kept at once", flush=True)


def _describe(counts: dict[str, int]) -> str:
    """State how many objects are in each state."""
    named = [f"{number:,} {state}" for state, number in counts.items() if number and state != "doubtful"]
    return f"objects: {', '.join(named) or 'none'}; {counts['doubtful']:,} in doubt and open"


REVIEW = Command(
    "Look at masks in a browser, worst first; accept, reject and correct them.",
    "masks.json --images photos/",
    _review_options,
    _review,
    AGAIN,
)
