"""The mask losses by hand, and which instances contribute to which."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from boxel.losses.affinity import color_similarity
from boxel.losses.mil import mil_loss, smoothness_loss
from boxel.losses.projection import projection_loss
from boxel.models.mask_rcnn import MaskRCNNConfig
from boxel.models.mask_rcnn.heads import GRID, MaskTargets
from boxel.models.mask_rcnn.losses import mask_losses, window_similarity

LN2 = math.log(2)
SIZE = (64, 64)
GRAY = torch.full((1, 3, *SIZE), 0.5)
ROI = [10.0, 10.0, 38.0, 38.0]  # cells of one pixel; column 0 has its middle at 11
BOX = [16.0, 20.0, 30.0, 60.0]  # columns 5 to 18, rows 9 to 27 of these


def make_targets(has_mask: list[bool], **columns: Any) -> MaskTargets:
    count = len(has_mask)
    return MaskTargets(
        rois=torch.tensor(ROI).expand(count, 4),
        image_index=torch.zeros(count, dtype=torch.long),
        labels=torch.ones(count, dtype=torch.long),
        gt_boxes=torch.tensor(BOX).expand(count, 4),
        has_mask=torch.tensor(has_mask, dtype=torch.bool),
        gt_masks=torch.zeros(count, GRID, GRID),
    )._replace(**columns)


def compute_losses(
    logits: Tensor, targets: MaskTargets, kind: Any = "none", images: Tensor = GRAY, **options: Any
) -> dict[str, Tensor]:
    return mask_losses(logits, targets, images, [SIZE], MaskRCNNConfig(mask_loss=kind, **options))


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
        ("projection", ["projection"]),
        ("projection+affinity", ["projection", "affinity"]),
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


@pytest.mark.parametrize("kind", ["mil", "projection", "projection+affinity"])
def test_each_proposal_weighs_the_same(kind):
    """Three with a mask, one without: their losses times 3/4 and 1/4."""
    logits = torch.randn(4, GRID, GRID, generator=torch.Generator().manual_seed(1))
    mixed = compute_losses(logits, make_targets([True, True, False, True]), kind)
    masked = compute_losses(logits[[0, 1, 3]], make_targets([True] * 3), kind)
    boxed = compute_losses(logits[[2]], make_targets([False]), kind)
    for name, loss in mixed.items():
        share, alone = (0.75, masked[name]) if name == "mask" else (0.25, boxed[name])
        torch.testing.assert_close(loss, share * alone)


def test_rows_and_columns_are_those_of_box_and_proposal():
    """A mask that fills their overlap is all that is asked; off by a row or a column, it is not."""
    targets = make_targets([False])
    assert compute_losses(OVERLAP, targets, "mil")["mil"].item() == pytest.approx(0, abs=1e-6)
    assert compute_losses(OVERLAP, targets, "projection")["projection"].item() == pytest.approx(0, abs=1e-4)
    for rows, columns in [((8, 28), (5, 19)), ((9, 28), (4, 19)), ((9, 28), (5, 18)), ((9, 27), (5, 19))]:
        logits = saturated(slice(*rows), slice(*columns))
        # One bag of 56 is wrong by 40; of 14 or 19 rows or columns of a projection, one is.
        assert compute_losses(logits, targets, "mil")["mil"].item() == pytest.approx(40 / 56, rel=1e-5)
        assert compute_losses(logits, targets, "projection")["projection"] > 0.02


def test_the_parts_of_the_loss_of_rows_and_columns():
    logits = torch.randn(1, GRID, GRID, generator=torch.Generator().manual_seed(2))
    rows, columns = (OVERLAP > 0).any(2), (OVERLAP > 0).any(1)
    losses = compute_losses(logits, make_targets([False]), "mil")
    torch.testing.assert_close(losses["mil"], mil_loss(logits, rows, columns)[0])
    torch.testing.assert_close(losses["smoothness"], smoothness_loss(logits)[0])
    projected = compute_losses(logits, make_targets([False]), "projection")["projection"]
    torch.testing.assert_close(projected, projection_loss(logits, rows, columns)[0])


def test_affinity_by_hand():
    """Every edge of a gray image is supervised; where nothing is known, -log P(same) is ln 2."""
    losses = compute_losses(torch.zeros(1, GRID, GRID), make_targets([False]), "projection+affinity")
    assert losses["affinity"].item() == pytest.approx(LN2)


def test_affinity_goes_by_each_proposals_own_image_and_colors():
    """Left of x = 24 black, right of it white: an outline there costs nothing. In a gray image it does."""
    parted = torch.zeros(1, 3, *SIZE)
    parted[..., 24:] = 1
    images = torch.cat([GRAY, parted])
    logits = saturated(slice(0, 28), slice(13, 28)).expand(2, -1, -1)  # columns from x = 24 on
    targets = make_targets([False, False], image_index=torch.tensor([1, 0]))
    config = MaskRCNNConfig(mask_loss="projection+affinity")
    sizes = [SIZE, SIZE]
    both = mask_losses(logits, targets, images, sizes, config)["affinity"]
    assert both > 1
    alone = targets._replace(image_index=torch.tensor([1, 1]))
    assert mask_losses(logits, alone, images, sizes, config)["affinity"] < 1e-6


def test_tau_selects_the_edges_of_the_affinity_loss():
    generator = torch.Generator().manual_seed(0)
    images = 0.4 + 0.1 * torch.nn.functional.interpolate(
        torch.rand(1, 3, 8, 8, generator=generator), size=SIZE, mode="bilinear"
    )
    logits = torch.randn(1, GRID, GRID, generator=generator)
    plain = compute_losses(logits, make_targets([False]), "projection+affinity", images)
    other = compute_losses(logits, make_targets([False]), "projection+affinity", images, tau=0.9)
    assert (plain["affinity"] - other["affinity"]).abs() > 1e-4
    assert plain["projection"] == other["projection"]


def test_colors_of_a_window_of_whole_pixels():
    images = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    windows = torch.tensor([[4.0, 3.0, 32.0, 31.0]])
    found = window_similarity(images, [SIZE, SIZE], windows, torch.tensor([1]))
    crop = images[1:, :, 3:31, 4:32]
    torch.testing.assert_close(found, color_similarity(crop, stride=1))


def test_edges_end_where_the_image_does():
    """Cells of 2 x 1 pixels in an image of 40 x 32, padded: column 13 has its middle at 39."""
    windows = torch.tensor([[12.0, 2.0, 68.0, 30.0]])
    found = window_similarity(GRAY, [(32, 40)], windows, torch.tensor([0]))[0]
    whole = color_similarity(torch.zeros(1, 3, GRID, GRID), stride=1, dilation=2)[0]
    starts = torch.arange(GRID) <= 13
    for edge, dx in enumerate([2, -2, 0, 2]):  # right, down left, down, down right
        ends = torch.arange(GRID) + dx <= 13
        expected = whole[edge].where(starts & ends, -1.0)
        torch.testing.assert_close(found[edge], expected)


@pytest.mark.parametrize("kind", ["none", "mil", "projection", "projection+affinity"])
def test_no_proposals_are_a_zero_that_reaches_the_logits(kind):
    logits = torch.zeros(0, GRID, GRID, requires_grad=True)
    for loss in compute_losses(logits, make_targets([]), kind).values():
        assert loss.item() == 0
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert gradient.shape == logits.shape


@pytest.mark.parametrize("kind", ["mil", "projection+affinity"])
def test_half_precision_logits_give_full_precision_losses(kind):
    logits = 3 * torch.randn(2, GRID, GRID).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = compute_losses(logits, make_targets([True, False]), kind)
    full = compute_losses(logits.float(), make_targets([True, False]), kind)
    for name, loss in full.items():
        assert half[name].dtype == torch.float32
        assert half[name] == loss
