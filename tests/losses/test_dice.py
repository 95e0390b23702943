"""Dice loss."""

import pytest
import torch

from boxel.losses.dice import dice_loss


def test_by_hand():
    p = torch.tensor([[[0.5, 1.0], [0.0, 0.0]]])
    t = torch.tensor([[[1, 1], [1, 0]]])
    # 1 - 2 * 1.5 / (1.25 + 3)
    assert dice_loss(p, t).item() == pytest.approx(1 - 3 / 4.25, abs=1e-5)


def test_bounds():
    t = torch.tensor([[True, False, True]])
    assert dice_loss(t.float(), t).item() == pytest.approx(0, abs=1e-5)
    assert dice_loss(1 - t.float(), t).item() == 1
    assert dice_loss(torch.zeros(1, 3), torch.zeros(1, 3)).item() == 1


def test_half_precision_does_not_overflow():
    p = torch.ones(1, 400, 400, dtype=torch.float16)  # 160,000 ones: float16 ends at 65,504
    loss = dice_loss(p, torch.ones(1, 400, 400))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0, abs=1e-5)


def test_gradient():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(3, 4, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    t = torch.rand(3, 4, 5, generator=generator) > 0.5
    assert torch.autograd.gradcheck(lambda p: dice_loss(p, t), p)


def test_no_instances():
    assert dice_loss(torch.zeros(0, 4, 4), torch.zeros(0, 4, 4)).shape == (0,)
