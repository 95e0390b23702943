"""The command that runs a model on images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boxel.cli.options import INFERENCE, MODEL_HELP, Command

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from boxel.cli.parser import Parser


def _add_predict(parser: Parser) -> None:
    from boxel.evaluation.config import EvaluateConfig
    from boxel.utils.config import ClosedUnitInterval

    parser.add_positional("model", MODEL_HELP)
    parser.add_positional("sources", "image files, folders or glob patterns", several=True)
    parser.add_flag(
        "out",
        str,
        "COCO results file (default: predictions.json), or the folder of the label maps of a semantic model "
        "(default: predictions)",
        metavar="PATH",
    )
    parser.add_flag("draw", str, "folder for the images with the predictions drawn on them", metavar="FOLDER")
    parser.add_flag("draw_score", ClosedUnitInterval, "minimum score of the instances drawn", default=0.3)
    parser.add_flag("boxes", str, "annotations whose boxes get masks (BoxCaseg)", metavar="FILE")
    parser.add_flag("detector", str, "a model whose boxes get masks (BoxCaseg)", metavar="RUN")
    parser.add_settings(EvaluateConfig, only=INFERENCE)


def _predict(given: Namespace) -> int:
    from boxel.data import read
    from boxel.models.prediction import predict

    settings = given.as_dict()
    if "boxes" in settings:
        settings["boxes"] = read(settings["boxes"])
    summary = predict(settings.pop("model"), settings.pop("sources"), **settings)
    print(summary)
    return 1 if summary.errors else 0


PREDICT = Command(
    "Predict instances, masks of boxes or label maps on images.",
    "runs/boxinst photos/ --out predictions.json --draw drawn/",
    _add_predict,
    _predict,
)
