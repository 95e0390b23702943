"""The command that converts datasets."""

from __future__ import annotations

from typing import Any

from boxel.cli.options import DATA, Command, Option


def _convert_options() -> list[Option]:
    to = (
        "format to write: coco, cvat, label-studio, fiftyone, voc, sbd, yolo, labelme, salient, semantic, "
        "parquet; by default coco for a .json file, parquet for a .parquet file"
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


CONVERT = Command(
    "Convert a dataset between annotation formats.", "masks.json yolo/ --to yolo", _convert_options, _convert
)
