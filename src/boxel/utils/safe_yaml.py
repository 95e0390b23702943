"""YAML of unknown origin: plain values only, of limited depth and size."""

from __future__ import annotations

from typing import Any

import yaml

from boxel.utils.errors import one_line

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_MAX_DEPTH = 50
_MAX_VALUES = 10_000_000
"""Aliases of aliases count as often as they are used: a few lines may expand to any number of values."""


def parse_yaml(text: str | bytes, loader: type = LOADER) -> Any:
    """Parse a YAML document.

    Args:
        text: The document.
        loader: A `SafeLoader`, which makes no other objects than plain values.

    Raises:
        yaml.YAMLError: It is not valid, or too deep or large.

    Examples:
        >>> parse_yaml("tau: 0.2")
        {'tau': 0.2}
    """
    try:
        parser = loader(text)
        try:
            node = parser.get_single_node()
            if node is None:
                return None
            _count(node, {})
            return parser.construct_document(node)
        finally:
            parser.dispose()
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise yaml.YAMLError(one_line(error)) from error  # PyYAML raises all of these for some damage


def _count(node: yaml.Node, known: dict[int, int], depth: int = 0) -> int:
    """Return the number of values of a node; those that are known are used once more."""
    if depth > _MAX_DEPTH:
        raise yaml.YAMLError(f"it is nested deeper than {_MAX_DEPTH} levels, or refers to itself")
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = (part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,)))
        known[id(node)] = 1 + sum(_count(part, known, depth + 1) for part in inner)
    if known[id(node)] > _MAX_VALUES:
        raise yaml.YAMLError("its aliases expand to too many values")
    return known[id(node)]
