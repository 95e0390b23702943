"""What else can happen to commands: a full disk, signals, files that are damaged or gone, a second process, a clock.

    python benchmarks/conditions.py
    python benchmarks/conditions.py --only "disk full" "SIGTERM"

Each command runs once undisturbed on generated scenes, and once under each condition, as a process of its own. Its last
line is recorded. Then the cause is removed and the same command is given once more, trainings with `--resume`; it must
leave the files of the undisturbed run, but for dates. The full and the read-only disk are file systems in memory, which
root alone may mount on Linux.
"""

from __future__ import annotations

import json
import operator
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from _broken import COMMANDS, Command, Ended, Files, contents, make_data, measure, run
from _record import RESULTS, Table, arguments

CLOCK = """
import random, time
now = time.time
time.time = lambda: now() + random.uniform(-1e5, 1e5)
"""
"""Python executes it at its start if it is in a file `sitecustomize.py`."""


class Case(NamedTuple):
    """A command in a folder of its own; undisturbed, its files, and the seconds to the first and to the end."""

    command: Command
    folder: Path
    whole: Files
    first: float
    seconds: float

    def again(self) -> Ended:
        """Give the command once more, and wait for it."""
        return run(f"{self.command.line} {self.command.resume}", self.folder)

    @property
    def middle(self) -> float:
        """Seconds to a moment when about half is done."""
        return (self.first + self.seconds) / 2


def fill_disk(case: Case) -> Ended:
    """Give it half of the disk that it needs, and then all."""
    used = sum(map(len, case.whole.values()))
    with file_system(case.folder / "out", f"size={max(used // 2, 4096)}") as mount:
        ended = run(case.command.line, case.folder)
        mount("remount,size=1g")
        return finish(case, ended)


def protect_disk(case: Case) -> Ended:
    """Let it write nothing, and then everything."""
    with file_system(case.folder / "out", "ro,size=1g") as mount:
        ended = run(case.command.line, case.folder)
        mount("remount,rw")
        return finish(case, ended)


def end(case: Case, by: int) -> Ended:
    """Send it a signal in the middle."""
    return finish(case, run(case.command.line, case.folder, moment=partial(operator.le, case.middle), by=by))


def lose_image(case: Case) -> Ended:
    """Delete an image once it has begun, and bring it back."""
    return change_image(case, Path.unlink)


def cut_image(case: Case) -> Ended:
    """Cut an image once it has begun, and bring it back."""
    return change_image(case, cut)


def change_image(case: Case, change: Callable[[Path], None]) -> Ended:
    """Change the last image of the dataset once it has begun, and bring it back."""
    dataset = json.loads((case.folder / case.command.line.split()[1]).read_text())
    image = case.folder / "images" / Path(dataset["images"][-1]["file_name"]).name
    content = image.read_bytes()
    ended = run(case.command.line, case.folder, moment=once(case.first, partial(change, image)))
    image.write_bytes(content)
    return finish(case, ended)


def kill_worker(case: Case) -> Ended:
    """Kill one of its processes once there is one."""
    killed: list[int] = []

    def look(seconds: float) -> bool:
        if not killed and seconds >= case.first:
            killed.extend(find_workers()[-1:])
            for process in killed:
                os.kill(process, signal.SIGKILL)
        return False

    ended = run(case.command.line, case.folder, moment=look)
    if not killed:
        sys.exit(f"{case.command.line}: it has no worker")
    return finish(case, ended)


def run_twice(case: Case) -> Ended:
    """Give it a second time while it runs."""
    second: list[Ended] = []
    moment = once(case.middle, lambda: second.append(run(case.command.line, case.folder)))
    run(case.command.line, case.folder, moment=moment)
    return second[0]


def cut_progress(case: Case) -> Ended:
    """Kill it, and cut the file in which it keeps its progress; remove the file if it cannot do without."""
    run(case.command.line, case.folder, moment=partial(operator.le, case.middle))
    names = ("out/run/checkpoints/last.ckpt", "out/masks.sqlite")
    file = next(case.folder / name for name in names if (case.folder / name).exists())
    cut(file)
    ended = case.again()
    if ended.code:
        file.unlink()
    return finish(case, ended)


def cut_weights(case: Case) -> Ended:
    """Cut the weights that it reads, and bring them back."""
    weights = case.folder / "model/model.safetensors"
    content = weights.read_bytes()
    cut(weights)
    ended = run(case.command.line, case.folder)
    weights.write_bytes(content)
    return finish(case, ended)


def change_clock(case: Case) -> Ended:
    """Let each reading of the clock be off by up to a day."""
    (case.folder / "clock").mkdir()
    (case.folder / "clock/sitecustomize.py").write_text(CLOCK)
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(case.folder / "clock"), before]))
    try:
        return run(case.command.line, case.folder)
    finally:
        os.environ["PYTHONPATH"] = before


QUICK = ("label", "convert coco", "convert yolo", "check --repair", "segments")
LONG = ("predict", "train boxinst", "train fcrn", "adapt")
CONDITIONS: dict[str, tuple[Callable[[Case], Ended], tuple[str, ...]]] = {
    "disk full": (fill_disk, QUICK + LONG),
    "output read-only": (protect_disk, QUICK + LONG),
    "SIGTERM": (partial(end, by=signal.SIGTERM), QUICK + LONG),
    "Ctrl-C": (partial(end, by=signal.SIGINT), ("label", "segments", "predict", "train fcrn")),
    "an image is deleted meanwhile": (lose_image, ("label", "segments")),
    "an image is cut meanwhile": (cut_image, ("label", "segments")),
    "a worker is killed": (kill_worker, ("label --engine processes", "segments, two workers")),
    "given twice at once": (run_twice, ("label", "train fcrn", "adapt")),
    "its progress is cut": (cut_progress, ("label", "train fcrn")),
    "weights are cut": (cut_weights, ("predict",)),
    "the clock jumps": (change_clock, ("label", "train fcrn")),
}
"""For each condition what makes it, and the commands that are broken by it."""


def finish(case: Case, ended: Ended) -> Ended:
    """Give the command once more; return what became of it before."""
    case.again()
    return ended


def once(seconds: float, act: Callable[[], object]) -> Callable[[float], bool]:
    """Return a moment that never comes, but at which something is done after so many seconds."""
    done: list[bool] = []

    def look(spent: float) -> bool:
        if spent >= seconds and not done:
            done.append(True)
            act()
        return False

    return look


def cut(file: Path) -> None:
    """Leave the first half of a file."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def find_workers() -> list[int]:
    """Return the numbers of the processes that a child of this process has started to work."""
    parents = {file.parent.name: find_parent(file) for file in Path("/proc").glob("[0-9]*/stat")}
    children = {process for process, parent in parents.items() if parent == str(os.getpid())}
    found = [int(process) for process, parent in parents.items() if parent in children]
    return sorted(process for process in found if "tracker" not in read_command(process))


def find_parent(file: Path) -> str:
    """Return the number of the parent of a process; an empty text if it has ended."""
    try:
        return file.read_text().rpartition(")")[2].split()[1]
    except OSError:
        return ""


def read_command(process: int) -> str:
    """Return the command line of a process; an empty text if it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


@contextmanager
def file_system(folder: Path, options: str) -> Iterator[Callable[[str], None]]:
    """Put a file system in memory in the place of a folder, and yield a function that changes its options."""
    folder.mkdir()

    def mount(options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)

    mount(options)
    try:
        yield mount
        copy = folder.with_name("copy")
        shutil.copytree(folder, copy)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()
    copy.rename(folder)


def last_line(ended: Ended, folder: Path) -> str:
    """Return the exit code and what a command printed last, without what is a progress bar's."""
    lines = [line for line in re.split(r"[\r\n]+", ended.text) if line.strip()]
    text = lines[-1].replace(f"{folder}/", "") if lines else "nothing"
    return f"{ended.code}: {text}"


def break_command(name: str, condition: str, place: Path, undisturbed: Case) -> list[str]:
    """Break a command, and return the cells of its row."""
    folder = Path(shutil.copytree(place / "data", place / f"{name} {condition}"))
    case = undisturbed._replace(folder=folder)
    ended = CONDITIONS[condition][0](case)
    same = contents(folder, case.command.progress) == case.whole
    shutil.rmtree(folder)
    return [last_line(ended, folder), "yes" if same else "no"]


def main() -> None:
    """Break the commands, and add their rows to the table."""
    parser = arguments(__doc__)
    parser.add_argument("--only", nargs="+", choices=CONDITIONS, default=[*CONDITIONS], metavar="CONDITION")
    args = parser.parse_args()
    rows, cases = read_rows(), dict[str, Case]()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        make_data(place / "data")
        for condition in args.only:
            for name in CONDITIONS[condition][1]:
                if name not in cases:
                    folder = Path(shutil.copytree(place / "data", place / name))
                    first, seconds, _, _ = measure(COMMANDS[name]._replace(forks=False), folder)
                    whole = contents(folder, COMMANDS[name].progress)
                    cases[name] = Case(COMMANDS[name], folder, whole, first, seconds)
                rows[condition, name] = break_command(name, condition, place, cases[name])
                print(condition, name, *rows[condition, name], sep=" | ", flush=True)
    table = Table(
        "broken-jobs",
        "conditions",
        ["command", "exit code, and what it printed last", "then equal to the undisturbed run"],
        first="condition",
        title="Disks, signals, damaged files, and more",
        note="Each command met the condition once, and was then given again without it. Of trainings all files are "
        "equal but checkpoints and those with dates.",
    )
    for condition, (_, names) in CONDITIONS.items():
        for name in names:
            if (condition, name) in rows:
                table.add(condition, name, *rows[condition, name])
    table.write(whole="python benchmarks/conditions.py")
    if any(cells[-1] != "yes" for cells in rows.values()):
        sys.exit("some commands are not equal to their undisturbed run")


def read_rows() -> dict[tuple[str, str], list[str]]:
    """Read the rows that the table has."""
    file = RESULTS / "broken-jobs.json"
    tables = json.loads(file.read_text())["tables"] if file.exists() else {}
    return {(row[0], row[1]): row[2:] for row in tables.get("conditions", {}).get("rows", [])}


if __name__ == "__main__":
    main()
