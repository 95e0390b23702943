"""Training settings from recipes and flags.

A recipe is a YAML mapping of settings. It may build on another one (`base`), and it may state what it is for
(`about`, `published`, `measured`, ...). The bundled recipes are used by name: `coco-small` is the file
`recipes/coco-small.yaml`, `boxinst/table3-projection` an entry of the tables in `recipes/boxinst.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from boxel.methods import get_method, resolve
from boxel.utils.config import parse_config
from boxel.utils.errors import BoxelError, nearest, one_line

if TYPE_CHECKING:
    from boxel.training.config import TrainConfig

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
FOLDER = Path(str(files("boxel") / "recipes"))

DESCRIPTION = ("about", "published", "trained_on", "measured")
"""Keys that describe one recipe; a recipe that builds on it does not inherit them."""

NOT_SETTINGS = ("method", *DESCRIPTION, "paper", "measure", "assumed_images")
"""All keys of a recipe that are not settings of the run."""

LENGTH_RATIO = 4
"""How far a dataset may be from the assumed number of images before :func:`length_warning` warns."""


@dataclass(frozen=True)
class Recipe:
    """A bundled recipe.

    Attributes:
        name: What `config` takes.
        method: The method it trains.
        about: What it trains or, for a row of a paper, the table and row that it reproduces.
        paper: The paper, or None.
        published: The published result, or None.
        trained_on: The supervision of this row if others of the paper have another, or None.
        measured: Our own result, or None if it was not run here.
        assumed_images: The number of images (or of other samples that make an epoch) that its length is meant for.
    """

    name: str
    method: str
    about: str
    paper: str | None = None
    published: str | None = None
    trained_on: str | None = None
    measured: str | None = None
    assumed_images: int | None = None


def read_config(
    recipe: str | Path | Mapping[str, Any] | None = None, method: str | None = None, **changes: Any
) -> Any:
    """Read the settings of a run.

    Args:
        recipe: The name of a bundled recipe, the path of a `.yaml` file, e.g. that of a run folder, or a mapping.
            Settings left out keep their defaults. `base` names a recipe to build on: a bundled one, or a path
            relative to the file.
        method: The method to train. None: the one the recipe names, or `boxinst`.
        **changes: Settings by dotted path, e.g. ``{"model.tau": 0.2}``; they override the recipe.

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
    named = values.get("method", method or "boxinst")
    if method is not None and named != method:
        raise BoxelError(f"{where}: this is a recipe for {named!r}, not for {method!r}; change one of them.")
    settings = _select_settings(values)
    for path, value in changes.items():
        for name in reversed(path.split(".")):
            value = {name: value}
        settings = _merge(settings, value)
    return parse_config(config_class(named), settings, where)


def config_class(method: str) -> type[TrainConfig]:
    """Return the class of a method's training settings.

    Raises:
        UsageError: There is no such method.

    Examples:
        >>> config_class("boxinst").__name__
        'BoxInstTraining'
    """
    return resolve(get_method(method).training)


def list_recipes() -> list[Recipe]:
    """List the bundled recipes: those for a laptop first, then the tables of the papers.

    Examples:
        >>> next(recipe for recipe in list_recipes() if recipe.name == "boxinst/table3-projection").published
        '21.2'
    """
    return [_describe(name) for name in _names()]


def recipes_markdown() -> str:
    """Return the page of the bundled recipes: a table per paper, and the commands that use it.

    Examples:
        >>> recipes_markdown().splitlines()[0]
        '# Recipes'
    """
    recipes = list_recipes()
    small = [recipe for recipe in recipes if "/" not in recipe.name]
    lines = ["# Recipes", "", "`boxel train METHOD DATA --config NAME` uses a bundled recipe.", ""]
    lines += ["## For a laptop", ""]
    lines += _table(
        ["recipe", "method", "for", "measured here", "images"],
        [[f"`{r.name}`", r.method, r.about, r.measured, f"{r.assumed_images or ''}"] for r in small],
    )
    for paper in sorted({recipe.name.split("/")[0] for recipe in recipes} - {r.name for r in small}):
        file = _load_bundled_file(paper)
        rows = [recipe for recipe in recipes if recipe.name.startswith(f"{paper}/")]
        columns = ["recipe", "reproduces", f"published: {file['measure']}", "measured here"]
        cells = [[f"`{r.name}`", r.about, r.published or "", r.measured or "not run"] for r in rows]
        if any(r.trained_on for r in rows):
            columns.insert(2, "trained on")
            cells = [[*c[:2], r.trained_on or "", *c[2:]] for c, r in zip(cells, rows, strict=True)]
        lines += ["", f"## {paper}", "", f"{file['paper']}.", "", *_table(columns, cells)]
        lines += ["", file["notes"].rstrip()]
    return "\n".join(lines) + "\n"


def length_warning(
    recipe: str | Path | Mapping[str, Any] | None, images: int, config: TrainConfig | None = None
) -> str | None:
    """Return a warning if a dataset makes a run much shorter than its recipe means.

    A fixed number of steps shows each image of a large dataset too rarely; a fixed number of epochs takes too few steps
    on a small one.

    Args:
        recipe: As for :func:`read_config`.
        images: The number of images, or of other samples, that make an epoch.
        config: The settings of the run. If its length differs from the recipe's, the user has chosen it, and there is
            no warning. None: the recipe's own.

    Returns:
        One sentence, or None if the length fits or the recipe states no number of images.

    Examples:
        >>> length_warning("coco-small", images=500)
        >>> length_warning("coco-small", images=20_000)[:44]
        '`coco-small` is meant for about 455 images; '
    """
    values = {} if recipe is None else _read(recipe)
    assumed = values.get("assumed_images")
    if not assumed:
        return None
    name = f"`{recipe}`" if isinstance(recipe, (str, Path)) else "this recipe"
    kind = config_class(values.get("method", "boxinst")) if config is None else type(config)
    own = parse_config(kind, _select_settings(values), name)
    if config is not None and (config.steps, config.epochs) != (own.steps, own.epochs):
        return None
    meant = f"{name} is meant for about {assumed:,} images;"
    batch = own.optim.reference_batch or own.batch_size * own.accumulate
    if own.steps and images > LENGTH_RATIO * assumed:
        times = own.steps * batch / images, own.steps * batch / assumed
        return (
            f"{meant} {own.steps:,} steps show each of {images:,} images {times[0]:.1f} times instead of "
            f"{times[1]:.1f}: set `epochs` or more `steps`."
        )
    if not own.steps and images < assumed / LENGTH_RATIO:
        steps = own.epochs * images / batch, own.epochs * assumed / batch
        return (
            f"{meant} {own.epochs:g} epochs of {images:,} images are {steps[0]:,.0f} steps instead of {steps[1]:,.0f}: "
            "set `steps` or more `epochs`."
        )
    return None


def _names() -> list[str]:
    """List the names of the bundled recipes."""
    small, rows = [], []
    for file in sorted(FOLDER.glob("*.yaml"), key=lambda file: file.stem):
        tables = _load_bundled_file(file.stem).get("tables")
        if tables is None:
            small.append(file.stem)
        else:
            rows += [f"{file.stem}/{row}" for row in tables]
    return small + rows


def _describe(name: str) -> Recipe:
    values = _read(name)
    described = {key: values.get(key) for key in ("about", "paper", "published", "trained_on", "measured")}
    text = {key: value if value is None else str(value) for key, value in described.items()}
    return Recipe(name, values["method"], assumed_images=values.get("assumed_images"), **text)  # type: ignore[arg-type]


def _read(
    recipe: str | Path | Mapping[str, Any], folder: Path = Path(), above: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Read a recipe over the one it builds on.

    Args:
        recipe: A name, a path relative to ``folder``, or a mapping.
        folder: Where the recipe is named.
        above: The recipes that build on it.
    """
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
    return _merge(below, values)


def _select_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in NOT_SETTINGS}


def _load_bundled(name: str) -> dict[str, Any]:
    """Read the settings of a bundled recipe by its name; `base` is what it builds on."""
    stem, _, row = name.partition("/")
    values = _load_bundled_file(stem) if (FOLDER / f"{stem}.yaml").is_file() else {}
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
    own = dict(tables[row] or {})
    if "base" in own:
        return own | {"base": f"{stem}/{own['base']}"}
    shared = {key: values[key] for key in ("paper", "measure", "assumed_images")}
    return own | {"base": values["base"] | shared}


@cache
def _load_bundled_file(stem: str) -> dict[str, Any]:
    return _load_yaml(FOLDER / f"{stem}.yaml")


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BoxelError(f"{path}: the recipe cannot be read ({one_line(error)}).") from error
    if not isinstance(values, dict):
        raise BoxelError(f"{path}: a recipe is a YAML mapping of settings.")
    return values


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings; the one above wins. A list is replaced as a whole."""
    merged = dict(below)
    for name, value in above.items():
        inner = merged.get(name)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        merged[name] = _merge(inner, value) if both else value  # type: ignore[arg-type]
    return merged


def _table(columns: list[str], rows: Sequence[Sequence[str | None]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(cell or "" for cell in row) + " |" for row in rows]
