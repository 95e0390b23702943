"""Smaller commands: export, inspect, segments, tune-crf and demo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from boxel.cli.options import add_data, load_model, read_data, say, writable
from boxel.methods import SEMANTIC
from boxel.utils.errors import UsageError


def add_export(parser: ArgumentParser) -> None:
    """Add the flags of `boxel export`."""
    parser.add_argument(
        "run",
        type=str,
        help="a model folder, boxcaseg, boxcaseg-boxes, or a model's id on the Hugging Face hub",
    )
    parser.add_argument("out", type=str, help="ONNX file to write")
    parser.add_argument(
        "--photos", type=str, nargs="+", help="photos to check it on (default: a few of scikit-image)"
    )


def run_export(given: Namespace) -> int:
    """Run `boxel export`."""
    from boxel.exporting import export

    check = export(given.run, writable(given.out), given.get("photos"))
    print(f"written to {given.out}: {check}")
    return 0


def add_inspect(parser: ArgumentParser) -> None:
    """Add the flags of `boxel inspect`."""
    parser.add_argument(
        "what", type=str, choices=["affinity"], help="affinity: which tau fits this kind of image"
    )
    add_data(parser)
    parser.add_argument(
        "--plot", type=str, metavar="PNG", help="the curves of the paper's Figure 4 (default: affinity.png)"
    )
    parser.add_argument("--theta", type=float, help="scale of the color similarity (default: 2)")
    parser.add_argument("--size", type=int, help="side of the neighborhood (default: 3)")
    parser.add_argument("--dilation", type=int, help="of the neighborhood (default: 2)")
    parser.add_argument(
        "--short-side", type=int, help="shorter side in training, in pixels (default: as it is)"
    )


def run_inspect(given: Namespace) -> int:
    """Run `boxel inspect`."""
    from boxel.evaluation import AffinityConfig, count_edges, format_edges
    from boxel.viz.plots import plot_affinity

    options = {name: given[name] for name in ("theta", "size", "dilation", "short_side") if name in given}
    counts = count_edges(read_data(given), config=AffinityConfig(**options))
    print(format_edges(counts))
    plot = given.get("plot", "affinity.png")
    plot_affinity({"tau": counts.tau, "precision": counts.precision, "recall": counts.recall}, plot)
    print(f"plot: {plot}")
    return 0


def add_segments(parser: ArgumentParser) -> None:
    """Add the flags of `boxel segments`."""
    add_data(parser)
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


def run_segments(given: Namespace) -> int:
    """Run `boxel segments`."""
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
    data = read_data(given)
    with progress(len(data), "images", say) as advance:
        lost = make_candidates(data, out, config, workers=workers, advance=advance)
    for fault in lost:
        say(f"warning: {fault}")
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


def add_tune_crf(parser: ArgumentParser) -> None:
    """Add the flags of `boxel tune-crf`."""
    parser.add_argument("run", type=str, help="the folder of a segmenter")
    add_data(parser)
    parser.add_argument("--count", type=int, help="images looked at, evenly chosen (default: 100)")
    parser.add_argument("--device", type=str, help="cpu, cuda, mps (default: cuda where there is one)")


def run_tune_crf(given: Namespace) -> int:
    """Run `boxel tune-crf`."""
    from boxel.evaluation.tune_crf import best_crf, format_trials, tune_crf
    from boxel.models.io import CRF_FILE, write_crf
    from boxel.models.pretrained import method_of

    run, count = Path(given.run), given.get("count", 100)
    if not run.is_dir() or method_of(run) not in SEMANTIC:
        raise UsageError(
            f"{run} is no segmenter's folder, which a CRF is tuned for; name the --out folder of a run of "
            f"{' or '.join(SEMANTIC)}."
        )
    if count < 1:
        raise UsageError(f"--count is {count}; give a number from 1 up.")
    tries = tune_crf(load_model(given.run, given), read_data(given, split="val"), count)
    write_crf(best_crf(tries), run)
    print(f"{format_trials(tries)}\nthe best CRF: {run / CRF_FILE}")
    return 0


def add_demo(parser: ArgumentParser) -> None:
    """Add the flags of `boxel demo`."""
    parser.add_argument("--out", type=str, help="folder for everything it makes (default: demo)")
    parser.add_argument(
        "--train", action="store_true", help="train from boxes and from masks instead: 12 minutes"
    )
    parser.add_argument("--steps", type=int, help="with --train: optimizer steps of each training")


def run_demo(given: Namespace) -> int:
    """Run `boxel demo`."""
    from boxel.demo import demo, demo_train

    out = given.get("out", "demo")
    if "steps" in given and "train" not in given:
        raise UsageError("--steps is for --train; add it, or leave --steps out.")
    print(demo_train(out, given.get("steps")) if "train" in given else demo(out))
    return 0
