"""Settings as dataclasses whose types state the range of each number."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser
from jsonargparse.typing import ClosedUnitInterval as ClosedUnitInterval
from jsonargparse.typing import NonNegativeFloat as NonNegativeFloat
from jsonargparse.typing import NonNegativeInt as NonNegativeInt
from jsonargparse.typing import OpenUnitInterval as OpenUnitInterval
from jsonargparse.typing import PositiveFloat as PositiveFloat
from jsonargparse.typing import PositiveInt as PositiveInt
from jsonargparse.typing import restricted_number_type

from boxel.utils.errors import BoxelError, nearest, one_line

HalfOpenUnitInterval = restricted_number_type("HalfOpenUnitInterval", float, [(">=", 0), ("<", 1)])

ConfigT = TypeVar("ConfigT")


@dataclass
class Config:
    """Base class of settings: each value is checked against the range or the choices that its type states.

    Raises:
        BoxelError: A number is out of range, or a value is not one of the choices.

    Examples:
        >>> @dataclass
        ... class Smoothing(Config):
        ...     share: ClosedUnitInterval = 0.5
        >>> Smoothing(share=2)
        Traceback (most recent call last):
        boxel.utils.errors.BoxelError: share is 2; give a number from 0 to 1.
    """

    def __post_init__(self) -> None:
        for name, limits in _limits(type(self)).items():  # type: ignore[arg-type]
            value = getattr(self, name)
            if value is None and not _is_optional(get_type_hints(type(self))[name]):
                raise BoxelError(f"{name} is empty; give {_describe_any(limits)}.")
            several = isinstance(value, (list, tuple))
            plain = [_to_plain(name, one, limits) for one in (value if several else [value])]
            # A frozen dataclass has no other way.
            object.__setattr__(self, name, type(value)(plain) if several else plain[0])


def parse_config(
    kind: type[ConfigT], values: Mapping[str, object] | ConfigT | None = None, where: str = "the settings"
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
    types = _types(kind)
    found = dict(_flatten(given, types))
    if unknown := [path for path in found if path not in types]:
        names, hints = " or ".join(map(repr, unknown)), [nearest(path, list(types)) for path in unknown]
        raise BoxelError(f"{where}: there is no setting {names}.{''.join(hints)}")
    for path, value in found.items():
        if value is None and not _is_optional(types[path]):
            raise BoxelError(f"{where}: {path} is empty; give {describe_type(types[path])}, or remove it.")
        if is_dataclass(types[path]) and not isinstance(value, Mapping):
            raise BoxelError(f"{where}: {path} is {value!r}; give a mapping of settings.")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, None)
    try:
        return kind(**vars(parser.instantiate(parser.parse_object(given))))
    except BoxelError as error:
        raise BoxelError(f"{where}: {error}") from error
    except Exception as error:  # the parser raises as many types as there are ways to be wrong
        reason = one_line(error, 300)
        key = re.match('Parser key "([^"]*)"', reason)
        if key and key[1] in found:
            reason = f"{key[1]} is {found[key[1]]}; give {describe_type(types[key[1]])}"
        raise BoxelError(f"{where}: {reason}.") from error


def _types(kind: type, prefix: str = "") -> dict[str, Any]:
    """Return the types of all settings of a dataclass, those of nested dataclasses included, by dotted path."""
    types: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        types[prefix + name] = hint
        if isinstance(hint, type) and is_dataclass(hint):
            types |= _types(hint, f"{prefix}{name}.")
    return types


def _flatten(
    values: Mapping[str, Any], types: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield all values by dotted path; a mapping that is not a section is a value."""
    for name, value in values.items():
        path = f"{prefix}{name}"  # YAML takes 1 and yes for other types than text
        yield path, value
        if is_dataclass(types.get(path)) and isinstance(value, Mapping):
            yield from _flatten(value, types, f"{path}.")


@cache
def _limits(kind: type) -> dict[str, list[Any]]:
    """Return the restricted numbers and choices of each field that has any, on its own, optional, or in a list."""
    found: dict[str, list[Any]] = {}
    for name, hint in get_type_hints(kind).items():
        for inner in (hint, *get_args(hint), *(part for one in get_args(hint) for part in get_args(one))):
            if hasattr(inner, "_restrictions") or get_origin(inner) is Literal:
                limits = found.setdefault(name, [])
                limits += [] if inner in limits else [inner]
    return found


def _is_optional(hint: Any) -> bool:
    return type(None) in get_args(hint)


def _to_plain(name: str, value: Any, limits: list[Any]) -> Any:
    """Check a value against restricted numbers and choices; a number becomes an int or float, which YAML can write."""
    choices = [choice for limit in limits for choice in get_args(limit)]  # a number has none
    if value is None or value in choices:
        return value
    for limit in limits:
        with suppress(TypeError, ValueError, OverflowError):
            if not get_args(limit) and not isinstance(value, bool) and math.isfinite(float(value)):
                # YAML takes 1e-4 for a text.
                return limit._type(limit(limit._type(value) if isinstance(value, str) else value))
    hint = nearest(str(value), list(map(str, choices)))
    raise BoxelError(f"{name} is {value}; give {_describe_any(limits)}.{hint}")


def _describe_any(limits: list[Any]) -> str:
    return " or ".join(map(describe_type, limits))


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
        several = get_origin(hint) is list or parts[-1] is Ellipsis
        return f"a list {'whose items are' if several else f'of {len(parts)} items,'} each {describe_type(parts[0])}"
    if is_dataclass(hint):
        return "a mapping of settings"
    if hasattr(hint, "_restrictions"):
        return f"{_KINDS[hint._type]} {_range_text(hint)}"
    return _KINDS.get(get_origin(hint) or hint, f"a {getattr(hint, '__name__', hint)}")


_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", dict: "a mapping"}
_WORDS = {"ge": "from {:g}", "le": "to {:g}", "gt": "above {:g}", "lt": "below {:g}"}


def _range_text(number: Any) -> str:
    words = [_WORDS[compare.__name__].format(limit) for compare, limit in number._restrictions]
    return " and ".join(words).replace(" and to", " to") + (" up" if words == ["from 0"] else "")
