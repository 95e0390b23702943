"""Candidate segments of a dataset on disk: made once, found again, and made again if the boxes change."""

import os
from dataclasses import replace

import numpy as np
import pytest

from boxel.data.synthetic import write_scenes
from boxel.evaluation.proposals import COUNTS, best_candidate_ious, candidate_ious
from boxel.proposals.candidates import Candidates
from boxel.proposals.store import ProposalConfig, load_candidates, make_candidates
from boxel.utils.errors import BoxelError

CONFIG = ProposalConfig(count=100)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), 3, seed=0)


def times(folder) -> dict[str, int]:
    return {file.name: os.stat(file).st_mtime_ns for file in folder.iterdir()}


@pytest.mark.slow
def test_candidates_are_made_once(scenes, tmp_path) -> None:
    done = []
    assert make_candidates(scenes, tmp_path, CONFIG, advance=done.append) == []
    assert done == [1, 1, 1]
    first = times(tmp_path)
    assert len(first) == 3 and all(name.endswith(".npz") for name in first)
    assert make_candidates(scenes, tmp_path, CONFIG) == [] and times(tmp_path) == first
    # Other boxes, and other choices, are other segments; the rest stays.
    moved = replace(scenes, boxes=scenes.boxes + (np.asarray(scenes.image_index) == 1)[:, None])
    make_candidates(moved, tmp_path, CONFIG)
    assert len(times(tmp_path)) == 4
    make_candidates(moved, tmp_path, replace(CONFIG, grabcut=False))
    assert len(times(tmp_path)) == 7 and first.items() <= times(tmp_path).items()


@pytest.mark.slow
def test_processes_make_the_same_candidates(scenes, tmp_path) -> None:
    make_candidates(scenes, tmp_path / "two", CONFIG, workers=2)
    for image in range(len(scenes)):
        one, two = (load_candidates(scenes, image, tmp_path / name, CONFIG) for name in ("one", "two"))
        np.testing.assert_array_equal(one.superpixels, two.superpixels)
        np.testing.assert_array_equal(one.members, two.members)


@pytest.mark.slow
def test_images_without_boxes_have_no_candidates(scenes, tmp_path) -> None:
    empty = scenes.select_instances(np.zeros(len(scenes.boxes), dtype=bool))
    assert len(load_candidates(empty, 0, tmp_path, CONFIG)) == 0
    assert len(load_candidates(empty, 0, tmp_path, ProposalConfig(count=50, fit_boxes=False))) == 50


@pytest.mark.slow
def test_an_unreadable_image_costs_only_itself(scenes, tmp_path, caplog) -> None:
    broken = replace(scenes, paths=[scenes.paths[0], "gone.jpg", scenes.paths[2]])
    (error,) = make_candidates(broken, tmp_path, CONFIG)
    assert "gone.jpg" in error and len(times(tmp_path)) == 2
    with pytest.raises(BoxelError, match=r"gone\.jpg"):
        load_candidates(broken, 1, tmp_path, CONFIG)
    assert len(best_candidate_ious(broken, tmp_path, CONFIG)) < len(scenes.boxes)
    assert len(caplog.records) == 1 and "gone.jpg" in caplog.text


def test_overlaps_are_those_of_full_masks() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 30, (12, 15))
    labels.ravel()[:30] = np.arange(30)
    candidates = Candidates.from_sets(labels, random.random((20, 30)) < 0.4)
    masks = random.random((5, 12, 15)) < 0.3
    found = candidate_ious(candidates, masks)
    for n in range(20):
        for m in range(5):
            own = candidates.mask(n)
            assert found[n, m] == pytest.approx((own & masks[m]).sum() / (own | masks[m]).sum(), abs=1e-9)


@pytest.mark.slow
def test_recall_grows_with_the_number(scenes, tmp_path) -> None:
    found = best_candidate_ious(scenes, tmp_path, CONFIG)
    assert found.shape[1] == len(COUNTS) and (np.diff(found, axis=1) >= 0).all()
    assert found[:, -1].mean() > found[:, 0].mean() > 0.8


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(BoxelError, match="source is mgc; give mcg, selective-search or gop"):
        ProposalConfig(source="mgc")
    with pytest.raises(BoxelError, match="count is 0"):
        ProposalConfig(count=0)
