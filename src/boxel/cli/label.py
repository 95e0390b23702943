"""Commands that predict masks: label and adapt."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from boxel.cli.options import add_data, parse_names, read_data, say, writable
from boxel.utils.errors import UsageError


def add_label(parser: ArgumentParser) -> None:
    """Add the flags of `boxel label`."""
    from boxel.labeling.config import LabelConfig

    add_data(parser)
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


def run_label(given: Namespace) -> int:
    """Run `boxel label`."""
    from dataclasses import fields

    from boxel.labeling.api import label_data
    from boxel.labeling.config import LabelConfig

    out = given.get("out", "masks.json")
    if "report" in given and writable(given.report).suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {given.report}: the page is HTML; end its name on .html.")
    outcome = label_data(
        given.annotations,
        images=given.get("images"),
        out=out,
        to=parse_names(given, "to") or [],
        teacher=parse_names(given, "teacher"),
        calibrate_on=given.get("calibrate"),
        report=say,
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


def add_adapt(parser: ArgumentParser) -> None:
    """Add the flags of `boxel adapt`."""
    add_data(parser)
    parser.add_argument("--out", type=str, help="folder of the adapted model (default: adapted)")
    parser.add_argument("--teacher", type=str, help="the BoxCaseg to start from (default: boxcaseg)")
    parser.add_argument("--minutes", type=float, help="how long to train (default: 20)")


def run_adapt(given: Namespace) -> int:
    """Run `boxel adapt`."""
    from boxel.training.adapt import adapt

    minutes, out = given.get("minutes", 20.0), given.get("out", "adapted")
    if not minutes > 0:
        raise UsageError(f"--minutes is {minutes}; give a number above 0.")
    adapt(read_data(given), minutes, out, given.get("teacher", "boxcaseg"), say)
    print(f"adapted model: {out}; use it with `boxel label --teacher {out}`")
    return 0
