"""Maps that are computed again: the same gradients, with fewer maps kept."""

import pytest
import torch
from torch import nn

from boxel.layers.recompute import recompute
from boxel.layers.winograd import use_winograd


def step(call, tower, side):
    """Return the result and gradients of a step, how often a convolution ran, and how many maps were kept."""
    tower.zero_grad()
    x = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(1)).requires_grad_()
    kept = set()

    def keep(tensor):
        kept.add(tensor.data_ptr() if tensor.shape == x.shape else 0)
        return tensor

    with torch.profiler.profile() as profiler:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            y = call(x)
        y.square().sum().backward()
    ran = sum(event.name == "aten::_convolution" for event in profiler.events())
    return [y.detach(), x.grad, *(p.grad.clone() for p in tower.parameters())], ran, len(kept)


@pytest.mark.filterwarnings("ignore:A saved_tensors_hooks:FutureWarning")
@pytest.mark.parametrize("side", [8, 40])  # plain and Winograd's convolutions
def test_gradients_stay_and_convolutions_run_once(side):
    torch.manual_seed(0)
    tower = nn.Sequential()
    for _ in range(2):
        tower.extend([nn.Conv2d(4, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(inplace=True)])
    use_winograd(tower)
    expected, expected_runs, all_maps = step(tower, tower, side)
    values, runs, maps = step(lambda x: recompute(tower, x), tower, side)
    torch.testing.assert_close(values, expected)
    assert runs == expected_runs
    assert maps < all_maps
