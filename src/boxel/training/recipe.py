"""Configuration from a YAML recipe, plain values and flags, checked by type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace

from boxel.errors import BoxelError, nearest
from boxel.training.config import TrainConfig


def read_config(recipe: str | Path | Mapping[str, Any] | None = None, **changes: Any) -> TrainConfig:
    """A run's configuration.

    Args:
        recipe: a YAML file or its content; keys left out keep their defaults.
        **changes: values by dotted path, as ``{"model.tau": 0.2}``; they win over the recipe.

    Raises:
        BoxelError: the file can't be read, a key is unknown or a value is of the wrong type.
    """
    where = str(recipe) if isinstance(recipe, (str, Path)) else "the configuration"
    values = dict(recipe) if isinstance(recipe, Mapping) else _read_yaml(Path(recipe)) if recipe else {}
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    _check_keys(values, where)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainConfig, None)
    try:
        parsed = parser.instantiate_classes(parser.parse_object(values))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BoxelError(f"{where}: {reason}") from error
    return TrainConfig(**vars(parsed))


def known_keys(kind: type = TrainConfig, prefix: str = "") -> list[str]:
    """Every dotted path of the configuration."""
    keys: list[str] = []
    hints = get_type_hints(kind)
    for entry in fields(kind):
        path = prefix + entry.name
        inner = hints[entry.name]
        keys += [path, *known_keys(inner, path + ".")] if is_dataclass(inner) else [path]  # type: ignore[arg-type]
    return keys


def unknown_key(key: str, where: str) -> BoxelError:
    """The error for a key that does not exist, with the nearest that does."""
    return BoxelError(f"{where}: there is no setting {key!r}.{nearest(key, known_keys())}")


def _check_keys(values: Mapping[str, Any], where: str) -> None:
    known = set(known_keys())
    for path in _paths(values):
        if path not in known:
            raise unknown_key(path, where)


def _paths(values: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, (Mapping, Namespace)):
            yield from _paths(value, f"{prefix}{name}.")  # type: ignore[arg-type]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BoxelError(f"{path}: the recipe can't be read ({' '.join(str(error).split())}).") from error
    if not isinstance(values, dict):
        raise BoxelError(f"{path}: a recipe is a YAML mapping of settings, as in recipes/.")
    return values
