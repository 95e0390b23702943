"""Smaller commands: export, inspect, segments, tune-crf, doctor and demo."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from boxel.cli.options import (
    AGAIN,
    DATA,
    MODEL_HELP,
    RESUMES,
    Command,
    Option,
    check_writable,
    given_settings,
    read_data,
)
from boxel.utils.errors import UsageError

if TYPE_CHECKING:
    from boxel.models.semantic import Segmenter

logger = logging.getLogger(__name__)


def _export_options() -> list[Option]:
    from boxel.utils.onnx import Precision

    images = (
        "images to compare ONNX Runtime and PyTorch on, and to measure the ranges of int8 on, which needs 20 or more; "
        "a few of installed packages if left out"
    )
    precision = "type of the trained layers; float16 halves the file, int8 is also faster on many CPUs"
    return [
        Option("model", MODEL_HELP, positional=True),
        Option("out", "ONNX file to write", positional=True, is_output=True),
        Option("images", images, metavar="FILE", several=True, is_input=True),
        Option("precision", precision, Precision, default="float32"),
    ]


def _export(given: dict[str, Any]) -> int:
    from boxel.exporting import export

    out = check_writable(given["out"])
    check = export(given["model"], out, given.get("images"), given["precision"])
    print(f"written to {out} ({os.path.getsize(out) / 1e6:.1f} MB): {check}")
    return 0


def _inspect_options() -> list[Option]:
    from boxel.cli.parser import settings_options
    from boxel.evaluation.config import AffinityConfig

    what = "`affinity`, to choose BoxInst's `model.tau` for the images"
    return [
        Option("what", what, Literal["affinity"], positional=True),
        *DATA,
        Option(
            "plot", "the curves of BoxInst's Figure 4", default="affinity.png", metavar="PNG", is_output=True
        ),
        *settings_options(AffinityConfig()),
    ]


def _inspect(given: dict[str, Any]) -> int:
    from boxel.evaluation.affinity import AffinityConfig, count_edges, format_edges
    from boxel.viz.plots import plot_affinity

    counts = count_edges(read_data(given), config=AffinityConfig(**given_settings(given, AffinityConfig)))
    print(format_edges(counts))
    plot_affinity({"tau": counts.tau, "precision": counts.precision, "recall": counts.recall}, given["plot"])
    print(f"plot: {given['plot']}")
    return 0


def _segments_options() -> list[Option]:
    from boxel.cli.parser import settings_options
    from boxel.proposals.config import ProposalConfig
    from boxel.utils.config import PositiveInt

    plot = "plot the IoU of the best segments by their number, if there are masks"
    return [
        *DATA,
        Option("out", "folder of the segments", default="segments", metavar="FOLDER", is_output=True),
        *settings_options(ProposalConfig()),
        Option("workers", "number of processes; one per core if left out", PositiveInt),
        Option("plot", plot, metavar="PNG", is_output=True),
    ]


def _segments(given: dict[str, Any]) -> int:
    from boxel.evaluation.proposals import COUNTS, best_candidate_ious, format_recall, summarize_recall
    from boxel.proposals.store import ProposalConfig, make_candidates
    from boxel.utils.device import available_cores
    from boxel.utils.progress import progress
    from boxel.viz.plots import plot_recall

    out, workers = given["out"], given.get("workers", available_cores())
    config = ProposalConfig(**given_settings(given, ProposalConfig))
    data = read_data(given)
    with progress(len(data), "images") as advance:
        lost = make_candidates(data, out, config, workers=workers, advance=advance)
    for error in lost:
        logger.warning(error)
    print(f"segments of {len(data) - len(lost)} images: {out}")
    if data.has_mask.any():
        ious = best_candidate_ious(data, out, config)
        print(format_recall(ious))
        if "plot" in given:
            plot_recall({"count": COUNTS, **summarize_recall(ious)}, given["plot"])
            print(f"plot: {given['plot']}")
    return 1 if lost else 0


def _doctor(given: dict[str, Any]) -> int:
    from boxel.utils.doctor import examine

    wrong = 0
    for finding in examine():
        print(f"{finding.name}: {finding.state}", flush=True)
        if finding.remedy:
            wrong += 1
            print(f"  to do: {finding.remedy}", flush=True)
    print(f"{wrong} of these need a remedy" if wrong else "all of this works")
    return 1 if wrong else 0


def _tune_crf_options() -> list[Option]:
    from boxel.utils.config import PositiveInt

    return [
        Option("run", "the folder of a semantic model", positional=True),
        *DATA,
        Option("max_images", "maximum number of images to use, drawn at random", PositiveInt, default=100),
        Option("device", "`cpu`, `cuda`, `mps`, or `auto` for CUDA if available", default="auto"),
    ]


def _tune_crf(given: dict[str, Any]) -> int:
    from boxel.evaluation import best_crf, format_trials, tune_crf
    from boxel.methods import SEMANTIC
    from boxel.models.io import CRF_FILE, load, write_crf
    from boxel.models.pretrained import read_method
    from boxel.utils.device import resolve_device

    run = Path(given["run"])
    if not run.is_dir() or read_method(run) not in SEMANTIC:
        raise UsageError(
            f"{run} is not the folder of a semantic model; name the folder of a run of {' or '.join(SEMANTIC)}."
        )
    model = cast("Segmenter", load(run).to(resolve_device(given["device"])))
    trials = tune_crf(model, read_data(given, split="val"), given["max_images"])
    write_crf(best_crf(trials), run)
    print(f"{format_trials(trials)}\nthe best CRF: {run / CRF_FILE}")
    return 0


def _demo_options() -> list[Option]:
    from boxel.utils.config import PositiveInt

    return [
        Option(
            "out",
            "folder for everything that the demo makes",
            default="demo",
            metavar="FOLDER",
            is_output=True,
        ),
        Option("train", "train from boxes and from masks instead, which takes about 12 minutes", bool),
        Option("steps", "with --train: optimizer steps of each training", PositiveInt),
    ]


def _demo(given: dict[str, Any]) -> int:
    import boxel.demo  # its functions are loaded one by one: only the training needs PyTorch

    if given.get("train"):
        print(boxel.demo.demo_train(given["out"], given.get("steps")))
    elif "steps" in given:
        raise UsageError("--steps is for --train; add it, or leave --steps out.")
    else:
        print(boxel.demo.demo(given["out"]))
    return 0


EXPORT = Command(
    "Write a model as an ONNX file that runs without boxel.",
    "runs/boxinst model.onnx",
    _export_options,
    _export,
    AGAIN,
)
INSPECT = Command(
    "Measure what a setting should be for your data.",
    "affinity masks.json --images photos/",
    _inspect_options,
    _inspect,
)
SEGMENTS = Command(
    "Make candidate segments of images, without learning.",
    "boxes.json --images photos/",
    _segments_options,
    _segments,
    RESUMES,
)
TUNE_CRF = Command(
    "Search for the CRF settings that suit a semantic model, on images it was not trained on.",
    "runs/fcrn val.json --images photos/",
    _tune_crf_options,
    _tune_crf,
)
DEMO = Command(
    "Label the bundled photographs; with --train, train from boxes and from masks on generated scenes.",
    "--out demo",
    _demo_options,
    _demo,
    RESUMES,
)
DOCTOR = Command(
    "Print versions and devices, and what to do about what does not work.", "", lambda: [], _doctor
)
