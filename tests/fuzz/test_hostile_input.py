"""Inputs that were made to do harm: random ones, those that once did, and pickles."""

import contextlib
import io
import os
import pickle
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from fuzz_found import FOUND
from fuzz_targets import TARGETS, Bench, Forbidden, read_corpus
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="session")
def benches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bench]:
    """The benches that were used so far, by target."""

    class Benches(dict[str, Bench]):
        def __missing__(self, name: str) -> Bench:
            self[name] = Bench(TARGETS[name], tmp_path_factory.mktemp("bench"))
            return self[name]

    return Benches()


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_changed_is_read(benches: dict[str, Bench], name: str) -> None:
    assert all(benches[name].run(file, content) for file, content in benches[name].seeds.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_any_change_is_read_or_refused_in_a_sentence(benches: dict[str, Bench], name: str) -> None:
    bench = benches[name]

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def check(rng: Random) -> None:
        bench.run(*bench.draw(rng))

    check()


@pytest.mark.parametrize("found", FOUND, ids=lambda found: f"{found.target}, {found.what}")
def test_what_once_did_harm_does_none(benches: dict[str, Bench], found: Any) -> None:
    bench = benches[found.target]
    content = found.change(bench.seeds[found.file])
    assert bench.run(found.file, content) != bool(found.sentence)
    assert found.sentence in bench.sentence


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_that_reach_much_of_the_code(benches: dict[str, Bench], name: str) -> None:
    for file in benches[name].seeds:
        for content in read_corpus(name, file):
            benches[name].run(file, content)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def _torch_file(trap: Trap) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save({"state_dict": {"a": trap}, "global_step": trap}, stream)
    return stream.getvalue()


def _numpy_file(trap: Trap) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, superpixels=np.array([trap]), members=np.array([trap]), boxes=np.array([trap]))
    return stream.getvalue()


PLACES = {
    "checkpoint": "last.ckpt",
    "weights": "weights.pth",
    "model": "model/model.safetensors",
    "onnx": "model.onnx",
    "segments": "1.npz",
    "sbd": "in/inst/1.mat",
    "tasks": "tasks/boxel-tasks.msgpack",
    "parquet": "in.parquet",
    "recipe": "recipe.yaml",
}


@pytest.mark.parametrize("make", [pickle.dumps, _torch_file, _numpy_file], ids=["pickle", "torch", "numpy"])
@pytest.mark.parametrize("name", PLACES)
def test_nothing_is_unpickled(benches: dict[str, Bench], tmp_path: Path, name: str, make: Any) -> None:
    content = make(Trap(tmp_path / "sprung"))
    with contextlib.suppress(BaseException):
        assert pickle.loads(pickle.dumps(Trap(tmp_path / "sprung"))) is None
    (tmp_path / "sprung").rmdir()  # it works
    assert benches[name].run(PLACES[name], content) == (name == "sbd")  # which costs one image alone
    assert not (tmp_path / "sprung").exists()


def test_the_bench_sees_what_a_reader_must_not_do(tmp_path: Path) -> None:
    pickled, outside = pickle.dumps(Trap(tmp_path / "sprung")), tmp_path / "outside"

    def run(action: Any) -> None:
        bench = Bench(
            TARGETS["results"]._replace(run=lambda folder: None), tmp_path / str(len(os.listdir(tmp_path)))
        )
        bench.target = bench.target._replace(run=action)
        bench.run("results.json", b"")

    for action in (
        lambda folder: pickle.loads(pickled),
        lambda folder: outside.write_text("x"),
        lambda folder: (folder / "place/../more").mkdir(),
        lambda folder: os.system("true"),
    ):
        with pytest.raises(Forbidden):
            run(action)
    with pytest.raises(AssertionError, match="markup"):
        run(lambda folder: (folder / "place/page.html").write_text("<b><xss onxss='1'></b>"))
    run(lambda folder: (folder / "place/page.html").write_text("<b>&lt;xss</b>"))
    assert not outside.exists() and not (tmp_path / "sprung").exists()
