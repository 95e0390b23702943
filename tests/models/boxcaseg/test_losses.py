"""What BoxCaseg learns from boxes, from masks and from hints."""

from math import log
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from boxel.losses.dice import dice_loss
from boxel.losses.projection import projection_loss
from boxel.models.boxcaseg import BoxCasegConfig
from boxel.models.boxcaseg.losses import box_losses, mask_loss

SIDE = 16
ONLY = {"mil_weight": 0.0, "smooth_weight": 0.0}


def losses(logits, batch, **settings):
    return box_losses(
        logits,
        batch["rows"],
        batch["columns"],
        batch["masks"],
        batch["has_mask"],
        batch["images"],
        BoxCasegConfig(**settings),
    )


def make(*has_mask: bool, hint: bool = False) -> dict[str, Any]:
    """Crops of 16 x 16 with a box of rows 4 to 11 and columns 2 to 13; masks and hints are its upper half."""
    count = len(has_mask)
    span = torch.zeros(2, SIDE, dtype=torch.bool)
    span[0, 4:12] = span[1, 2:14] = True
    masks = torch.zeros(count, SIDE, SIDE)
    known = torch.tensor(has_mask, dtype=torch.bool)
    masks[known | hint, 4:8, 2:14] = 1.0
    return {
        "rows": span[0].expand(count, SIDE),
        "columns": span[1].expand(count, SIDE),
        "masks": masks,
        "has_mask": known,
        "images": torch.full((count, 3, SIDE, SIDE), 0.5),
    }


def noise(count: int) -> torch.Tensor:
    return 2 * torch.randn(count, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_a_loss_of_no_weight_is_left_out():
    batch = make(False, True)
    assert losses(noise(2), batch).keys() == {"mil", "smooth"}
    assert losses(noise(2), batch, **ONLY) == {}
    everything = losses(noise(2), batch, projection_weight=1, affinity_weight=1, hint_weight=1)
    assert everything.keys() == {"mil", "smooth", "projection", "affinity", "hint"}
    assert all(loss.shape == () for loss in everything.values())


def test_bags_follow_the_box_or_the_true_mask():
    """At .5 everywhere every line costs log 2, so a map that is high everywhere separates the lines."""
    high = torch.tensor(0.9).logit().expand(2, SIDE, SIDE)
    box = (20 * -log(0.9) + 12 * -log(0.1)) / 32  # 8 rows and 12 columns of the box
    mask = (16 * -log(0.9) + 16 * -log(0.1)) / 32  # 4 rows and 12 columns of the mask
    assert losses(high[:1], make(False))["mil"].item() == pytest.approx(box)
    assert losses(high[:1], make(True))["mil"].item() == pytest.approx(mask)
    assert losses(high, make(False, True))["mil"].item() == pytest.approx((box + mask) / 2)
    # The lines of a crop with a mask are those of the mask, even if its box is wrong.
    wrong = make(True) | {
        "rows": torch.zeros(1, SIDE, dtype=torch.bool),
        "columns": torch.arange(SIDE)[None] > 8,
    }
    assert losses(high[:1], wrong)["mil"].item() == pytest.approx(mask)
    # A hint is not a mask: the lines of its crop are those of the box.
    assert losses(high[:1], make(False, hint=True))["mil"].item() == pytest.approx(box)
    summed = losses(high, make(False, True), mil_reduction="sum")["mil"].item()
    assert summed == pytest.approx(32 * (box + mask) / 2)


def test_a_masks_gaps_are_lines_outside():
    batch = make(True)
    batch["masks"][0] = 0
    batch["masks"][0, 4, [2, 13]] = 1.0  # two pixels, and nothing between them
    fitting = torch.full((1, SIDE, SIDE), -20.0)
    fitting[batch["masks"] > 0] = 20.0
    assert losses(fitting, batch)["mil"].item() == pytest.approx(0, abs=1e-6)
    empty = batch | {"masks": torch.zeros(1, SIDE, SIDE)}  # the crop shows none of the object
    assert losses(torch.full((1, SIDE, SIDE), -20.0), empty)["mil"].item() == pytest.approx(0, abs=1e-6)


def test_smoothness_is_of_all_crops():
    one = torch.full((2, SIDE, SIDE), 0.1).logit()
    one[1, 8, 8] = torch.tensor(0.9).logit()
    pairs = 2 * 15 * 16 + 2 * 15 * 15
    assert losses(one, make(False, True))["smooth"].item() == pytest.approx(8 * 0.64 / pairs / 2)
    summed = losses(one, make(False, True), mil_reduction="sum")["smooth"].item()
    assert summed == pytest.approx(2 * 8 * 0.64 / 2)


def test_projection_is_boxinsts():
    logits, batch = noise(2), make(False, True)
    rows = torch.stack([batch["rows"][0], batch["masks"][1].any(1)])
    expected = projection_loss(logits, rows, batch["columns"]).mean()
    torch.testing.assert_close(losses(logits, batch, **ONLY, projection_weight=1)["projection"], expected)


def test_affinity_is_of_boxed_crops_alone():
    """Of one color all neighbors should agree: -log(.8 x .8 + .2 x .2) for a map that is .8 everywhere."""
    logits = torch.tensor(0.8).logit().repeat(4, SIDE, SIDE)
    batch = make(False, True, False, True)
    found = losses(logits, batch, **ONLY, affinity_weight=1)["affinity"]
    assert found.item() == pytest.approx(-log(0.68) / 2)  # half of the crops have it
    logits[batch["has_mask"]] *= -3
    batch["images"][batch["has_mask"]] = torch.rand(2, 3, SIDE, SIDE)
    assert losses(logits, batch, **ONLY, affinity_weight=1)["affinity"] == found
    # Across a change of color nothing is asked.
    batch["images"] = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    assert losses(logits, batch, **ONLY, affinity_weight=1, tau=1.0)["affinity"] == 0


def test_hints_teach_the_crops_that_have_one_and_no_mask():
    batch = make(False, False, True, False, hint=True)
    batch["masks"][3] = 0  # no hint was made
    logits = noise(4)
    expected = F.binary_cross_entropy_with_logits(logits[:2], batch["masks"][:2]) / 2
    torch.testing.assert_close(losses(logits, batch, **ONLY, hint_weight=1)["hint"], expected)


@pytest.mark.parametrize("batch", [make(True, True), make(False, False)], ids=["masks only", "boxes only"])
def test_a_batch_of_one_kind_is_learned_from_without_nan(batch):
    logits = noise(2).requires_grad_()
    found = losses(logits, batch, projection_weight=1, affinity_weight=1, hint_weight=1)
    assert all(loss.isfinite() for loss in found.values())
    assert found["hint"] == 0 and (found["affinity"] == 0) == batch["has_mask"].all()
    sum(found.values()).backward()
    assert logits.grad.isfinite().all() and logits.grad.abs().sum() > 0


def test_a_crop_all_inside_its_box_is_learned_from_without_nan():
    batch = make(False, False)
    batch |= {"rows": torch.ones_like(batch["rows"]), "columns": torch.ones_like(batch["columns"])}
    logits = torch.full((2, SIDE, SIDE), -300.0, requires_grad=True)
    found = losses(logits, batch, projection_weight=1, affinity_weight=1)
    assert found["mil"].item() == pytest.approx(300)
    sum(found.values()).backward()
    assert logits.grad.isfinite().all()


# masks ---------------------------------------------------------------------------------------------------------------


def test_the_pixel_loss_by_hand():
    logits = torch.tensor([[[0.8, 0.3]]]).logit()
    masks = torch.tensor([[[1.0, 0.25]]])
    expected = (-log(0.8) - 0.25 * log(0.3) - 0.75 * log(0.7)) / 2
    assert mask_loss(logits, masks, 0).item() == pytest.approx(expected)
    with_dice = expected + 0.5 * dice_loss(torch.tensor([[0.8, 0.3]]), masks[0]).item()
    assert mask_loss(logits, masks, 0.5).item() == pytest.approx(with_dice)


def test_the_pixel_loss_of_no_masks_is_nothing_to_learn():
    logits = torch.zeros(0, 4, 4, requires_grad=True)
    for dice in (0.0, 1.0):
        loss = mask_loss(logits, torch.zeros(0, 4, 4), dice)
        assert loss == 0
        loss.backward()
