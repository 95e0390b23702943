"""Training settings from recipes and flags. A recipe is a YAML mapping of settings and of what it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from boxel.data.formats.builder import read_text
from boxel.methods import METHODS, get_method, resolve
from boxel.training.config import TrainConfig
from boxel.utils.config import parse_config
from boxel.utils.errors import BoxelError, nearest, one_line
from boxel.utils.files import is_file
from boxel.utils.safe_yaml import parse_yaml

FOLDER = Path(str(files("boxel") / "recipes"))

DESCRIPTION = ("about", "published", "trained_on", "measured")
"""Keys that describe one recipe; a recipe that builds on it does not inherit them."""

NOT_SETTINGS = ("method", *DESCRIPTION, "paper", "measure", "assumed_images", "init")
"""All keys of a recipe that are not settings of the run."""

LENGTH_RATIO = 2  # how far a dataset may be from the assumed number of images for the recipe's own length
MIN_STEPS = 100


@dataclass(frozen=True)
class Recipe:
    """A bundled recipe: the file `recipes/NAME.yaml`, or for `FILE/ROW` an entry of the tables in one."""

    name: str
    method: str
    about: str  # what it trains or, for a row of a paper, the table and row that it reproduces
    assumed_images: int | None  # images, or other samples of an epoch, that its length is meant for
    paper: str | None
    published: str | None  # the published result
    trained_on: str | None  # the supervision of this row if others of the paper have another
    measured: str | None  # our own result, if it was run here


def read_config(
    recipe: str | Path | Mapping[str, object] | None = None, method: str | None = None, **changes: Any
) -> Any:
    """Read the settings of a run.

    Args:
        recipe: The name of a bundled recipe, the path of a `.yaml` file, e.g. that of a run folder, or a mapping.
            Settings left out keep their defaults. `base` names a recipe to build on: a bundled one, or a path
            relative to the file.
        method: The method to train. None: the one the recipe names, or `boxinst`.
        **changes: Settings by dotted path, e.g. ``{"model.tau": 0.2}``; they override the recipe, and `epochs` its
            `steps` too.

    Returns:
        The settings, of the class that the method's entry in :mod:`boxel.methods` names.

    Raises:
        BoxelError: There is no such recipe, a file cannot be read or builds on itself, a setting is unknown or has a
            wrong value, or the recipe is for another method.

    Examples:
        >>> read_config("coco-small", **{"model.tau": 0.2}).model.tau
        0.2
    """
    where = str(recipe) if isinstance(recipe, (str, Path)) else "the configuration"
    values = {} if recipe is None else _read(recipe)
    _check_description(values, where)
    named = get_method(values.get("method", method or "boxinst")).name
    if method is not None and named != get_method(method).name:
        raise BoxelError(f"{where}: this is a recipe for {named!r}, not for {method!r}; change one of them.")
    flags: dict[str, Any] = {}
    for path, value in changes.items():
        for name in reversed(path.split(".")):
            value = {name: value}
        flags = _merge(flags, value)
    settings = _build_on(_select_settings(values), flags)
    return parse_config(resolve(METHODS[named].training), settings, where)


def _check_description(values: Mapping[str, Any], where: str) -> None:
    """Raise an error if what a recipe states beside settings is of a wrong type."""
    method, images = values.get("method", ""), values.get("assumed_images", 1)
    if not isinstance(method, str):
        stated = "empty" if method is None else repr(method)
        raise BoxelError(f"{where}: method is {stated}; give {', '.join(METHODS)}, or remove it.")
    if images is not None and (not isinstance(images, int) or images < 1):
        raise BoxelError(f"{where}: assumed_images is {images!r}; give a whole number above 0, or remove it.")


def list_recipes() -> list[Recipe]:
    """List the bundled recipes: those for a laptop first, then the tables of the papers.

    Examples:
        >>> next(recipe for recipe in list_recipes() if recipe.name == "boxinst/table3-projection").published
        '21.2'
    """
    recipes = []
    for name in _names():
        values = _read(name)
        described = [values.get(key) for key in ("paper", "published", "trained_on", "measured")]
        texts = [None if value is None else str(value) for value in described]
        recipes.append(Recipe(name, values["method"], values["about"], values.get("assumed_images"), *texts))
    return recipes


def read_init(recipe: str | Path | Mapping[str, object] | None) -> str | None:
    """Return the model that a recipe starts from if the user names none.

    Examples:
        >>> read_init("boxinst-small"), read_init("coco-small")
        ('boxinst', None)
    """
    values = {} if recipe is None else _read(recipe)
    init = values.get("init")
    return None if init is None else str(init)


def fit_length(
    recipe: str | Path | Mapping[str, object] | None, samples: int, config: TrainConfig
) -> int | None:
    """Return the steps of a run on a dataset of another size than its recipe is meant for.

    They grow with the square root of the number of samples of an epoch, images or others: twice as many are each seen
    less often, but more in all. Up to a factor of `LENGTH_RATIO`, or with a length that the user chose, it is None.

    Examples:
        >>> fit_length("coco-small", 40, read_config("coco-small"))  # instead of 1000 steps for 455 images
        296
    """
    values = {} if recipe is None else _read(recipe)
    assumed = values.get("assumed_images")
    if not assumed or not samples or 1 / LENGTH_RATIO <= samples / assumed <= LENGTH_RATIO:
        return None
    own = parse_config(type(config), _select_settings(values), "this recipe")
    if (config.steps, config.epochs) != (own.steps, own.epochs):
        return None
    batch = own.optim.reference_batch or own.batch_size * own.accumulate
    steps = own.steps or own.epochs * assumed / batch
    return max(round(steps * (samples / assumed) ** 0.5), MIN_STEPS)


def _names() -> list[str]:
    """List the names of the bundled recipes, those of papers last."""
    names: list[str] = []
    for stem in sorted(file.stem for file in FOLDER.glob("*.yaml")):
        tables = _load_bundled_file(stem).get("tables")
        names += [stem] if tables is None else [f"{stem}/{row}" for row in tables]
    return sorted(names, key=lambda name: "/" in name)


def _read(
    recipe: str | Path | Mapping[str, Any], folder: Path = Path(), above: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Read a recipe, whose path may be relative to `folder`, over its base; `above` are those that build on it."""
    try:
        if isinstance(recipe, Mapping):
            where, values = "the configuration", dict(recipe)
        elif str(recipe).endswith((".yaml", ".yml")):
            path = folder / recipe
            where, folder, values = str(path.resolve()), path.parent, _load_yaml(path)
        else:
            where, values = str(recipe), _load_bundled(str(recipe))
    except BoxelError as error:
        raise BoxelError(f"{above[-1]}: its base is wrong: {error}" if above else str(error)) from error
    if where in above:
        raise BoxelError(f"{above[-1]}: its base {where} builds on it in turn; remove one `base`.")
    base = values.pop("base", None)
    if base is None:
        return values
    below = dict(base) if isinstance(base, Mapping) else _read(base, folder, (*above, where))
    for key in DESCRIPTION:
        below.pop(key, None)
    if {"steps", "epochs"} & values.keys():  # another length, which the number of images was not meant for
        below.pop("assumed_images", None)
    return _build_on(below, values)


def _select_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in NOT_SETTINGS}


def _load_bundled(name: str) -> dict[str, Any]:
    """Read the settings of a bundled recipe by its name; `base` is what it builds on."""
    stem, _, row = name.partition("/")
    values = _load_bundled_file(stem) if is_file(FOLDER / f"{stem}.yaml") else {}
    tables = values.get("tables", {})
    if not values or (row not in tables if tables else row):
        known = _names()
        longer = [other for other in known if other.startswith(name)]
        hint = f" Did you mean {longer[0]!r}?" if longer else nearest(name, known)
        raise BoxelError(
            f"there is no recipe {name!r}; give a name that `boxel recipes` lists, or a .yaml file.{hint}"
        )
    if not tables:
        return dict(values)
    own = tables[row] or {}
    if "base" in own:
        return own | {"base": f"{stem}/{own['base']}"}
    shared = {key: values[key] for key in ("paper", "measure", "assumed_images")}
    return own | {"base": values["base"] | shared}


@cache
def _load_bundled_file(stem: str) -> dict[str, Any]:
    return _load_yaml(FOLDER / f"{stem}.yaml")


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        values = parse_yaml(read_text(path))
    except yaml.YAMLError as error:
        reason = one_line(str(error).replace('in "<unicode string>", ', "in "), 300)
        raise BoxelError(f"{path}: the recipe cannot be read ({reason}).") from error
    if not isinstance(values, dict):
        what = "empty" if values is None else f"a {type(values).__name__}"
        raise BoxelError(f"{path}: the recipe is {what}; it should be a YAML mapping of settings.")
    return values


def _build_on(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge settings over those that they build on; a length in `epochs` replaces one in `steps`."""
    if "epochs" in above:
        below = {name: value for name, value in below.items() if name != "steps"}
    return _merge(below, above)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings; the one above wins. A list is replaced as a whole."""
    merged = dict(below)
    for name, value in above.items():
        inner = merged.get(name)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            value = _merge(inner, value)
        merged[name] = value
    return merged
