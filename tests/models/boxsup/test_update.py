"""BoxSup's costs, computed by hand and on full masks, and the candidates chosen by them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxel.models.boxsup import UpdateConfig
from boxel.models.boxsup.update import choose_candidates, compute_costs
from boxel.proposals.candidates import Candidates
from boxel.utils.errors import BoxelError

LIKELY, UNLIKELY = np.log(0.8), np.log(0.2)
PAPER = UpdateConfig(regression_weight=3, shape_weight=0, min_share=0)


def columns() -> Candidates:
    """A 4 x 10 image of five superpixels, two columns each, and three segments."""
    superpixels = np.repeat(np.arange(5), 2)[None].repeat(4, 0)
    return Candidates.from_sets(
        superpixels, np.array([[0, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 1, 0, 0, 0]], dtype=bool)
    )


def predictions(thing: slice) -> np.ndarray:
    """(2, 4, 10) log-probabilities of a network that is certain of one class in some columns."""
    found = np.full((2, 4, 10), UNLIKELY)
    found[0] = LIKELY
    found[0, :, thing], found[1, :, thing] = UNLIKELY, LIKELY
    return found


def test_costs_match_hand_computed_values() -> None:
    """The box has columns 2 to 7, of 6 x 4 pixels; the network predicts the object in columns 2 to 5.

    The first segment, which has these, has a box IoU of 4/6 and a loss of -log 0.8 everywhere. The second fits the box,
    and costs -log 0.2 in two columns of the six. The third has a box IoU of 2/6 and misses two columns.
    """
    config = replace(PAPER, enlarge=0)
    box, label = np.array([[2.0, 0, 8, 4]]), np.array([1])
    found = compute_costs(columns(), box, label, predictions(slice(2, 6)), config)[:, 0]
    wrong = (-2 * UNLIKELY - 4 * LIKELY) / 6
    assert found == pytest.approx([1 / 3 - 3 * LIKELY, 0 + 3 * wrong, 2 / 3 + 3 * wrong])
    printed = compute_costs(
        columns(), box, label, predictions(slice(2, 6)), replace(config, normalizer="printed")
    )[:, 0]
    assert printed == pytest.approx([1 / 9 - 72 * LIKELY, 72 * wrong, 2 / 9 + 72 * wrong])
    # By the overlap alone the second is best, with the network's word the first.
    alone = compute_costs(
        columns(), box, label, predictions(slice(2, 6)), replace(config, regression_weight=0)
    )[:, 0]
    assert alone.argmin() == 1 and found.argmin() == printed.argmin() == 0


def test_the_loss_is_taken_around_the_box_too() -> None:
    """Larger by 0.4 of 6 pixels, the box reaches 1.2 further on each side, over the centers of columns 1 to 8."""
    found = compute_costs(
        columns(),
        np.array([[2.0, 0, 8, 4]]),
        np.array([1]),
        predictions(slice(0, 6)),
        replace(PAPER, enlarge=0.4),
    )
    # Ground is wrong in the column 1, and of the second segment thing in 6 and 7.
    assert found[0, 0] == pytest.approx(1 / 3 + 3 * (-1 * UNLIKELY - 7 * LIKELY) / 8)
    assert found[1, 0] == pytest.approx(3 * (-3 * UNLIKELY - 5 * LIKELY) / 8)


def test_pixels_of_other_boxes_do_not_count() -> None:
    """A smaller box takes columns 2 and 3 from the large one; the large one takes nothing from it."""
    boxes, labels = np.array([[2.0, 0, 8, 4], [2.0, 0, 4, 4]]), np.array([1, 1])
    config = replace(PAPER, enlarge=0, regression_weight=1)
    found = compute_costs(columns(), boxes, labels, predictions(slice(4, 6)), config)
    assert found[0, 0] == pytest.approx(1 / 3 - LIKELY)  # columns 4 to 7, all as predicted
    assert found[2, 1] == pytest.approx(
        0 - UNLIKELY
    )  # columns 2 and 3, foreground where it predicts background


def test_as_printed_the_loss_is_summed_over_the_whole_image() -> None:
    """40 pixels, those of the other box too; the network predicts the object in columns 0 to 5.

    The first segment is wrong in columns 0 and 1, the second also in 6 and 7; the other box lies in columns 8 and 9.
    """
    config = replace(PAPER, normalizer="printed", enlarge=None)
    boxes, labels = np.array([[2.0, 0, 8, 4], [8.0, 0, 10, 4]]), np.array([1, 1])
    found = compute_costs(columns(), boxes, labels, predictions(slice(0, 6)), config)[:, 0]
    assert found[:2] == pytest.approx(
        [1 / 9 + 3 * (-8 * UNLIKELY - 32 * LIKELY), 3 * (-16 * UNLIKELY - 24 * LIKELY)]
    )


def brute(candidates, boxes, labels, log_probabilities, config):
    """The same, pixel by pixel."""
    height, width = candidates.superpixels.shape
    found = np.full((len(candidates), len(boxes)), np.inf)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for n in range(len(candidates)):
        mask = candidates.mask(n)
        rows, cols = mask.nonzero()
        tight = np.array([cols.min(), rows.min(), cols.max() + 1, rows.max() + 1])
        for b, box in enumerate(boxes):
            common = (np.minimum(tight[2:], box[2:]) - np.maximum(tight[:2], box[:2])).clip(0).prod()
            if not common:
                continue
            iou = common / ((tight[2:] - tight[:2]).prod() + areas[b] - common)
            whole = config.enlarge is None
            grow = (config.enlarge or 0) / 2 * (box[2:] - box[:2])
            extra, own, total = {}, [], 0.0
            for y in range(height):
                for x in range(width):
                    at = np.array([x + 0.5, y + 0.5])
                    if not (whole or ((box[:2] - grow <= at).all() and (at < box[2:] + grow).all())):
                        continue
                    inside = [bool((o[:2] <= at).all() and (at < o[2:]).all()) for o in boxes]
                    others = [o for o in range(len(boxes)) if o != b and inside[o] and not whole]
                    if any(areas[o] < areas[b] or not inside[b] for o in others):
                        continue
                    total -= log_probabilities[0, y, x]
                    extra[y, x] = log_probabilities[0, y, x] - log_probabilities[labels[b], y, x]
                    own += [extra[y, x]] if inside[b] else []
            shift = max(np.quantile(own, config.min_share), 0) if own and config.min_share else 0
            pixels = len(extra)
            total += sum(value - shift for at, value in extra.items() if mask[at])
            loss = total if config.normalizer == "printed" else total / max(pixels, 1)
            apart = (1 - iou) / (len(candidates) if config.normalizer == "printed" else 1)
            x, y = (np.arange(side) + 0.5 for side in (width, height))
            across, down = (
                (2 * x - box[0] - box[2]) / (box[2] - box[0]),
                (2 * y - box[1] - box[3]) / (box[3] - box[1]),
            )
            ellipse = across**2 + down[:, None] ** 2 <= 1
            shape = 1 - (mask & ellipse).sum() / (mask | ellipse).sum()
            found[n, b] = apart + config.regression_weight * loss + config.shape_weight * shape
    return found


@pytest.mark.slow
@settings(max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from(["mean", "printed"]), st.sampled_from([0.3, None]))
def test_sums_over_superpixels_are_those_over_pixels(seed, normalizer, enlarge) -> None:
    random = np.random.default_rng(seed)
    superpixels = random.integers(0, 9, (8, 11))
    superpixels.ravel()[:9] = np.arange(9)
    sets = random.random((7, 9)) < 0.4
    sets[~sets.any(1), 0] = True
    boxes = np.sort(random.uniform(-1, 12, (3, 2, 2)), axis=1).reshape(3, 4)
    boxes[:, 2:] += 0.1
    labels = random.integers(1, 4, 3)
    scores = random.standard_normal((4, 8, 11))
    log_probabilities = scores - np.log(np.exp(scores).sum(0))
    config = UpdateConfig(normalizer=normalizer, enlarge=enlarge, shape_weight=0.7)
    candidates = Candidates.from_sets(superpixels, sets)
    found = compute_costs(candidates, boxes, labels, log_probabilities, config)
    np.testing.assert_allclose(found, brute(candidates, boxes, labels, log_probabilities, config), rtol=1e-6)


def test_the_ellipse_tells_an_object_from_a_frame_around_it() -> None:
    """The box of the frame fits perfectly, and the network has no opinion yet."""
    superpixels = np.zeros((20, 20), dtype=int)
    superpixels[1:19, 1:19], superpixels[3:17, 3:17] = 1, 2
    frame_and_object = Candidates.from_sets(superpixels, np.array([[0, 1, 0], [0, 0, 1]], dtype=bool))
    nothing = np.full((2, 20, 20), np.log(0.5))
    box, label = np.array([[1.0, 1, 19, 19]]), np.array([1])
    assert compute_costs(frame_and_object, box, label, nothing, UpdateConfig(shape_weight=0)).argmin() == 0
    by_shape = UpdateConfig(shape_weight=1)
    assert compute_costs(frame_and_object, box, label, nothing, by_shape).argmin() == 1


def test_segments_like_an_ellipse_cost_less() -> None:
    """Two segments fill the box's sides alike: a plus, with the pixels of the ellipse, and the whole."""
    plus = np.ones((6, 6), dtype=int)
    plus[np.ix_([0, 5], [0, 5])] = 0  # the ellipse in the box leaves out the corners alone
    both = Candidates.from_sets(plus, np.array([[0, 1], [1, 1]], dtype=bool))
    box, label, nothing = np.array([[0.0, 0, 6, 6]]), np.array([1]), np.full((2, 6, 6), np.log(0.5))
    config = UpdateConfig(shape_weight=0.5, regression_weight=0)
    assert compute_costs(both, box, label, nothing, config)[:, 0] == pytest.approx([0, 0.5 * 4 / 36])


def test_min_share_keeps_a_class_that_the_network_hardly_knows() -> None:
    """The network predicts background everywhere: 0.3 foreground in columns 2 and 3, 0.1 elsewhere."""
    superpixels = np.repeat(np.arange(5), 2)[None].repeat(4, 0)
    three = Candidates.from_sets(
        superpixels, np.array([[0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 1, 0, 0]], dtype=bool)
    )
    thing = np.full((4, 10), 0.1)
    thing[:, 2:4] = 0.3
    said = np.log(np.stack([1 - thing, thing]))
    box, label = np.array([[2.0, 0, 6, 4]]), np.array([1])
    config = replace(PAPER, enlarge=0, regression_weight=1)
    lost = compute_costs(three, box, label, said, config)[:, 0]
    kept = compute_costs(three, box, label, said, replace(config, min_share=0.4))[:, 0]
    # As it is, each pixel of a segment costs; half of the box is now called the thing, and so costs nothing.
    half, gap = np.log(0.7 / 0.3) / 2, np.log(0.9 / 0.1) / 2
    constant = -(np.log(0.7) + np.log(0.9)) / 2
    assert lost == pytest.approx([0.5 + constant + half, 0.5 + constant + gap, constant + half + gap])
    assert kept == pytest.approx([0.5 + constant, 0.5 + constant + gap - half, constant + gap - half])


def test_a_candidate_is_drawn_from_those_of_lowest_cost() -> None:
    found = np.array(
        [[5.0, 1, np.inf], [1, 2, np.inf], [3, np.inf, np.inf], [2, np.inf, np.inf], [4, 3, np.inf]]
    )
    assert choose_candidates(found, 1, np.random.default_rng(0)).tolist() == [1, 0, -1]
    drawn = np.array([choose_candidates(found, 3, np.random.default_rng(seed)) for seed in range(300)])
    assert set(drawn[:, 0]) == {1, 3, 2} and set(drawn[:, 1]) == {0, 1, 4} and set(drawn[:, 2]) == {-1}
    assert np.bincount(drawn[:, 0]).max() < 140  # a third each
    assert choose_candidates(np.zeros((0, 2)), 5, np.random.default_rng(0)).tolist() == [-1, -1]


def test_images_without_boxes_and_boxes_without_segments() -> None:
    nothing = predictions(slice(0, 0))
    assert compute_costs(columns(), np.zeros((0, 4)), np.zeros(0, int), nothing, UpdateConfig()).shape == (
        3,
        0,
    )
    far = compute_costs(columns(), np.array([[30.0, 0, 40, 4]]), np.array([1]), nothing, UpdateConfig())
    assert np.isinf(far).all()


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(BoxelError, match="top_k is 0"):
        UpdateConfig(top_k=0)
    with pytest.raises(BoxelError, match="min_share is 2"):
        UpdateConfig(min_share=2)
