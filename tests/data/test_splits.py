"""Making and selecting splits."""

from dataclasses import replace

import pytest

from boxel.data import example_scenes, make_split, select_split
from boxel.utils.errors import BoxelError, UsageError


@pytest.fixture
def data():
    scenes = example_scenes(12)
    return replace(scenes, paths=[f"cam{k % 4}/day{k // 4}_{k}.png" for k in range(12)])


def val(data):
    return {path for path, split in zip(data.paths, data.splits, strict=True) if split == "val"}


def test_the_share_is_kept_and_the_choice_repeats(data):
    split = make_split(data, 0.25, seed=3)
    assert len(val(split)) == 3 and set(split.splits) == {"train", "val"}
    assert make_split(data, 0.25, seed=3).splits == split.splits
    assert val(make_split(data.select_images(range(11, -1, -1)), 0.25, seed=3)) == val(split)
    assert any(val(make_split(data, 0.25, seed=k)) != val(split) for k in range(5))
    assert data.splits == [None] * 12


@pytest.mark.parametrize(("pattern", "size"), [(r"day(\d)_", 4), (r"^day\d", 4), (r"^(cam\d)/", 3)])
def test_groups_stay_together(data, pattern, size):
    for seed in range(5):
        chosen = val(make_split(data, 0.3, seed, pattern))
        assert len(chosen) == size
        part = (
            (lambda path: path.split("/")[0]) if "cam" in pattern else (lambda path: path.split("/")[1][:4])
        )
        assert len({part(path) for path in chosen}) == 1


def test_both_splits_have_an_image(data):
    assert len(val(make_split(data, 0.001))) == 1 and len(val(make_split(data, 0.999))) == 11


def test_what_cannot_be_split_is_refused(data):
    with pytest.raises(UsageError, match="`val_share` is 1"):
        make_split(data, 1)
    with pytest.raises(BoxelError, match=r"has a split already \(val: 12\)"):
        make_split(replace(data, splits=["val"] * 12), 0.5)
    with pytest.raises(UsageError, match="not a regular expression"):
        make_split(data, 0.5, group_by="(")
    with pytest.raises(BoxelError, match=r"`group_by` 'x' matches nothing in cam0/day0_0.png"):
        make_split(data, 0.5, group_by="x")
    with pytest.raises(BoxelError, match="one group cannot be split"):
        make_split(data, 0.5, group_by="day")
    with pytest.raises(BoxelError, match="1 images cannot be split"):
        make_split(data.select_images([0]), 0.5)


def test_a_split_is_selected(data, caplog):
    split = make_split(data, 0.25)
    assert len(select_split(split, "val")) == 3 and len(select_split(data, "val")) == 12
    with pytest.raises(BoxelError, match="no image belongs to the split 'test'"):
        select_split(split, "test")
    lone = replace(data, splits=["val"] * 12)
    assert len(select_split(lone, "train")) == 12
    assert "all its images are of one split (val: 12); they are read as `train`" in caplog.text
