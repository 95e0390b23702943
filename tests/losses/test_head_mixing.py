"""The mix of the salient and the transferred head's maps (inside Eq. 3 of BoxCaseg)."""

from math import log

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from boxel.losses.head_mixing import mix_heads


def logit(p: float) -> torch.Tensor:
    return torch.tensor(p, dtype=torch.float64).logit()


@pytest.mark.parametrize(("mask", "expected"), [(1.0, -log(0.78)), (0.0, -log(0.22))])
def test_equation_3_by_hand(mask, expected):
    mixed = mix_heads(logit(0.9), logit(0.5), alpha=0.7)  # .7 x .9 + .3 x .5
    assert mixed.sigmoid().item() == pytest.approx(0.78)
    loss = F.binary_cross_entropy_with_logits(mixed, torch.tensor(mask, dtype=torch.float64))
    assert loss.item() == pytest.approx(expected)


def test_logits_are_mixed_linearly():
    # logit .9 = log 9, logit .5 = 0
    assert mix_heads(logit(0.9), logit(0.5), 0.7, "logits").item() == pytest.approx(0.7 * log(9))


@pytest.mark.parametrize("on", ["logits", "probabilities"])
def test_alpha_0_and_1_return_one_head(on):
    salient, transferred = torch.tensor([-300.0, 0.1, 5.0]), torch.tensor([2.0, -0.3, 300.0])
    assert torch.equal(mix_heads(salient, transferred, 1.0, on), salient)
    assert torch.equal(mix_heads(salient, transferred, 0.0, on), transferred)


@pytest.mark.parametrize(
    ("salient", "transferred", "expected"),
    [
        (1000.0, -1000.0, log(0.7 / 0.3)),
        (-1000.0, 1000.0, log(0.3 / 0.7)),
        (1000.0, 1000.0, 1000.0),
        (-1000.0, -1000.0, -1000.0),
        # The likelier one counts, by its share.
        (-200.0, -100.0, -100 + log(0.3)),
        (200.0, 100.0, 100 - log(0.3)),
    ],
)
def test_confident_maps_mix_without_nan(salient, transferred, expected):
    given = torch.tensor([salient, transferred], requires_grad=True)
    mixed = mix_heads(given[0], given[1], 0.7)
    assert mixed.item() == pytest.approx(expected, abs=1e-4)
    for mask in (torch.tensor(0.0), torch.tensor(1.0)):
        given.grad = None
        F.binary_cross_entropy_with_logits(mixed, mask).backward(retain_graph=True)
        assert given.grad.isfinite().all()


@settings(max_examples=25, deadline=None)
@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(0, 1), st.sampled_from(["logits", "probabilities"]))
def test_a_mix_lies_between_its_inputs_and_is_symmetric(a, b, alpha, on):
    one, other = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    mixed = mix_heads(one, other, alpha, on).item()
    assert min(a, b) - 1e-6 <= mixed <= max(a, b) + 1e-6
    assert mix_heads(-one, -other, alpha, on).item() == pytest.approx(-mixed, abs=1e-6)
    assert mix_heads(other, one, 1 - alpha, on).item() == pytest.approx(mixed, abs=1e-6)


def test_gradient():
    maps = torch.randn(
        2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mix_heads(x[0], x[1], 0.7), maps)


def test_half_precision_is_converted():
    maps = torch.tensor([20.0, -20.0]).half()
    mixed = mix_heads(maps[0], maps[1], 0.7)
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(log(0.7 / 0.3), abs=1e-5)
