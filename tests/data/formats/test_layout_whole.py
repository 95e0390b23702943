"""Folders are written whole or not at all: killed, out of disk, or beside other files."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import boxel.data
from boxel.cli import main
from boxel.data import example_scenes
from boxel.data.formats.whole_folder import INCOMPLETE
from boxel.utils.errors import BoxelError

KILLED = """
import os, pathlib, signal, sys
import boxel.data
real = pathlib.Path.{method}
def stop(path, *args, **kwargs):
    if {when}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(path, *args, **kwargs)
pathlib.Path.{method} = stop
boxel.data.convert(sys.argv[1], sys.argv[2], sys.argv[3])
"""


@pytest.fixture
def source(tmp_path):
    scenes = example_scenes(3)
    boxel.data.write(scenes, tmp_path / "all.json")
    return tmp_path / "all.json"


def convert_until_killed(source, target, format, method, when):
    code = textwrap.dedent(KILLED).format(method=method, when=when)
    arguments = [sys.executable, "-W", "ignore", "-c", code, str(source), str(target), format]
    assert subprocess.run(arguments, env=os.environ, check=False).returncode == -signal.SIGKILL


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize(
    ("format", "when"),
    [
        ("yolo", "path.name == '000001.txt'"),
        ("labelme", "path.name == '000001.json'"),
        ("yolo", "path.name == 'data.yaml'"),
    ],
)
def test_a_killed_conversion_leaves_nothing_under_the_name(source, tmp_path, format, when):
    method = "write_bytes" if format == "labelme" else "write_text"
    convert_until_killed(source, tmp_path / "out", format, method, when)
    assert visible(tmp_path) == ["all.json"]
    assert len([p for p in tmp_path.iterdir() if p.name.endswith(".partial")]) == 1
    boxel.data.convert(source, tmp_path / "out", format)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all.json", "out"]
    assert len(boxel.data.read(tmp_path / "out")) == 3


def test_a_killed_conversion_into_a_folder_is_seen_and_completed(source, tmp_path, monkeypatch, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.md").write_text("mine")
    convert_until_killed(source, tmp_path / "out", "yolo", "rename", "path.name == '000001.txt'")
    assert (tmp_path / "out" / INCOMPLETE).exists() and (tmp_path / "out/images").is_dir()
    monkeypatch.chdir(tmp_path)
    assert main(["check", "out"]) == 1
    assert (
        "out: the dataset in this folder is incomplete, as writing it was interrupted"
        in capsys.readouterr().err
    )
    boxel.data.convert(source, tmp_path / "out", "yolo")
    assert visible(tmp_path / "out") == ["boxel-ids.json", "data.yaml", "images", "labels", "notes.md"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert len(boxel.data.read(tmp_path / "out").labels) == len(boxel.data.read(source).labels)


@pytest.mark.parametrize("beside", [False, True])
def test_a_full_disk_leaves_nothing(source, tmp_path, monkeypatch, beside):
    if beside:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/notes.md").write_text("mine")
    write, count = Path.write_text, iter(range(100))

    def fail(path, *args, **kwargs):
        if path.suffix == ".txt" and next(count) == 1:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(BoxelError, match=r"out.*: cannot be written \(No space left on device\)"):
        boxel.data.convert(source, tmp_path / "out", "yolo")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all.json"] + ["out"] * beside
    if beside:
        assert [p.name for p in (tmp_path / "out").iterdir()] == ["notes.md"]


def test_other_files_are_kept_and_never_overwritten(source, tmp_path):
    (tmp_path / "out/images").mkdir(parents=True)
    scenes = boxel.data.read(source)
    (tmp_path / "out/images/000000.png").write_bytes(scenes.image_path(0).read_bytes())
    boxel.data.convert(source, tmp_path / "out", "yolo")  # the same image
    assert len(boxel.data.read(tmp_path / "out")) == 3
    (tmp_path / "other").mkdir(parents=True)
    (tmp_path / "other/boxel-ids.json").write_text("{}")
    with pytest.raises(
        BoxelError, match=r"other/boxel-ids\.json: this file exists already \(1 in all\); name a new"
    ):
        boxel.data.write(scenes, tmp_path / "other", "yolo")
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["boxel-ids.json"]


def test_a_running_process_keeps_its_files(source, tmp_path):
    from boxel.utils.files import partial_path, remove_leftovers

    other = partial_path(tmp_path / "out")
    other.mkdir()
    remove_leftovers(tmp_path / "out")
    assert other.exists()  # this process is running
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = other.with_name(other.name.replace(f".{os.getpid()}.", f".{gone.pid}."))
    left.mkdir()
    old = left.with_name(f"{left.name}.old")
    old.mkdir()
    (old / "a.txt").write_text("")
    remove_leftovers(tmp_path / "out")
    assert not left.exists() and (tmp_path / "out/a.txt").exists()  # it had been put aside
