"""The command that runs a model on images."""

from __future__ import annotations

from typing import Any

from boxel.cli.options import AGAIN, MODEL_HELP, Command, Option

SETTINGS = (
    *("short_side", "long_side", "flip", "scales", "score_threshold", "class_agnostic_nms", "mask_nms"),
    *("batch_size", "tile", "shifts", "crf", "device"),
)
"""Settings of `boxel evaluate` that are about how a model is run."""


def _predict_options() -> list[Option]:
    from boxel.cli.parser import settings_options
    from boxel.evaluation.config import EvaluateConfig
    from boxel.models.thresholds import ScoreThreshold
    from boxel.utils.config import PositiveInt

    out = (
        "COCO results file (default: predictions.json), a .geojson file for GeoTIFFs, or the folder of the label maps "
        "of a semantic model (default: predictions)"
    )
    draw = (
        "folder for the images and videos with the predictions drawn on them, or a video if the source is one"
    )
    score = "minimum score of the instances drawn, or best (default: best if the training has chosen any, else 0.3)"
    boxes = "annotations whose boxes get masks (BoxCaseg)"
    return [
        Option("model", MODEL_HELP, positional=True),
        Option("sources", "image files, videos, folders or glob patterns", positional=True, several=True),
        Option("out", out, metavar="PATH"),
        Option("draw", draw, metavar="PATH", is_output=True),
        Option("draw_score", score, ScoreThreshold),
        Option("boxes", boxes, metavar="FILE", is_input=True),
        Option("detector", "a model whose boxes get masks (BoxCaseg)", metavar="RUN"),
        Option("every", "predict on every so many frames of a video only", PositiveInt, default=1),
        *(option for option in settings_options(EvaluateConfig()) if option.dest in SETTINGS),
    ]


def _predict(given: dict[str, Any]) -> int:
    from boxel.data import read
    from boxel.models.prediction import predict

    if "boxes" in given:
        given["boxes"] = read(given["boxes"])
    summary = predict(given.pop("model"), given.pop("sources"), **given)
    print(summary)
    return 1 if summary.errors else 0


PREDICT = Command(
    "Predict instances, masks of boxes or label maps on images.",
    "runs/boxinst photos/ --out predictions.json --draw drawn/",
    _predict_options,
    _predict,
    AGAIN,
)
