"""Settings as dataclasses whose types state the range of each number."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser
from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
    restricted_number_type,
)

from boxel.utils.errors import BoxelError, nearest, one_line

__all__ = [
    "ClosedUnitInterval",
    "Config",
    "HalfOpenUnitInterval",
    "NonNegativeFloat",
    "NonNegativeInt",
    "OpenUnitInterval",
    "PositiveFloat",
    "PositiveInt",
    "describe_type",
    "known_keys",
    "parse_config",
]

HalfOpenUnitInterval = restricted_number_type("HalfOpenUnitInterval", float, [(">=", 0), ("<", 1)])

ConfigT = TypeVar("ConfigT")


@dataclass
class Config:
    """Base class of settings: each number is checked against the range that its type states.

    Raises:
        BoxelError: A number is out of range.

    Examples:
        >>> @dataclass
        ... class Smoothing(Config):
        ...     share: ClosedUnitInterval = 0.5
        >>> Smoothing(share=2)
        Traceback (most recent call last):
        boxel.utils.errors.BoxelError: share is 2; give a number from 0 to 1.
    """

    def __post_init__(self) -> None:
        for name, number in _ranges(type(self)).items():  # type: ignore[arg-type]
            value = getattr(self, name)
            several = isinstance(value, (list, tuple))
            plain = [_to_plain(name, one, number) for one in (value if several else [value])]
            # A frozen dataclass has no other way.
            object.__setattr__(self, name, type(value)(plain) if several else plain[0])


def parse_config(
    kind: type[ConfigT], values: Mapping[str, Any] | ConfigT | None = None, where: str = "the settings"
) -> ConfigT:
    """Build a settings dataclass from a mapping, with nested mappings for nested dataclasses.

    Args:
        kind: The dataclass.
        values: Settings by name; those left out keep their defaults. An instance of ``kind`` is copied.
        where: What the values were read from, for messages.

    Raises:
        BoxelError: A key is unknown (the nearest known one is named), or a value has the wrong type or range.

    Examples:
        >>> @dataclass
        ... class Smoothing(Config):
        ...     share: ClosedUnitInterval = 0.5
        >>> parse_config(Smoothing, {"share": 1})
        Smoothing(share=1.0)
    """
    # A copy, since the parser converts the entries of lists in place.
    given = asdict(values) if is_dataclass(values) else deepcopy(dict(values or {}))  # type: ignore[arg-type, call-overload]
    known = known_keys(kind)
    for path in _paths(given, known):
        if path not in known:
            raise BoxelError(f"{where}: there is no setting {path!r}.{nearest(path, known)}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, None)
    try:
        _check_values(kind, given)
        return kind(**vars(parser.instantiate(parser.parse_object(given))))
    except BoxelError as error:
        raise BoxelError(f"{where}: {error}") from error
    except Exception as error:  # the parser raises as many types as there are ways to be wrong
        reason = re.sub(r'Parser key "([^"]*)": ', r"\1: ", one_line(error, 300))
        raise BoxelError(f"{where}: {reason}.") from error


def known_keys(kind: type, prefix: str = "") -> list[str]:
    """List the dotted paths of all settings of a dataclass, those of nested dataclasses included."""
    hints = get_type_hints(kind)
    keys: list[str] = []
    for entry in fields(kind):  # type: ignore[arg-type]
        path = prefix + entry.name
        inner = hints[entry.name]
        keys += [path, *known_keys(inner, path + ".")] if is_dataclass(inner) else [path]  # type: ignore[arg-type]
    return keys


def _paths(values: Mapping[str, Any], known: Sequence[str], prefix: str = "") -> Iterator[str]:
    """Yield the dotted paths that are set; a mapping that is not a section is a value."""
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and any(key.startswith(f"{path}.") for key in known):
            yield from _paths(value, known, f"{path}.")
        else:
            yield path


def _check_values(kind: type, values: Mapping[str, Any], prefix: str = "") -> None:
    """Check sections and ranges before the parser does, whose messages name types instead of ranges."""
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name in _ranges(kind):
            for one in value if isinstance(value, (list, tuple)) else [value]:
                _to_plain(prefix + name, one, _ranges(kind)[name])
        elif is_dataclass(hints[name]) and isinstance(value, Mapping):
            _check_values(hints[name], value, f"{prefix}{name}.")  # type: ignore[arg-type]
        elif is_dataclass(hints[name]) and isinstance(value, (str, int, float, list)):
            raise BoxelError(f"{prefix}{name} is {value!r}; give a mapping of settings.")


@cache
def _ranges(kind: type) -> dict[str, Any]:
    """Return the restricted number type of each field that has one, on its own, optional, or in a list."""
    found = {}
    for name, hint in get_type_hints(kind).items():
        for inner in (hint, *get_args(hint), *(part for one in get_args(hint) for part in get_args(one))):
            if hasattr(inner, "_restrictions"):
                found[name] = inner
    return found


def _to_plain(name: str, value: Any, number: Any) -> Any:
    """Check a value against a restricted number type and return it as int or float, which YAML can write."""
    if value is None:
        return value
    try:  # YAML takes 1e-4 for a text
        return number._type(number(number._type(value) if isinstance(value, str) else value))
    except (TypeError, ValueError):
        raise BoxelError(f"{name} is {value}; give {describe_type(number)}.") from None


def describe_type(hint: Any) -> str:
    """Describe the values of a type, for use within a sentence.

    Examples:
        >>> describe_type(ClosedUnitInterval), describe_type(Literal["a", "b", "c"])
        ('a number from 0 to 1', 'a, b or c')
    """
    parts = [part for part in get_args(hint) if part is not type(None)]
    if get_origin(hint) is Literal:
        return " or ".join(filter(None, [", ".join(map(str, parts[:-1])), str(parts[-1])]))
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(describe_type(part) for part in parts)
    if get_origin(hint) in (list, tuple):
        return f"a list whose items are each {describe_type(parts[0])}"
    if hasattr(hint, "_restrictions"):
        return f"{_KINDS[hint._type]} {_range_text(hint)}"
    return _KINDS.get(get_origin(hint) or hint, f"a {getattr(hint, '__name__', hint)}")


_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", dict: "a mapping"}
_WORDS = {"ge": "from {:g}", "le": "to {:g}", "gt": "above {:g}", "lt": "below {:g}"}


def _range_text(number: Any) -> str:
    words = [_WORDS[compare.__name__].format(limit) for compare, limit in number._restrictions]
    return " and ".join(words).replace(" and to", " to") + (" up" if words == ["from 0"] else "")
