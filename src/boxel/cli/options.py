"""Flags that several commands share, and what is made of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from boxel.utils.errors import BoxelError, UsageError


def add_data(parser: ArgumentParser, several: bool = False) -> None:
    """Add the flags of a dataset."""
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


def add_inference(parser: ArgumentParser) -> None:
    """Add the flags on how a model is run."""
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


LOOKING = ("short_side", "score", "batch_size")
"""Flags on how photos are shown to a model that finds instances."""


MAP_LOOKS = ("long_side", "tile", "shifts", "crf")
"""Flags on how they are shown to one that gives pixels a class."""


BOTH = ("flip", "scales")
"""Flags on how they are shown to either."""


def predict_config(model: Any, given: Namespace) -> Any:
    """Return how a detector is run, its own settings changed by flags."""
    from boxel.models.inference import inference_config

    if given.get("batch_size", 1) < 1:
        raise UsageError(f"--batch-size is {given.batch_size}; give a number from 1 up.")
    size = {"short_side": given.short_side} if "short_side" in given else {}
    return inference_config(
        model,
        flip="flip" in given,
        score_threshold=given.get("score", 0.0),
        scales=parse_scales(given),
        **size,
    )


def look_config(model: Any, given: Namespace) -> Any:
    """Return how a segmenter is run, its own settings changed by flags."""
    from boxel.models.semantic.inference import semantic_inference_config

    named = {flag: given[flag] for flag in MAP_LOOKS if flag in given}
    return semantic_inference_config(model, **named, flip="flip" in given, scales=parse_scales(given))


def parse_scales(given: Namespace) -> tuple[float, ...]:
    """Return the numbers of `--scales`."""
    try:
        return tuple(float(factor) for factor in parse_names(given, "scales") or (1.0,))
    except ValueError:
        raise UsageError(
            f"--scales has {given.scales!r}; write factors with commas, as 0.75,1,1.25."
        ) from None


def refuse(given: Namespace, flags: Sequence[str], why: str) -> None:
    """Raise where a flag was given that would do nothing."""
    for flag in flags:
        if flag in given:
            raise UsageError(f"--{flag.replace('_', '-')} does nothing here, since {why}; leave it out.")


def load_model(folder: str, given: Namespace) -> Any:
    """Load a model onto the device of `--device`."""
    import torch

    from boxel.models.io import load

    device = given.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
    model = load(folder)
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"--device {device} can't be had here ({reason[:120]}); try cpu.") from error


def read_data(given: Namespace, tell_faults: bool = True, split: str | None = None) -> Any:
    """Read the annotations of a command."""
    from boxel.data import read
    from boxel.data.issues import summarize_issues

    data = read(
        given.annotations, images=given.get("images"), split=split, class_list=given.get("class_list")
    )
    if data.issues and tell_faults:
        say(f"warning: {summarize_issues(data.issues)}")
    return data


def parse_names(given: Namespace, flag: str) -> list[str] | None:
    """What a flag lists, split at commas; None where it was not given, an empty list where it lists nothing."""
    text = given.get(flag)
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def parse_pairs(given: Namespace, flag: str) -> dict[str, str] | None:
    """Return the pairs of a flag of the form OLD=NEW,OLD=NEW."""
    entries = parse_names(given, flag)
    if entries is None:
        return None
    for entry in entries:
        if entry.count("=") != 1:
            raise UsageError(f"--{flag} has {entry!r}; write OLD=NEW, and commas between several.")
    return dict(entry.split("=") for entry in entries)


def writable(name: str) -> Path:
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


def keep_in(told: list[str]) -> Callable[[str], None]:
    """A `report` that says what it is told, and keeps it: whether anything was lost decides the exit code."""

    def report(text: str) -> None:
        told.append(text)
        say(text)

    return report


def say(text: str) -> None:
    """Print a line to standard error."""
    print(text, file=sys.stderr, flush=True)
