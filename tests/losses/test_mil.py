"""The multiple-instance loss and its smooth term (Eq. 1 and 2 of BoxCaseg)."""

from itertools import product
from math import log

import numpy as np
import pytest
import torch

from boxel.losses.mil import mil_loss, smoothness_loss


def truth(*values: int) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.bool)


def scores(values: list[list[float]]) -> torch.Tensor:
    """(1, h, w) logits of these scores."""
    return torch.tensor([values], dtype=torch.float64).logit()


def lit(size: int, *places: tuple, high: float = 0.9, low: float = 0.1) -> torch.Tensor:
    """(1, size, size) logits, high at these places."""
    values = torch.full((1, size, size), low, dtype=torch.float64)
    for place in places:
        values[0][place] = high
    return values.logit()


# Eq. 1 ---------------------------------------------------------------------------------------------------------------

EXAMPLE = [[0.8, 0.2, 0.3], [0.4, 0.6, 0.1]]
# Rows have the maxima .8 and .6, columns .8, .6 and .3. The box has the first row and the first two columns.
EXAMPLE_LOSS = -(log(0.8) + log(1 - 0.6) + log(0.8) + log(0.6) + log(1 - 0.3))


def test_equation_1_by_hand():
    given = scores(EXAMPLE), truth(1, 0), truth(1, 1, 0)
    assert mil_loss(*given, "sum").tolist() == pytest.approx([EXAMPLE_LOSS])
    assert mil_loss(*given, "mean").tolist() == pytest.approx([EXAMPLE_LOSS / 5])
    assert mil_loss(*given).tolist() == mil_loss(*given, "mean").tolist()


def test_the_mean_does_not_depend_on_the_grid():
    small = scores(EXAMPLE), truth(1, 0), truth(1, 1, 0)
    large = [part.repeat_interleave(4, -1) for part in small]
    large[0] = large[0].repeat_interleave(4, 1)
    torch.testing.assert_close(mil_loss(*large), mil_loss(*small))
    torch.testing.assert_close(mil_loss(*large, "sum"), 4 * mil_loss(*small, "sum"))


def test_each_crop_has_its_own_loss():
    logits = torch.cat([scores(EXAMPLE), -scores(EXAMPLE)])
    rows, columns = truth(1, 0).expand(2, 2), truth(1, 1, 0).expand(2, 3)
    apart = [mil_loss(logits[i : i + 1], rows[:1], columns[:1])[0] for i in range(2)]
    assert mil_loss(logits, rows, columns).tolist() == [loss.item() for loss in apart]
    assert mil_loss(logits[:0], rows[:0], columns[:0]).shape == (0,)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_cross_of_one_pixel_is_as_good_as_the_filled_box(reduction):
    spans = truth(0, 1, 1, 1, 0), truth(0, 1, 1, 1, 0)
    cross = lit(5, (2, slice(1, 4)), (slice(1, 4), 2))
    box = lit(5, (slice(1, 4), slice(1, 4)))
    assert torch.equal(mil_loss(cross, *spans, reduction), mil_loss(box, *spans, reduction))
    # Six lines across the box at .9, four outside it at .1.
    expected = -6 * log(0.9) - 4 * log(1 - 0.1)
    assert mil_loss(box, *spans, "sum").item() == pytest.approx(expected)
    # A box less one of its lines is worse.
    assert mil_loss(lit(5, (slice(1, 3), slice(1, 4))), *spans) > mil_loss(box, *spans)


@pytest.mark.parametrize(
    ("positive", "expected"), [(1, -log(0.9)), (0, -log(1 - 0.9))], ids=["no line outside", "no line across"]
)
def test_bags_may_all_be_positive_or_all_negative(positive, expected):
    logits = lit(4, (slice(None), slice(None))).requires_grad_()
    spans = truth(*[positive] * 4), truth(*[positive] * 4)
    loss = mil_loss(logits, *spans)
    assert loss.item() == pytest.approx(expected)
    loss.sum().backward()
    assert logits.grad.isfinite().all()


def test_the_gradient_of_a_bag_reaches_its_highest_pixel_only():
    logits = scores(EXAMPLE).requires_grad_()
    mil_loss(logits, truth(1, 0), truth(1, 1, 0), "sum").sum().backward()
    # .8 stands for its row and its column, both positive: 2 (.8 - 1); .6 for a row outside and a column across.
    expected = [[[2 * (0.8 - 1), 0, 0.3], [0, 0.6 + 0.6 - 1, 0]]]
    np.testing.assert_allclose(logits.grad, expected, atol=1e-12)


def test_confident_wrong_predictions_stay_finite():
    logits = torch.full((1, 3, 3), 1000.0, requires_grad=True)
    loss = mil_loss(logits, truth(0, 0, 0), truth(1, 1, 1))
    assert loss.item() == 500  # three of six bags are wrong by 1000
    loss.sum().backward()
    assert logits.grad.isfinite().all()


# Eq. 2 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("value", [-3.0, 0.0, 8.0, 1000.0])
def test_a_constant_map_is_smooth_up_to_the_crops_border(value, reduction):
    assert smoothness_loss(torch.full((2, 4, 5), value), reduction).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("place", "neighbors"), [((1, 1), 8), ((0, 1), 5), ((0, 0), 3)], ids=["inside", "border", "corner"]
)
def test_equation_2_of_one_pixel(place, neighbors):
    """A pixel differs by .8 from each neighbor that there is; a grid of 3 x 3 has 6 + 6 + 4 + 4 pairs of them."""
    logits = lit(3, place)
    assert smoothness_loss(logits, "sum").item() == pytest.approx(2 * neighbors * 0.8**2)
    assert smoothness_loss(logits, "mean").item() == pytest.approx(neighbors * 0.8**2 / 20)


def test_equation_2_as_it_is_written():
    logits = 3 * torch.randn(1, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    s = logits[0].sigmoid().numpy()
    places = list(product(range(4), range(5)))
    expected = sum(
        (s[p] - s[q]) ** 2 for p, q in product(places, places) if max(abs(p[0] - q[0]), abs(p[1] - q[1])) == 1
    )
    assert smoothness_loss(logits, "sum").item() == pytest.approx(expected)


def test_stripes_give_half_of_the_maximum():
    """Stripes of 0 and 1 along a row of pixels: all neighbors in a line differ, those along a stripe do not."""
    stripes = lit(8, (slice(None), slice(0, None, 2)), high=1 - 1e-9, low=1e-9)
    assert smoothness_loss(stripes).item() == pytest.approx(
        (7 * 8 + 2 * 7 * 7) / (2 * 7 * 8 + 2 * 7 * 7), abs=1e-6
    )


def test_half_precision_is_converted():
    logits = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(0)).half()
    spans = torch.ones(1, 64, dtype=torch.bool), torch.ones(1, 64, dtype=torch.bool)
    for loss in (mil_loss(logits, *spans, "sum"), smoothness_loss(logits, "sum")):
        assert loss.dtype == torch.float32
    torch.testing.assert_close(smoothness_loss(logits), smoothness_loss(logits.float()))
