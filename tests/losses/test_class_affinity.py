"""The pairwise loss of classes by hand, and as BoxInst's where there are two."""

import math

import pytest
import torch

from boxel.losses.affinity import affinity_loss, color_similarity
from boxel.losses.class_affinity import class_affinity_loss


def test_by_hand() -> None:
    """Two cells of one row, one edge between them: P(same) = 0.7 x 0.2 + 0.2 x 0.2 + 0.1 x 0.6."""
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]])
    scores = probabilities.log().T[None, :, None]  # (1, 3, 1, 2)
    edges = torch.zeros(1, 4, 1, 2, dtype=torch.bool)
    assert class_affinity_loss(scores, edges, dilation=1) == 0
    edges[0, 0, 0, 0] = True  # the first offset leads to the right
    assert class_affinity_loss(scores, edges, dilation=1).item() == pytest.approx(-math.log(0.24))


def test_two_classes_are_a_mask() -> None:
    torch.manual_seed(0)
    scores = torch.randn(2, 2, 12, 10, dtype=torch.float64)
    there = color_similarity(torch.rand(2, 3, 12, 10), stride=1) >= 0
    edges = there & (torch.rand(there.shape) < 0.5)
    found = class_affinity_loss(scores, edges)
    everywhere = torch.ones(2, 12, dtype=torch.bool), torch.ones(2, 10, dtype=torch.bool)
    expected = affinity_loss(
        scores[:, 1] - scores[:, 0], edges, torch.arange(2), *everywhere, inside="either"
    )
    torch.testing.assert_close(found.float(), expected.float())
