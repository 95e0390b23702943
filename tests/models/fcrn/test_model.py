"""FCRN's loss: its grid, and the number of pixels that it keeps."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from boxel.data.label_maps import IGNORE_INDEX
from boxel.models.fcrn import FCRN, FCRNConfig, FCRNInstancesConfig
from boxel.models.fcrn.config import scale_min_kept
from boxel.models.semantic.losses import sample_cell_centers
from boxel.utils.errors import BoxelError


@pytest.mark.parametrize(("stride", "expected"), [(8, 512), (16, 128), (1, 32768), (2, 8192)])
def test_min_kept_counts_cells_of_the_grid_of_stride_8(stride, expected) -> None:
    assert scale_min_kept(512, stride) == expected
    assert scale_min_kept(1, 16) == 1


@pytest.mark.parametrize("config", [FCRNConfig, FCRNInstancesConfig])
def test_a_threshold_needs_min_kept(config) -> None:
    with pytest.raises(BoxelError, match="threshold does nothing if min_kept is null"):
        config(min_kept=None, threshold=0.6)
    with pytest.raises(BoxelError, match="threshold is 0"):
        config(threshold=0)


def test_a_cell_has_the_label_of_the_pixel_at_its_center() -> None:
    labels = torch.arange(16 * 24).view(16, 24)
    assert sample_cell_centers(labels, 8).tolist() == [
        [4 * 24 + 4, 4 * 24 + 12, 4 * 24 + 20],
        [12 * 24 + 4, 12 * 24 + 12, 12 * 24 + 20],
    ]


@pytest.fixture
def tiny() -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "backbone": "resnet10t",
        "weights": "none",
        "backbone_norm": "bn",
        "frozen_stages": 0,
        "kernel": 3,
    }


def segmentation_loss(
    scores: torch.Tensor, labels: torch.Tensor, config: FCRNConfig, progress: float = 1.0
) -> torch.Tensor:
    """The loss of given scores of a network with stride 8."""
    model = SimpleNamespace(config=config, network=SimpleNamespace(stride=8))
    return FCRN.compute_losses(model, scores, labels, progress)["segmentation"]


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 5, 3, 4, generator=random)
    labels = torch.randint(0, 5, (2, 24, 32), generator=random).to(torch.uint8)
    labels[:, :10] = IGNORE_INDEX
    return scores, labels


def test_the_loss_without_bootstrapping_is_the_mean_cross_entropy(batch) -> None:
    scores, labels = batch
    config = FCRNConfig(min_kept=None)
    expected = F.cross_entropy(scores, sample_cell_centers(labels, 8).long(), ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(segmentation_loss(scores, labels, config), expected)
    dense = F.interpolate(scores, (24, 32), mode="bilinear")
    expected = F.cross_entropy(dense, labels.long(), ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(
        segmentation_loss(scores, labels, FCRNConfig(min_kept=None, loss_grid="pixels")), expected
    )


@pytest.mark.parametrize(("loss_grid", "kept"), [("cells", 2), ("pixels", 128)])
def test_the_bootstrapped_loss_is_the_mean_of_the_hardest(batch, loss_grid, kept) -> None:
    scores, labels = batch
    dense, true = scores, sample_cell_centers(labels, 8)
    if loss_grid == "pixels":
        dense, true = F.interpolate(scores, (24, 32), mode="bilinear"), labels
    losses = F.cross_entropy(dense, true.long(), ignore_index=IGNORE_INDEX, reduction="none")
    expected = losses.flatten().sort(descending=True).values[:kept].mean()
    config = FCRNConfig(min_kept=2, loss_grid=loss_grid)
    torch.testing.assert_close(segmentation_loss(scores, labels, config), expected)


@pytest.mark.parametrize("min_kept", [None, 10])
def test_a_batch_without_labels_has_a_loss_of_zero(min_kept) -> None:
    scores = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = segmentation_loss(
        scores, torch.full((1, 16, 16), IGNORE_INDEX, dtype=torch.uint8), FCRNConfig(min_kept=min_kept)
    )
    loss.backward()
    assert loss == 0 and (scores.grad == 0).all()


@pytest.mark.parametrize("min_kept", [None, 10])
@pytest.mark.parametrize(("loss_grid", "logit"), [("cells", 0.0), ("pixels", 6.5)])
def test_images_that_end_within_a_cell(loss_grid, logit, min_kept) -> None:
    """Two cells, of logits 0 and 8, are 16 pixels wide, and the image 12; pixel 10 is at 13/16 between their centers.

    The center of the second cell, pixel 12, is padding.
    """
    scores = torch.zeros(1, 2, 2, 2)
    scores[0, 1, :, 1] = 8
    scores.requires_grad_()
    labels = torch.full((1, 12, 12), IGNORE_INDEX, dtype=torch.uint8)
    labels[0, 4, 4 if loss_grid == "cells" else 10] = 1
    loss = segmentation_loss(scores, labels, FCRNConfig(min_kept=min_kept, loss_grid=loss_grid))
    loss.backward()
    assert loss.item() == pytest.approx(math.log1p(math.exp(-logit)), rel=1e-4)
    assert scores.grad.abs().sum() > 0


def test_all_pixels_are_learned_from_before_bootstrap_after(batch) -> None:
    scores, labels = batch
    everything = segmentation_loss(scores, labels, FCRNConfig(min_kept=None))
    hard = segmentation_loss(scores, labels, FCRNConfig(min_kept=2))
    config = FCRNConfig(min_kept=2, bootstrap_after=0.5)
    assert hard > everything
    assert segmentation_loss(scores, labels, config, progress=0.49) == everything
    assert segmentation_loss(scores, labels, config, progress=0.5) == hard
    with pytest.raises(BoxelError, match="bootstrap_after does nothing if min_kept is null"):
        FCRNConfig(min_kept=None, bootstrap_after=0.5)


def test_the_model_passes_progress_and_weighs_its_loss(tiny) -> None:
    model = FCRN(3, FCRNConfig(**tiny, dilation=2, min_kept=4, bootstrap_after=0.5)).train()
    images = [torch.rand(3, 64, 64)] * 2
    targets = [{"labels": torch.randint(0, 3, (64, 64), dtype=torch.uint8)}] * 2
    early, late = (model(images, targets, progress=progress) for progress in (0.1, 0.9))
    assert list(early) == list(late) == list(model.loss_weights(0.1)) == ["segmentation"]
    assert late["segmentation"] > early["segmentation"]
