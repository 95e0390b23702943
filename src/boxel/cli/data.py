"""Commands on datasets: check and convert."""

from __future__ import annotations

import json
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from boxel.cli.options import add_data, read_data
from boxel.utils.errors import UsageError


def add_check(parser: ArgumentParser) -> None:
    """Add the flags of `boxel check`."""
    add_data(parser)
    parser.add_argument("--repair", type=str, metavar="OUT", help="write a mended copy (COCO json) here")
    parser.add_argument("--json", action="store_true", help="print the issues as JSON")


def run_check(given: Namespace) -> int:
    """Run `boxel check`."""
    from boxel.data import check, format_issues, issues_to_json, repair, write

    if "repair" in given and Path(given.repair).suffix != ".json":
        raise UsageError(f"--repair {given.repair}: the mended copy is a COCO file; end its name on .json.")
    if "repair" in given and Path(given.repair).exists():
        raise UsageError(
            f"--repair {given.repair}: there is such a file already; name a new one for the copy."
        )
    data = read_data(given, tell_faults=False)
    if "repair" in given:
        mended, issues = repair(data)
        write(mended, given.repair)
    else:
        issues = check(data)
    if "json" in given:
        print(json.dumps(issues_to_json(issues), indent=1))
    else:
        print(data)
        print("\n".join(format_issues(issues)))
        if "repair" in given:
            print(f"mended copy: {given.repair}")
    left = [issue for issue in issues if not ("repair" in given and issue.repair)]
    return 1 if left else 0


def add_convert(parser: ArgumentParser) -> None:
    """Add the flags of `boxel convert`."""
    add_data(parser)
    parser.add_argument("out", type=str, help="file or folder to write")
    parser.add_argument(
        "--to", type=str, help="coco, voc, sbd, yolo, labelme or semantic; coco for a .json file"
    )
    parser.add_argument(
        "--from", dest="format", type=str, help="format of the input, where it is not recognized"
    )


def run_convert(given: Namespace) -> int:
    """Run `boxel convert`."""
    from boxel.data.conversion import convert

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
