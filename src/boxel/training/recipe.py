"""Configuration from a YAML recipe, plain values and flags, checked by type."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from boxel.methods import get_method, resolve
from boxel.training.config import TrainConfig
from boxel.utils.config import parse_config
from boxel.utils.errors import BoxelError


def read_config(
    recipe: str | Path | Mapping[str, Any] | None = None, method: str | None = None, **changes: Any
) -> Any:
    """A run's configuration, of the class that :data:`~boxel.methods.METHODS` names for the method.

    Args:
        recipe: a YAML file or its content; keys left out keep their defaults. A run folder's `config.yaml` is one.
            A file may build on another: `base: other.yaml`, a path from its own folder, and then what differs.
        method: what is to be trained; a recipe that names its method must name this one. Where None, what the recipe
            names, or else `boxinst`.
        **changes: values by dotted path, as ``{"model.tau": 0.2}``; they win over the recipe.

    Raises:
        BoxelError: a file can't be read or builds on itself, a key is unknown, a value is of the wrong type, or
            the recipe is for another method.
    """
    where = str(recipe) if isinstance(recipe, (str, Path)) else "the configuration"
    values = dict(recipe) if isinstance(recipe, Mapping) else _read_yaml(Path(recipe)) if recipe else {}
    named = values.pop("method", method or "boxinst")
    if method is not None and named != method:
        raise BoxelError(
            f"{where}: this is a recipe for {named!r}, not for {method!r}; name the one or the other."
        )
    kind = config_of(named)
    for path, value in changes.items():
        for name in reversed(path.split(".")):
            value = {name: value}
        values = _merge(values, value)
    return parse_config(kind, values, where)


def config_of(method: str) -> type[TrainConfig]:
    """The class of a method's configuration.

    Raises:
        BoxelError: there is no such method.
    """
    return resolve(get_method(method).training)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings in one; where they disagree the one above wins. A list is a value, and not joined."""
    merged = dict(below)
    for name, value in above.items():
        inner = merged.get(name)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        merged[name] = _merge(inner, value) if both else value  # type: ignore[arg-type]
    return merged


def _read_yaml(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A recipe over the one it builds on; `above` are those that build on it."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BoxelError(f"{path}: the recipe can't be read ({' '.join(str(error).split())}).") from error
    if not isinstance(values, dict):
        raise BoxelError(f"{path}: a recipe is a YAML mapping of settings, as in recipes/.")
    if "base" not in values:
        return values
    base = path.parent / str(values.pop("base"))
    if not base.is_file():
        raise BoxelError(
            f"{path}: it builds on {base}, which is no file; `base` is a path from the recipe's folder."
        )
    above = (*above, path.resolve())
    if base.resolve() in above:
        raise BoxelError(f"{path}: it builds on {base}, which builds on it in turn; take one `base` out.")
    return _merge(_read_yaml(base, above), values)
