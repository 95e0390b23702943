"""The command that draws datasets, results and predictions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from boxel.cli.options import AGAIN, DATA, Command, Option


def _draw_options() -> list[Option]:
    from boxel.cli.parser import settings_options
    from boxel.viz import DrawConfig

    subject = (
        "annotations in any format, a COCO results file, or a model folder or bundled model to predict with"
    )
    truth = "annotations of the same images, drawn on the left of the others"
    results = "draw these detections on the images of the dataset instead of its own objects"
    out = "folder of the drawings (default: drawn; none if there is a contact sheet)"
    return [
        Option("subject", subject, positional=True),
        *DATA[1:],
        Option("out", out, metavar="FOLDER", is_output=True),
        Option("truth", truth, metavar="FILE", is_input=True),
        Option("results", results, metavar="FILE", is_input=True),
        *(replace(option, is_output=option.dest == "sheet") for option in settings_options(DrawConfig())),
    ]


def _draw(given: dict[str, Any]) -> int:
    from boxel.evaluation.drawing import draw

    out = given.pop("out", None if "sheet" in given else "drawn")
    summary = draw(given.pop("subject"), out, **given)
    print(summary)
    return 1 if summary.errors else 0


DRAW = Command(
    "Draw a dataset, detections or the predictions of a run on the images, also beside the truth.",
    "masks.json --images photos/ --out drawn/",
    _draw_options,
    _draw,
    AGAIN,
)
