"""The command that trains a method."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from boxel.cli.options import add_data, parse_names, parse_pairs
from boxel.methods import METHODS, resolve


def add_train(method: str, parser: ArgumentParser) -> None:
    """Add the flags of `boxel train`."""
    add_data(parser, several=True)
    parser.add_argument("--out", type=str, help="folder of the run (default: runs/METHOD)")
    parser.add_argument("--config", type=str, metavar="RECIPE", help="a YAML recipe; flags win over it")
    parser.add_argument(
        "--val", type=str, help="annotations to validate on, in place of a share of the images"
    )
    parser.add_argument(
        "--val-images", type=str, help="folder of its images (default: beside it, else --images)"
    )
    parser.add_argument("--masks", type=str, help="annotations whose masks are added by annotation id")
    parser.add_argument("--mask-classes", type=str, help="learn from the masks of these categories only: a,b")
    parser.add_argument(
        "--rename",
        type=str,
        help="other names for categories, one for several merges: car=vehicle,bus=vehicle",
    )
    parser.add_argument("--categories", type=str, help="learn these categories only: person,dog")
    parser.add_argument("--class-agnostic", action="store_true", help="learn all categories as one")
    parser.add_argument("--min-box", type=float, help="ignore boxes with a side under this many pixels")
    parser.add_argument(
        "--init",
        type=str,
        metavar="RUN",
        help="start from the weights of another run, or of a model that comes with boxel",
    )
    parser.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    otherwise = (
        "default: segments, which lets each box choose among candidate segments, as published"
        if method == "boxsup"
        else "TEACHER left out: boxcaseg; the whole flag: no masks are made"
    )
    parser.add_argument(
        "--label",
        type=str,
        nargs="?",
        const="boxcaseg",
        metavar="TEACHER",
        help=f"first make masks of boxes that have none, as `boxel label` does ({otherwise})",
    )
    for extra in METHODS[method].inputs:
        parser.add_argument(f"--{extra.name}", type=str, metavar=extra.metavar, help=extra.help)
    parser.add_class_arguments(resolve(METHODS[method].training), None, skip={"label"})


def run_train(method: str, given: Namespace) -> int:
    """Run `boxel train`."""
    from boxel.training import train
    from boxel.training.recipe import config_class
    from boxel.utils.config import known_keys

    keys = known_keys(config_class(method))
    changes = {key: given[key] for key in keys if key in given and not isinstance(given[key], Namespace)}
    if "min_box" in given:
        changes["data.min_box"] = given.min_box
    model = train(
        method,
        given.annotations,
        out=given.get("out"),
        images=given.get("images"),
        val=given.get("val"),
        val_images=given.get("val_images"),
        masks=given.get("masks"),
        **{extra.name: given.get(extra.name) for extra in METHODS[method].inputs},
        mask_classes=parse_names(given, "mask_classes"),
        rename=parse_pairs(given, "rename"),
        categories=parse_names(given, "categories"),
        class_agnostic="class_agnostic" in given,
        class_list=given.get("class_list"),
        config=given.get("config"),
        init=given.get("init"),
        resume="resume" in given,
        **changes,
    )
    return 1 if model is None else 0
