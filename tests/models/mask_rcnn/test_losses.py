"""The mask losses by hand, and which instances contribute to which."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from boxel.losses.mil import mil_loss, smoothness_loss
from boxel.models.mask_rcnn.heads import GRID, MaskTargets
from boxel.models.mask_rcnn.losses import mask_losses

LN2 = math.log(2)
SIZE = (64, 64)
GRAY = torch.full((1, 3, *SIZE), 0.5)
ROI = [10.0, 10.0, 38.0, 38.0]  # cells of one pixel; column 0 has its middle at 11
BOX = [16.0, 20.0, 30.0, 60.0]  # columns 5 to 18, rows 9 to 27 of these


def make_targets(has_mask: list[bool], **columns: Any) -> MaskTargets:
    count = len(has_mask)
    return MaskTargets(
        rois=torch.tensor(ROI).expand(count, 4),
        labels=torch.ones(count, dtype=torch.long),
        gt_boxes=torch.tensor(BOX).expand(count, 4),
        has_mask=torch.tensor(has_mask, dtype=torch.bool),
        gt_masks=torch.zeros(count, GRID, GRID),
        weights=torch.ones(count),
    )._replace(**columns)


def compute_losses(logits: Tensor, targets: MaskTargets, kind: str = "none") -> dict[str, Tensor]:
    return mask_losses(logits, targets, learns_from_boxes=kind == "mil")


def saturated(rows: slice, columns: slice) -> Tensor:
    """(1, GRID, GRID) logits of certain foreground in these cells and certain background elsewhere."""
    logits = torch.full((1, GRID, GRID), -40.0)
    logits[:, rows, columns] = 40.0
    return logits


OVERLAP = saturated(slice(9, 28), slice(5, 19))


def test_mask_loss_matches_hand_computed_values():
    """At a logit of 0 a cell costs ln 2; at a logit of ln 3, a target of 1/4 costs ln 4 - ln 3 / 4."""
    assert compute_losses(torch.zeros(1, GRID, GRID), make_targets([True]))["mask"].item() == pytest.approx(
        LN2
    )
    logits = torch.full((1, GRID, GRID), math.log(3))
    quarter = make_targets([True], gt_masks=torch.full((1, GRID, GRID), 0.25))
    assert compute_losses(logits, quarter)["mask"].item() == pytest.approx(math.log(4) - math.log(3) / 4)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("none", []),
        ("mil", ["mil", "smoothness"]),
    ],
)
def test_who_teaches_what(kind, names):
    """Each proposal has a gradient in its own losses, and exactly zero in the others."""
    logits = torch.randn(4, GRID, GRID, generator=torch.Generator().manual_seed(0)).requires_grad_()
    has_mask = torch.tensor([True, False, True, False])
    losses = compute_losses(logits, make_targets(has_mask.tolist()), kind)
    assert list(losses) == ["mask", *names]
    for name, loss in losses.items():
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert torch.equal(gradient.flatten(1).any(1), has_mask if name == "mask" else ~has_mask)


def test_masks_count_by_their_quality():
    """Weights of 1 and 1/4, over two proposals: 5/8 of the loss of one."""
    targets = make_targets([True, True], weights=torch.tensor([1.0, 0.25]))
    assert compute_losses(torch.zeros(2, GRID, GRID), targets)["mask"].item() == pytest.approx(5 / 8 * LN2)


def test_each_proposal_weighs_the_same():
    """Three with a mask, one without: their losses times 3/4 and 1/4."""
    logits = torch.randn(4, GRID, GRID, generator=torch.Generator().manual_seed(1))
    mixed = compute_losses(logits, make_targets([True, True, False, True]), "mil")
    masked = compute_losses(logits[[0, 1, 3]], make_targets([True] * 3), "mil")
    boxed = compute_losses(logits[[2]], make_targets([False]), "mil")
    for name, loss in mixed.items():
        share, alone = (0.75, masked[name]) if name == "mask" else (0.25, boxed[name])
        torch.testing.assert_close(loss, share * alone)


def test_rows_and_columns_are_those_of_box_and_proposal():
    """A mask that fills their overlap is all that is asked; off by a row or a column, it is not."""
    targets = make_targets([False])
    assert compute_losses(OVERLAP, targets, "mil")["mil"].item() == pytest.approx(0, abs=1e-6)
    for rows, columns in [((8, 28), (5, 19)), ((9, 28), (4, 19)), ((9, 28), (5, 18)), ((9, 27), (5, 19))]:
        logits = saturated(slice(*rows), slice(*columns))
        # One bag of 56 is wrong by 40.
        assert compute_losses(logits, targets, "mil")["mil"].item() == pytest.approx(40 / 56, rel=1e-5)


def test_the_parts_of_the_loss_of_rows_and_columns():
    logits = torch.randn(1, GRID, GRID, generator=torch.Generator().manual_seed(2))
    rows, columns = (OVERLAP > 0).any(2), (OVERLAP > 0).any(1)
    losses = compute_losses(logits, make_targets([False]), "mil")
    torch.testing.assert_close(losses["mil"], mil_loss(logits, rows, columns)[0])
    torch.testing.assert_close(losses["smoothness"], smoothness_loss(logits)[0])


@pytest.mark.parametrize("kind", ["none", "mil"])
def test_no_proposals_are_a_zero_that_reaches_the_logits(kind):
    logits = torch.zeros(0, GRID, GRID, requires_grad=True)
    for loss in compute_losses(logits, make_targets([]), kind).values():
        assert loss.item() == 0
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert gradient.shape == logits.shape


@pytest.mark.parametrize("kind", ["none", "mil"])
def test_half_precision_logits_give_full_precision_losses(kind):
    logits = 3 * torch.randn(2, GRID, GRID).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = compute_losses(logits, make_targets([True, False]), kind)
    full = compute_losses(logits.float(), make_targets([True, False]), kind)
    for name, loss in full.items():
        assert half[name].dtype == torch.float32
        assert half[name] == loss
