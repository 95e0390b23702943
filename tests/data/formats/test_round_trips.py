"""The table of what each format keeps holds for other random datasets, and for every pair of formats."""

import itertools
import runpy
from functools import cache
from pathlib import Path

import pytest

TABLE = runpy.run_path(str(Path(__file__).resolve().parents[3] / "docs/round_trips.py"))
FORMATS = list(TABLE["FORMATS"].values())


@cache
def kept_by(format: str) -> frozenset[str]:
    return frozenset(TABLE["kept_by"](format))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path


def test_coco_keeps_everything():
    assert kept_by("coco") == TABLE["FIELDS"].keys()


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_what_a_format_keeps_survives_in_other_datasets(format):
    assert TABLE["kept_by"](format, seeds=range(100, 110)) >= kept_by(format)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(FORMATS, 2)))
def test_what_two_formats_keep_survives_both(folder, first, second):
    data = TABLE["random_dataset"](folder / "in", 200)
    there = TABLE["convert"](data, first, folder)
    back = TABLE["convert"](there, second, folder)
    assert TABLE["survivors"](data, back) >= kept_by(first) & kept_by(second)
