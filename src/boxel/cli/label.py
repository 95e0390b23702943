"""Commands that predict masks of boxes: label and adapt."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from boxel.cli.options import DATA, Command, Option, check_writable, read_data

logger = logging.getLogger(__name__)


def _label_options() -> list[Option]:
    from boxel.cli.parser import settings_options
    from boxel.labeling.config import LabelConfig

    teacher = (
        "what predicts the masks: boxcaseg, boxcaseg-boxes, grabcut, grabcut-ellipse, crf, sam:PATH, or a "
        "model folder"
    )
    to = "further formats to write, each into a folder beside --out: yolo,voc,labelme,cvat,label-studio,sbd"
    calibrate = "annotations with true masks of at least 20 boxes, to calibrate the quality with"
    annotations, images, _ = DATA  # label maps have no boxes
    return [
        annotations,
        images,
        Option("out", "COCO file of the masks", default="masks.json", metavar="FILE"),
        Option("teacher", teacher, list[str], default=["boxcaseg"]),
        Option("to", to, list[str], metavar="FORMAT,...", default=[]),
        Option("report", "write a page on the masks and their quality", metavar="HTML"),
        Option("calibrate_on", calibrate, aliases=("calibrate",), metavar="FILE", is_input=True),
        *(option for option in settings_options(LabelConfig()) if option.dest != "teachers"),
    ]


def _label(given: dict[str, Any]) -> int:
    from boxel.labeling.api import label_data

    report = given.pop("report", None)
    if report:
        check_writable(report, ".html", ".htm")
    try:
        with _interrupted_by_sigterm():
            outcome = label_data(given.pop("annotations"), **given)
    except KeyboardInterrupt:
        print("boxel: stopped; the same command resumes, and nothing that is done is lost.", file=sys.stderr)
        return 1
    print(f"{outcome.summary()}\nmasks: {given['out']}")
    if report:
        outcome.write_report(report, shlex.join(["boxel", *sys.argv[1:]]))
        print(f"report: {report}")
    if suspects := outcome.describe_suspects():
        where = f"listed in {report}" if report else "`suspect` in the masks file marks each"
        print(f"{suspects}; {where}")
    return 1 if outcome.failures else 0


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Treat the signal that ends a job on a cluster as Ctrl-C."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _adapt_options() -> list[Option]:
    from boxel.utils.config import PositiveFloat

    return [
        *DATA,
        Option("out", "folder of the adapted model", default="adapted", metavar="FOLDER"),
        Option("teacher", "the BoxCaseg model to start from", default="boxcaseg"),
        Option("minutes", "about how long to train", PositiveFloat, default=20.0),
    ]


def _adapt(given: dict[str, Any]) -> int:
    from boxel.training.adapt import adapt

    out = given["out"]
    if adapt(read_data(given), out, teacher=given["teacher"], minutes=given["minutes"]) is None:
        logger.info("no model was made yet; the same command resumes the training")
        return 1
    print(f"adapted model: {out}; use it with `boxel label --teacher {out}`")
    return 0


LABEL = Command(
    "Predict masks of boxes, each with an estimate of its quality.",
    "boxes.json --images photos/ --out masks.json --report report.html",
    _label_options,
    _label,
)
ADAPT = Command(
    "Train the bundled network on your boxes and masks.",
    "masks.json --images photos/ --out my_teacher --minutes 10",
    _adapt_options,
    _adapt,
)
