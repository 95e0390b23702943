"""Projection loss (Eq. 1-3 of BoxInst)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxel.losses.dice import dice_loss
from boxel.losses.projection import projection_loss
from boxel.masks.spans import box_masks, box_spans


def span(*values: int) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.bool)


def random_case(seed: int, n: int = 6, h: int = 9, w: int = 11) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, h, w, dtype=torch.float64, generator=generator)
    corners = torch.rand(n, 2, generator=generator) * torch.tensor([w, h])
    sizes = torch.rand(n, 2, generator=generator) * torch.tensor([w, h])
    return logits, *box_spans(torch.cat([corners, corners + sizes], 1), h, w, 1)


def test_projections_of_a_box_are_its_rows_and_columns():
    _, rows, columns = random_case(0)
    masks = box_masks(rows, columns)
    assert torch.equal(masks.amax(1), columns)
    assert torch.equal(masks.amax(2), rows)


def test_equation_3_by_hand():
    logits = torch.tensor([[[0.8, 0.2], [0.4, 0.6]]]).logit()
    # rows: maxima .8 .6 of a box in the first: 1 - 1.6 / (1 + 1); columns: .8 .6 of both: 1 - 2.8 / (1 + 2)
    expected = 0.2 + (1 - 2.8 / 3)
    assert projection_loss(logits, span(1, 0), span(1, 1)).item() == pytest.approx(expected, abs=2e-5)


def test_cross_entropy_by_hand():
    """Rows: maxima .8 .6 of a box in the first; columns: .8 .6 of both; a mean over the two of each axis."""
    logits = torch.tensor([[[0.8, 0.2], [0.4, 0.6]]]).logit()
    expected = -(math.log(0.8) + math.log(0.4)) / 2 - (math.log(0.8) + math.log(0.6)) / 2
    found = projection_loss(logits, span(1, 0), span(1, 1), "cross-entropy")
    assert found.shape == (1,) and found.item() == pytest.approx(expected)


def test_equation_3_as_it_is_written():
    logits, rows, columns = random_case(1)
    p, b = logits.sigmoid(), box_masks(rows, columns)
    expected = dice_loss(p.amax(1), b.amax(1)) + dice_loss(p.amax(2), b.amax(2))
    torch.testing.assert_close(projection_loss(logits, rows, columns), expected)


def test_a_cross_that_reaches_all_sides_of_its_box_is_as_good_as_the_box():
    rows, columns = span(0, 1, 1, 1, 0), span(0, 1, 1, 1, 0)
    cross = torch.full((1, 5, 5), -20.0)
    cross[0, 2, 1:4] = cross[0, 1:4, 2] = 20
    assert projection_loss(cross, rows, columns).item() == pytest.approx(0, abs=1e-5)


def test_an_empty_mask_violates_the_projection():
    assert projection_loss(torch.full((1, 3, 3), -20.0), span(0, 1, 0), span(1, 1, 0)).item() > 1.99


def test_gradient():
    logits, rows, columns = random_case(2, n=3, h=5, w=6)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: projection_loss(x, rows, columns), logits)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_flipping_changes_nothing(seed: int):
    logits, rows, columns = random_case(seed)
    loss = projection_loss(logits, rows, columns)
    torch.testing.assert_close(projection_loss(logits.flip(2), rows, columns.flip(1)), loss)
    torch.testing.assert_close(projection_loss(logits.flip(1), rows.flip(1), columns), loss)
    torch.testing.assert_close(projection_loss(logits.mT, columns, rows), loss)


def test_a_box_of_one_cell_has_a_gradient():
    logits = torch.zeros(1, 4, 4, requires_grad=True)
    rows, columns = box_spans(torch.tensor([[5.0, 5.0, 5.5, 5.5]]), 4, 4, 4)
    projection_loss(logits, rows, columns).sum().backward()
    assert logits.grad.abs().sum() > 0


def test_half_precision_is_converted():
    logits, rows, columns = random_case(3)
    loss = projection_loss(logits.bfloat16(), rows, columns)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, projection_loss(logits.bfloat16().float(), rows, columns))


def test_no_instances_give_a_differentiable_loss():
    logits = torch.zeros(0, 4, 5, requires_grad=True)
    loss = projection_loss(logits, torch.zeros(0, 4, dtype=torch.bool), torch.zeros(0, 5, dtype=torch.bool))
    assert loss.shape == (0,)
    loss.sum().backward()
    assert logits.grad.shape == (0, 4, 5)
