"""The command that evaluates a model or a file of predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from boxel.cli.options import DATA, JSON_HELP, Command, Option, check_writable, given_settings, write_json


def _evaluate_options() -> list[Option]:
    from boxel.cli.parser import settings_options
    from boxel.evaluation.config import EvaluateConfig

    subject = "a model folder, a COCO results file, a labeled dataset, or a folder of label maps"
    trimap = "plot mean IoU near true boundaries and away from them (semantic models)"
    return [
        Option("subject", subject, positional=True),
        *DATA,
        Option("json", JSON_HELP, metavar="FILE"),
        Option("trimap", trimap, metavar="PNG"),
        *(option for option in settings_options(EvaluateConfig) if option.dest != "trimap"),
    ]


def _evaluate(given: dict[str, Any]) -> int:
    from boxel.evaluation import TRIMAP_WIDTHS, EvaluateConfig, evaluate

    for name in ("json", "results", "trimap"):
        check_writable(given.get(name, "-"))
    settings = given_settings(given, EvaluateConfig)
    if "trimap" in given:
        settings["trimap"] = list(TRIMAP_WIDTHS)
    evaluation = evaluate(
        given["subject"],
        given["annotations"],
        images=given.get("images"),
        class_list=given.get("class_list"),
        **settings,
    )
    if "json" in given:
        write_json(evaluation.metrics, given["json"])
    if given.get("json") != "-":
        print(evaluation.table())
    if "trimap" in given:
        from boxel.viz.plots import plot_trimap

        name = Path(given["subject"]).resolve().name
        plot_trimap({name: evaluation.metrics["trimap"]}, given["trimap"])
        print(f"plot: {given['trimap']}")
    return 1 if evaluation.errors else 0


EVALUATE = Command(
    "Evaluate a model, a results file, a labeled dataset or label maps against ground truth.",
    "runs/boxinst val.json --images photos/",
    _evaluate_options,
    _evaluate,
)
