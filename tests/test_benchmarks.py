"""What the scripts of `benchmarks/` import exists, and so do the scripts that results name."""

import ast
import json
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from boxel.data import Annotations, Category

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(BENCHMARKS.glob("*.py")), ids=lambda script: script.stem)
def test_what_a_script_imports_exists(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    missing = []
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        named = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        if named.startswith("boxel") or (BENCHMARKS / f"{named}.py").exists():
            module = import_module(named)
            missing += [f"{named}.{name.name}" for name in node.names if not hasattr(module, name.name)]
    assert not missing


@pytest.mark.parametrize("file", sorted(BENCHMARKS.glob("results/*.json")), ids=lambda file: file.stem)
def test_the_scripts_that_results_name_exist(file: Path) -> None:
    named = set(re.findall(r"benchmarks/(\w+\.py)", json.dumps(json.loads(file.read_text(encoding="utf-8")))))
    assert not [name for name in named if not (BENCHMARKS / name).exists()]


@pytest.fixture
def jitter_boxes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("_runs").jitter_boxes


def test_a_process_is_measured_apart_from_the_one_that_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    processes = import_module("_processes")
    ballast = np.ones(25_000_000)  # 200 MB
    small = processes.run_process(processes.python("import os; assert os.listdir('RUN') == ['log']"))
    large = processes.run_process(processes.python("x = bytearray(b'1') * 100_000_000"))
    assert small.peak < 60 < 100 < large.peak < ballast.nbytes / 1e6
    assert 0 < small.cpu < 5 and small.wall > 0
    assert processes.run_process(processes.python("raise SystemExit(1)")) is None
    assert processes.run_process(processes.python("raise SystemExit(1)"), codes=(0, 1)) is not None


def test_jitter_moves_each_side_by_a_share_of_the_extent(jitter_boxes: Callable[..., Any]) -> None:
    box = np.array([30.0, 20, 50, 24])
    moved = jitter_boxes(make_dataset(box, 2000, 100), 0.1).boxes - box
    bound = np.array([2.0, 0.4, 2.0, 0.4])  # 10 % of 20 x 4
    assert (np.abs(moved) <= bound).all()
    np.testing.assert_allclose(moved.max(0), bound, rtol=0.05)
    np.testing.assert_allclose(moved.min(0), -bound, rtol=0.05)


def test_jittered_boxes_depend_on_the_seed_and_stay_in_images_of_known_size(
    jitter_boxes: Callable[..., Any],
) -> None:
    known, unknown = (make_dataset(np.array([0.0, 0, 100, 60]), 100, size) for size in (100, 0))
    boxes = jitter_boxes(known, 0.1, 3).boxes
    assert (boxes == jitter_boxes(known, 0.1, 3).boxes).all() and (boxes >= 0).all() and (boxes <= 100).all()
    assert (boxes != jitter_boxes(known, 0.1, 4).boxes).any()
    assert (jitter_boxes(unknown, 0.1).boxes < 0).any() and (jitter_boxes(unknown, 0.1).boxes > 100).any()


def make_dataset(box: NDArray[np.float64], count: int, size: int) -> Annotations:
    return Annotations(
        root=Path(),
        categories=(Category(1, "thing"),),
        image_ids=[0],
        paths=["a.png"],
        widths=np.array([size]),
        heights=np.array([size]),
        ids=list(range(count)),
        image_index=np.zeros(count, np.int64),
        labels=np.zeros(count, np.int32),
        boxes=np.tile(box, (count, 1)),
        iscrowd=np.zeros(count, bool),
        segmentations=np.full(count, None, dtype=object),
    )
