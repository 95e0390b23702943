"""Commands of training: one per method, and the list of recipes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from boxel.cli.options import DATA, Command, Option
from boxel.methods import METHODS, Method, get_method, resolve

DAILY = {"categories", "class_agnostic", "label", "epochs", "steps", "batch_size", "device", "seed"}
"""Settings that the short help shows."""

ON_STOP = "the same command starts again, or with --resume continues from the last checkpoint if there is one"

EXAMPLES = {
    "boxinst": "masks.json --images photos/ --out runs/boxinst",
    "mask-rcnn": "masks.json --images photos/ --epochs 12",
    "boxcaseg": "boxes.json --images photos/ --salient salient/",
    "fcrn": "masks.json --images photos/ --out runs/fcrn",
    "fcrn-instances": "masks.json --images photos/ --semantic runs/fcrn",
    "boxsup": "boxes.json --images photos/ --label boxcaseg",
}


def _train_options(method: Method) -> list[Option]:
    from boxel.cli.parser import settings_options
    from boxel.training.config import ALIASES

    annotations, images, _ = DATA
    several = f"{annotations.help} (several are joined to one dataset)"
    config = "recipe to start from, by name (`boxel recipes` lists them) or as a YAML file"
    val = "annotations to validate on, instead of the split val or a share of the images"
    masks = "annotations whose masks are added by annotation id"
    val_images = "folder of their images, if it is neither beside them nor --images"
    short = {path: name for name, path in ALIASES.items()}
    options = [
        replace(annotations, help=several, several=True),
        images,
        Option("out", "folder of the run", default=f"runs/{method.name}", metavar="FOLDER"),
        Option("config", config),
        Option("val", val, metavar="FILE", is_input=True),
        Option("val_images", val_images, metavar="FOLDER", is_input=True, hidden=True),
        Option("masks", masks, metavar="FILE", is_input=True, hidden=True),
        Option(
            "init",
            "run, bundled model, detector of torchvision or backbone of timm to start from",
            metavar="MODEL",
        ),
        Option("resume", "resume the run in --out", bool),
        *(Option(x.name, x.help, metavar=x.kind.upper(), is_input=x.kind == "data") for x in method.inputs),
    ]
    for option in settings_options(resolve(method.training)()):
        name = short.get(option.dest)
        if name:  # listed with the settings of the run
            option = replace(option, dest=name, group="")
        options.append(replace(option, hidden=option.dest not in DAILY))
    return options


def _train(method: Method, given: dict[str, Any]) -> int:
    from boxel.training import train

    model = train(method.name, given.pop("annotations"), **given)
    if model is None:
        return 1
    from lightning.pytorch.utilities import rank_zero_only

    if not getattr(rank_zero_only, "rank", 0):  # one process speaks for all
        page = Path(given["out"], "report.html")
        print(f"model: {given['out']}", *[f"report: {page}"] * page.exists(), sep="\n")
    return 0


TRAIN = {
    f"train {name}": Command(
        method.help,
        EXAMPLES.get(name, "masks.json"),
        partial(_train_options, method),
        partial(_train, method),
        ON_STOP,
    )
    for name, method in METHODS.items()
}


def _recipes(given: dict[str, Any]) -> int:
    from boxel.training.recipe import list_recipes

    method = get_method(given["method"]).name if "method" in given else None
    recipes = [recipe for recipe in list_recipes() if method in (None, recipe.method)]
    width, column = (max(map(len, names)) for names in ([recipe.name for recipe in recipes], METHODS))
    for recipe in recipes:
        print(f"{recipe.name:<{width}}  {recipe.method:<{column}}  {recipe.about}")
    return 0


def _recipes_options() -> list[Option]:
    text = f"only those of this method: {', '.join(METHODS)}"
    return [Option("method", text, positional=True, value_optional=True)]


RECIPES = Command(
    "List the recipes of `boxel train --config`, and what each reproduces.",
    "boxinst",
    _recipes_options,
    _recipes,
)
