import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from boxel.layers.deformable import ModulatedDeformConv2d, make_deformable


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(4, 6, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        Conv2dSame(4, 6, 3, stride=2),
    ],
)
@pytest.mark.parametrize("size", [(8, 10), (7, 9)])
def test_starts_as_the_plain_convolution(conv, size):
    maps = torch.randn(2, 4, *size)
    torch.testing.assert_close(ModulatedDeformConv2d(conv)(maps), conv(maps), rtol=1e-4, atol=1e-5)


def test_mixed_precision():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    maps = torch.randn(1, 4, 6, 6)
    deformable = ModulatedDeformConv2d(conv)
    with torch.autocast("cpu", torch.bfloat16):
        after_another = deformable(conv(maps))
        assert after_another.dtype == torch.bfloat16
    torch.testing.assert_close(after_another.float(), conv(conv(maps)), rtol=0.05, atol=0.05)
    after_another.sum().backward()
    assert deformable.offset_and_mask.weight.grad is not None


def one_tap():
    """A 3x3 convolution that reads its middle tap only, so that it copies the map."""
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight)
    return ModulatedDeformConv2d(conv)


def test_offset_moves_the_tap():
    deformable = one_tap()
    middle = 4
    deformable.offset_and_mask.bias.data[2 * middle + 1] = 0.5  # half a pixel to the right
    maps = torch.tensor([[[[1.0, 3, 7]]]])
    assert deformable(maps).tolist() == [[[[2.0, 5, 3.5]]]]  # beside the map is zero


def test_modulation_is_twice_the_sigmoid():
    deformable = one_tap()
    middle = 4
    maps = torch.tensor([[[[1.0, 3, 7]]]])
    deformable.offset_and_mask.bias.data[18 + middle] = 100
    torch.testing.assert_close(deformable(maps), 2 * maps)
    deformable.offset_and_mask.bias.data[18 + middle] = -100
    torch.testing.assert_close(deformable(maps), 0 * maps)


def test_the_kernel_keeps_its_name():
    conv = nn.Conv2d(2, 2, 3)
    deformable = ModulatedDeformConv2d(conv)
    assert deformable.weight is conv.weight
    assert {"weight", "bias"} < set(deformable.state_dict())


def test_replaces_plain_3x3_convolutions_only():
    class Standardized(nn.Conv2d):
        """Computes another kernel than it holds."""

    network = nn.Sequential(
        nn.Conv2d(1, 1, 3),
        nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 1)),
        Standardized(1, 1, 3),
        nn.ReLU(),
    )
    assert make_deformable(network, ["1", "1.0", "1.1", "2", "3"]) == 1
    replaced = [name for name, module in network.named_modules() if isinstance(module, ModulatedDeformConv2d)]
    assert replaced == ["1.0"]
