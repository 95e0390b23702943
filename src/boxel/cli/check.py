"""The command check: what a dataset holds, what is wrong with it, its repair, and the repair undone."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxel.cli.options import AGAIN, DATA, JSON_HELP, Command, Option, check_writable, read_data, write_json
from boxel.utils.errors import UsageError

if TYPE_CHECKING:
    from boxel.data.checks import RepairState


def _check_options() -> list[Option]:
    repair = "write a repaired copy to this COCO file, by default beside the annotations, and a record of its changes"
    undo = "undo a repair: of a repaired copy and the record of its changes, write the original"
    return [
        *DATA,
        Option("repair", repair, metavar="FILE", value_optional=True),
        Option("undo", undo, metavar="RECORD", is_input=True),
        Option("report", "write an HTML page on the dataset to this file", metavar="FILE", is_output=True),
        Option("json", JSON_HELP, metavar="FILE", is_output=True),
    ]


def _check(given: dict[str, Any]) -> int:
    if "undo" in given:
        return _undo(given)
    from boxel.utils.locks import lock_output

    target = _new_file(given, "repaired") if "repair" in given else None
    if "report" in given:
        check_writable(given["report"], ".html", ".htm")
    with nullcontext() if target is None else lock_output(target):
        return _inspect(given, target)


def _inspect(given: dict[str, Any], target: Path | None) -> int:
    """Inspect a dataset, print its issues, and write a repaired copy to the target."""
    from boxel.cli.parser import Parser
    from boxel.data import format_issues, issues_to_json
    from boxel.data.checks import inspect_dataset
    from boxel.utils.printable import printable_line
    from boxel.utils.provenance import describe_origin

    found = inspect_dataset(given["annotations"], given.get("images"), given.get("class_list"))
    copy = []
    if "report" in given:
        from boxel.viz import write_check_report

        command = describe_origin()["command"]
        write_check_report(found.statistics, found.issues, given["report"], command, found.data)
        copy = [f"report: {given['report']}"]
    if "json" in given:
        statistics = found.statistics.to_json()
        write_json({"statistics": statistics, "issues": issues_to_json(found.issues)}, given["json"])
    if target is not None:  # the last file that is written: with it, all is done
        copy = _write_copy(found, given["annotations"], target) + copy
    if given.get("json") != "-":
        issues = map(Parser("check", CHECK).with_flags, format_issues(found.issues))
        lines = [found.statistics.file, *found.statistics.lines(), "", *issues, *copy]
        print(*map(printable_line, lines), sep="\n")
    return 1 if any(not (target and issue.repair) for issue in found.issues) else 0


def _new_file(given: dict[str, Any], suffix: str) -> Path:
    """Return the file to write, that of `repair` or one beside the annotations, which must not exist yet."""
    from boxel.data import RepairRecord

    source = Path(given["annotations"])
    if source.name in ("", ".."):  # the folder is the present one or above it
        source = source.resolve()
    stem, beside = source.name if source.is_dir() else source.stem, source.parent
    target = check_writable(given.get("repair") or str(beside / f"{stem}_{suffix}.json"), ".json")
    record = _record_file(target)
    left = record.exists() and RepairRecord.is_record(record)  # perhaps by a run that was killed
    for file in (target, record):
        if file.exists() and not (file == record and left):
            raise UsageError(f"{file} exists already; name a new file, or remove this one.")
    return target


def _record_file(target: Path) -> Path:
    return target.with_name(f"{target.stem}_changes.json")


def _write_copy(found: RepairState, source: str, target: Path) -> list[str]:
    """Write the repaired copy and the record of its changes, and return what to print."""
    from boxel.data.formats import write_as_given
    from boxel.data.provenance import add_record, describe_input, describe_run
    from boxel.utils.printable import count_noun

    record = found.record
    if not len(record) and not any(issue.repair for issue in found.issues):
        return ["there is nothing to repair, so no copy is written"]
    made = describe_run("boxel check") | {
        "input": describe_input(source, found.data),
        "repaired": len(record),
    }
    file = _record_file(target)
    if file.exists() and not record.is_in(file):
        raise UsageError(f"{file} exists already; name a new file, or remove this one.")
    record.write(file)
    write_as_given(add_record(found.repaired, made), target)
    lines = [f"repaired copy: {target}"]
    if len(record):
        changes = count_noun(len(record), "change")
        undo = f"`boxel check {shlex.quote(str(target))} --undo {shlex.quote(str(file))}` takes them back"
        lines.append(f"{changes}, with the values before and after: {file}; {undo}")
    if unread := len(record.left_out_by_reader):
        entries = count_noun(unread, "entry", "entries")
        lines.append(f"{entries} of the original cannot be used and cannot be put back; all are in {file}")
    return lines


def _undo(given: dict[str, Any]) -> int:
    from boxel.data import RepairRecord, undo_repair
    from boxel.data.formats import write_as_given
    from boxel.data.provenance import take_back_repair

    if "repair" in given:
        raise UsageError("--undo takes back a repair; leave out --repair.")
    target = _new_file(given, "restored")
    record = RepairRecord.read(given["undo"])
    original, lost = undo_repair(take_back_repair(read_data(given)), record)
    write_as_given(original, target)
    undone = f"{len(record) - len(lost):,} of {len(record):,} changes undone"
    print(*lost, f"{original}\n{undone}: {target}", sep="\n")
    return 1 if lost else 0


CHECK = Command(
    "Show what a dataset holds, find what is wrong with it, and repair it.",
    "boxes.json --images photos/",
    _check_options,
    _check,
    AGAIN,
)
