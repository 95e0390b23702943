"""The command that evaluates a model or a file."""

from __future__ import annotations

import json
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from boxel.cli.options import (
    MAP_LOOKS,
    add_data,
    add_inference,
    parse_names,
    parse_scales,
    say,
    writable,
)


def add_evaluate(parser: ArgumentParser) -> None:
    """Add the flags of `boxel evaluate`."""
    parser.add_argument("subject", type=str, help="a run folder, a COCO results file, or a labeled set")
    add_data(parser)
    parser.add_argument("--class-agnostic", action="store_true", help="all categories count as one")
    parser.add_argument("--categories", type=str, help="measure these categories only: person,dog")
    parser.add_argument(
        "--baselines", type=str, help="masks from the same boxes beside the model's: box,grabcut"
    )
    parser.add_argument("--no-boundary", action="store_true", help="leave Boundary AP out")
    parser.add_argument("--regions", action="store_true", help="also mAP^r and mAP^r_vol, as on Pascal VOC")
    parser.add_argument("--results", type=str, metavar="OUT", help="write the detections as COCO results")
    parser.add_argument("--json", type=str, metavar="OUT", help="write the figures as JSON")
    parser.add_argument(
        "--trimap", type=str, metavar="PNG", help="of segmenters: plot mean IoU near true boundaries and away"
    )
    add_inference(parser)


def run_evaluate(given: Namespace) -> int:
    """Run `boxel evaluate`."""
    from boxel.evaluation import TRIMAP_WIDTHS, evaluate

    outputs = {flag: writable(given[flag]) for flag in ("results", "json", "trimap") if flag in given}
    plain = ("class_agnostic", "regions", "results", "flip", "device", "short_side", "batch_size", *MAP_LOOKS)
    settings = {name: given[name] for name in plain if name in given}
    settings |= {name: parse_names(given, name) for name in ("categories", "baselines") if name in given}
    settings |= {"score_threshold": given.score} if "score" in given else {}
    settings |= {"boundary": False} if "no_boundary" in given else {}
    settings |= {"scales": parse_scales(given)} if "scales" in given else {}
    settings |= {"trimap": list(TRIMAP_WIDTHS)} if "trimap" in given else {}
    evaluation = evaluate(
        given.subject,
        given.annotations,
        images=given.get("images"),
        class_list=given.get("class_list"),
        **settings,
    )
    for error in evaluation.errors:
        say(error)
    if "json" in outputs:
        outputs["json"].write_text(json.dumps(evaluation.metrics, indent=1))
    print(evaluation.table())
    if "trimap" in outputs:
        from boxel.viz.plots import plot_trimap

        plot_trimap({Path(given.subject).resolve().name: evaluation.metrics["trimap"]}, outputs["trimap"])
        print(f"plot: {given.trimap}")
    return 1 if evaluation.errors else 0
