"""Smaller commands: export, inspect, segments, tune-crf and demo."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from boxel.cli.options import (
    MODEL_HELP,
    Command,
    add_data,
    check_writable,
    given_settings,
    load_model,
    read_data,
)
from boxel.utils.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from boxel.cli.parser import Parser
    from boxel.models.semantic import Segmenter

logger = logging.getLogger(__name__)


def _add_export(parser: Parser) -> None:
    parser.add_positional("model", MODEL_HELP)
    parser.add_positional("out", "ONNX file to write")
    parser.add_flag(
        "images",
        str,
        "images to compare ONNX Runtime and PyTorch on; a few of installed packages if left out",
        metavar="FILE",
        several=True,
    )


def _export(given: Namespace) -> int:
    from boxel.exporting import export

    check = export(given.model, check_writable(given.out), given.get("images"))
    print(f"written to {given.out}: {check}")
    return 0


def _add_inspect(parser: Parser) -> None:
    from boxel.evaluation.config import AffinityConfig

    parser.add_positional(
        "what", "affinity: which `model.tau` of BoxInst suits the images", hint=Literal["affinity"]
    )
    add_data(parser)
    parser.add_flag("plot", str, "the curves of BoxInst's Figure 4", default="affinity.png", metavar="PNG")
    parser.add_settings(AffinityConfig)


def _inspect(given: Namespace) -> int:
    from boxel.evaluation import AffinityConfig, count_edges, format_edges
    from boxel.viz.plots import plot_affinity

    counts = count_edges(read_data(given), config=AffinityConfig(**given_settings(given, AffinityConfig)))
    print(format_edges(counts))
    plot = given.get("plot", "affinity.png")
    plot_affinity({"tau": counts.tau, "precision": counts.precision, "recall": counts.recall}, plot)
    print(f"plot: {plot}")
    return 0


def _add_segments(parser: Parser) -> None:
    from boxel.proposals.config import ProposalConfig
    from boxel.utils.config import PositiveInt

    add_data(parser)
    parser.add_flag("out", str, "folder of the segments", default="segments", metavar="FOLDER")
    parser.add_settings(ProposalConfig)
    parser.add_flag("workers", PositiveInt, "number of processes; one per core if left out")
    parser.add_flag(
        "plot", str, "plot the IoU of the best segments by their number, if there are masks", metavar="PNG"
    )


def _segments(given: Namespace) -> int:
    from boxel.proposals import ProposalConfig, make_candidates
    from boxel.utils.progress import progress

    out = given.get("out", "segments")
    config = ProposalConfig(**given_settings(given, ProposalConfig))
    data = read_data(given)
    with progress(len(data), "images", logger.info) as advance:
        lost = make_candidates(
            data, out, config, workers=given.get("workers", os.cpu_count() or 1), advance=advance
        )
    for error in lost:
        logger.warning(error)
    print(f"segments of {len(data) - len(lost)} images: {out}")
    if data.has_mask.any():
        _segment_recall(data, out, config, given)
    return 1 if lost else 0


def _segment_recall(data: Any, out: str, config: Any, given: Namespace) -> None:
    from boxel.evaluation.proposals import COUNTS, best_candidate_ious, format_recall, summarize_recall
    from boxel.viz.plots import plot_recall

    ious = best_candidate_ious(data, out, config)
    print(format_recall(ious))
    if "plot" in given:
        plot_recall({"count": COUNTS, **summarize_recall(ious)}, given.plot)
        print(f"plot: {given.plot}")


def _add_tune_crf(parser: Parser) -> None:
    from boxel.utils.config import PositiveInt

    parser.add_positional("run", "the folder of a semantic model")
    add_data(parser)
    parser.add_flag("count", PositiveInt, "number of images to use, evenly spaced", default=100)
    parser.add_flag("device", str, "`cpu`, `cuda`, `mps`, or `auto` for CUDA if available", default="auto")


def _tune_crf(given: Namespace) -> int:
    from boxel.evaluation import best_crf, format_trials, tune_crf
    from boxel.methods import SEMANTIC
    from boxel.models.io import CRF_FILE, write_crf
    from boxel.models.pretrained import read_method

    run = Path(given.run)
    if not run.is_dir() or read_method(run) not in SEMANTIC:
        raise UsageError(
            f"{run} is not the folder of a semantic model; name the folder of a run of {' or '.join(SEMANTIC)}."
        )
    model = cast("Segmenter", load_model(given.run, given))
    trials = tune_crf(model, read_data(given, split="val"), given.get("count", 100))
    write_crf(best_crf(trials), run)
    print(f"{format_trials(trials)}\nthe best CRF: {run / CRF_FILE}")
    return 0


def _add_demo(parser: Parser) -> None:
    from boxel.utils.config import PositiveInt

    parser.add_flag("out", str, "folder for everything that the demo makes", default="demo", metavar="FOLDER")
    parser.add_flag("train", bool, "train from boxes and from masks instead, which takes about 12 minutes")
    parser.add_flag("steps", PositiveInt, "with --train: optimizer steps of each training")


def _demo(given: Namespace) -> int:
    import boxel.demo  # its functions are loaded one by one: only the training needs PyTorch

    out = given.get("out", "demo")
    if "steps" in given and not given.get("train"):
        raise UsageError("--steps is for --train; add it, or leave --steps out.")
    print(boxel.demo.demo_train(out, given.get("steps")) if given.get("train") else boxel.demo.demo(out))
    return 0


EXPORT = Command(
    "Write a model as an ONNX file that runs without boxel.", "runs/boxinst model.onnx", _add_export, _export
)
INSPECT = Command(
    "Measure what a setting should be for your data.",
    "affinity masks.json --images photos/",
    _add_inspect,
    _inspect,
)
SEGMENTS = Command(
    "Make candidate segments of images, without learning.",
    "boxes.json --images photos/",
    _add_segments,
    _segments,
)
TUNE_CRF = Command(
    "Search for the CRF settings that suit a semantic model, on images it was not trained on.",
    "runs/fcrn val.json --images photos/",
    _add_tune_crf,
    _tune_crf,
)
DEMO = Command(
    "Label the bundled photographs; with --train, train from boxes and from masks on generated scenes.",
    "--out demo",
    _add_demo,
    _demo,
)
