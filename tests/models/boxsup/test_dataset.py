"""Labels of masks and of selected segments, smaller ones on top."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

import boxel
from boxel.data.label_maps import IGNORE_INDEX, UNDECIDED, make_label_map
from boxel.data.synthetic import write_scenes
from boxel.masks.rle import encode
from boxel.models.boxsup import BoxSupDataset
from boxel.models.boxsup.dataset import NO_SEGMENT
from boxel.proposals.store import ProposalConfig, make_candidates

CONFIG = ProposalConfig(count=50)


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), 3, seed=3)


@pytest.fixture(scope="module")
def folder(masked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("segments")
    make_candidates(masked, folder, CONFIG)
    return folder


def painted(dataset: BoxSupDataset, image: int) -> np.ndarray:
    return dataset[image][1]["labels"].numpy()


@pytest.mark.slow
def test_a_box_is_ignored_before_a_segment_is_selected(masked, folder) -> None:
    boxes = masked.without_masks()
    dataset = BoxSupDataset(boxes, folder, CONFIG)
    np.testing.assert_array_equal(painted(dataset, 0), make_label_map(boxes, 0))
    assert set(np.unique(painted(dataset, 0))) == {0, IGNORE_INDEX}


@pytest.mark.slow
def test_a_selected_segment_is_painted_in_the_class_of_its_box(masked, folder) -> None:
    boxes = masked.without_masks()
    dataset = BoxSupDataset(boxes, folder, CONFIG)
    own, candidates = dataset.undecided(0), dataset.candidates(0)
    assert own.tolist() == boxes.instances_in(0).tolist() and len(own) > 1
    # One box's own GrabCut, the first candidates; the other boxes stay unknown.
    dataset.choices[own[1]] = 1
    mask = candidates.mask(1)
    found = painted(dataset, 0)
    assert mask.any() and (found[mask] == 1 + boxes.labels[own[1]]).all()
    assert (found[~mask] == make_label_map(boxes, 0)[~mask]).all() or (found == IGNORE_INDEX).any()
    # With all of them the smaller lies on top of the larger, and nothing is unknown any more.
    dataset.choices[own] = torch.arange(len(own), dtype=torch.int32)
    found = painted(dataset, 0)
    sizes = {k: int(candidates.mask(k).sum()) for k in range(len(own))}
    for k in sorted(sizes, key=lambda k: sizes[k])[:1]:
        assert (found[candidates.mask(k)] == 1 + boxes.labels[own[k]]).all()
    covered = np.any([candidates.mask(k) for k in range(len(own))], axis=0)
    assert (found[~covered] == 0).all() and IGNORE_INDEX not in found


@pytest.mark.slow
def test_masks_are_kept(masked, folder) -> None:
    some = replace(masked, segmentations=masked.segmentations.copy())
    first = int(masked.instances_in(0)[0])
    some.segmentations[first] = None
    dataset = BoxSupDataset(some, folder, CONFIG)
    assert dataset.undecided(0).tolist() == [first] and not len(dataset.undecided(1))
    np.testing.assert_array_equal(painted(dataset, 1), make_label_map(masked, 1))
    assert (dataset.choices == NO_SEGMENT).all()


def test_undecided_pixels_are_ignored_except_on_other_masks(masked, caplog) -> None:
    """The boxes of two instances are undecided; the field of another one cannot be read."""
    first, second, third = masked.instances_in(0)[:3].tolist()
    boxed = np.zeros(masked.image_size(0)[::-1], dtype=bool)
    partial = replace(masked, extras=masked.extras.copy())
    for instance in (first, second):
        x0, y0, x1, y1 = masked.boxes[instance].astype(int)
        own = np.zeros_like(boxed)
        own[y0:y1, x0:x1] = True
        boxed |= own
        partial.extras[instance] = msgspec.json.encode({"track_id": 1, UNDECIDED: encode(own)})
    partial.extras[third] = b'{"undecided_pixels":true}'
    found, whole = make_label_map(partial, 0), make_label_map(masked, 0)
    np.testing.assert_array_equal(found[whole > 0], whole[whole > 0])
    assert (found[boxed & (whole == 0)] == IGNORE_INDEX).all() and (found[~boxed] == whole[~boxed]).all()
    assert f"`undecided_pixels` of annotation {masked.ids[third]} is ignored" in caplog.text


@pytest.mark.slow
def test_the_rest_of_an_inner_box_is_ignored(masked) -> None:
    """What the teacher has no opinion about reaches the labels through the labeled dataset."""
    boxes = masked.select_images([0]).without_masks().select_instances([0])
    labeled = boxel.label(boxes, teacher="inner-box")
    found, core = make_label_map(labeled, 0), labeled.mask(0) > 0
    x0, y0, x1, y1 = boxes.boxes[0].astype(int)
    rest = np.zeros_like(core)
    rest[y0:y1, x0:x1] = True
    assert (found[core] == 1 + boxes.labels[0]).all() and (found[rest & ~core] == IGNORE_INDEX).all()
    assert (found[~rest] == 0).all()
    again = boxel.label(labeled, teacher="rectangle", relabel=True)
    assert UNDECIDED.encode() in labeled.extras[0] and again.extras[0] is None


def test_an_image_with_a_label_map_needs_no_segments(masked, folder) -> None:
    maps: list[str | None] = ["map.png", None, None]
    dataset = BoxSupDataset(replace(masked.without_masks(), label_maps=maps), folder, CONFIG)
    assert not len(dataset.undecided(0)) and len(dataset.undecided(1))
