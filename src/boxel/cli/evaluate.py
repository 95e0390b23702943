"""The command that evaluates a model or a file."""

from __future__ import annotations

import json
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from boxel.cli.options import (
    BOTH,
    LOOKING,
    MAP_LOOKS,
    add_data,
    add_inference,
    keep_in,
    load_model,
    look_config,
    parse_names,
    predict_config,
    read_data,
    refuse,
    say,
    writable,
)
from boxel.methods import SEMANTIC


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
    from boxel.evaluation import check_baselines, evaluate_detections, format_table, read_results
    from boxel.evaluation.labeled import is_labeled_set, measure, table
    from boxel.evaluation.run import is_agnostic, predict_set
    from boxel.models.io import method_of

    method = method_of(given.subject)
    if method in SEMANTIC or (method is None and _is_map_folder(given.subject)):
        return _evaluate_maps(given, method)
    refuse(given, ("trimap", *MAP_LOOKS), f"{given.subject} finds instances")
    outputs = {flag: writable(given[flag]) for flag in ("results", "json") if flag in given}
    truth = read_data(given, split="val")
    categories, baselines = parse_names(given, "categories"), parse_names(given, "baselines") or []
    # Said before an hour of prediction, not after it.
    check_baselines(baselines)
    truth.select_categories(categories or [])
    if is_labeled_set(given.subject) or method == "boxcaseg":
        idle = ("results", "class_agnostic", "no_boundary", "regions", *LOOKING, *BOTH)
        refuse(given, idle, f"{given.subject} is measured by masks of given boxes")
        figures = measure(given.subject, truth, baselines, categories, given.get("device", "auto"), say)
        if "json" in outputs:
            outputs["json"].write_text(json.dumps(figures, indent=1))
        print(table(figures))
        return 0
    agnostic = "class_agnostic" in given
    lost: list[str] = []
    if Path(given.subject).is_dir():
        model = load_model(given.subject, given)
        agnostic = agnostic or is_agnostic(model)
        looking, batch_size = predict_config(model, given), given.get("batch_size", 1)
        results = predict_set(model, truth, looking, batch_size, lost, agnostic)
    else:
        results = read_results(given.subject)
    if "results" in outputs:
        outputs["results"].write_text(json.dumps(results))
    metrics = evaluate_detections(
        results,
        truth,
        class_agnostic=agnostic,
        categories=categories,
        boundary="no_boundary" not in given,
        regions="regions" in given,
        baselines=baselines,
        file=given.subject,
    )
    if "json" in outputs:
        outputs["json"].write_text(json.dumps(metrics, indent=1))
    print(format_table(metrics))
    return 1 if lost else 0


def _evaluate_maps(given: Namespace, method: str | None) -> int:
    """Measure label maps: of a segmenter, or in a folder."""
    from boxel.evaluation.maps import maps_table, measure_folder, measure_maps
    from boxel.evaluation.summary import without_nan
    from boxel.evaluation.trimap import WIDTHS
    from boxel.viz.overlays import plot_trimap

    idle = ("results", "class_agnostic", "no_boundary", "regions", "categories", "baselines", *LOOKING)
    refuse(given, idle, f"{given.subject} gives pixels classes")
    outputs = {flag: writable(given[flag]) for flag in ("json", "trimap") if flag in given}
    truth = read_data(given, split="val")
    lost: list[str] = []
    widths = WIDTHS if "trimap" in outputs else ()
    if method is None:
        refuse(given, (*MAP_LOOKS, *BOTH), f"the maps in {given.subject} are made already")
        figures = measure_folder(Path(given.subject), truth, keep_in(lost), widths)
    else:
        model = load_model(given.subject, given)
        figures = measure_maps(model, truth, look_config(model, given), keep_in(lost), widths)
    if "json" in outputs:
        outputs["json"].write_text(json.dumps(without_nan(figures), indent=1))
    print(maps_table(figures))
    if "trimap" in outputs:
        plot_trimap({Path(given.subject).resolve().name: figures["trimap"]}, outputs["trimap"])
        print(f"plot: {given.trimap}")
    return 1 if lost else 0


def _is_map_folder(path: str) -> bool:
    from boxel.data.formats.semantic_files import holds_label_maps

    return Path(path).is_dir() and holds_label_maps(Path(path))
