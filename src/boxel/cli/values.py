"""Values of flags: how they are read, described and shown, by their types."""

from __future__ import annotations

from collections.abc import Callable
from types import UnionType
from typing import Any, Union, get_args, get_origin

from boxel.utils.config import describe_type
from boxel.utils.errors import nearest


def describe_value(hint: Any) -> str:
    """Describe the value of a flag, e.g. `a number from 0 to 1`.

    Examples:
        >>> describe_value(list[int] | None)
        'a whole number, or several with commas'
    """
    item = item_type(hint)
    if item is not None:
        return f"{describe_type(item)}, or several with commas"
    if plain_type(hint) == dict[str, str]:
        return "OLD=NEW, or several with commas"
    return describe_type(hint)


def suggest(value: str, hint: Any) -> str:
    """Return a sentence that names the choice nearest to a value, or an empty string."""
    choices = [choice for choice in get_args(plain_type(hint)) if isinstance(choice, str)]
    return nearest(value, choices)


def plain_type(hint: Any) -> Any:
    """Return a type without None."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    parts = [part for part in get_args(hint) if part is not type(None)]
    return parts[0] if len(parts) == 1 else hint


def item_type(hint: Any) -> Any:
    """Return the type of the items of a list or a tuple, or None for anything else."""
    plain = plain_type(hint)
    return get_args(plain)[0] if get_origin(plain) in (list, tuple) else None


def make_reader(hint: Any) -> Any:
    """Return what reads the text of a flag: a type that jsonargparse knows, or a function for lists and pairs."""
    item = item_type(hint)
    if item is not None:
        return _list_reader(item)
    return _read_pairs if plain_type(hint) == dict[str, str] else hint


def _list_reader(item: Any) -> Callable[[Any], Any]:
    def read_items(text: Any) -> Any:  # the parser also calls it with what it has returned
        if text in (None, "null"):
            return None
        parts = text.strip("[]").split(",") if isinstance(text, str) else text
        convert = getattr(item, "_type", item)
        return [
            item(convert(part.strip() if isinstance(part, str) else part)) for part in parts if part != ""
        ]

    return read_items


def _read_pairs(text: Any) -> dict[str, str]:
    if not isinstance(text, str):
        return text
    return {old.strip(): new.strip() for old, new in (entry.split("=") for entry in text.split(",") if entry)}


def default_metavar(hint: Any) -> str:
    """Return what stands for a value of a type in the help."""
    plain = item_type(hint) or plain_type(hint)
    choices = [choice for choice in get_args(plain) if isinstance(choice, str)]
    if choices:
        return "{" + ",".join(choices) + "}"
    number = getattr(plain, "_type", plain)
    name = {int: "N", float: "X"}.get(number, "NAME")
    if plain == dict[str, str]:
        name = "OLD=NEW"
    return f"{name},..." if item_type(hint) is not None or plain == dict[str, str] else name


def default_text(value: Any) -> str:
    """Return a default as it is written on the command line; empty for None and for an empty list.

    Examples:
        >>> default_text([0.5, 2 / 3])
        '0.5,0.667'
    """
    if value is None or value in ([], {}, ()):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ",".join(map(default_text, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
