"""Commands that are broken while they run, the data that they run on, and the files that they leave."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet
import yaml

import boxel
from boxel.cli import main
from boxel.data.synthetic import write_scenes

DATE = re.compile(
    rb"20\d\d-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\+00:00|Z)?|\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d 20\d\d"
)

Files = dict[str, bytes]


class Command(NamedTuple):
    """A command line that writes into the folder `out`.

    Attributes:
        line: Without `boxel`.
        is_whole: Its output is there completely, or not at all.
        forks: It may run in a fork of this process; else, e.g. if it uses PyTorch, in a process of its own.
        progress: Expression found in the names of files in which it keeps its progress, which are not compared.
        grows: The same of files that grow while it runs, and are compared at its end.
        resume: What the second run is given besides.
    """

    line: str
    is_whole: bool = False
    forks: bool = True
    progress: str = r"\.sqlite"
    grows: str = "^$"
    resume: str = ""


class Ended(NamedTuple):
    """What became of a command: its exit code, what it printed, and the seconds it took."""

    code: int
    text: str
    seconds: float


def train(method: str, data: str) -> Command:
    """Return the command of a training of a small network."""
    line = f"train {method} {data} --config {method}.yaml --steps 12 --device cpu --out out/run"
    progress = r"checkpoints/|run\.json|report\.html|hints\.|\.lock"
    return Command(
        line,
        forks=False,
        progress=progress,
        grows="metrics|curves|samples|yaml|categories",
        resume="--resume",
    )


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
    **{
        f"label --engine {engine}": Command(
            f"label boxes.json --teacher ellipse --engine {engine} --workers 2 --shard 5 --out out/shards",
            forks=False,
        )
        for engine in ("processes", "ray")
    },
    "convert coco": Command("convert labeled.json out/data.json --polygons", is_whole=True),
    "convert parquet": Command("convert labeled.json out/data.parquet", is_whole=True),
    **{
        f"convert {name}": Command(f"convert labeled.json out/data --to {name}", is_whole=True)
        for name in (*FORMATS, "semantic")
    },
    "check --repair": Command("check dirty.json --repair out/repaired.json --report out/page.html"),
    "segments": Command("segments few.json --source gop --count 50 --workers 1 --out out/segments"),
    "segments, two workers": Command(
        "segments boxes.json --source gop --count 50 --workers 2 --out out/segments", forks=False
    ),
    "predict": Command("predict model few --out out/results.json --draw out/drawn", forks=False),
    "train boxinst": train("boxinst", "boxes.json"),
    "train mask-rcnn": train("mask-rcnn", "labeled.json"),
    "train boxcaseg": train("boxcaseg", "boxes.json"),
    "train fcrn": train("fcrn", "labeled.json"),
    "train boxsup": train("boxsup", "boxes.json"),
    "adapt": Command("adapt few.json --masks labeled.json --minutes 0.1 --out out/teacher", forks=False),
}
"""What is broken, by name."""

_TRAINING = {
    "loggers": [],
    "checkpoint_every": 3,
    "batch_size": 2,
    "data": {"workers": 0, "val_share": 0.2},
    "optim": {"lr": 0.01, "reference_batch": 0},
}
_NETWORK = {"backbone": "resnet10t", "weights": "none", "backbone_norm": "gn"}
_DETECTOR = _NETWORK | {"neck_channels": 32, "frozen_stages": 0, "mask_convs": 1}
_SEGMENTER = _NETWORK | {"output_stride": 16, "kernel": 3, "dilation": 1, "hidden": 0}
_IMAGES = {"augment": {"short_sides": [64], "max_size": 96}}
_VIEWS = {"views": {"crop": 64, "long_side": 96}}
TRAININGS: dict[str, dict[str, Any]] = {
    "boxinst": _IMAGES | {"model": _DETECTOR | {"head_convs": 1}},
    "mask-rcnn": _IMAGES | {"model": _DETECTOR | {"box_channels": 32}},
    "boxcaseg": {"model": _NETWORK | {"side": 64}, "crops": {"side": 64}, "hints": "rectangle"},
    "fcrn": _VIEWS | {"model": _SEGMENTER},
    "boxsup": _VIEWS | {"model": _SEGMENTER, "segments": {"count": 20}, "updates": {"every": 0.5}},
}
"""Settings of small networks, by method."""


def make_data(folder: Path) -> None:
    """Write scenes with boxes, masks of a teacher, a dataset with an issue, recipes; `few` are three of the images."""
    truth = write_scenes(folder, 12)
    call("label boxes.json --teacher ellipse --out labeled.json", folder)
    text = (folder / "boxes.json").read_text()
    (folder / "dirty.json").write_text(re.sub(r'"bbox": ?\[', '"bbox": [9999, ', text, count=1))
    (folder / "few").mkdir()
    for path in truth.paths[:3]:
        shutil.copy(truth.root / path, folder / "few" / path)
    call("next labeled.json --count 3 --out few.json", folder)
    shutil.copytree(Path(boxel.__file__).parent / "weights/boxinst", folder / "model")
    for method, settings in TRAININGS.items():
        (folder / f"{method}.yaml").write_text(yaml.safe_dump(_TRAINING | settings))


def call(line: str, folder: Path) -> None:
    """Run a command in this process, which then has its modules."""
    before = os.getcwd()
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        code = main(line.split())
    os.chdir(before)
    if code == 2:
        sys.exit(f"wrong usage: {line}")


def never(seconds: float) -> bool:
    """Return False: the moment never comes."""
    return False


def run(
    line: str,
    folder: Path,
    forks: bool = False,
    moment: Callable[[float], bool] = never,
    by: int = signal.SIGKILL,
) -> Ended:
    """Run a command, and send it a signal once ``moment`` returns True for the seconds that it has run."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as said:
        child = _fork(line, folder, said.fileno()) if forks else _start(line, folder, said.fileno())
        while not (ended := os.waitpid(child, os.WNOHANG))[0] and not moment(time.monotonic() - started):
            time.sleep(0.001)
        if not ended[0]:
            os.kill(child, by)
            ended = os.waitpid(child, 0)
        said.seek(0)
        text = said.read().decode("utf-8", "replace")
    return Ended(os.waitstatus_to_exitcode(ended[1]), text, time.monotonic() - started)


def _fork(line: str, folder: Path, output: int) -> int:
    child = os.fork()
    if not child:
        os.chdir(folder)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", 1)
        os._exit(main(line.split()))
    return child


def _start(line: str, folder: Path, output: int) -> int:
    words = [sys.executable, "-m", "boxel", *line.split()]
    return subprocess.Popen(words, cwd=folder, stdout=output, stderr=output).pid


def contents(folder: Path, left_out: str) -> Files:
    """Return the content of the files in `out`, without dates and the name of the folder.

    Files are left out in whose name an expression is found.
    """
    files = {file.relative_to(folder / "out").as_posix(): file for file in (folder / "out").rglob("*")}
    texts = {
        name: read(file) for name, file in files.items() if file.is_file() and not re.search(left_out, name)
    }
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


def measure(command: Command, folder: Path) -> tuple[float, float, int, str]:
    """Run a command undisturbed; return the seconds to its first file and to its end, its exit code and its text."""
    seen: list[float] = []

    def look(seconds: float) -> bool:
        if not seen and (folder / "out").exists():
            seen.append(seconds)
        return False

    ended = run(command.line, folder, command.forks, look)
    return seen[0] if seen else 0.0, ended.seconds, ended.code, ended.text
