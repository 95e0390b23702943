"""Matching of boxes and locations: by hand, and against torchvision's FCOS where the rules agree."""

from types import SimpleNamespace

import pytest
import torch
from torchvision.models.detection.fcos import FCOS

from boxel.models.boxinst.matching import (
    SIZE_RANGES,
    STRIDES,
    Locations,
    cell_centers,
    centerness,
    inside_any_box,
    instance_centers,
    make_locations,
    match_locations,
    sample_locations_per_box,
    side_distances,
)

INF = float("inf")


def make_all_locations(height, width):
    """Locations of all levels for an image of this size."""
    return make_locations([(-(-height // stride), -(-width // stride)) for stride in STRIDES])


def match_boxes(locations, boxes):
    """Matches around the centers of the boxes."""
    return match_locations(locations, boxes, (boxes[:, :2] + boxes[:, 2:]) / 2)


def match_p3(boxes, size=32):
    """Matches of a square image at stride 8 alone, as a map."""
    locations = make_locations([(size // 8, size // 8)])._replace(size_ranges=torch.tensor([[-1.0, 64.0]]))
    matched = match_boxes(locations, torch.tensor(boxes).float().reshape(-1, 4))
    return matched.reshape(size // 8, -1)


def test_locations_are_cell_centers_row_by_row():
    assert cell_centers(2, 3, 8).tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]
    assert cell_centers(1, 2, 128).tolist() == [[64, 64], [192, 64]]


def test_side_distances_are_left_top_right_bottom():
    distances = side_distances(torch.tensor([[5.0, 6.0]]), torch.tensor([[1.0, 3.0, 25.0, 4.0]]))
    assert distances.tolist() == [[4, 3, 20, -2]]


@pytest.mark.parametrize(
    ("center", "positive"), [(16, [12, 20]), (15, [4, 12, 20])], ids=["at the radius is outside", "within"]
)
def test_locations_within_the_radius_are_positive(center, positive):
    """Locations are 4, 12, 20, 28, a stride is 8: those less than 12 pixels from the center."""
    found = match_p3([[center - 16, center - 16, center + 16, center + 16]])
    inside = torch.isin(torch.arange(4) * 8 + 4, torch.tensor(positive))
    assert torch.equal(found == 0, inside[:, None] & inside)


def test_an_instance_with_a_mask_is_centered_on_its_mass():
    """An L of 7 pixels, 5 of them in a column; beside it a filled box, an empty mask and a hint."""
    masks = torch.zeros(4, 8, 10, dtype=torch.uint8)
    masks[0, 2:7, 4] = masks[0, 6, 4:7] = 1
    masks[1, :3] = masks[3, :3] = 1
    boxes = torch.tensor([[4.0, 2, 7, 7], [0, 0, 10, 3], [2, 4, 8, 6], [0, 0, 4, 8]])
    found = instance_centers(boxes, masks, torch.tensor([True, True, True, False]))
    # x: five pixels at 4.5, one at 5.5 and 6.5; y: one each at 2.5 to 5.5, three at 6.5.
    expected = [[(5 * 4.5 + 5.5 + 6.5) / 7, (2.5 + 3.5 + 4.5 + 5.5 + 3 * 6.5) / 7], [5, 1.5], [5, 5], [2, 4]]
    torch.testing.assert_close(found, torch.tensor(expected))
    assert instance_centers(torch.zeros(0, 4), torch.zeros(0, 8, 10), torch.zeros(0).bool()).shape == (0, 2)


def test_locations_around_a_center_beside_that_of_the_box_are_positive_if_inside_it():
    """Locations at 4, 12, 20, 28; those less than 12 pixels from 3, in a box that starts at 2."""
    locations = make_locations([(4, 4)])._replace(size_ranges=torch.tensor([[-1.0, 64.0]]))
    found = match_locations(
        locations, torch.tensor([[2.0, 2.0, 32.0, 32.0]]), torch.tensor([[3.0, 29.0]])
    ).reshape(4, 4)
    assert (found[:, 0] == 0).tolist() == [False, False, True, True]
    assert (found[3] == 0).tolist() == [True, True, False, False]


def test_center_sampling_stays_inside_the_box():
    found = match_p3([[10, 2, 14, 30]])  # 4 pixels wide: only the column at 12 is inside
    assert (found[:, 1] == 0).tolist() == [False, True, True, False]
    assert (found[:, [0, 2, 3]] == -1).all()


def test_a_location_on_the_side_of_a_box_is_outside():
    assert (match_p3([[12, 0, 28, 8]])[0] >= 0).tolist() == [False, False, True, False]


def test_among_several_boxes_the_smallest_wins():
    large, small = [0, 0, 32, 32], [8, 8, 32, 16]
    assert match_p3([large, small])[1:3].tolist() == [[-1, 1, 1, 1], [-1, 0, 0, -1]]
    assert match_p3([small, large])[1:3].tolist() == [[-1, 0, 0, 0], [-1, 1, 1, -1]]


def test_size_ranges_include_both_ends():
    """The farthest side is 64 pixels away: the location is positive on P3 and on P4, not on P5."""
    points = torch.full((3, 2), 64.0)
    locations = Locations(points, torch.tensor([8.0, 16.0, 32.0]), torch.tensor(SIZE_RANGES[:3]), [1, 1, 1])
    assert match_boxes(locations, torch.tensor([[0.0, 0.0, 128.0, 128.0]])).tolist() == [0, 0, -1]


def test_a_scale_of_a_half_halves_the_sizes_of_all_levels():
    """The farthest side of a box of 80 pixels is 40 away, which is above the 32 of P3; of 2000 pixels, on P7."""
    locations = make_locations([(-(-2000 // stride),) * 2 for stride in STRIDES], scale=0.5)
    ranges = [level[0].tolist() for level in locations.size_ranges.split(locations.level_sizes)]
    assert [low for low, _ in ranges[1:]] == [32, 64, 128, 256]
    assert [high for _, high in ranges] == [32, 64, 128, 256, INF]
    for side, expected in ((60, 0), (80, 1), (2000, 4)):
        found = match_boxes(locations, torch.tensor([[0.0, 0.0, side, side]]))
        levels = [(level >= 0).any().item() for level in found.split(locations.level_sizes)]
        assert levels.index(True) == expected


@pytest.mark.parametrize(
    ("side", "levels"), [(40, [0]), (140, [1]), (280, [2]), (560, [3]), (1400, [4]), (4000, [4])]
)
def test_boxes_go_to_the_level_of_their_size(side, levels):
    locations = make_all_locations(side, side)
    found = match_boxes(locations, torch.tensor([[0.0, 0.0, side, side]]))
    assert [i for i, level in enumerate(found.split(locations.level_sizes)) if (level >= 0).any()] == levels


def test_an_image_without_boxes_has_no_positive_location():
    assert (match_p3([]) == -1).all()


@pytest.mark.parametrize("seed", range(4))
def test_matches_equal_torchvision(seed):
    """torchvision leaves out the ends of the ranges, which no random box touches; all else is the same."""
    generator = torch.Generator().manual_seed(seed)
    height, width = 512, 640
    sides = torch.rand(40, 2, generator=generator).square() * 500 + 6
    corners = torch.rand(40, 2, generator=generator) * (torch.tensor([width, height]) - sides)
    boxes = torch.cat([corners, corners + sides], 1)
    areas = sides.prod(1)
    # torchvision compares 1e8 - area in float32, whose digits end at 8.
    boxes = boxes[((areas[:, None] - areas).abs() + torch.eye(40) * 99 > 20).all(1)]
    assert len(boxes) > 20
    locations = make_all_locations(height, width)
    points, strides, _, counts = locations
    half = strides[:, None] / 2
    fcos = SimpleNamespace(
        center_sampling_radius=1.5,
        head=SimpleNamespace(compute_loss=lambda targets, outputs, anchors, matched: matched),
    )
    anchors = [torch.cat([points - half, points + half], 1)]
    theirs = FCOS.compute_loss(fcos, [{"boxes": boxes}], {}, anchors, counts)[0]
    ours = match_boxes(locations, boxes)
    assert torch.equal(ours, theirs)
    assert len(ours.unique()) > 15


def test_centerness():
    distances = torch.tensor([[5.0, 2.0, 5.0, 2.0], [1.0, 2.0, 3.0, 2.0], [1.0, 1.0, 4.0, 9.0]])
    torch.testing.assert_close(centerness(distances), torch.tensor([1.0, (1 / 3) ** 0.5, 1 / 6]))
    assert centerness(torch.zeros(0, 4)).shape == (0,)


def test_inside_any_box():
    points = torch.tensor([[5.0, 5.0], [15.0, 5.0], [25.0, 5.0], [10.0, 5.0]])
    crowds = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 6.0]])
    assert inside_any_box(points, crowds).tolist() == [True, False, True, False]
    assert not inside_any_box(points, torch.zeros(0, 4)).any()


MATCHED = torch.tensor([0, 0, 0, 1, 2, 2])
SCORES = torch.tensor([0.1, 0.9, 0.5, 0.2, 0.3, 0.8])


@pytest.mark.parametrize(
    ("max_samples", "chosen"),
    [(3, {1, 3, 5}), (4, {1, 2, 3, 5}), (5, {1, 2, 3, 4, 5}), (6, {0, 1, 2, 3, 4, 5}), (9, set(range(6)))],
)
def test_samples_are_balanced_over_boxes_best_locations_first(max_samples, chosen):
    picked = sample_locations_per_box(MATCHED, SCORES, max_samples).tolist()
    assert len(picked) == len(chosen)
    assert set(picked) == chosen


def test_boxes_are_drawn_at_random_if_there_are_more_than_samples():
    torch.manual_seed(0)
    matched = torch.arange(200).repeat(2)
    scores = torch.cat([torch.full((200,), 0.2), torch.full((200,), 0.7)])  # the second 200 are the better
    draws = [sample_locations_per_box(matched, scores, 50) for _ in range(40)]
    for draw in draws:
        assert len(matched[draw].unique()) == 50
        assert (draw >= 200).all()
    assert len(torch.cat(draws).unique()) == 200


def test_nothing_to_sample_locations_per_box():
    assert sample_locations_per_box(torch.zeros(0, dtype=torch.long), torch.zeros(0), 5).tolist() == []
