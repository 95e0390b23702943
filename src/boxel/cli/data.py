"""Commands on datasets: convert and draw."""

from __future__ import annotations

from typing import Any

from boxel.cli.options import DATA, Command, Option, read_data


def _convert_options() -> list[Option]:
    to = (
        "format to write: coco, cvat, label-studio, fiftyone, voc, sbd, yolo, labelme, salient, semantic; "
        "coco for a .json file"
    )
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


CONVERT = Command(
    "Convert a dataset between annotation formats.", "masks.json yolo/ --to yolo", _convert_options, _convert
)
DRAW = Command(
    "Draw the instances of a dataset, or detections, on its images.",
    "masks.json --images photos/ --out drawn/",
    _draw_options,
    _draw,
)
