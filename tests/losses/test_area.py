import torch

from boxel.losses.area import area_loss

ROWS = torch.tensor([[True, True, False]])
COLUMNS = torch.tensor([[False, True, True, False]])


def test_loss_is_the_mean_probability_over_the_box():
    logits = torch.full((1, 3, 4), 50.0)  # what lies outside the box must not count
    logits[0, :2, 1:3] = torch.logit(torch.tensor([[0.1, 0.2], [0.3, 0.8]]))
    torch.testing.assert_close(area_loss(logits, ROWS, COLUMNS), torch.tensor([1.4 / 4]))


def test_gradient_pushes_down_inside_the_box_only():
    logits = torch.zeros((1, 3, 4), requires_grad=True)
    area_loss(logits, ROWS, COLUMNS).sum().backward()
    expected = torch.zeros(1, 3, 4)
    expected[0, :2, 1:3] = 0.25 / 4  # sigmoid'(0) over four cells
    torch.testing.assert_close(logits.grad, expected)


def test_no_instances():
    empty = torch.zeros((0, 3, 4), requires_grad=True)
    assert area_loss(empty, ROWS[:0], COLUMNS[:0]).shape == (0,)
