"""`kill -9` of a labeling job at random moments, with the bundled network.

    python benchmarks/label_kill.py

Runs `boxel label --workers 2` on the boxes of `coco/val_masks.json`, once undisturbed and once into another folder,
where SIGKILL ends it --kills times: at random moments of the remaining work, and --in-commit times in the middle of a
commit. After each kill the same command resumes. If a job ends before it was killed often enough, another one follows.
Prints one line per kill and a verdict. The exit status is 1 unless enough kills hit a commit, the file of masks equals
that of the undisturbed job byte for byte but for its date, and each start found exactly the images that were committed
before, none of which was labeled again.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from math import inf
from pathlib import Path
from typing import NamedTuple

from _record import Table, arguments
from _runs import read_coco

from boxel.data import write

JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
"""How SQLite's rollback journal begins while a commit is being written to the database."""

STAGES = "journal open", "journal open and database written to"
"""Of a commit; SQLite has to undo one that ends in either."""

Rows = set[tuple[object, ...]]
"""The table of images."""


class Job(NamedTuple):
    """A labeling job: the same command however often it is started."""

    boxes: Path
    images: Path
    folder: Path

    @property
    def masks(self) -> Path:
        """What it writes at its end."""
        return self.folder / "masks.json"

    @property
    def store(self) -> Path:
        """What it commits to."""
        return self.folder / "masks.sqlite"

    @property
    def journal(self) -> Path:
        """How SQLite undoes a commit that is cut short."""
        return self.folder / "masks.sqlite-journal"

    @property
    def log(self) -> Path:
        """What its last start printed."""
        return self.folder / "log.txt"

    def run(self, seconds: float = inf, stage: str | None = None) -> tuple[bool, float]:
        """Start it, and kill it after so many seconds of work.

        Args:
            seconds: from when the first image is about to be labeled; importing and loading the network, which take
                seconds of their own, don't count.
            stage: of `STAGES`, to wait for then.

        Returns:
            Whether it came to its end, and the seconds that it worked.
        """
        self.folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "boxel", "label", str(self.boxes), "--images", str(self.images)]
        before = written(self.store)
        with open(self.log, "wb") as log:
            process = subprocess.Popen(
                [*command, "--out", str(self.masks), "--workers", "2"],
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            # The last thing each start does before the first image is to write to the store.
            until(process, lambda: written(self.store) != before)
            began = time.monotonic()
            until(process, lambda: time.monotonic() - began >= seconds)
            if stage:
                until(process, lambda: self.stage() == stage, pause=0)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode not in (0, -signal.SIGKILL):
            sys.exit(f"{self.log.read_text()}{self.folder}: ended with status {process.returncode}")
        return process.returncode == 0, time.monotonic() - began

    def stage(self) -> str | None:
        """How far a commit is, or was when the job was killed; None between commits."""
        try:
            with open(self.journal, "rb", buffering=0) as journal:
                # Between commits the file stays, with a head of zeros, as long as the job holds the database.
                if journal.read(len(JOURNAL_MAGIC)) != JOURNAL_MAGIC:
                    return None
        except FileNotFoundError:
            return None
        return STAGES[written(self.store) >= written(self.journal)]

    def committed(self) -> Rows:
        """The images that are done, according to a copy: undoing a commit that was cut short is left to the job."""
        with tempfile.TemporaryDirectory() as folder:
            for file in filter(Path.exists, (self.store, self.journal)):
                shutil.copy(file, folder)
            with closing(sqlite3.connect(Path(folder, self.store.name))) as database:
                if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'images'").fetchone():
                    return set()  # killed before its first commit
                return set(database.execute("SELECT * FROM images"))

    def errors(self, before: Rows, after: Rows, ended: bool) -> list[str]:
        """Sentences on what the last start did wrong, from the images that were done before and after it."""
        wrong = []
        said = re.search(r"([\d,]+) of [\d,]+ images are labeled already", self.log.read_text())
        found = int(said[1].replace(",", "")) if said else 0
        if (said or ended) and found != len(before):  # it may have been killed before it said so
            wrong.append(f"found {found} images done where {len(before)} were committed")
        if not before <= after:
            wrong.append(f"lost or changed {len(before - after)} committed images")
        if len({path for _, path, *_ in after}) < len(after):
            wrong.append("made an image twice")
        return [f"{self.folder}: {sentence}" for sentence in wrong]


def until(process: subprocess.Popen[bytes], holds: Callable[[], bool], pause: float = 0.005) -> None:
    """Wait until something holds or the process ends."""
    while process.poll() is None and not holds():
        time.sleep(pause)


def written(file: Path) -> int:
    """When a file was last written to, in nanoseconds; 0 if there is none."""
    return file.stat().st_mtime_ns if file.exists() else 0


def without_info(file: Path) -> bytes:
    """Return the lines of a file of masks but the first, which states when it was made."""
    return file.read_bytes().partition(b"\n")[2]


def main() -> None:
    """Run the jobs and print."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--out", type=Path, default=Path("runs/label_kill"), help="a new folder")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--in-commit", type=int, default=6, help="least kills that meet a commit")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    args.out.mkdir(parents=True)
    boxes, images_folder = args.out / "boxes.json", args.data / "coco" / "images"
    write(read_coco(args.data, "val_masks").without_masks(), boxes)
    whole = Job(boxes, images_folder, args.out / "undisturbed")
    started = time.monotonic()
    _, seconds = whole.run()
    images = len(whole.committed())
    print(
        f"undisturbed: {images} images in {time.monotonic() - started:.0f} s, {seconds:.0f} s of it work",
        flush=True,
    )

    rng = random.Random(args.seed)
    errors: list[str] = []
    kills = met = jobs = 0
    while kills < args.kills:
        jobs += 1
        job, done, ended = Job(boxes, images_folder, args.out / f"broken_{jobs}"), Rows(), False
        while not ended:
            # The first of as many moments as are left, each drawn uniformly over the work that is left.
            left = args.kills - kills
            pause = rng.betavariate(1, left) * (1 - len(done) / images) * seconds if left else inf
            commit = rng.random() * left < args.in_commit - met
            ended, worked = job.run(pause, rng.choice(STAGES) if commit else None)
            before, done = done, job.committed()
            errors += job.errors(before, done, ended)
            if not ended:
                kills += 1
                met += job.stage() is not None
                print(
                    f"kill {kills}: {worked:.2f} s into the work, {len(done)} of {images} images committed, "
                    f"{len(done - before)} of them now; {job.stage() or 'between commits'}",
                    flush=True,
                )
        print(f"{job.folder}: came to its end", flush=True)
        if without_info(job.masks) != without_info(whole.masks):
            errors.append(f"{job.masks}: is not {whole.masks}")
        if done != whole.committed():
            errors.append(f"{job.store}: does not hold what {whole.store} does")
    if met < min(args.in_commit, args.kills):
        errors.append(f"{met} kills met a commit, not {args.in_commit}; give more --kills")
    for error in errors:
        print(error)
    verdict = "FAILED" if errors else "passed, the masks are those of the undisturbed job"
    print(f"{kills} kills in {jobs} jobs, {met} of them in a commit: {verdict}")
    if errors:
        sys.exit(1)
    table = Table("scale", "kill", ["result"], title="A labeling job that is killed")
    table.add("kills", kills)
    table.add("of them in a commit", met)
    table.add("output identical to that of an undisturbed run", "yes, byte for byte")
    table.write([args.seed])


if __name__ == "__main__":
    main()
