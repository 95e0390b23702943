"""Commands that are broken while they run."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import boxel
from boxel.data.synthetic import write_scenes
from boxel.labeling import choose_next, label, write_tasks
from boxel.review.decisions import Decision, DecisionStore

DATE = re.compile(
    rb"20\d\d-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\+00:00|Z)?|\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d 20\d\d"
)


@dataclass
class Run:
    """What became of a command."""

    code: int
    operations: int
    text: str

    @property
    def error(self) -> str:
        """The sentence of its error."""
        return next((line for line in self.text.splitlines() if line.startswith("boxel: ")), "")


class Commands:
    """Runs commands in copies of one folder of data.

    Args:
        server: The process that runs them.
        data: The folder.
        place: Where the copies are made.
    """

    def __init__(self, server: subprocess.Popen[str], data: Path, place: Path) -> None:
        self.server, self.data, self.place = server, data, place
        self.copies, self.known = 0, dict[str, tuple[dict[str, bytes], int, int]]()

    def unbroken(self, line: str) -> tuple[dict[str, bytes], int, int]:
        """Return what a command writes if nothing happens, the number of its operations, and its exit code."""
        if line not in self.known:
            self.run(line, self.folder(), -1)
            folder = self.folder()
            done = self.run(line, folder)
            assert not done.error and self.contents(folder), done.text
            self.known[line] = self.contents(folder), done.operations, done.code
        return self.known[line]

    @staticmethod
    def contents(folder: Path) -> dict[str, bytes]:
        """Return the content of each file of the output, without dates; the progress that jobs keep does not count."""
        out, own = folder / "out", str(folder).encode()
        files = (file for file in out.rglob("*") if file.is_file() and ".sqlite" not in file.name)
        return {
            file.relative_to(out).as_posix(): DATE.sub(b"DATE", file.read_bytes()).replace(own, b".")
            for file in files
        }

    @staticmethod
    def hidden(folder: Path) -> list[str]:
        """Name the hidden files and folders of the output: what is not complete, and locks."""
        return [path.name for path in (folder / "out").rglob(".*")]

    def folder(self) -> Path:
        """Return a new copy of the data."""
        self.copies += 1
        return Path(shutil.copytree(self.data, self.place / str(self.copies), symlinks=True))

    def run(self, line: str, folder: Path, at: int = 0, how: str = "", out: str = "out") -> Run:
        """Run a command line in a folder; break it at an operation on files under `out`, see `server.py`."""
        request = {"args": line.split(), "cwd": str(folder), "out": out, "at": at, "how": how}
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return Run(**json.loads(self.server.stdout.readline()))


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three images, boxes, masks by a teacher, a dataset with issues, tasks and decisions of a review."""
    folder = tmp_path_factory.mktemp("data") / "data"
    truth = write_scenes(folder, 3, height=48, width=64)
    masks = label(truth.without_masks(), teacher="ellipse", out=folder / "made.json")
    (folder / "made.sqlite").unlink()
    (folder / "made.json").rename(folder / "labeled.json")
    write_tasks(masks, choose_next(masks, 2), folder / "tasks", "labelme")
    content = json.loads((folder / "masks.json").read_text())
    content["annotations"][0]["bbox"][2] = -5
    (folder / "dirty.json").write_text(json.dumps(content))
    store = DecisionStore(folder / "labeled.review.sqlite")
    box = tuple(masks.boxes[0].tolist())
    name = masks.categories[masks.labels[0]].name
    store.add((masks.paths[0], masks.ids[0]), 0, b"", Decision(state="accepted", category=name, box=box))
    store.close()
    assert np.isfinite(masks.quality).all() and isinstance(masks, boxel.Annotations)
    return folder


@pytest.fixture(scope="session")
def server() -> Iterator[subprocess.Popen[str]]:
    """The process that runs commands; importing boxel once is most of their time."""
    script = Path(__file__).with_name("server.py")
    process = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


@pytest.fixture(scope="session")
def commands(
    server: subprocess.Popen[str], small_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Commands:
    """Runs commands on small data."""
    return Commands(server, small_data, tmp_path_factory.mktemp("commands"))
