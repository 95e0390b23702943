"""The command that converts datasets."""

from __future__ import annotations

from typing import Any

from boxel.cli.options import AGAIN, DATA, Command, Option


def _convert_options() -> list[Option]:
    to = (
        "format to write: coco, yolo, yolo-obb, darknet, voc, sbd, labelme, cvat, label-studio, fiftyone, salient, "
        "semantic, parquet, geojson; by default coco for .json, parquet for .parquet, geojson for .geojson"
    )
    source = "format of the annotations, if it is not recognized"
    polygons = "write polygons instead of pixels to COCO, CVAT and Label Studio"
    simplify = "maximum distance of outlines from their masks, 0 for exact ones; by default each keeps an IoU of 0.99"
    untrusted = (
        "untrusted masks and crowds in YOLO: write, or leave out their object or image; by default write"
    )
    group = "keep images together whose file names agree in this regular expression, or in its first group"
    return [
        *DATA,
        Option("out", "file or folder to write", positional=True, is_output=True),
        Option("format", to, aliases=("to",), metavar="FORMAT"),
        Option("source_format", source, aliases=("from",), metavar="FORMAT"),
        Option("polygons", polygons, hint=bool),
        Option("simplify", simplify, hint=float, metavar="PIXELS"),
        Option("untrusted", untrusted, metavar="WHAT"),
        Option(
            "rotated", "add `corners`, the smallest rotated box around each mask, to its fields", hint=bool
        ),
        Option("val_share", "put this share of the images into a split val", hint=float, metavar="SHARE"),
        Option("seed", "seed of that choice; 0 if it is not given", hint=int),
        Option("group_by", group, metavar="REGEX"),
    ]


def _convert(given: dict[str, Any]) -> int:
    from boxel.data import convert
    from boxel.data.splits import count_splits

    out = given.pop("out")
    data = convert(given.pop("annotations"), out, **given)
    splits = [f"images per split: {count_splits(sorted(data.splits, key=str))}"] if any(data.splits) else []
    print(data, *splits, f"written to {out}", sep="\n")
    return 0


CONVERT = Command(
    "Convert a dataset between annotation formats.",
    "masks.json yolo/ --to yolo",
    _convert_options,
    _convert,
    AGAIN,
)
