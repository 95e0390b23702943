"""The command that evaluates a model or a file of predictions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boxel.cli.options import JSON_HELP, Command, add_data, check_writable, given_settings, write_json

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from boxel.cli.parser import Parser


def _add_evaluate(parser: Parser) -> None:
    from boxel.evaluation.config import EvaluateConfig

    parser.add_positional(
        "subject", "a model folder, a COCO results file, a labeled dataset, or a folder of label maps"
    )
    add_data(parser)
    parser.add_flag("json", str, JSON_HELP, metavar="FILE")
    parser.add_flag(
        "trimap",
        str,
        "plot mean IoU near true boundaries and away from them (semantic models)",
        metavar="PNG",
    )
    parser.add_settings(EvaluateConfig, skip=["trimap"])


def _evaluate(given: Namespace) -> int:
    from boxel.evaluation import TRIMAP_WIDTHS, EvaluateConfig, evaluate

    for name in ("json", "results", "trimap"):
        check_writable(given.get(name, "-"))
    settings = given_settings(given, EvaluateConfig) | (
        {"trimap": list(TRIMAP_WIDTHS)} if "trimap" in given else {}
    )
    evaluation = evaluate(
        given.subject,
        given.annotations,
        images=given.get("images"),
        class_list=given.get("class_list"),
        **settings,
    )
    if "json" in given:
        write_json(evaluation.metrics, given.json)
    if given.get("json") != "-":
        print(evaluation.table())
    if "trimap" in given:
        from boxel.viz.plots import plot_trimap

        plot_trimap({Path(given.subject).resolve().name: evaluation.metrics["trimap"]}, given.trimap)
        print(f"plot: {given.trimap}")
    return 1 if evaluation.errors else 0


EVALUATE = Command(
    "Evaluate a model, a results file, a labeled dataset or label maps against ground truth.",
    "runs/boxinst val.json --images photos/",
    _add_evaluate,
    _evaluate,
)
