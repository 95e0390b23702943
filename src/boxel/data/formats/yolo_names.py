"""Read what a YOLO dataset states about itself: ``data.yaml``, and lists of class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import yaml

from boxel.data.formats.builder import Builder, read_text
from boxel.data.formats.names import in_either_case
from boxel.data.formats.yolo_files import CLASS_LISTS
from boxel.utils.errors import BoxelError, one_line
from boxel.utils.files import is_file
from boxel.utils.safe_yaml import parse_yaml

YAML_SUFFIXES = (".yaml", ".yml")


class _TextLoader(yaml.SafeLoader):
    """Load plain values as the text that they are written as: a class may be called 007, no or 12:30."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


def yaml_in(folder: Path) -> Path | None:
    """Return the ``data.yaml`` or ``dataset.yaml`` in a folder, if there is one."""
    files = (folder / f"{name}{suffix}" for name in ("data", "dataset") for suffix in YAML_SUFFIXES)
    return next(filter(is_file, map(in_either_case, files)), None)


def find_yaml(folder: Path, below: Path | None = None) -> Path | None:
    """Find the ``data.yaml`` of the dataset that a folder is, or has in a folder ``below``, or is a split of."""
    places = [folder, *filter(None, [below]), *list(folder.resolve().parents)[:3]]
    return next(filter(None, map(yaml_in, places)), None)


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a ``data.yaml``; every plain value is text.

    Raises:
        BoxelError: It is not valid YAML, or not a mapping.
    """
    try:
        # Decoded here, as PyYAML guesses the encoding.
        config = parse_yaml(read_text(file), _TextLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise BoxelError(
            f"{file}: cannot be read as YAML ({one_line(error)}); repair or remove it."
        ) from error
    if not isinstance(config, dict):
        raise BoxelError(
            f"{file}: this is not a YOLO dataset; it should state where `train` is and list `names`."
        )
    return config


def keypoint_shape(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the number of keypoints and of numbers for each, if a ``data.yaml`` states them."""
    shape = config.get("kpt_shape")
    try:
        count, dims = (int(v) for v in shape)  # type: ignore[union-attr]  # checked by the error
    except (TypeError, ValueError):
        return None
    return (count, dims) if 0 < count < 10_000 and dims in (2, 3) else None


class _List(NamedTuple):
    """Class names by number, and the file that states them."""

    file: Path
    names: dict[int, str]


def find_class_names(
    config: Mapping[str, Any], config_file: Path | None, folders: Sequence[Path], top: Path, rows: Builder
) -> dict[int, str] | None:
    """Return the class names by number, as the list nearest to the labels states them.

    If another list contradicts it, this becomes an issue.

    Args:
        config: Content of ``data.yaml``.
        config_file: That file, if there is one.
        folders: The folders of the labels.
        top: The folder of the dataset; lists above it do not count, except for ``data.yaml``.
        rows: Gets the issues.

    Returns:
        None if they are not listed anywhere.

    Raises:
        BoxelError: A list cannot be read, or the lists of several label folders contradict each other.
    """
    stated = _stated_names(config, config_file, rows)
    lists: dict[Path, _List | None] = {}
    nearest: dict[Path, _List] = {}
    top = top.resolve()
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        above = [folder, *(parent for parent in folder.parents if parent == top or top in parent.parents)]
        for place in above:
            if place not in lists:
                lists[place] = _list_in(place, stated, rows)
        first = next((found for place in above if (found := lists[place])), stated)
        if first is not None:
            nearest[first.file] = first
    if not nearest:
        return None if stated is None else stated.names
    first, *rest = nearest.values()
    for other in rest:
        if _contradict(first, other) is not None:
            raise BoxelError(
                f"{first.file} and {other.file} give the same class different names; read each folder on its own, or "
                "remove the wrong list."
            )
        first.names.update(other.names)
    for other in filter(None, [*lists.values(), stated]):
        if other.file not in nearest and (number := _contradict(first, other)) is not None:
            nearest[other.file] = other
            what = f"class {number} is {first.names[number]!r} here and {other.names[number]!r} in {other.file}; "
            what += "the list nearest to the labels counts, so remove the wrong one."
            rows.report("class-lists", first.file, what, repair="")
    return first.names


def _contradict(a: _List, b: _List) -> int | None:
    return next((k for k, name in a.names.items() if b.names.get(k, name) != name), None)


def _list_in(folder: Path, stated: _List | None, rows: Builder) -> _List | None:
    """Return the list in a folder, of which that of ``data.yaml`` comes first."""
    if stated is not None and stated.file.parent.resolve() == folder:
        return stated
    file = next(filter(is_file, (in_either_case(folder / name) for name in CLASS_LISTS)), None)
    return None if file is None else _List(file, read_class_list(file, rows))


def read_class_list(file: Path, rows: Builder) -> dict[int, str]:
    """Read a text with one class name per line.

    Raises:
        BoxelError: The text is not UTF-8.
    """
    lines = read_text(file).splitlines()
    return {k: sound_name(line.strip(), k, file, rows) for k, line in enumerate(lines) if line.strip()}


def _stated_names(config: Mapping[str, Any], file: Path | None, rows: Builder) -> _List | None:
    names = config.get("names")
    if file is None or not names or names in ("~", "null"):
        return None
    if isinstance(names, str) and is_file(file.parent / names):
        return _List(file.parent / names, read_class_list(file.parent / names, rows))
    pairs: list[tuple[Any, Any]] = []
    if isinstance(names, list | dict):
        pairs = list(enumerate(names) if isinstance(names, list) else names.items())
    try:
        if not pairs or not all(isinstance(name, str | int | float) for _, name in pairs):
            raise ValueError
        found = {int(k): sound_name(str(name), int(k), file, rows) for k, name in pairs}
    except (TypeError, ValueError) as error:
        message = f"{file}: `names` must list the classes, or give each class number a name."
        raise BoxelError(message) from error
    count = str(config.get("nc", ""))
    if count.isdecimal() and count.lstrip("0") != str(len(found)):
        what = (
            f"`nc` is {one_line(count, 40)}, but `names` lists {len(found)}; correct the one that is wrong."
        )
        rows.report("class-lists", file, what, repair="")
    return _List(file, found)


def sound_name(name: str, number: int, file: Path, rows: Builder) -> str:
    """Return a class name as valid text; what is not becomes an issue."""
    try:
        name.encode()
    except UnicodeEncodeError:
        printable = name.encode("utf-8", "backslashreplace").decode()
        what = f"the name of class {number} is not valid text; it is read as {printable}."
        rows.report("bad-name", file, what, repair="written out")
        return printable
    return name
