"""Shards."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxel.data.formats.box_table import BoxTable
from boxel.distributed.plan import find_runs, plan_shards

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")


@given(st.lists(st.integers(1, 30)), st.integers(1, 50))
def test_shards_cover_all_rows_and_part_no_image(counts, size):
    runs = np.cumsum([0, *counts])
    shards = plan_shards(runs, size)
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert [row for shard in shards for row in range(shard.start, shard.stop)] == list(range(sum(counts)))
    assert {bound for shard in shards for bound in shard[1:]} <= {*runs.tolist()}
    assert all(shard.rows >= size for shard in shards[:-1])
    for shard in shards:  # and no larger than needed
        images = np.diff(runs[np.searchsorted(runs, shard.start) : np.searchsorted(runs, shard.stop) + 1])
        assert shard.rows - images[-1] < size


@pytest.mark.parametrize(
    ("images", "runs", "together"),
    [("aabbbc", [0, 2, 5, 6], True), ("aba", [0, 1, 2, 3], False), ("", [0], True), ("aaaa", [0, 4], True)],
)
def test_runs_of_one_image(tmp_path, images, runs, together):
    columns = {name: [0.0] * len(images) for name in ("x0", "y0", "x1", "y1")}
    for start in range(0, max(len(images), 1), 3):  # an image may continue in the next file
        part = {name: values[start : start + 3] for name, values in columns.items()}
        frame = pandas.DataFrame(
            {"image": pandas.Series(list(images[start : start + 3]), dtype="str"), **part}
        )
        frame.to_parquet(tmp_path / f"{start}.parquet")
    found, whole = find_runs(BoxTable(tmp_path))
    assert found.tolist() == runs and whole == together
