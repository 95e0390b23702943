"""`kill -9` of commands at random moments: what is left, and whether the same command finishes with the same files.

    python benchmarks/faults.py
    python benchmarks/faults.py --only "convert yolo" predict

Each command of `COMMANDS` runs once undisturbed on generated scenes. Then SIGKILL ends it --kills times in one folder,
each time at a moment drawn uniformly over the time from its first file to its end; most in a fork of this process, in
which importing is done already. Trainings are given `--resume` from the second time on. After each kill, all files
under their final names must be those of the undisturbed run. At last the command runs to its end, and must leave the
files of the undisturbed run, but for dates, and no others. A command that finishes before its kill begins from scratch.
"""

from __future__ import annotations

import json
import operator
import random
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

from _broken import COMMANDS, Command, call, contents, is_hidden, make_data, measure, run
from _record import RESULTS, Table, arguments


def kill_again_and_again(
    command: Command, data: Path, place: Path, kills: int, rng: random.Random
) -> list[int | str]:
    """Break a command, and return the cells of its row."""
    folders = [Path(shutil.copytree(data, place / name)) for name in ("imports", "whole", "broken")]
    if command.forks:
        call(command.line, folders[0])
    first, seconds, code, text = measure(command, folders[1])
    whole, broken = contents(folders[1], command.progress), folders[2]
    if not whole:
        sys.exit(f"{command.line}: {text}")
    line = f"{command.line} {command.resume}"
    killed = unfinished = half = 0
    while killed < kills:
        moment = partial(operator.le, rng.uniform(first, seconds))
        ended = run(line, broken, command.forks, moment)
        killed += ended.code < 0
        left = contents(broken, f"{command.progress}|{command.grows}")
        visible = {name: content for name, content in left.items() if not is_hidden(name)}
        half += any(whole.get(name) != content for name, content in visible.items())
        half += command.is_whole and visible not in ({}, whole)
        unfinished += any(".partial" in name for name in left)
        if ended.code >= 0:  # it was faster than the undisturbed run
            shutil.rmtree(broken / "out")
    again = run(line, broken, command.forks)
    same = contents(broken, command.progress) == whole and (again.code == code or "already" in again.text)
    return [killed, unfinished, half, "yes" if same and not half else f"no: {again.text[-200:]}"]


def main() -> None:
    """Break the commands, and add their rows to the table."""
    parser = arguments(__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=COMMANDS,
        default=list(COMMANDS),
        metavar="COMMAND",
        help="whose rows alone are made again",
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows, failed = read_rows(), False
    with tempfile.TemporaryDirectory() as place:
        data = Path(place, "data")
        make_data(data)
        for name in args.only:
            rng = random.Random(f"{args.seed} {name}")
            cells = kill_again_and_again(COMMANDS[name], data, Path(place, name), args.kills, rng)
            print(name, *cells, flush=True)
            rows[name] = cells
            failed = failed or cells[-1] != "yes"
    if failed:
        sys.exit("some commands failed; the table is not written")
    table = Table(
        "broken-jobs",
        "kill",
        ["kills", "amid writing", "half-written outputs", "then equal to the undisturbed run"],
        first="command",
        title="Commands that are killed",
        note="`kill -9` at random moments in one folder, and then the command once more. Amid writing: temporary files "
        "were there, which the next run removed. Half-written: under a final name. Of trainings all files are equal "
        "but checkpoints and those with dates.",
    )
    for name in COMMANDS:
        if name in rows:
            table.add(name, *rows[name])
    table.write([args.seed], "python benchmarks/faults.py")


def read_rows() -> dict[str, list[int | str]]:
    """Read the rows that the table has."""
    file = RESULTS / "broken-jobs.json"
    tables = json.loads(file.read_text())["tables"] if file.exists() else {}
    return {row[0]: row[-4:] for row in tables.get("kill", {}).get("rows", [])}


if __name__ == "__main__":
    main()
