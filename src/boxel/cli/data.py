"""Commands on datasets: check, convert and draw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boxel.cli.options import JSON_HELP, Command, add_data, check_writable, read_data, write_json
from boxel.utils.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from boxel.cli.parser import Parser


def _add_check(parser: Parser) -> None:
    add_data(parser)
    parser.add_flag("repair", str, "write a repaired copy to this COCO file", metavar="FILE")
    parser.add_flag("json", str, JSON_HELP, metavar="FILE")


def _check(given: Namespace) -> int:
    from boxel.data import check, format_issues, issues_to_json, repair, write

    target = given.get("repair")
    if target and Path(check_writable(target, ".json")).exists():
        raise UsageError(f"{target} exists already; name a new file for the repaired copy.")
    data = read_data(given, log_issues=False)
    if target:
        repaired, issues = repair(data)
        write(repaired, target)
    else:
        issues = check(data)
    if "json" in given:
        write_json(issues_to_json(issues), given.json)
    if given.get("json") != "-":
        print(
            "\n".join([str(data), *format_issues(issues), *([f"repaired copy: {target}"] if target else [])])
        )
    return 1 if any(not (target and issue.repair) for issue in issues) else 0


def _add_convert(parser: Parser) -> None:
    add_data(parser)
    parser.add_positional("out", "file or folder to write")
    parser.add_flag(
        "to",
        str,
        "format to write: coco, voc, sbd, yolo, labelme, salient or semantic; coco for a .json file",
        metavar="FORMAT",
    )
    parser.add_flag(
        "format",
        str,
        "format of the annotations, if it is not recognized",
        aliases=["from"],
        metavar="FORMAT",
    )


def _convert(given: Namespace) -> int:
    from boxel.data import convert

    data = convert(
        given.annotations,
        given.out,
        to=given.get("to"),
        images=given.get("images"),
        format=given.get("format"),
        class_list=given.get("class_list"),
    )
    print(f"{data}\nwritten to {given.out}")
    return 0


def _add_draw(parser: Parser) -> None:
    add_data(parser)
    parser.add_flag(
        "results", str, "draw these detections, a COCO results file, on the images instead", metavar="FILE"
    )
    parser.add_flag("out", str, "folder of the drawings", default="drawn", metavar="FOLDER")


def _draw(given: Namespace) -> int:
    from boxel.viz import draw_dataset

    out = given.get("out", "drawn")
    data = read_data(given)
    if "results" in given:
        from boxel.evaluation import read_results, to_annotations

        data = to_annotations(read_results(given.results), data)
    errors = draw_dataset(data, out)
    print(f"{len(data) - len(errors)} of {len(data)} images drawn: {out}")
    return 1 if errors else 0


CHECK = Command(
    "Find what is wrong with a dataset, and repair it.", "boxes.json --images photos/", _add_check, _check
)
CONVERT = Command(
    "Convert a dataset between annotation formats.", "masks.json yolo/ --to yolo", _add_convert, _convert
)
DRAW = Command(
    "Draw the instances of a dataset, or detections, on its images.",
    "masks.json --images photos/ --out drawn/",
    _add_draw,
    _draw,
)
