"""Label tables of boxes with Ray, which starts once for each number of workers."""

import os
import signal
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from boxel.data.synthetic import write_scenes
from boxel.distributed import label_table
from boxel.utils.errors import BoxelError

ray = pytest.importorskip("ray")
pandas = pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes") / "data", 12, seed=5, height=64, width=96)


@contextmanager
def running(workers):
    """A cluster of this machine."""
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


@ray.remote(num_cpus=0)
def kill_one():
    """Kill a process that labels, once there is one; return whether there was."""
    for _ in range(6000):
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it has ended meanwhile
                if "MapWorker" in file.read_text():
                    os.kill(int(file.parent.name), signal.SIGKILL)
                    return True
        time.sleep(0.01)
    return False


def label(data, out, engine, **settings):
    settings = {"teacher": "ellipse", "shard": 5, "images": data.root, "relabel": True} | settings
    label_table(data.file, out, engine=engine, **settings)
    return {path.name: path.read_bytes() for path in sorted(out.glob("part-*"))}


def test_the_same_bytes_from_any_number_of_workers_and_after_a_kill(scenes, tmp_path):
    expected = label(scenes, tmp_path / "local", "local")
    assert len(expected) > 5
    with running(1):
        assert label(scenes, tmp_path / "1", "ray") == expected
    with running(4):
        assert label(scenes, tmp_path / "4", "ray") == expected
        killed = kill_one.remote()
        assert label(scenes, tmp_path / "killed", "ray") == expected
        assert ray.get(killed)
        with pytest.raises(BoxelError, match=r"cannot be labeled, more than the share of 0"):
            label(scenes, tmp_path / "gone", "ray", images=tmp_path, max_bad=0.0)
