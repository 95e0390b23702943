"""Commands on datasets: check, convert and draw."""

from __future__ import annotations

from typing import Any

from boxel.cli.options import DATA, JSON_HELP, Command, Option, check_writable, read_data, write_json
from boxel.utils.errors import UsageError


def _check_options() -> list[Option]:
    repair = Option("repair", "write a repaired copy to this COCO file", metavar="FILE")
    return [*DATA, repair, Option("json", JSON_HELP, metavar="FILE")]


def _check(given: dict[str, Any]) -> int:
    from boxel.cli.parser import Parser
    from boxel.data import check, format_issues, issues_to_json, repair, write

    target = given.get("repair")
    if target and check_writable(target, ".json").exists():
        raise UsageError(f"{target} exists already; name a new file for the repaired copy.")
    data = read_data(given, log_issues=False)
    if target:
        repaired, issues = repair(data)
        write(repaired, target)
    else:
        issues = check(data)
    if "json" in given:
        write_json(issues_to_json(issues), given["json"])
    if given.get("json") != "-":
        lines = map(Parser("check", CHECK).with_flags, format_issues(issues))
        copy = [f"{'repaired' if issues else 'unchanged'} copy: {target}"] if target else []
        print(data, *lines, *copy, sep="\n")
    return 1 if any(not (target and issue.repair) for issue in issues) else 0


def _convert_options() -> list[Option]:
    to = "format to write: coco, cvat, label-studio, voc, sbd, yolo, labelme, salient, semantic; coco for a .json file"
    format = "format of the annotations, if it is not recognized"
    return [
        *DATA,
        Option("out", "file or folder to write", positional=True),
        Option("to", to, metavar="FORMAT"),
        Option("format", format, aliases=("from",), metavar="FORMAT"),
    ]


def _convert(given: dict[str, Any]) -> int:
    from boxel.data import convert

    out = given.pop("out")
    data = convert(given.pop("annotations"), out, **given)
    print(f"{data}\nwritten to {out}")
    return 0


def _draw_options() -> list[Option]:
    results = "draw these detections, a COCO results file, on the images instead"
    return [
        *DATA,
        Option("results", results, metavar="FILE"),
        Option("out", "folder of the drawings", default="drawn", metavar="FOLDER"),
    ]


def _draw(given: dict[str, Any]) -> int:
    from boxel.viz import draw_dataset

    data = read_data(given)
    if "results" in given:
        from boxel.evaluation import read_results, to_annotations

        data = to_annotations(read_results(given["results"]), data)
        if not len(data):
            print(f"{given['results']} has no detections; nothing is drawn.")
            return 0
    errors = draw_dataset(data, given["out"])
    print(f"{len(data) - len(errors)} of {len(data)} images drawn: {given['out']}")
    return 1 if errors else 0


CHECK = Command(
    "Find what is wrong with a dataset, and repair it.", "boxes.json --images photos/", _check_options, _check
)
CONVERT = Command(
    "Convert a dataset between annotation formats.", "masks.json yolo/ --to yolo", _convert_options, _convert
)
DRAW = Command(
    "Draw the instances of a dataset, or detections, on its images.",
    "masks.json --images photos/ --out drawn/",
    _draw_options,
    _draw,
)
