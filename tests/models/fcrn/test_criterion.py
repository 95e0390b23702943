"""Where FCRN's loss is taken, and how many pixels it keeps."""

import pytest
import torch
import torch.nn.functional as F

from boxel.data.label_maps import IGNORE_INDEX
from boxel.models.fcrn import FCRN, FCRNConfig, FCRNInstancesConfig
from boxel.models.fcrn.criterion import kept_of, segmentation_loss
from boxel.models.semantic.criterion import at_cells
from boxel.utils.errors import BoxelError


@pytest.mark.parametrize(("stride", "expected"), [(8, 512), (16, 128), (1, 32768), (2, 8192)])
def test_kept_cells_are_counted_on_the_grid_of_stride_8(stride, expected) -> None:
    assert kept_of(512, stride) == expected
    assert kept_of(1, 16) == 1  # never none


@pytest.mark.parametrize("config", [FCRNConfig, FCRNInstancesConfig])
def test_a_threshold_needs_a_least_number(config) -> None:
    with pytest.raises(BoxelError, match="threshold does nothing where min_kept is null"):
        config(min_kept=None, threshold=0.6)
    with pytest.raises(BoxelError, match="threshold is 0"):
        config(threshold=0)


def test_a_cell_has_the_label_of_the_pixel_at_its_center() -> None:
    labels = torch.arange(16 * 24).view(16, 24)
    assert at_cells(labels, 8).tolist() == [
        [4 * 24 + 4, 4 * 24 + 12, 4 * 24 + 20],
        [12 * 24 + 4, 12 * 24 + 12, 12 * 24 + 20],
    ]


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 5, 3, 4, generator=random)
    labels = torch.randint(0, 5, (2, 24, 32), generator=random).to(torch.uint8)
    labels[:, :10] = IGNORE_INDEX
    return scores, labels


def test_without_bootstrapping_it_is_the_mean_cross_entropy(batch) -> None:
    scores, labels = batch
    config = FCRNConfig(min_kept=None)
    expected = F.cross_entropy(scores, at_cells(labels, 8).long(), ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(segmentation_loss(scores, labels, 8, config), expected)
    dense = F.interpolate(scores, (24, 32), mode="bilinear")
    expected = F.cross_entropy(dense, labels.long(), ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(
        segmentation_loss(scores, labels, 8, FCRNConfig(min_kept=None, loss_at="pixels")), expected
    )


@pytest.mark.parametrize(("loss_at", "kept"), [("cells", 2), ("pixels", 128)])
def test_with_it_it_is_the_mean_of_the_hardest(batch, loss_at, kept) -> None:
    scores, labels = batch
    dense, true = scores, at_cells(labels, 8)
    if loss_at == "pixels":
        dense, true = F.interpolate(scores, (24, 32), mode="bilinear"), labels
    losses = F.cross_entropy(dense, true.long(), ignore_index=IGNORE_INDEX, reduction="none")
    expected = losses.flatten().sort(descending=True).values[:kept].mean()
    config = FCRNConfig(min_kept=2, loss_at=loss_at)
    torch.testing.assert_close(segmentation_loss(scores, labels, 8, config), expected)


@pytest.mark.parametrize("min_kept", [None, 10])
def test_a_batch_of_void_alone_gives_zero(min_kept) -> None:
    scores = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = segmentation_loss(
        scores, torch.full((1, 16, 16), IGNORE_INDEX, dtype=torch.uint8), 8, FCRNConfig(min_kept=min_kept)
    )
    loss.backward()
    assert loss == 0 and (scores.grad == 0).all()


def test_all_pixels_first() -> None:
    """Until half of the training is done, the loss that counts is that of all pixels; then it is that of hard ones."""
    torch.manual_seed(0)
    tiny = {
        "backbone": "resnet10t",
        "weights": "none",
        "backbone_norm": "bn",
        "frozen_stages": 0,
        "kernel": 3,
    }
    model = FCRN(3, FCRNConfig(**tiny, dilation=2, min_kept=4, bootstrap_after=0.5)).train()
    images = [torch.rand(3, 64, 64)] * 2
    targets = [{"labels": torch.randint(0, 3, (64, 64), dtype=torch.uint8)}] * 2
    losses = model(images, targets)
    assert losses["segmentation"] > losses["all_pixels"]
    assert model.loss_weights(0.49) == {"segmentation": 0, "all_pixels": 1}
    assert model.loss_weights(0.5) == {"segmentation": 1, "all_pixels": 0}
    at_once = FCRN(3, FCRNConfig(**tiny, dilation=2, min_kept=4))
    assert list(at_once.train()(images, targets)) == ["segmentation"] == list(at_once.loss_weights(0))
    with pytest.raises(BoxelError, match="bootstrap_after does nothing where min_kept is null"):
        FCRNConfig(min_kept=None, bootstrap_after=0.5)
