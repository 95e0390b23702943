"""Region NMS: which of several overlapping masks are kept."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import batched_nms

from boxel.masks.nms import region_nms
from boxel.masks.rle import encode
from boxel.masks.suppression import box_nms, mask_nms


def rows(*texts: str) -> Tensor:
    """Masks of one row each; `#` is foreground."""
    return torch.tensor([[[letter == "#" for letter in text]] for text in texts])


def keep(masks: Tensor, scores: list[float], threshold: float, labels: list[int] | None = None) -> list[int]:
    labels = labels or [0] * len(masks)
    return region_nms(masks, torch.tensor(scores), torch.tensor(labels), threshold).tolist()


PAIR = rows("####....", "..####..")  # IoU 2/6


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.0, [1]), (0.33, [1]), (1 / 3, [1, 0]), (0.5, [1, 0]), (1.0, [1, 0])]
)
def test_the_lower_of_two_is_dropped_above_the_threshold(threshold, expected):
    assert keep(PAIR, [0.6, 0.7], threshold) == expected


def test_masks_of_different_classes_do_not_compete():
    assert keep(PAIR, [0.6, 0.7], 0.0, labels=[1, 0]) == [1, 0]
    same = rows("###", "###", "###", "###")
    assert keep(same, [0.1, 0.4, 0.3, 0.2], 0.5, labels=[7, 2, 7, 2]) == [1, 2]


def test_a_threshold_of_zero_allows_touching_but_no_overlap():
    assert keep(rows("####....", "...#####"), [0.9, 0.8], 0.0) == [0]
    assert keep(rows("####....", "....####"), [0.9, 0.8], 0.0) == [0, 1]


def test_a_dropped_mask_suppresses_no_other():
    chain = rows("###.....", ".###....", "..###...", "...###..")  # neighbors: IoU 1/2; next but one: 1/5
    assert keep(chain, [0.9, 0.8, 0.7, 0.6], 0.3) == [0, 2]
    assert keep(chain, [0.6, 0.7, 0.8, 0.9], 0.3) == [3, 1]
    assert keep(chain, [0.9, 0.8, 0.7, 0.6], 0.1) == [0, 3]


def test_of_equal_scores_the_first_is_kept():
    assert keep(rows("##..", "##..", "..##", "..##"), [0.5, 0.5, 0.5, 0.5], 0.3) == [0, 2]


def test_empty_masks_suppress_nothing():
    assert keep(rows("....", "##..", "...."), [0.9, 0.8, 0.7], 0.0) == [0, 1, 2]
    assert keep(rows("....", "...."), [0.1, 0.2], 0.0) == [1, 0]


def test_no_masks():
    assert mask_nms([], np.zeros(0), np.zeros(0, int), 0.5).tolist() == []
    kept = region_nms(torch.zeros(0, 3, 4, dtype=torch.bool), torch.zeros(0), torch.zeros(0).long(), 0.5)
    assert kept.shape == (0,)
    assert kept.dtype == torch.int64


def one_by_one(masks: Tensor, scores: list[float], labels: list[int], threshold: float) -> list[int]:
    cells = [{tuple(cell) for cell in mask.nonzero().tolist()} for mask in masks]

    def rivals(a: int, b: int) -> bool:
        shared, either = len(cells[a] & cells[b]), len(cells[a] | cells[b])
        return labels[a] == labels[b] and shared > 0 and shared / either > threshold

    kept: list[int] = []
    for i in sorted(range(len(cells)), key=lambda i: -scores[i]):
        if not any(rivals(i, j) for j in kept):
            kept.append(i)
    return kept


@pytest.mark.slow
@given(
    st.integers(0, 10**6),
    st.integers(1, 12),
    st.sampled_from([0.1, 0.4, 0.8]),
    st.sampled_from([0.0, 0.3, 0.5]),
)
def test_the_result_matches_a_greedy_loop(seed, count, density, threshold):
    random = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, 3, 4, generator=random) < density
    scores = torch.rand(count, generator=random).mul(4).round().tolist()  # many alike
    labels = torch.randint(3, (count,), generator=random).tolist()
    assert keep(masks, scores, threshold, labels) == one_by_one(masks, scores, labels, threshold)


@pytest.mark.parametrize(("threshold", "expected"), [(0.33, [1]), (1 / 3, [1, 0])])
def test_codes_of_masks_are_suppressed_by_their_iou(threshold, expected):
    rles = [encode(mask.numpy()) for mask in PAIR]
    assert mask_nms(rles, np.array([0.6, 0.7]), np.array([3, 3]), threshold).tolist() == expected
    assert mask_nms(rles, np.array([0.6, 0.7]), np.array([3, 4]), threshold).tolist() == [1, 0]


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_codes_are_suppressed_like_masks(seed, threshold):
    random = torch.Generator().manual_seed(seed)
    masks = torch.rand(9, 3, 4, generator=random) > 0.4
    scores, labels = torch.rand(9, generator=random), torch.randint(0, 2, (9,), generator=random)
    rles = [encode(mask.numpy()) for mask in masks]
    kept = mask_nms(rles, scores.numpy(), labels.numpy(), threshold).tolist()
    assert kept == region_nms(masks, scores, labels, threshold).tolist()


def test_boxes_are_suppressed_like_those_of_torchvision():
    random = np.random.default_rng(0)
    corners = random.uniform(0, 30, (60, 2))
    boxes = np.hstack([corners, corners + random.uniform(1, 20, (60, 2))]).astype(np.float32)
    scores, labels = random.random(60).astype(np.float32), random.integers(0, 3, 60)
    kept = box_nms(boxes, scores, labels, 0.3).tolist()
    expected = batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), 0.3)
    assert kept == expected.tolist() and 10 < len(kept) < 60
    assert box_nms(boxes[:0], scores[:0], labels[:0], 0.3).tolist() == []
