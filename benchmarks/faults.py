"""`kill -9` of commands at random moments: what is left, and whether the same command finishes with the same files.

    python benchmarks/faults.py
    python benchmarks/faults.py --only "convert yolo" predict

Each command of `COMMANDS` runs once undisturbed on generated scenes. Then SIGKILL ends it --kills times in one folder,
each time at a moment drawn uniformly over the time that it takes; in a fork of this process, in which importing is done
already, so that the moments are those of its work. After each kill, all files under their final names must be those of
the undisturbed run. At last the command runs to its end, and must leave the files of the undisturbed run, but for
dates, and no others.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet
from _record import Table, arguments

from boxel.cli import main as boxel
from boxel.data.synthetic import write_scenes

DATE = re.compile(
    rb"20\d\d-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\+00:00|Z)?|\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d 20\d\d"
)

Files = dict[str, bytes]


class Command(NamedTuple):
    """A command line that writes into the folder `out`."""

    line: str
    is_whole: bool = False  # its output is there completely, or not at all
    forks: bool = True  # it runs in a fork; else, e.g. if it uses PyTorch's threads, in a process of its own
    own: str = ".sqlite"  # part of the names of files in which it keeps its progress, which are not compared


FORMATS = (
    "yolo",
    "yolo-obb",
    "darknet",
    "voc",
    "sbd",
    "labelme",
    "cvat",
    "label-studio",
    "fiftyone",
    "salient",
)
COMMANDS = {
    "label": Command(
        "label boxes.json --teacher ellipse --to yolo,voc --report out/page.html --out out/masks.json"
    ),
    "convert coco": Command("convert labeled.json out/data.json --polygons", is_whole=True),
    "convert parquet": Command("convert labeled.json out/data.parquet", is_whole=True),
    **{
        f"convert {name}": Command(f"convert labeled.json out/data --to {name}", is_whole=True)
        for name in (*FORMATS, "semantic")
    },
    "check --repair": Command("check dirty.json --repair out/repaired.json --report out/page.html"),
    "segments": Command("segments few.json --source gop --count 50 --workers 1 --out out/segments"),
    "predict": Command("predict boxinst few --out out/results.json --draw out/drawn", forks=False),
}
"""What is killed, by name."""


def make_data(folder: Path) -> None:
    """Write scenes with boxes, masks of a teacher, and a dataset with an issue; `few` are three of them."""
    truth = write_scenes(folder, 12)
    call("label boxes.json --teacher ellipse --out labeled.json", folder)
    text = (folder / "boxes.json").read_text()
    (folder / "dirty.json").write_text(re.sub(r'"bbox": ?\[', '"bbox": [9999, ', text, count=1))
    (folder / "few").mkdir()
    for path in truth.paths[:3]:
        shutil.copy(truth.root / path, folder / "few" / path)
    call("convert boxes.json few/few.json --val-share 0.2", folder)
    call("next labeled.json --count 3 --out few.json", folder)


def call(line: str, folder: Path) -> None:
    """Run a command in this process, which then has its modules."""
    before = os.getcwd()
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        code = boxel(line.split())
    os.chdir(before)
    if code == 2:
        sys.exit(f"wrong usage: {line}")


def run(command: Command, folder: Path, seconds: float = float("inf")) -> tuple[int, str, float]:
    """Run a command, and kill it after so many seconds; return exit code, error and the seconds it took."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as said:
        if command.forks:
            child = os.fork()
            if not child:
                os.chdir(folder)
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", 1)
                os._exit(boxel(command.line.split()))
        else:
            words = [sys.executable, "-m", "boxel", *command.line.split()]
            child = subprocess.Popen(words, cwd=folder, stdout=said, stderr=said).pid
        while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() - started < seconds:
            time.sleep(0.001)
        if not ended[0]:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
        said.seek(0)
        text = said.read().decode("utf-8", "replace")
    return os.waitstatus_to_exitcode(ended[1]), text, time.monotonic() - started


def contents(folder: Path, own: str) -> Files:
    """Return the content of the files in `out`, without dates and the name of the folder."""
    files = (file for file in (folder / "out").rglob("*") if file.is_file() and own not in file.name)
    texts = {file.relative_to(folder / "out").as_posix(): read(file) for file in files}
    return {name: DATE.sub(b"", text).replace(os.fsencode(folder), b"") for name, text in texts.items()}


def read(file: Path) -> bytes:
    """Return what a file holds; a Parquet file compresses its dates."""
    if file.suffix != ".parquet" or is_hidden(file.name):
        return file.read_bytes()
    table = pyarrow.parquet.read_table(file)
    return repr([table.to_pydict(), table.schema.metadata]).encode()


def is_hidden(name: str) -> bool:
    """Return whether a file is not complete, or a lock."""
    return any(part.startswith(".") for part in name.split("/"))


def kill_again_and_again(
    command: Command, data: Path, place: Path, kills: int, rng: random.Random
) -> list[int | str]:
    """Break a command, and return the cells of its row."""
    folders = [Path(shutil.copytree(data, place / name)) for name in ("imports", "whole", "broken")]
    if command.forks:
        call(command.line, folders[0])
    code, text, seconds = run(command, folders[1])
    whole, broken = contents(folders[1], command.own), folders[2]
    if not whole:
        sys.exit(f"{command.line}: {text}")
    killed = unfinished = half = 0
    while killed < kills:
        killed += run(command, broken, rng.uniform(0, seconds))[0] < 0
        left = contents(broken, command.own)
        visible = {name: content for name, content in left.items() if not is_hidden(name)}
        half += any(whole.get(name) != content for name, content in visible.items())
        half += command.is_whole and visible not in ({}, whole)
        unfinished += any(".partial" in name for name in left)
        if visible.keys() == whole.keys():  # it was faster than the undisturbed run
            shutil.rmtree(broken / "out")
    again, text, _ = run(command, broken)
    left = contents(broken, command.own)
    same = left == whole and (again == code or "already" in text)
    return [killed, unfinished, half, "yes" if same and not half else f"no: {text[-200:]}"]


def main() -> None:
    """Break all commands, and write the table."""
    parser = arguments(__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=COMMANDS,
        default=list(COMMANDS),
        metavar="COMMAND",
        help="of which alone the table is written",
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, failed = random.Random(args.seed), False
    table = Table(
        "broken-jobs",
        "kill",
        ["condition", "kills", "amid writing", "half-written outputs", "then equal to the undisturbed run"],
        first="command",
        title="Commands that are killed",
        note="Each command was killed at random moments in one folder, and then given once more. Amid writing: "
        "temporary files were there, which the next run removed. Half-written: under a final name.",
    )
    with tempfile.TemporaryDirectory() as place:
        data = Path(place, "data")
        make_data(data)
        for name in args.only:
            cells = kill_again_and_again(COMMANDS[name], data, Path(place, name), args.kills, rng)
            table.add(name, "kill -9", *cells)
            failed = failed or cells[-1] != "yes"
    if failed:
        sys.exit("some commands failed; the table is not written")
    table.write([args.seed])


if __name__ == "__main__":
    main()
