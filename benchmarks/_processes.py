"""Commands in processes of their own: CPU seconds, seconds and peak memory, and the same work by other programs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

READERS = {
    "boxel": "import boxel; boxel.read({file!r})",
    "pycocotools": "from pycocotools.coco import COCO; COCO({file!r})",
    "hotcoco": "from hotcoco import COCO; COCO({file!r})",
}
"""Code that reads a COCO file, by package."""

_EVALUATE = """
truth = COCO({truth!r})
for kind in ("bbox", "segm"):
    e = COCOeval(truth, truth.loadRes({found!r}), kind); e.evaluate(); e.accumulate(); e.summarize()
"""

EVALUATORS = {
    "pycocotools": "from pycocotools.coco import COCO\nfrom pycocotools.cocoeval import COCOeval" + _EVALUATE,
    "faster-coco-eval": "from faster_coco_eval import COCO, COCOeval_faster as COCOeval" + _EVALUATE,
    "hotcoco": "from hotcoco import COCO, COCOeval" + _EVALUATE,
}
"""Code that computes the AP of boxes and masks, by package."""


class Usage(NamedTuple):
    """What a process took: CPU seconds with those of its children, seconds, and peak MB."""

    cpu: float
    wall: float
    peak: float


# The system counts what a process had before it became the command, i.e. the memory of this one, so a small one starts
# it.
_START = """
import os, subprocess, sys
_, status, usage = os.wait4(subprocess.Popen(sys.argv[2:]).pid, 0)
with open(sys.argv[1], "w") as file:
    print(os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss, file=file)
"""


def run_process(
    words: Sequence[str],
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    codes: Collection[int] = (0,),
) -> Usage | None:
    """Run a command; None, and what it printed, if its exit code is not one of those of success.

    RUN in the words is replaced by an empty folder.
    """
    with tempfile.TemporaryDirectory() as output:
        numbers, log = Path(output, "usage"), Path(output, "log")
        start = [sys.executable, "-S", "-c", _START, str(numbers)]
        words = [word.replace("RUN", output) for word in words]
        began = time.monotonic()
        with open(log, "w") as file:
            subprocess.run([*start, *words], cwd=folder, env=environment, stdout=file, stderr=file)
        wall = time.monotonic() - began
        code, cpu, peak = numbers.read_text().split()
        if int(code) not in codes:
            print(f"{' '.join(words)} failed: {log.read_text()[-1500:]}", file=sys.stderr)
            return None
    # Linux counts in KiB, macOS in bytes.
    return Usage(float(cpu), wall, int(peak) * (1 if sys.platform == "darwin" else 1024) / 1e6)


def python(code: str) -> list[str]:
    """Return the command that runs this code."""
    return [sys.executable, "-c", code]


def boxel_command(*words: object) -> list[str]:
    """Return a command of boxel."""
    return [sys.executable, "-m", "boxel", *map(str, words)]
