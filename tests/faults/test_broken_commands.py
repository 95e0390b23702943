"""Commands that are killed, stopped, or run out of disk: nothing half-written stays, and the same command finishes.

`kill -9`, SIGTERM and a full disk hit at a few of the operations on files that a command makes, so that a test always
breaks at the same place; `benchmarks/faults.py` kills at random moments.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from boxel.labeling.store import Store
from boxel.utils.locks import lock_output

pytestmark = pytest.mark.slow

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
WHOLE = {f"convert {name}": f"convert labeled.json out/data --to {name}" for name in (*FORMATS, "semantic")}
WHOLE["convert coco"] = "convert labeled.json out/data.json"
WHOLE["next --to"] = "next labeled.json --to labelme --count 2 --out out/tasks"
WHOLE["review --export"] = "review labeled.json --export out/data --to yolo"
"""Commands whose output is one file or folder, which is there completely or not at all."""

FILES = {
    "label": "label boxes.json --out out/masks.json --teacher ellipse --to yolo --report out/report.html",
    "check --repair": "check dirty.json --repair out/fixed.json --report out/report.html --json out/issues.json",
    "segments": "segments boxes.json --out out/segments --source gop --count 20 --workers 1",
    "draw": "draw labeled.json --out out/drawn --sheet out/sheet.jpg",
    "evaluate": "evaluate labeled.json masks.json --report out/report.html --json out/metrics.json",
    "merge": "merge labeled.json tasks --all-checked --out out/merged.json",
    "next": "next labeled.json --count 2 --out out/next.json --json out/list.json",
}
"""Commands that write several files."""

COMMANDS = WHOLE | FILES


def moments(count: int) -> list[int]:
    """Choose three of the operations of a command: two amid the others, and the last."""
    return sorted({count // 3 + 1, 2 * count // 3 + 1, count})


@pytest.mark.parametrize("name", COMMANDS)
def test_after_kill_9_nothing_is_half_written_and_the_same_command_finishes(commands: Any, name: str) -> None:
    whole, operations, code = commands.unbroken(COMMANDS[name])
    for moment in moments(operations):
        folder = commands.folder()
        assert commands.run(COMMANDS[name], folder, moment, "kill").code == -9
        left = commands.contents(folder)
        visible = {path: text for path, text in left.items() if not any(p[0] == "." for p in path.split("/"))}
        assert all(whole[path] == text for path, text in visible.items())
        assert name not in WHOLE or visible in ({}, whole)
        again = commands.run(COMMANDS[name], folder)
        if again.code and name in (*WHOLE, "check --repair") and visible == whole:
            assert "already" in again.error  # it was complete, and is not replaced
            continue
        assert (again.code, commands.contents(folder), commands.hidden(folder)) == (code, whole, []), (
            again.text
        )


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_sentence_and_costs_nothing(commands: Any, name: str) -> None:
    whole, operations, code = commands.unbroken(COMMANDS[name])
    for moment in moments(operations)[:1]:
        folder = commands.folder()
        (folder / "out").mkdir()
        failed = commands.run(COMMANDS[name], folder, moment, "full")
        assert failed.code == 1 and "Error" not in failed.text
        assert "out/" in failed.error and "No space left on device" in failed.error
        assert all(whole[path] == text for path, text in commands.contents(folder).items())
        assert commands.hidden(folder) == []
        again = commands.run(COMMANDS[name], folder)
        assert (again.code, commands.contents(folder)) == (code, whole), again.text


@pytest.mark.parametrize("name", COMMANDS)
def test_sigterm_is_one_sentence_and_the_same_command_finishes(commands: Any, name: str) -> None:
    whole, operations, code = commands.unbroken(COMMANDS[name])
    folder = commands.folder()
    stopped = commands.run(COMMANDS[name], folder, operations // 2 + 1, "stop")
    assert (
        stopped.code == 1
        and stopped.error.startswith("boxel: stopped")
        and "the same command" in stopped.error
    )
    assert commands.hidden(folder) == []
    again = commands.run(COMMANDS[name], folder)
    assert (again.code, commands.contents(folder)) == (code, whole), again.text


OUTPUTS = {"label": "report.html", "check --repair": "fixed.json", "segments": "segments", "draw": "drawn"}
OUTPUTS |= {"evaluate": "metrics.json", "merge": "merged.json", "next": "next.json", "next --to": "tasks"}
OUTPUTS |= {"convert coco": "data.json", "convert voc": "data", "review --export": "data"}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_second_process_is_refused_and_a_killed_one_locks_nothing(commands: Any, name: str) -> None:
    whole, _, code = commands.unbroken(COMMANDS[name])
    folder = commands.folder()
    with lock_output(folder / "out" / OUTPUTS[name]):
        refused = commands.run(COMMANDS[name], folder)
    assert refused.code == 1 and f"out/{OUTPUTS[name]}: another run is writing to it" in refused.error
    assert commands.run(COMMANDS[name], folder, 2, "kill").code == -9
    done = commands.run(COMMANDS[name], folder)
    assert (done.code, commands.contents(folder)) == (code, whole)


def test_two_labeling_jobs_are_never_one(commands: Any) -> None:
    folder = commands.folder()
    (folder / "out").mkdir()
    with Store(folder / "out/masks.sqlite"):
        refused = commands.run(FILES["label"], folder)
    assert refused.code == 1 and "another run is writing to it" in refused.error


def test_an_empty_record_of_a_job_is_not_its_own(commands: Any) -> None:
    folder = commands.folder()
    assert commands.run(FILES["label"], folder).code == 0
    (folder / "out/masks.sqlite").write_bytes(b"")
    before = (folder / "out/masks.json").read_bytes()
    refused = commands.run(FILES["label"], folder)
    assert refused.code == 2 and "does not know it" in refused.error
    assert (folder / "out/masks.json").read_bytes() == before


@pytest.mark.parametrize("name", ["convert coco", "evaluate", "merge", "next"])
def test_a_full_disk_keeps_the_old_file(commands: Any, name: str) -> None:
    whole, _, _ = commands.unbroken(COMMANDS[name])
    folder = commands.folder()
    (folder / "out").mkdir()
    for path in whole:
        (folder / "out" / path).write_text("old")
    assert commands.run(COMMANDS[name], folder, 2, "full").code == 1
    assert {path: (folder / "out" / path).read_text() for path in whole} == dict.fromkeys(whole, "old")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("out", ["a-file/x", "x" * 300])
def test_an_impossible_output_is_one_sentence(commands: Any, name: str, out: str) -> None:
    folder = commands.folder()
    (folder / "a-file").touch()
    failed = commands.run(COMMANDS[name].replace("out/", f"{out}/"), folder)
    assert failed.code == 1 and out in failed.error
    assert "Error" not in failed.text and "--debug" not in failed.text


@pytest.mark.parametrize("name", ["label", "convert yolo", "check --repair", "draw", "segments"])
def test_images_that_are_cut_or_gone_cost_only_themselves(commands: Any, name: str) -> None:
    folder = commands.folder()
    (folder / "images/000000.png").unlink()
    cut = folder / "images/000001.png"
    cut.write_bytes(cut.read_bytes()[:300])
    done = commands.run(COMMANDS[name], folder)
    assert done.code == (0 if name in ("convert yolo", "check --repair") else 1) and not done.error, done.text
    assert "000000.png" in done.text and any((folder / "out").iterdir())


def test_a_killed_worker_is_one_sentence(small_data: Path, tmp_path: Path) -> None:
    script = """
import os, sys
import boxel
from boxel.proposals import ProposalConfig, store
store._make_in_worker = lambda *job: os.kill(os.getpid(), 9)
if __name__ == "__main__":
    try:
        store.make_candidates(boxel.read(sys.argv[1]), sys.argv[2], ProposalConfig(), workers=2)
    except boxel.BoxelError as error:
        print(error)
"""
    command = [sys.executable, "-c", script, str(small_data / "boxes.json"), str(tmp_path / "segments")]
    said = subprocess.run(command, capture_output=True, text=True, env=os.environ).stdout
    assert said.startswith(f"{tmp_path / 'segments'}: a process that makes segments was killed")
    assert "after 0 of 3 images" in said


def test_a_merge_that_is_repeated_writes_the_same_file_again(commands: Any) -> None:
    whole, _, _ = commands.unbroken(COMMANDS["merge"])
    folder = commands.folder()
    for _ in range(2):
        assert "2 masks accepted" in commands.run(COMMANDS["merge"], folder).text
        assert commands.contents(folder) == whole
