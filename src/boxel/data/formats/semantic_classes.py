"""Class tables: the class that each value of a label map stands for.

A table is a text with one class per line: ``7 road`` (or ``7: road``, ``7,road``), or just names, whose values then are
0, 1, 2 and so on. Several lines may give several values to one name. Values of the classes in `VOID_NAMES`, and those
not listed, are void. Lines that begin with ``#`` are comments.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import MAX_VALUE, Category, values_to_labels
from boxel.data.formats.builder import read_bytes, read_utf8
from boxel.data.formats.names import in_either_case
from boxel.utils.errors import BoxelError, nearest, one_line
from boxel.utils.files import is_file

_FOLDER = Path(__file__).parents[1] / "tables"

TABLES = tuple(sorted(file.stem for file in _FOLDER.glob("*.txt")))
"""Names of the bundled tables."""

VOID_NAMES = frozenset(("void", "unlabeled", "unlabelled", "ignore"))
"""Names, in lower case, that are not classes."""

LABEL_IDS, TRAIN_IDS = "_gtFine_labelIds", "_gtFine_labelTrainIds"
"""Endings of Cityscapes' two kinds of label maps."""

CLASS_LISTS = ("classes.txt", "class_names.txt")
"""File names of the class list of a dataset."""

_MAX_CLASSES = np.iinfo(np.int16).max
_NUMBERED = re.compile(r"(-?[0-9]{1,9})(?:\s*[:,\s]\s*(.*))?")


def load_class_table(source: str | Path) -> dict[int, str]:
    """Load the class of each value, without void.

    Args:
        source: One of `TABLES`, a file, or a run folder, whose classes are those of the maps that it predicts.

    Returns:
        Names by value, in the order of the table.

    Raises:
        BoxelError: There is no such table, or it cannot be understood.

    Examples:
        >>> load_class_table("cityscapes")[7]
        'road'
    """
    if os.path.isfile(Path(source) / "categories.json"):
        return _load_run_classes(Path(source) / "categories.json")
    built_in = isinstance(source, str) and source in TABLES
    file = _FOLDER / f"{source}.txt" if built_in else Path(source)
    if not os.path.isfile(file):
        raise BoxelError(
            f"{source}: there is no such class list; give a file, a run folder, or one of {', '.join(TABLES)}."
            f"{nearest(str(source), list(TABLES))}"
        )
    names: dict[int, str] = {}
    for number, value, name in _entries(file):
        if not 0 <= value <= MAX_VALUE:
            raise BoxelError(f"{file}: line {number} has the value {value}; a pixel has 0 to {MAX_VALUE}.")
        if value in names:
            raise BoxelError(f"{file}: line {number} repeats the value {value}; give each value one class.")
        names[value] = name
    table = {value: name for value, name in names.items() if name.lower() not in VOID_NAMES}
    if not 0 < len(set(table.values())) <= _MAX_CLASSES:
        raise BoxelError(
            f"{file}: this lists {len(set(table.values()))} classes; list 1 to {_MAX_CLASSES}, one per line."
        )
    return table


def _load_run_classes(file: Path) -> dict[int, str]:
    """Load the classes of a run."""
    try:
        return {int(row["id"]): str(row["name"]) for row in json.loads(read_bytes(file))}
    except (ValueError, KeyError, TypeError) as error:
        raise BoxelError(f"{file}: these are not the categories of a run ({one_line(error)}).") from error


def _entries(file: Path) -> list[tuple[int, int, str]]:
    """Return line number, value and name of each entry."""
    try:
        text = read_utf8(file).decode()
    except UnicodeDecodeError as error:
        raise BoxelError(
            f"{file}: this is not UTF-8 text ({one_line(error)}); a class list has one class per line."
        ) from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    matches = [_NUMBERED.fullmatch(line) for _, line in lines]
    numbered = any(matches)
    entries: list[tuple[int, int, str]] = []
    for (number, line), match in zip(lines, matches, strict=True):
        if numbered and match is None:
            raise BoxelError(
                f"{file}: line {number} has no value, but others have; give every line one, or none."
            )
        value, name = (len(entries), line) if match is None else (int(match[1]), match[2])
        if not name or not name.isprintable():
            raise BoxelError(f"{file}: line {number} has no class name; write it like `7 road`.")
        entries.append((number, value, name))
    return entries


def load_classes(
    folders: Sequence[Path], label_map: Path, choice: str | Path | None
) -> tuple[list[Category], NDArray[np.int16]]:
    """Load the categories of a dataset, each with the first of its values as id, and the `map_labels` of its files.

    The class list is the user's choice, see `load_class_table`, else in one of the folders, else that of the published
    dataset that has label maps named like this one.
    """
    source = choice or _first_file(folders, CLASS_LISTS) or _guess_table(label_map)
    if source is None:
        raise BoxelError(
            f"{label_map}: the classes of the values in this label map are unknown; name a text that lists them, or "
            f"one of {', '.join(TABLES)}, with `class_list`."
        )
    table = load_class_table(source)
    name_of = table
    if source == "pascal-context" and label_map.suffix.lower() == ".mat":  # 459 values of 60 classes
        names = _first_file(folders, ("labels.txt",))
        if names is None:
            raise BoxelError(
                f"{label_map}: PASCAL-Context's labels.txt, which names its values, is missing; "
                f"put it into {folders[-1]}."
            )
        name_of = _context_table(names, set(table.values()))
    id_of: dict[str, int] = {}
    for value, name in table.items():
        id_of.setdefault(name, value)
    label_of = {name: label for label, name in enumerate(id_of)}
    map_labels = values_to_labels({value: label_of[name] for value, name in name_of.items()})
    return [Category(id, name) for name, id in id_of.items()], map_labels


def _first_file(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    return next(
        filter(is_file, (in_either_case(folder / name) for folder in folders for name in names)), None
    )


def _guess_table(label_map: Path) -> str | None:
    """Guess the published class table of a label map from its name."""
    if label_map.suffix.lower() == ".mat":
        return "pascal-context"
    if label_map.stem.endswith(LABEL_IDS):
        return "cityscapes"
    if label_map.stem.endswith(TRAIN_IDS):
        return "cityscapes-train-ids"
    # Not of every folder that begins so: SegmentationClassContext and the output of other tools have other classes.
    return "voc" if label_map.parent.name in ("SegmentationClass", "SegmentationClassAug") else None


def _context_table(file: Path, classes: Set[str]) -> dict[int, str]:
    """Return the class of each value of PASCAL-Context's MATLAB files by its ``labels.txt``; others are background."""
    published = load_class_table(file)
    missing = sorted(classes - {"background", *published.values()})
    if missing:
        raise BoxelError(
            f"{file}: it lacks {missing[0]!r}, which PASCAL-Context's labels.txt has; use that file."
        )
    known = {value: name if name in classes else "background" for value, name in published.items()}
    return {0: "background"} | known
