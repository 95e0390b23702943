"""Instances by voting, on drawn scenes where the answer is known."""

import itertools
from collections import defaultdict
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from boxel.models.fcrn.config import VotingConfig
from boxel.models.fcrn.voting import Hypotheses, vote
from boxel.utils.errors import BoxelError

SQUARES = torch.tensor(
    [[0.0, 1.0, 4.0, 5.0], [4.0, 1.0, 8.0, 5.0]]
)  # two of 4x4 that touch, on a grid of 6x8
LEFT, RIGHT = torch.zeros(2, 6, 8, dtype=torch.bool)
LEFT[1:5, :4] = True
RIGHT[1:5, 4:] = True


def two_squares(inside: tuple[float, float, float] = (0.1, 0.8, 0.1)) -> tuple[Tensor, Tensor]:
    """Scores of background and two classes, the same all over both squares; each pixel's box is that of its square."""
    scores = torch.tensor([1.0, 0.0, 0.0])[:, None, None].repeat(1, 6, 8)
    scores[:, LEFT | RIGHT] = torch.tensor(inside)[:, None]
    boxes = torch.where(RIGHT, SQUARES[1][:, None, None], SQUARES[0][:, None, None])
    return scores, boxes.repeat(2, 1, 1, 1)


as_published = partial(VotingConfig, nms_iou=0.5, confidence="score")


def row(scores: list[list[float]], boxes: list[tuple[float, float]], **options) -> Hypotheses:
    """A grid of one row: scores of a class for each pixel, background first; boxes as (start, end), for all classes."""
    corners = torch.tensor([[start, 0.0, end, 1.0] for start, end in boxes]).T[:, None]
    options = {"min_cells": 1, "min_score": 0.0, "region_iou": 0.5, "top_n": 1} | options
    grid = torch.tensor(scores)[:, None]
    return vote(grid, corners.expand(len(grid) - 1, -1, -1, -1), as_published(**options))


def drawn(found: Hypotheses) -> list[str]:
    """The masks of one row, as text."""
    return ["".join(".#"[cell] for cell in mask[0].tolist()) for mask in found.masks]


@pytest.mark.parametrize("top_n", [1, 2, 3, 9])
def test_two_touching_squares_of_a_class_come_out_as_two(top_n):
    found = vote(*two_squares(), as_published(top_n=top_n, min_score=0.2))
    assert torch.equal(found.masks, torch.stack([LEFT, RIGHT]))
    assert torch.equal(found.boxes, SQUARES)
    assert found.scores.tolist() == pytest.approx([0.8, 0.8])
    assert found.labels.tolist() == [0, 0]


def test_boxes_may_be_a_little_off():
    scores, boxes = two_squares()
    boxes = boxes + 0.3 * torch.rand(boxes.shape, generator=torch.Generator().manual_seed(0))
    found = vote(scores, boxes, as_published(top_n=1))
    assert {tuple(mask.flatten().tolist()) for mask in found.masks} == {
        tuple(mask.flatten().tolist()) for mask in (LEFT, RIGHT)
    }


def test_true_label_maps_vote_for_the_true_class_alone():
    found = vote(*two_squares((0.0, 0.0, 1.0)), as_published(top_n=3, min_score=0.0))
    assert torch.equal(found.masks, torch.stack([LEFT, RIGHT]))
    assert found.scores.tolist() == [1.0, 1.0]
    assert found.labels.tolist() == [1, 1]


def test_a_pixel_of_another_class_leaves_a_hole():
    scores, boxes = two_squares()
    scores[:, 2, 2] = torch.tensor([0.1, 0.3, 0.6])
    hole = LEFT.clone()
    hole[2, 2] = False
    found = vote(scores, boxes, as_published(top_n=1))
    assert torch.equal(found.masks, torch.stack([hole, RIGHT]))
    assert found.labels.tolist() == [0, 0]
    with_it = vote(scores, boxes, as_published(top_n=1, min_cells=1))  # it is an instance of its own
    assert with_it.labels.tolist() == [0, 0, 1]
    assert with_it.masks[2].nonzero().tolist() == [[2, 2]]


def test_the_second_best_recovers_what_background_hides():
    scene = two_squares((0.5, 0.45, 0.05))
    assert len(vote(*scene, as_published(top_n=1)).masks) == 0
    found = vote(*scene, as_published(top_n=2))
    assert torch.equal(found.masks, torch.stack([LEFT, RIGHT]))
    assert found.labels.tolist() == [0, 0]


def test_of_an_objects_masks_of_several_n_the_most_confident_is_kept():
    scores = [[0.1, 0.1, 0.5], [0.9, 0.7, 0.4]]  # the third pixel joins in the top-2 mask
    assert drawn(row(scores, [(0, 3)] * 3, top_n=2)) == ["##."]  # 0.8 against 2/3
    assert drawn(row(scores, [(0, 3)] * 3, top_n=2, region_iou=0.7)) == ["##.", "###"]  # their IoU is 2/3
    assert drawn(row([[0.1, 0.1, 0.6], [0.4, 0.4, 0.58]], [(0, 3)] * 3, top_n=2)) == [
        "###"
    ]  # 0.46 against 0.4


def test_confidence_and_box_are_the_means_of_the_pixels():
    found = row([[0.0] * 4, [0.5, 0.9, 0.7, 0.3]], [(0, 9), (0, 10), (0, 8), (20, 30)])
    assert drawn(found) == ["###.", "...#"]
    assert found.scores.tolist() == pytest.approx([0.7, 0.3])
    assert found.boxes.tolist() == [[0, 0, 9, 1], [20, 0, 30, 1]]


def test_a_suppressed_pixel_goes_to_the_best_of_those_that_overlap_it():
    # The first overlaps the second by 9/11 and the third by 7/13, these two each other by 6/14.
    boxes = [(3, 13), (4, 14), (0, 10)]
    assert drawn(row([[0.0] * 3, [0.6, 0.8, 0.9]], boxes)) == [".#.", "#.#"]
    assert drawn(row([[0.0] * 3, [0.6, 0.9, 0.8]], boxes)) == ["..#", "##."]
    assert drawn(row([[0.0] * 3, [0.6, 0.8, 0.9]], boxes, nms_iou=0.6)) == ["..#", "##."]


def test_one_that_is_suppressed_suppresses_nobody():
    boxes = [(0, 10), (3, 13), (6, 16)]  # neighbors: 7/13; the first and the last: 4/16
    assert drawn(row([[0.0] * 3, [0.9, 0.8, 0.7]], boxes)) == ["##.", "..#"]


def test_of_pixels_as_good_as_each_other_the_first_wins():
    """A thousand times three neighbors that overlap by 7/13, and the first the last by 4/16."""
    boxes = [(100 * k + start, 100 * k + start + 10) for k in range(1000) for start in (0, 3, 6)]
    found = row([[0.0] * 3000, [1.0] * 3000], boxes, max_detections=5000)
    cells = {tuple(mask.flatten().nonzero().flatten().tolist()) for mask in found.masks}
    assert cells == {pair for k in range(0, 3000, 3) for pair in ((k, k + 1), (k + 2,))}


def test_background_takes_a_place_among_the_best():
    scores = [[0.4] * 2, [0.3] * 2, [0.3, 0.2], [0.0, 0.1]]
    assert drawn(row(scores, [(0, 2)] * 2, top_n=1)) == []
    found = row(scores, [(0, 2)] * 2, top_n=2)  # those that tie share the second place
    assert (drawn(found), found.labels.tolist()) == (["##", "#."], [0, 1])
    found = row(scores, [(0, 2)] * 2, top_n=3, region_iou=0.0)
    assert (drawn(found), found.labels.tolist()) == (["##", "#."], [0, 1])
    found = row(scores, [(0, 2)] * 2, top_n=4, region_iou=0.0)
    assert (drawn(found), found.labels.tolist()) == (["##", "#.", ".#"], [0, 1, 2])


def test_what_is_too_weak_or_too_small_is_left_out():
    scores, boxes = [[0.0] * 4, [0.9, 0.5, 0.4, 0.3]], [(0, 5), (0, 5), (0, 5), (20, 25)]
    assert drawn(row(scores, boxes)) == ["###.", "...#"]
    assert drawn(row(scores, boxes, min_score=0.5)) == ["##.."]
    assert drawn(row(scores, boxes, min_cells=2)) == ["###."]
    assert drawn(row(scores, boxes, min_cells=4)) == []
    assert drawn(row(scores, boxes, max_detections=1)) == ["###."]


@pytest.mark.parametrize(
    "bad",
    [
        (5.0, 5.0),
        (6.0, 4.0),
        (torch.nan, 5.0),
        (0.0, torch.nan),
        (-torch.inf, torch.inf),
        (torch.inf, torch.inf),
    ],
)
def test_boxes_that_are_none_cost_only_their_pixel(bad):
    found = row([[0.0] * 4, [0.9, 0.7, 0.5, 0.8]], [bad, (0, 5), (0, 5), bad])
    assert drawn(found) == [".##."]
    assert found.scores.tolist() == pytest.approx([0.6])


def test_vast_and_tiny_boxes_are_only_boxes():
    found = row([[0.0] * 4, [0.9, 0.8, 0.7, 0.6]], [(-3e38, 3e38), (0, 1e-44), (0, 5), (0, 5)])
    assert drawn(found) == ["#...", ".#..", "..##"]


def test_scores_that_are_no_numbers_cost_only_their_pixel():
    found = row([[0.0, torch.nan, 0.0], [0.9, torch.nan, 0.8]], [(0, 5)] * 3)
    assert drawn(found) == ["#.#"]


@pytest.mark.parametrize("classes", [0, 1, 5])
def test_an_image_without_foreground_has_no_instances(classes):
    scores = torch.zeros(classes + 1, 3, 4)
    scores[0] = 1
    found = vote(scores, torch.rand(classes, 4, 3, 4), as_published(min_score=0.0))
    assert [tuple(part.shape) for part in found] == [(0, 3, 4), (0, 4), (0,), (0,)]
    assert [part.dtype for part in found] == [torch.bool, torch.float32, torch.float32, torch.int64]


def random_scene(seed: int, classes: int, height: int = 3, width: int = 4) -> tuple[Tensor, Tensor]:
    """Scores in eighths, so that many tie, and boxes on a few whole numbers, some without area."""
    random = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 9, (classes + 1, height, width), generator=random) / 8
    corner = torch.randint(0, 3, (classes, 2, height, width), generator=random).float()
    size = torch.randint(0, 6, (classes, 2, height, width), generator=random).float()
    return scores, torch.cat([corner, corner + size], 1)


@pytest.mark.slow
@given(st.integers(0, 10**6))
def test_the_order_of_the_classes_does_not_matter(seed):
    scores, boxes = random_scene(seed, 4)
    scores = scores + 0.01 * torch.rand(
        scores.shape, generator=torch.Generator().manual_seed(seed)
    )  # no ties
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    config = as_published(min_cells=2)
    found = vote(scores, boxes, config)
    other = vote(scores[torch.cat([torch.zeros(1).long(), order + 1])], boxes[order], config)
    assert torch.equal(order[other.labels], found.labels)
    for a, b in zip(found[:3], other[:3], strict=True):
        assert torch.equal(a, b)


def test_agreement_ranks_where_scores_are_all_alike():
    """Two pixels that name boxes nearly alike and fill them; three that name one box and fill half of it."""
    boxes = [(0, 6), (0, 6), (0, 6), (10, 12), (10, 13)]
    found = row([[0.0] * 5, [1.0] * 5], boxes, nms_iou=0.5, confidence="agreement")
    # The mean of (10, 12) and (10, 13) is (10, 12.5), which they overlap by 2/2.5 and 2.5/3.
    assert drawn(found) == ["...##", "###.."]
    assert found.scores.tolist() == pytest.approx([(2 / 2.5 + 2.5 / 3) / 2 * (2 / 2.5), 3 / 6])


Pixel = tuple[int, int]
Mask = tuple[float, int, list[Pixel], list[float]]  # confidence, class, pixels, box


def box_overlap(a: list[float], b: list[float]) -> float:
    def area(x0: float, y0: float, x1: float, y1: float) -> float:
        return max(0.0, x1 - x0) * max(0.0, y1 - y0)

    inter = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    return inter / (area(*a) + area(*b) - inter)


def everything(config: VotingConfig) -> VotingConfig:
    """The same, with no mask dropped for another."""
    return replace(config, region_iou=1.0, max_detections=10**6)


def one_by_one(scores: Tensor, boxes: Tensor, config: VotingConfig) -> list[Mask]:
    """Section 2.1 pixel by pixel."""
    classes, _, height, width = boxes.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    masks: list[Mask] = []
    for n in range(1, config.top_n + 1):
        for label in range(classes):
            score = {(y, x): scores[label + 1, y, x].item() for y, x in pixels}
            box = {(y, x): boxes[label, :, y, x].tolist() for y, x in pixels}
            voters = [
                (y, x)
                for y, x in pixels
                if sum(other > score[y, x] for other in scores[:, y, x].tolist()) < n
                and score[y, x] >= config.min_score
                and score[y, x] > 0
                and box[y, x][0] < box[y, x][2]
                and box[y, x][1] < box[y, x][3]
            ]
            groups: dict[Pixel, list[Pixel]] = defaultdict(list)
            for pixel in sorted(voters, key=lambda pixel: -score[pixel]):
                rivals = (kept for kept in groups if box_overlap(box[kept], box[pixel]) > config.nms_iou)
                groups[next(rivals, pixel)].append(pixel)
            for winner in sorted(groups):
                group = groups[winner]
                confidence = sum(score[pixel] for pixel in group) / len(group)
                middle = np.mean([box[p] for p in group], 0).tolist()
                if config.confidence == "agreement":
                    confidence *= float(np.mean([box_overlap(box[p], middle) for p in group]))
                    confidence *= min(len(group) / ((middle[2] - middle[0]) * (middle[3] - middle[1])), 1)
                if len(group) >= config.min_cells:
                    masks.append((confidence, label, sorted(group), middle))
    kept: list[Mask] = []
    for mask in sorted(masks, key=lambda mask: -mask[0]):
        same = (set(other[2]) for other in kept if other[1] == mask[1])
        if not any(len(m & {*mask[2]}) / len(m | {*mask[2]}) > config.region_iou for m in same):
            kept.append(mask)
    return kept[: config.max_detections]


@pytest.mark.slow
@given(
    seed=st.integers(0, 10**6),
    classes=st.integers(1, 4),
    config=st.builds(
        VotingConfig,
        top_n=st.integers(1, 4),
        nms_iou=st.sampled_from([0.0, 0.2, 0.5, 0.7]),
        region_iou=st.sampled_from([0.0, 0.3, 0.5]),
        min_score=st.sampled_from([0.0, 0.25, 0.5]),
        min_cells=st.integers(1, 3),
        max_detections=st.sampled_from([2, 100]),
        confidence=st.sampled_from(["score", "agreement"]),
    ),
)
def test_it_is_the_papers_procedure_pixel_by_pixel(seed, classes, config):
    scores, boxes = random_scene(seed, classes)
    found, expected = vote(scores, boxes, config), one_by_one(scores, boxes, config)
    if config.confidence == "agreement":  # its masks that tie may come in any order
        ranked = sorted(one_by_one(scores, boxes, everything(config)))
        assume(all(b[0] - a[0] > 1e-5 for a, b in itertools.pairwise(ranked)))
    assert found.labels.tolist() == [label for _, label, _, _ in expected]
    assert found.scores.tolist() == pytest.approx([confidence for confidence, *_ in expected])
    assert found.boxes.tolist() == [pytest.approx(box) for *_, box in expected]
    assert [mask.nonzero().tolist() for mask in found.masks] == [
        [list(pixel) for pixel in group] for _, _, group, _ in expected
    ]


def test_comparing_in_parts_changes_nothing(monkeypatch):
    scene = random_scene(0, 3, 12, 12)
    config = VotingConfig(min_cells=1)
    whole = vote(*scene, config)
    monkeypatch.setattr("boxel.models.fcrn.voting.BLOCK", 7)
    for a, b in zip(whole, vote(*scene, config), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("top_n", 0),
        ("nms_iou", 1.1),
        ("region_iou", -0.1),
        ("min_score", 2),
        ("min_cells", 0),
        ("max_detections", 0),
    ],
)
def test_senseless_options_are_refused(option, value):
    with pytest.raises(BoxelError, match=option):
        VotingConfig(**{option: value})
