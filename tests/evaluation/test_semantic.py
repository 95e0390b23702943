import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import contingency_table

from boxel.evaluation.semantic import confusion, semantic_metrics


def test_by_hand():
    truth = np.array([[0, 0, 0, 1], [1, 1, 255, 255]])
    found = np.array([[0, 0, 1, 1], [1, 2, 0, 2]])
    matrix = confusion(truth, found, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    figures = semantic_metrics(matrix, ["sky", "road", "car", "pole"])
    assert figures["pixel_accuracy"] == pytest.approx(4 / 6)
    assert figures["mean_class_accuracy"] == pytest.approx((2 / 3 + 2 / 3) / 2)  # no pixel is a car or a pole
    per_class = figures["per_class"]
    assert [per_class[name] for name in ("sky", "road", "car")] == pytest.approx([2 / 3, 2 / 4, 0])
    assert np.isnan(per_class["pole"])  # neither there nor found
    assert figures["mean_iou"] == pytest.approx((2 / 3 + 2 / 4 + 0) / 3)


def test_nothing_labeled():
    figures = semantic_metrics(
        confusion(np.full((2, 2), 7), np.zeros((2, 2), int), 3, ignore_index=7), ["a", "b", "c"]
    )
    assert all(np.isnan(figures[name]) for name in ("pixel_accuracy", "mean_class_accuracy", "mean_iou"))


@pytest.mark.parametrize("wrong", [(3, 0), (0, 3), (-1, 0), (0, -1)])
def test_labels_beyond_the_classes(wrong):
    true, found = wrong
    with pytest.raises(ValueError):
        confusion(np.array([[true]]), np.array([[found]]), 3)


@given(st.integers(0, 10**6), st.integers(1, 9))
def test_images_add_up_and_agree_with_a_peer(seed, classes):
    random = np.random.default_rng(seed)
    truth, found = random.integers(0, classes, (2, 13, 17), dtype=np.uint8)
    parts = [confusion(truth[rows], found[rows], classes) for rows in (slice(0, 5), slice(5, None))]
    whole = confusion(truth, found, classes)
    np.testing.assert_array_equal(sum(parts), whole)
    peer = contingency_table(truth, found).toarray()
    np.testing.assert_array_equal(peer, whole[: peer.shape[0], : peer.shape[1]])
    assert whole.sum() == truth.size
