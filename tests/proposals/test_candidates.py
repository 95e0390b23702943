"""Candidate segments as sets of superpixels: masks, files, and masks that cut superpixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxel.proposals.candidates import Candidates, add_masks
from boxel.utils.errors import BoxelError

QUARTERS = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]])


def left_and_lower() -> Candidates:
    return Candidates.from_sets(QUARTERS, np.array([[1, 0, 1, 0], [0, 0, 1, 1]], dtype=bool))


def test_masks_of_sets() -> None:
    found = left_and_lower()
    assert len(found) == 2 and found.members.tolist() == [[0b10100000], [0b00110000]]
    np.testing.assert_array_equal(found.mask(0), QUARTERS % 2 == 0)
    np.testing.assert_array_equal(found.mask(1), QUARTERS >= 2)
    assert found.boxes.tolist() == [[0, 0, 2, 3], [0, 2, 4, 3]]
    assert found.sets().tolist() == [[True, False, True, False], [False, False, True, True]]


@pytest.mark.slow
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(0, 30))
def test_candidates_survive_saving_and_loading(tmp_path_factory, seed, superpixels, segments) -> None:
    random = np.random.default_rng(seed)
    labels = random.permutation(np.concatenate([np.arange(superpixels), np.zeros(8, int)])).reshape(1, -1)
    sets = random.random((segments, superpixels)) < 0.5
    file = tmp_path_factory.getbasetemp() / "candidates.npz"
    Candidates.from_sets(labels, sets).save(file)
    found = Candidates.load(file)
    np.testing.assert_array_equal(found.superpixels, labels)
    np.testing.assert_array_equal(found.sets(), sets)
    for segment, own in enumerate(sets):
        np.testing.assert_array_equal(found.mask(segment), own[labels])


def test_masks_cut_superpixels() -> None:
    """The middle columns cut all four superpixels; the existing sets keep their masks."""
    masks = np.zeros((2, 3, 4), dtype=bool)
    masks[0, :, 1:3] = True
    masks[1, 2, 3] = True
    found = add_masks(left_and_lower(), masks)
    assert len(found) == 4 and found.superpixels.max() == 8 - 1
    for segment, wanted in enumerate([*masks, left_and_lower().mask(0), left_and_lower().mask(1)]):
        np.testing.assert_array_equal(found.mask(segment), wanted)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive"])
def test_an_unreadable_file_is_named(tmp_path, content) -> None:
    file = tmp_path / "a.npz"
    file.write_bytes(content)
    with pytest.raises(BoxelError, match=r"a\.npz: the candidate segments cannot be read .*delete the file"):
        Candidates.load(file)


@pytest.mark.parametrize(
    "arrays",
    [
        {"superpixels": np.zeros((2, 2), np.uint16)},
        {
            "superpixels": np.zeros((2, 2), np.uint16),
            "members": np.zeros((3, 1), np.uint8),
            "boxes": np.zeros((2, 4)),
        },
        {"superpixels": np.full((2, 2), 9), "members": np.zeros((3, 1), np.uint8), "boxes": np.zeros((3, 4))},
        {
            "superpixels": np.zeros(4, np.uint16),
            "members": np.zeros((3, 1), np.uint8),
            "boxes": np.zeros((3, 4)),
        },
        {"superpixels": np.array([[None]]), "members": np.zeros((3, 1), np.uint8), "boxes": np.zeros((3, 4))},
    ],
    ids=["one array", "too few boxes", "too few bits", "no map", "objects"],
)
def test_a_file_with_other_arrays_is_refused(tmp_path, arrays) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(BoxelError, match=r"a\.npz: .*delete"):
        Candidates.load(tmp_path / "a.npz")
