"""Mean field of the fully connected CRF: against the sum over all pairs, and against Krähenbühl's code."""

import pytest
import torch
import torch.nn.functional as F

from boxel.crf import CRFConfig, mean_field
from boxel.utils.errors import BoxelError


def exact(image: torch.Tensor, probabilities: torch.Tensor, config: CRFConfig) -> torch.Tensor:
    """Algorithm 1 as it is written, with sums over all pairs of pixels: (C, H, W)."""
    classes, height, width = probabilities.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places, colors = torch.stack([x, y], -1).reshape(-1, 2).double(), 255 * image.flatten(1).t().double()
    look = torch.cat([places / config.appearance_sigma, colors / config.color_sigma], 1)
    kernel = torch.zeros(height * width, height * width, dtype=torch.double)
    for weight, features in (
        (config.smooth_weight, places / config.smooth_sigma),
        (config.appearance_weight, look),
    ):
        own = torch.exp(-(torch.cdist(features, features) ** 2) / 2)
        norm = own.sum(1).rsqrt()
        kernel += weight * norm[:, None] * own * norm
    unary = probabilities.flatten(1).t().double().log()
    found = unary.softmax(1)
    for _ in range(config.iterations):
        found = (unary + kernel @ found).softmax(1)
    return found.t().reshape(classes, height, width).float()


def scene(seed: int, smooth: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a (3, 20, 28) image of noisy patches and (3, 20, 28) probabilities that do not depend on it."""
    random = torch.Generator().manual_seed(seed)
    patches = torch.rand(1, 3, 4, 5, generator=random)
    photo = F.interpolate(patches, (20, 28), mode="bilinear" if smooth else "nearest")[0]
    photo = (photo + 0.02 * torch.randn(photo.shape, generator=random)).clamp(0, 1)
    logits = F.interpolate(torch.randn(1, 3, 5, 7, generator=random), (20, 28), mode="bilinear")[0]
    return photo, (1.5 * logits).softmax(0)


@pytest.mark.slow
@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(
    "config",
    [CRFConfig(), CRFConfig(appearance_weight=4, appearance_sigma=10), CRFConfig(appearance_weight=0)],
    ids=["default", "near", "smooth"],
)
@pytest.mark.parametrize("seed", range(3))
def test_equals_mean_field_over_all_pairs(config, smooth, seed) -> None:
    """The kernel of the lattice is nearly Gaussian: nearly all labels agree, although the CRF changes many."""
    photo, probabilities = scene(seed, smooth)
    wanted, found = (
        exact(photo, probabilities, config),
        mean_field(photo[None], probabilities[None], config)[0],
    )
    changed = (wanted.argmax(0) != probabilities.argmax(0)).float().mean()
    differ = (wanted.argmax(0) != found.argmax(0)).float().mean()
    assert differ <= 0.06 and changed > 0.1 and differ < changed / 4
    assert (wanted - found).abs().mean() < 0.04


def test_equals_the_authors_code() -> None:
    """Compare with pydensecrf2 1.1 for 3 classes at every third pixel, with its default normalization."""
    y, x = torch.meshgrid(torch.arange(6), torch.arange(8), indexing="ij")
    photo = torch.stack([20 * x + 10 * y, 120 * (x >= 4) + 5 * y, 200 - 25 * y]) / 255
    probabilities = (0.4 * torch.stack([x - 3.0, y - 2.0, torch.full(x.shape, 0.5)])).softmax(0)
    config = CRFConfig(
        smooth_sigma=2,
        smooth_weight=0.5,
        appearance_sigma=5,
        color_sigma=40,
        appearance_weight=1,
        iterations=5,
    )
    found = mean_field(photo[None], probabilities[None], config)[0, :, ::3, ::3]
    wanted = [
        [[0.097831, 0.320881, 0.810813], [0.063596, 0.209844, 0.709657]],
        [[0.162515, 0.137272, 0.047009], [0.546212, 0.488262, 0.169437]],
        [[0.739654, 0.541847, 0.142178], [0.390192, 0.301895, 0.120907]],
    ]
    torch.testing.assert_close(found, torch.tensor(wanted), atol=6e-6, rtol=0)


def test_a_batch_equals_its_images_one_by_one() -> None:
    photos, probabilities = zip(*(scene(seed, False) for seed in (3, 4)), strict=True)
    together = mean_field(torch.stack(photos), torch.stack(probabilities), CRFConfig())
    for photo, own, found in zip(photos, probabilities, together, strict=True):
        torch.testing.assert_close(
            found, mean_field(photo[None], own[None], CRFConfig())[0], atol=1e-4, rtol=0
        )


def test_certain_pixels_keep_their_class_and_spread_it() -> None:
    """Two halves of one color each: one certain pixel decides the class of its half, which is unknown otherwise."""
    photo = torch.zeros(1, 3, 12, 16)
    photo[..., 8:] = 1
    probabilities = torch.full((1, 2, 12, 16), 0.5)
    probabilities[0, :, 6, 2], probabilities[0, :, 6, 13] = torch.tensor([1.0, 0]), torch.tensor([0, 1.0])
    found = mean_field(photo, probabilities, CRFConfig())[0].argmax(0)
    assert (found[:, :8] == 0).all() and (found[:, 8:] == 1).all()
    probabilities[0, :, 3, 3] = torch.tensor([0, 1.0])  # a certain pixel amid the others
    probabilities[0, :, 2:5, 2:5] = torch.tensor([1.0, 0])[:, None, None]
    probabilities[0, :, 3, 3] = torch.tensor([0, 1.0])
    assert mean_field(photo, probabilities, CRFConfig())[0, 1, 3, 3] > 0.99


def test_without_kernels_or_iterations_nothing_changes() -> None:
    photo, probabilities = scene(0, True)
    for config in (CRFConfig(smooth_weight=0, appearance_weight=0), CRFConfig(iterations=0)):
        torch.testing.assert_close(mean_field(photo[None], probabilities[None], config)[0], probabilities)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(BoxelError, match="color_sigma is 0; give a number above 0"):
        CRFConfig(color_sigma=0)
