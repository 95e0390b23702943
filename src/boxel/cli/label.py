"""Commands that predict masks of boxes: label and adapt."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from boxel.cli.options import Command, add_data, check_writable, given_settings, read_data, split_names

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from boxel.cli.parser import Parser

logger = logging.getLogger(__name__)


def _add_label(parser: Parser) -> None:
    from boxel.labeling.config import LabelConfig

    add_data(parser)
    parser.add_flag("out", str, "COCO file of the masks", default="masks.json", metavar="FILE")
    parser.add_flag(
        "teacher",
        str,
        "what predicts the masks, several with commas: boxcaseg, boxcaseg-boxes, grabcut, grabcut-ellipse, crf, "
        "sam:PATH, or a model folder",
        default="boxcaseg",
    )
    parser.add_flag(
        "to",
        str,
        "further formats to write, each into a folder beside --out: yolo,voc,labelme,sbd",
        metavar="FORMAT,...",
    )
    parser.add_flag("report", str, "write a page on the masks and their quality", metavar="HTML")
    parser.add_flag(
        "calibrate_on",
        str,
        "annotations with true masks of at least 20 boxes, to calibrate the quality with",
        aliases=["calibrate"],
        metavar="FILE",
    )
    parser.add_settings(LabelConfig, skip=["teachers"])


def _label(given: Namespace) -> int:
    from boxel.labeling.api import label_data
    from boxel.labeling.config import LabelConfig

    out = given.get("out", "masks.json")
    if "report" in given:
        check_writable(given.report, ".html", ".htm")
    outcome = label_data(
        given.annotations,
        images=given.get("images"),
        out=out,
        to=split_names(given.get("to")) or [],
        teacher=split_names(given.get("teacher")),
        calibrate_on=given.get("calibrate_on"),
        **given_settings(given, LabelConfig),
    )
    print(f"{outcome.summary()}\nmasks: {out}")
    if "report" in given:
        from boxel.viz.report import write_report

        write_report(
            outcome.data,
            given.report,
            failures=outcome.failures,
            changed=outcome.changed,
            settings=outcome.settings,
        )
        print(f"report: {given.report}")
    return 1 if outcome.failures else 0


def _add_adapt(parser: Parser) -> None:
    from boxel.utils.config import PositiveFloat

    add_data(parser)
    parser.add_flag("out", str, "folder of the adapted model", default="adapted", metavar="FOLDER")
    parser.add_flag("teacher", str, "the BoxCaseg model to start from", default="boxcaseg")
    parser.add_flag("minutes", PositiveFloat, "about how long to train", default=20.0)


def _adapt(given: Namespace) -> int:
    from boxel.training.adapt import adapt

    out = given.get("out", "adapted")
    minutes = float(given.get("minutes", 20.0))
    adapt(read_data(given), out, teacher=given.get("teacher", "boxcaseg"), minutes=minutes)
    print(f"adapted model: {out}; use it with `boxel label --teacher {out}`")
    return 0


LABEL = Command(
    "Predict masks of boxes, each with an estimate of its quality.",
    "boxes.json --images photos/ --out masks.json --report report.html",
    _add_label,
    _label,
)
ADAPT = Command(
    "Train the bundled network on your boxes and masks.",
    "masks.json --images photos/ --out my_teacher --minutes 10",
    _add_adapt,
    _adapt,
)
