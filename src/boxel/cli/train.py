"""Commands of training: one per method, and the list of recipes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from boxel.cli.options import Command, add_data
from boxel.methods import METHODS, Method, resolve

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from boxel.cli.parser import Parser

DAILY = ("categories", "class_agnostic", "label", "epochs", "steps", "batch_size", "device", "seed")
"""Settings that the short help shows."""

EXAMPLES = {
    "boxinst": "masks.json --images photos/ --out runs/boxinst",
    "mask_rcnn": "masks.json --images photos/ --epochs 12",
    "boxcaseg": "boxes.json --images photos/ --salient salient/",
    "fcrn": "masks.json --images photos/ --out runs/fcrn",
    "fcrn-instances": "masks.json --images photos/ --semantic runs/fcrn",
    "boxsup": "boxes.json --images photos/ --label boxcaseg",
}


def _add_train(method: Method, parser: Parser) -> None:
    from boxel.training.config import ALIASES

    add_data(parser, several=True, class_list=False)
    parser.add_flag("out", str, "folder of the run", default=f"runs/{method.name}", metavar="FOLDER")
    parser.add_flag(
        "config", str, "recipe to start from, by name (`boxel recipes` lists them) or as a YAML file"
    )
    parser.add_flag(
        "val", str, "annotations to validate on, instead of a share of the images", metavar="FILE"
    )
    parser.add_flag(
        "val_images",
        str,
        "folder of their images, if it is neither beside them nor --images",
        metavar="FOLDER",
        hidden=True,
    )
    parser.add_flag(
        "masks", str, "annotations whose masks are added by annotation id", metavar="FILE", hidden=True
    )
    parser.add_flag("init", str, "model folder or bundled model to start from", metavar="RUN")
    parser.add_flag("resume", bool, "resume the run in --out")
    for extra in method.inputs:
        parser.add_flag(extra.name, str, extra.help, metavar=extra.metavar)
    parser.add_settings(resolve(method.training), daily=DAILY, aliases=ALIASES)


def _train(method: Method, given: Namespace) -> int:
    from lightning.pytorch.utilities import rank_zero_only

    from boxel.training import train

    settings = dict(given.items())  # by dotted paths
    data = settings.pop("annotations")
    model = train(method.name, data, **settings)
    if model is None:
        return 1
    if not getattr(rank_zero_only, "rank", 0):  # one process speaks for all
        print(f"model: {settings.get('out', f'runs/{method.name}')}")
    return 0


TRAIN = {
    f"train {name}": Command(
        method.help, EXAMPLES.get(name, "masks.json"), partial(_add_train, method), partial(_train, method)
    )
    for name, method in METHODS.items()
}


def _recipes(given: Namespace) -> int:
    from boxel.training.recipe import list_recipes

    recipes = list_recipes()
    width = max(len(recipe.name) for recipe in recipes)
    for recipe in recipes:
        print(f"{recipe.name:<{width}}  {recipe.about}")
    return 0


RECIPES = Command(
    "List the recipes of `boxel train --config`, and what each reproduces.", "", lambda parser: None, _recipes
)
