"""Dynamic convolutions against the same networks applied one instance at a time."""

import pytest
import torch
import torch.nn.functional as F

from boxel.layers.dynamic import dynamic_masks, num_dynamic_params, upsample_twice


def one_by_one(features, params, image_index, centers, scales, width, stride=8):
    """Three 1x1 convolutions per instance, with explicit relative coordinates."""
    _, channels, h, w = features.shape
    sizes = [(width, channels + 2), (width, width), (1, width)]
    logits = []
    for n, image in enumerate(image_index.tolist()):
        y, x = torch.meshgrid(
            torch.arange(h) * stride + stride // 2, torch.arange(w) * stride + stride // 2, indexing="ij"
        )
        place = torch.stack([centers[n, 0] - x, centers[n, 1] - y]) / scales[n]
        hidden = torch.cat([place, features[image]])[None]
        # All weights come first, then all biases.
        weights = params[n, : sum(o * i for o, i in sizes)].split([o * i for o, i in sizes])
        biases = params[n, sum(o * i for o, i in sizes) :].split([o for o, _ in sizes])
        for layer, (size, weight, bias) in enumerate(zip(sizes, weights, biases, strict=True)):
            hidden = F.conv2d(hidden, weight.reshape(*size, 1, 1), bias)
            hidden = hidden if layer == 2 else hidden.relu()
        logits.append(hidden[0, 0])
    return torch.stack(logits)


def case(features, width, image_index):
    generator = torch.Generator().manual_seed(0)
    n = len(image_index)
    return (
        torch.randn(3, features, 5, 7, generator=generator).requires_grad_(),
        torch.randn(n, num_dynamic_params(features, width), generator=generator).requires_grad_(),
        torch.tensor(image_index),
        torch.rand(n, 2, generator=generator) * 50,
        8.0 * torch.tensor([8, 16, 32, 64, 128])[torch.arange(n) % 5],
        width,
    )


@pytest.mark.parametrize(("features", "width", "count"), [(8, 8, 169), (16, 8, 233), (16, 16, 593)])
def test_number_of_parameters_per_instance(features, width, count):
    assert num_dynamic_params(features, width) == count


@pytest.mark.parametrize(("features", "width"), [(8, 8), (16, 8), (16, 16), (3, 5)])
@pytest.mark.parametrize("image_index", [[0, 0, 1, 2], [1], [0, 0, 0, 2, 2, 2]])
def test_equals_one_network_per_instance(features, width, image_index):
    """Values and gradients agree; an image may have no instance."""
    ours, theirs = case(features, width, image_index), case(features, width, image_index)
    logits, expected = dynamic_masks(*ours), one_by_one(*theirs)
    assert expected.abs().mean() > 1
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    upstream = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(logits, ours[:2], upstream),
        torch.autograd.grad(expected, theirs[:2], upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_coordinates_by_hand():
    """One feature that is ignored, a width of 1, and weights that pass on the relative x, then the relative y.

    Cells are 8 pixels: their middles are 4, 12, 20; the instance is at x = 20, y = 12, and 8 pixels make one unit.
    """
    for pick, expected in [
        ([1.0, 0, 0], [[2, 1, 0]] * 2),
        ([0, 1.0, 0], [[1, 1, 1], [0, 0, 0]]),
    ]:
        params = torch.tensor([[*pick, 1, 1, 0, 0, 0]])
        logits = dynamic_masks(
            torch.zeros(1, 1, 2, 3),
            params,
            torch.tensor([0]),
            torch.tensor([[20.0, 12.0]]),
            torch.tensor([8.0]),
            1,
        )
        assert logits[0].tolist() == expected


def test_upsampling_keeps_values_in_their_position():
    """A ramp whose value is its position in pixels: cells of 8 pixels become cells of 4, centered 2 pixels in."""
    ramp = torch.arange(6.0) * 8 + 4
    for logits in (ramp.expand(1, 5, 6), ramp[:, None].expand(1, 6, 5)):
        finer = upsample_twice(logits)
        assert finer.shape == (1, 2 * logits.shape[1], 2 * logits.shape[2])
        along = finer[0, 0] if logits.shape[2] == 6 else finer[0, :, 0]
        assert along[1:-1].tolist() == [4 * k + 2 for k in range(1, 11)]


def test_no_instances_give_the_features_a_gradient():
    features = torch.randn(2, 4, 3, 3, requires_grad=True)
    params = torch.zeros(0, num_dynamic_params(4, 8), requires_grad=True)
    logits = dynamic_masks(
        features, params, torch.zeros(0, dtype=torch.long), torch.zeros(0, 2), torch.zeros(0), 8
    )
    assert logits.shape == (0, 3, 3)
    logits.sum().backward()
    assert (features.grad == 0).all()
    assert params.grad.shape == params.shape


def test_products_are_computed_in_full_precision():
    features, params, *rest = case(8, 8, [0, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = dynamic_masks(features, params, *rest)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, dynamic_masks(features, params, *rest))
