"""Values of flags: how they are read, described and shown, by their types."""

from __future__ import annotations

from contextlib import suppress
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from boxel.utils.config import describe_type


def read_value(text: str, hint: Any) -> Any:
    """Return the value that a text of the command line stands for, or raise a `ValueError`; commas separate items.

    Examples:
        >>> read_value("0.5, 1", list[float]), read_value("null", int | None), read_value("a=b", dict[str, str])
        ([0.5, 1.0], None, {'a': 'b'})
    """
    plain, item = plain_type(hint), item_type(hint)
    if text == "null" and type(None) in get_args(hint):
        return None
    if item is not None:
        return [read_value(part.strip(), item) for part in text.strip("[]").split(",") if part]
    if plain == dict[str, str]:
        pairs = [entry.split("=") for entry in text.split(",") if entry]
        return {old.strip(): new.strip() for old, new in pairs}
    if get_origin(plain) is Literal:
        return get_args(plain)[[str(choice) for choice in get_args(plain)].index(text)]
    if get_origin(plain) in (Union, UnionType):
        for part in get_args(plain):
            with suppress(ValueError):
                return read_value(text, part)
        raise ValueError(text)
    number = getattr(plain, "_type", plain)  # of a type with a range
    return number(plain(number(text)))


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


def choices(hint: Any) -> list[str]:
    """List the texts that a flag may be, empty if there are others; of a list, those of its items."""
    return [choice for choice in get_args(item_type(hint) or plain_type(hint)) if isinstance(choice, str)]


def default_metavar(hint: Any) -> str:
    """Return what stands for a value of a type in the help."""
    plain = item_type(hint) or plain_type(hint)
    if get_origin(plain) in (Union, UnionType):
        plain = get_args(plain)[0]
    if choices(hint):
        name = "{" + ",".join(choices(hint)) + "}"
    elif plain == dict[str, str]:
        return "OLD=NEW,..."
    else:
        name = {int: "N", float: "X"}.get(getattr(plain, "_type", plain), "NAME")
    return f"{name},..." if item_type(hint) else name


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
