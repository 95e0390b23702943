"""The command line: each command parses, calls one function and prints."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from argparse import Action
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from boxel import __version__
from boxel.methods import METHODS, SEMANTIC, resolve
from boxel.utils.errors import BoxelError, UsageError, nearest


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        args: the words after `boxel`; those of the process where None.

    Returns:
        0: done, 1: the data or a file is at fault, 2: wrong usage.
    """
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for chatty in ("lightning", "lightning.pytorch", "httpx", "matplotlib", "timm"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    warnings.showwarning = _print_warning  # type: ignore[assignment]
    if not words or words[0] in ("-h", "--help", "--version"):
        print(f"boxel {__version__}" if words[:1] == ["--version"] else _overview())
        return 0 if words else 2
    # A command may be of two words, as `train boxinst`.
    longer = [known for known in COMMANDS if known.startswith(f"{words[0]} ")]
    if longer and (len(words) == 1 or words[1] in ("-h", "--help")):
        print(_overview(longer))
        return 0 if len(words) > 1 else 2
    count = 2 if longer else 1
    name, rest = " ".join(words[:count]), words[count:]
    if name not in COMMANDS:
        known = list(COMMANDS) if count == 2 else [command.split()[0] for command in COMMANDS]
        print(f"boxel: there is no command {name!r}.{nearest(name, known)}", file=sys.stderr)
        return 2
    description, add_arguments, run = COMMANDS[name]
    parser = ArgumentParser(prog=f"boxel {name}", description=description, formatter_class=_Help)
    add_arguments(parser)
    parser.usage = _usage(parser)
    rest = _spelled_as_declared(parser, rest)
    wrong = _unknown_flag(parser, rest)
    if wrong:
        print(f"boxel: {wrong}", file=sys.stderr)
        return 2
    try:
        # Only what was typed: everything else comes from the recipe or the defaults behind it.
        return run(parser.parse_args(rest, defaults=False))
    except BoxelError as error:
        if debug:
            raise
        print(f"boxel: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except Exception as error:
        if debug:
            raise
        reason = " ".join(str(error).split())
        print(f"boxel: {type(error).__name__}: {reason} (--debug shows where).", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("boxel: stopped.", file=sys.stderr)
        return 1


# ---------------------------------------------------------------- check


def _check_arguments(parser: ArgumentParser) -> None:
    _data_arguments(parser)
    parser.add_argument("--repair", type=str, metavar="OUT", help="write a mended copy (COCO json) here")
    parser.add_argument("--json", action="store_true", help="print the faults as JSON")


def _check(given: Namespace) -> int:
    from boxel.data import write
    from boxel.data.check import check, faults_as_json, repair, summary

    if "repair" in given and Path(given.repair).suffix != ".json":
        raise UsageError(f"--repair {given.repair}: the mended copy is a COCO file; end its name on .json.")
    if "repair" in given and Path(given.repair).exists():
        raise UsageError(
            f"--repair {given.repair}: there is such a file already; name a new one for the copy."
        )
    data = _read(given, tell_faults=False)
    if "repair" in given:
        mended, faults = repair(data)
        write(mended, given.repair)
    else:
        faults = check(data)
    if "json" in given:
        print(json.dumps(faults_as_json(faults), indent=1))
    else:
        print(data)
        print("\n".join(summary(faults)))
        if "repair" in given:
            print(f"mended copy: {given.repair}")
    left = [fault for fault in faults if not ("repair" in given and fault.repair)]
    return 1 if left else 0


# ---------------------------------------------------------------- convert


def _convert_arguments(parser: ArgumentParser) -> None:
    _data_arguments(parser)
    parser.add_argument("out", type=str, help="file or folder to write")
    parser.add_argument(
        "--to", type=str, help="coco, voc, sbd, yolo, labelme or semantic; coco for a .json file"
    )
    parser.add_argument(
        "--from", dest="format", type=str, help="format of the input, where it is not recognized"
    )


def _convert(given: Namespace) -> int:
    from boxel.data.convert import convert

    data = convert(
        given.annotations,
        given.out,
        to=given.get("to"),
        images=given.get("images"),
        format=given.get("format"),
        classes=given.get("class_list"),
    )
    print(f"{data}\nwritten to {given.out}")
    return 0


# ---------------------------------------------------------------- label


def _label_arguments(parser: ArgumentParser) -> None:
    from boxel.labeling.config import LabelConfig

    _data_arguments(parser)
    parser.add_argument("--out", type=str, help="COCO file for the masks (default: masks.json)")
    parser.add_argument(
        "--teacher",
        type=str,
        help="who draws the masks, several with commas: boxcaseg (default), boxcaseg-boxes, grabcut-ellipse, "
        "crf, sam:PATH, a run",
    )
    parser.add_argument(
        "--to", type=str, help="formats to write as well, each into a folder beside: yolo,voc,labelme"
    )
    parser.add_argument(
        "--report", type=str, metavar="HTML", help="write a page on the masks and their quality"
    )
    parser.add_argument(
        "--calibrate", type=str, metavar="FILE", help="true masks of 20 boxes or more, to fit quality to"
    )
    parser.add_class_arguments(LabelConfig, None, skip={"teachers"})


def _label(given: Namespace) -> int:
    from dataclasses import fields

    from boxel.labeling.api import label_data
    from boxel.labeling.config import LabelConfig

    out = given.get("out", "masks.json")
    if "report" in given and _writable(given.report).suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {given.report}: the page is HTML; end its name on .html.")
    outcome = label_data(
        given.annotations,
        images=given.get("images"),
        out=out,
        to=_names(given, "to") or [],
        teacher=_names(given, "teacher"),
        calibrate_on=given.get("calibrate"),
        report=_say,
        **{entry.name: given[entry.name] for entry in fields(LabelConfig) if entry.name in given},
    )
    print(f"{outcome.summary()}\nmasks: {out}")
    if "report" in given:
        from boxel.viz.report import write_report

        write_report(
            outcome.data, given.report, bad=outcome.bad, changed=outcome.changed, settings=outcome.settings
        )
        print(f"page: {given.report}")
    return 1 if outcome.bad else 0


# ---------------------------------------------------------------- adapt


def _adapt_arguments(parser: ArgumentParser) -> None:
    _data_arguments(parser)
    parser.add_argument("--out", type=str, help="folder of the adapted model (default: adapted)")
    parser.add_argument("--teacher", type=str, help="the BoxCaseg to start from (default: boxcaseg)")
    parser.add_argument("--minutes", type=float, help="how long to train (default: 20)")


def _adapt(given: Namespace) -> int:
    from boxel.training.adapt import adapt

    minutes, out = given.get("minutes", 20.0), given.get("out", "adapted")
    if not minutes > 0:
        raise UsageError(f"--minutes is {minutes}; give a number above 0.")
    adapt(_read(given), minutes, out, given.get("teacher", "boxcaseg"), _say)
    print(f"adapted model: {out}; use it with `boxel label --teacher {out}`")
    return 0


# ---------------------------------------------------------------- train


def _train_arguments(method: str, parser: ArgumentParser) -> None:
    _data_arguments(parser, several=True)
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


def _train(method: str, given: Namespace) -> int:
    from boxel.training import train
    from boxel.training.recipe import config_of
    from boxel.utils.config import known_keys

    keys = known_keys(config_of(method))
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
        mask_classes=_names(given, "mask_classes"),
        rename=_pairs(given, "rename"),
        categories=_names(given, "categories"),
        class_agnostic="class_agnostic" in given,
        class_list=given.get("class_list"),
        config=given.get("config"),
        init=given.get("init"),
        resume="resume" in given,
        **changes,
    )
    return 1 if model is None else 0


# ---------------------------------------------------------------- evaluate


def _evaluate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("subject", type=str, help="a run folder, a COCO results file, or a labeled set")
    _data_arguments(parser)
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
    _looking_arguments(parser)


def _evaluate(given: Namespace) -> int:
    from boxel.evaluation import check_baselines, evaluate_detections, format_table, read_results
    from boxel.evaluation.labeled import is_labeled_set, measure, table
    from boxel.evaluation.run import is_agnostic, predict_set
    from boxel.models.io import method_of

    method = method_of(given.subject)
    if method in SEMANTIC or (method is None and _is_map_folder(given.subject)):
        return _evaluate_maps(given, method)
    _refuse(given, ("trimap", *_MAP_LOOKS), f"{given.subject} finds instances")
    outputs = {flag: _writable(given[flag]) for flag in ("results", "json") if flag in given}
    truth = _read(given, split="val")
    categories, baselines = _names(given, "categories"), _names(given, "baselines") or []
    # Said before an hour of prediction, not after it.
    check_baselines(baselines)
    truth.select_categories(categories or [])
    if is_labeled_set(given.subject) or method == "boxcaseg":
        idle = ("results", "class_agnostic", "no_boundary", "regions", *_LOOKING, *_BOTH)
        _refuse(given, idle, f"{given.subject} is measured by masks of given boxes")
        figures = measure(given.subject, truth, baselines, categories, given.get("device", "auto"), _say)
        if "json" in outputs:
            outputs["json"].write_text(json.dumps(figures, indent=1))
        print(table(figures))
        return 0
    agnostic = "class_agnostic" in given
    lost: list[str] = []
    if Path(given.subject).is_dir():
        model = _load(given.subject, given)
        agnostic = agnostic or is_agnostic(model)
        looking, batch_size = _looking(model, given), given.get("batch_size", 1)
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

    idle = ("results", "class_agnostic", "no_boundary", "regions", "categories", "baselines", *_LOOKING)
    _refuse(given, idle, f"{given.subject} gives pixels classes")
    outputs = {flag: _writable(given[flag]) for flag in ("json", "trimap") if flag in given}
    truth = _read(given, split="val")
    lost: list[str] = []
    widths = WIDTHS if "trimap" in outputs else ()
    if method is None:
        _refuse(given, (*_MAP_LOOKS, *_BOTH), f"the maps in {given.subject} are made already")
        figures = measure_folder(Path(given.subject), truth, _kept_in(lost), widths)
    else:
        model = _load(given.subject, given)
        figures = measure_maps(model, truth, _looks(model, given), _kept_in(lost), widths)
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


# ---------------------------------------------------------------- predict


def _predict_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "run",
        type=str,
        help="a model folder, boxcaseg, boxcaseg-boxes, or a model's id on the Hugging Face hub",
    )
    parser.add_argument("photos", type=str, nargs="+", help="files, folders or globs")
    parser.add_argument(
        "--boxes", type=str, metavar="FILE", help="annotations whose boxes BoxCaseg makes masks of"
    )
    parser.add_argument(
        "--detector", type=str, metavar="RUN", help="a model whose boxes BoxCaseg makes masks of"
    )
    parser.add_argument(
        "--out",
        type=str,
        help="COCO results file (default: predictions.json); of a segmenter, a folder of label maps (predictions)",
    )
    parser.add_argument(
        "--draw", type=str, metavar="FOLDER", help="write the photos with what is found in them here"
    )
    parser.add_argument("--draw-score", type=float, help="lowest score drawn (default: 0.3)")
    _looking_arguments(parser)


def _predict(given: Namespace) -> int:
    from boxel.data import read
    from boxel.models.predict import predict

    settings = {name: given[name] for name in _INFERENCE if name in given}
    if "scales" in given:
        settings["scales"] = _scales(given)
    if "score" in given:
        settings["score_threshold"] = given.score
    summary = predict(
        given.run,
        given.photos,
        given.get("out"),
        given.get("draw"),
        boxes=read(given.boxes) if "boxes" in given else None,
        detector=given.get("detector"),
        draw_score=given.get("draw_score", 0.3),
        batch_size=given.get("batch_size", 1),
        device=given.get("device", "auto"),
        **settings,
    )
    print(summary)
    return 1 if summary.errors else 0


_INFERENCE = ("short_side", "long_side", "tile", "shifts", "crf", "flip")
"""Settings of inference that are flags of the same name."""

_LOOKING = ("short_side", "score", "batch_size")
"""Flags on how photos are shown to a model that finds instances."""

_MAP_LOOKS = ("long_side", "tile", "shifts", "crf")
"""Flags on how they are shown to one that gives pixels a class."""

_BOTH = ("flip", "scales")
"""Flags on how they are shown to either."""


# ---------------------------------------------------------------- export


def _export_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "run",
        type=str,
        help="a model folder, boxcaseg, boxcaseg-boxes, or a model's id on the Hugging Face hub",
    )
    parser.add_argument("out", type=str, help="ONNX file to write")
    parser.add_argument(
        "--photos", type=str, nargs="+", help="photos to check it on (default: a few of scikit-image)"
    )


def _export(given: Namespace) -> int:
    from boxel.exporting import export

    check = export(given.run, _writable(given.out), given.get("photos"))
    print(f"written to {given.out}: {check}")
    return 0


# ---------------------------------------------------------------- inspect


def _inspect_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "what", type=str, choices=["affinity"], help="affinity: which tau fits this kind of image"
    )
    _data_arguments(parser)
    parser.add_argument(
        "--plot", type=str, metavar="PNG", help="the curves of the paper's Figure 4 (default: affinity.png)"
    )
    parser.add_argument("--theta", type=float, help="scale of the color similarity (default: 2)")
    parser.add_argument("--size", type=int, help="side of the neighborhood (default: 3)")
    parser.add_argument("--dilation", type=int, help="of the neighborhood (default: 2)")
    parser.add_argument(
        "--short-side", type=int, help="shorter side in training, in pixels (default: as it is)"
    )


def _inspect(given: Namespace) -> int:
    from boxel.evaluation.affinity import count_edges
    from boxel.viz.overlays import plot_affinity

    options = {name: given[name] for name in ("theta", "size", "dilation", "short_side") if name in given}
    counts = count_edges(_read(given), **options, report=_say)
    print("  tau   positive among edges kept   positives kept")
    for tau, precision, recall in zip(counts.tau, counts.precision, counts.recall, strict=True):
        print(f"{tau:5.2f}   {precision:25.1%}   {recall:14.1%}")
    print("Set model.tau to the lowest tau at which nearly all edges kept are positive.")
    plot = given.get("plot", "affinity.png")
    plot_affinity({"tau": counts.tau, "precision": counts.precision, "recall": counts.recall}, plot)
    print(f"plot: {plot}")
    return 0


# ---------------------------------------------------------------- segments


def _segments_arguments(parser: ArgumentParser) -> None:
    _data_arguments(parser)
    parser.add_argument("--out", type=str, help="folder of the segments (default: segments)")
    parser.add_argument("--source", type=str, help="mcg, selective-search or gop (default: mcg)")
    parser.add_argument("--count", type=int, help="most segments of an image (default: 2000)")
    parser.add_argument(
        "--anywhere", action="store_true", help="choose segments without looking at the boxes"
    )
    parser.add_argument("--no-grabcut", action="store_true", help="leave out the GrabCut of each box")
    parser.add_argument("--workers", type=int, help="processes (default: one for each core)")
    parser.add_argument(
        "--plot",
        type=str,
        metavar="PNG",
        help="where there are masks: IoU of the best segments by their number",
    )


def _segments(given: Namespace) -> int:
    import os

    from boxel.proposals import ProposalConfig, make_candidates
    from boxel.utils.progress import progress

    out = given.get("out", "segments")
    options = {name: given[name] for name in ("source", "count") if name in given}
    config = ProposalConfig(
        **options,
        fit_boxes="anywhere" not in given,
        grabcut="no_grabcut" not in given,
    )
    workers = given.get("workers", os.cpu_count() or 1)
    if workers < 1:
        raise UsageError(f"--workers is {workers}; give a number from 1 up.")
    data = _read(given)
    with progress(len(data), "images", _say) as advance:
        lost = make_candidates(data, out, config, workers=workers, advance=advance)
    for fault in lost:
        _say(f"warning: {fault}")
    print(f"segments of {len(data) - len(lost)} images: {out}")
    if data.has_mask.any():
        _segment_recall(data, out, config, given)
    return 1 if lost else 0


def _segment_recall(data: Any, out: str, config: Any, given: Namespace) -> None:
    from boxel.evaluation.proposals import COUNTS, recall
    from boxel.viz.overlays import plot_recall

    ious = recall(data, out, config, report=_say)
    print(f"best of them for {len(ious)} objects of 16 pixels and more, by how many are looked at:")
    print("  number   mean IoU   above 0.5   above 0.7")
    shares = {"mean IoU": ious.mean(0), "above 0.5": (ious > 0.5).mean(0), "above 0.7": (ious > 0.7).mean(0)}
    for count, mean, half, more in zip(COUNTS, *shares.values(), strict=True):
        print(f"{count:8d}   {mean:8.3f}   {half:9.1%}   {more:9.1%}")
    if "plot" in given:
        plot_recall({"count": COUNTS, **shares}, given.plot)
        print(f"plot: {given.plot}")


# ---------------------------------------------------------------- tune-crf


def _tune_crf_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="the folder of a segmenter")
    _data_arguments(parser)
    parser.add_argument("--count", type=int, help="images looked at, evenly chosen (default: 100)")
    parser.add_argument("--device", type=str, help="cpu, cuda, mps (default: cuda where there is one)")


def _tune_crf(given: Namespace) -> int:
    from boxel.evaluation.tune_crf import best_crf, tries_table, tune_crf
    from boxel.models.io import CRF_FILE, method_of, write_crf

    run, count = Path(given.run), given.get("count", 100)
    if not run.is_dir() or method_of(run) not in SEMANTIC:
        raise UsageError(
            f"{run} is no segmenter's folder, which a CRF is tuned for; name the --out folder of a run of "
            f"{' or '.join(SEMANTIC)}."
        )
    if count < 1:
        raise UsageError(f"--count is {count}; give a number from 1 up.")
    tries = tune_crf(_load(given.run, given), _read(given, split="val"), count, _say)
    write_crf(best_crf(tries), run)
    print(f"{tries_table(tries)}\nthe best CRF: {run / CRF_FILE}")
    return 0


# ---------------------------------------------------------------- demo


def _demo_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=str, help="folder for everything it makes (default: demo)")
    parser.add_argument("--steps", type=int, help="optimizer steps of each training")


def _demo(given: Namespace) -> int:
    from boxel.demo.scenes import demo

    demo(**given.as_dict())
    return 0


COMMANDS: dict[str, tuple[str, Callable[[ArgumentParser], None], Callable[[Namespace], int]]] = {
    "check": ("Find what is wrong with a data set, and mend it.", _check_arguments, _check),
    "label": ("Make masks of boxes, each with an estimate of its quality.", _label_arguments, _label),
    "adapt": ("Train the bundled network on your boxes and masks.", _adapt_arguments, _adapt),
    "convert": ("Bring a data set from any format to any other.", _convert_arguments, _convert),
    **{
        f"train {name}": (method.help, partial(_train_arguments, name), partial(_train, name))
        for name, method in METHODS.items()
    },
    "evaluate": ("Measure a run or a COCO results file against the truth.", _evaluate_arguments, _evaluate),
    "predict": (
        "Find and segment instances in photos, or tell the class of each pixel.",
        _predict_arguments,
        _predict,
    ),
    "export": ("Write a model as an ONNX file that needs no boxel.", _export_arguments, _export),
    "inspect": ("Measure what a setting should be for your data.", _inspect_arguments, _inspect),
    "segments": ("Make candidate segments of photos, with nothing learned.", _segments_arguments, _segments),
    "tune-crf": (
        "Search for the CRF that suits a segmenter, on images it has not learned from.",
        _tune_crf_arguments,
        _tune_crf,
    ),
    "demo": (
        "Make masks of boxes on real photos; train from boxes and from masks on scenes.",
        _demo_arguments,
        _demo,
    ),
}


# ---------------------------------------------------------------- shared


def _data_arguments(parser: ArgumentParser, several: bool = False) -> None:
    parser.add_argument(
        "annotations",
        type=str,
        nargs="+" if several else None,
        help="COCO json, VOC, SBD, YOLO, LabelMe or label maps; recognized by itself"
        + (" (several are learned as one set)" if several else ""),
    )
    parser.add_argument(
        "--images", type=str, help="folder of the images, where it is not beside the annotations"
    )
    parser.add_argument(
        "--class-list",
        type=str,
        help="of label maps: a text that names the class of each value, or camvid, voc, cityscapes, pascal-context",
    )


def _looking_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--short-side", type=int, help="shorter side shown, in pixels (default: the training's)"
    )
    parser.add_argument("--flip", action="store_true", help="look at the mirrored photo too")
    parser.add_argument("--scales", type=str, help="factors on the photo's size, merged: 0.75,1,1.25")
    parser.add_argument(
        "--long-side", type=int, help="of segmenters: longer side shown, in pixels (default: the training's)"
    )
    parser.add_argument(
        "--tile", type=int, help="of segmenters: look at larger photos in overlapping squares of this side"
    )
    parser.add_argument(
        "--shifts", type=int, help="of segmenters: n x n looks shifted by a fraction of a cell (default: 1)"
    )
    parser.add_argument(
        "--crf", action="store_true", help="of segmenters: a CRF on top, as `boxel tune-crf` has set it"
    )
    parser.add_argument(
        "--score", type=float, help="lowest score given out, if above the model's score_threshold"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        help="photos looked at together, padded to one size, which shifts scores a little (default: 1)",
    )
    parser.add_argument("--device", type=str, help="cpu, cuda, mps (default: cuda where there is one)")


def _looking(model: Any, given: Namespace) -> Any:
    from boxel.models.inference import inference_config

    if given.get("batch_size", 1) < 1:
        raise UsageError(f"--batch-size is {given.batch_size}; give a number from 1 up.")
    size = {"short_side": given.short_side} if "short_side" in given else {}
    return inference_config(
        model, flip="flip" in given, score_threshold=given.get("score", 0.0), scales=_scales(given), **size
    )


def _looks(model: Any, given: Namespace) -> Any:
    from boxel.models.semantic.inference import semantic_inference_config

    named = {flag: given[flag] for flag in _MAP_LOOKS if flag in given}
    return semantic_inference_config(model, **named, flip="flip" in given, scales=_scales(given))


def _scales(given: Namespace) -> tuple[float, ...]:
    try:
        return tuple(float(factor) for factor in _names(given, "scales") or (1.0,))
    except ValueError:
        raise UsageError(
            f"--scales has {given.scales!r}; write factors with commas, as 0.75,1,1.25."
        ) from None


def _refuse(given: Namespace, flags: Sequence[str], why: str) -> None:
    """Raise where a flag was given that would do nothing."""
    for flag in flags:
        if flag in given:
            raise UsageError(f"--{flag.replace('_', '-')} does nothing here, since {why}; leave it out.")


def _load(folder: str, given: Namespace) -> Any:
    import torch

    from boxel.models.io import load

    device = given.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
    model = load(folder)
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"--device {device} can't be had here ({reason[:120]}); try cpu.") from error


def _read(given: Namespace, tell_faults: bool = True, split: str | None = None) -> Any:
    from boxel.data import read
    from boxel.data.faults import left_out

    data = read(given.annotations, images=given.get("images"), split=split, classes=given.get("class_list"))
    if data.faults and tell_faults:
        _say(f"warning: {left_out(data.faults)}")
    return data


def _names(given: Namespace, flag: str) -> list[str] | None:
    """What a flag lists, split at commas; None where it was not given, an empty list where it lists nothing."""
    text = given.get(flag)
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _pairs(given: Namespace, flag: str) -> dict[str, str] | None:
    entries = _names(given, flag)
    if entries is None:
        return None
    for entry in entries:
        if entry.count("=") != 1:
            raise UsageError(f"--{flag} has {entry!r}; write OLD=NEW, and commas between several.")
    return dict(entry.split("=") for entry in entries)


def _writable(name: str) -> Path:
    """A file to be written at the end of something long, its folder made now."""
    path = Path(name)
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file to write.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BoxelError(f"{path}: its folder can't be made ({error}); name another file.") from error
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BoxelError(f"{path}: can't be written; name another file.")
    return path


class _Help(DefaultHelpFormatter):
    """Help that names type and default of a setting, and leaves flags that explain themselves alone."""

    def _get_help_string(self, action: Action) -> str:
        speaks_for_itself = action.default is None or action.nargs == 0
        return action.help or "" if speaks_for_itself else super()._get_help_string(action)


def _usage(parser: ArgumentParser) -> str:
    """What must be given; of a hundred flags, none is."""
    positional = [action for action in parser._actions if not action.option_strings]
    words = [action.dest.upper() + " ..." * (action.nargs == "+") for action in positional]
    return " ".join([parser.prog, *words, "[flags]"])


def _spelled_as_declared(parser: ArgumentParser, words: list[str]) -> list[str]:
    """Settings have underscores and flags have hyphens; either spelling of either will do."""
    known = {flag.replace("-", "_"): flag for action in parser._actions for flag in action.option_strings}
    spelled = []
    for word in words:
        flag, equals, value = word.partition("=")
        spelled.append(
            known.get(flag.replace("-", "_"), flag) + equals + value if flag.startswith("--") else word
        )
    return spelled


def _unknown_flag(parser: ArgumentParser, words: list[str]) -> str:
    known = [flag for action in parser._actions for flag in action.option_strings]
    for word in words:
        flag = word.split("=")[0]
        if flag.startswith("--") and len(flag) > 2 and flag not in known:
            return f"{parser.prog} has no flag {flag!r}.{nearest(flag, known)}"
    return ""


def _overview(names: Sequence[str] | None = None) -> str:
    names = names or list(COMMANDS)
    width = max(map(len, names))
    lines = [f"  {name:<{width}}  {COMMANDS[name][0]}" for name in names]
    return "\n".join(
        [
            "usage: boxel COMMAND ...   (boxel COMMAND --help tells its flags; --debug shows tracebacks)",
            "",
            *lines,
        ]
    )


def _print_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    # Warnings of libraries about themselves are for their developers.
    if issubclass(category, UserWarning):
        _say(f"warning: {message}")


def _kept_in(told: list[str]) -> Callable[[str], None]:
    """A `report` that says what it is told, and keeps it: whether anything was lost decides the exit code."""

    def report(text: str) -> None:
        told.append(text)
        _say(text)

    return report


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
