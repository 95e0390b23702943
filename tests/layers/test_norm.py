import pytest
import timm
import torch
from torch import nn

from boxel.layers.norm import exchange_batch_norm, group_norm
from boxel.utils.errors import BoxelError


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(256, 32), (64, 32), (40, 20), (16, 8), (32, 16), (112, 28), (37, 1), (1, 1), (33, 11)],
)
def test_groups_divide_the_channels_and_have_two_or_more(channels, groups):
    assert group_norm(channels).num_groups == groups


def test_an_unknown_kind_is_refused():
    with pytest.raises(BoxelError, match="norm 'layer' is unknown"):
        exchange_batch_norm(nn.BatchNorm2d(8), "layer")


def trained_batch_norm():
    norm = nn.BatchNorm2d(4, eps=0.01)
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.uniform_(0.5, 2)
    return norm


def test_frozen_batch_norm_equals_the_trained_one_in_evaluation():
    norm, maps = trained_batch_norm(), torch.rand(2, 4, 3, 3)
    frozen = exchange_batch_norm(norm, "frozen_bn").train()
    torch.testing.assert_close(frozen(maps), norm.eval()(maps))
    assert not list(frozen.parameters())


def test_frozen_batch_norm_has_the_gradient_of_the_trained_one_and_keeps_no_map():
    norm = trained_batch_norm().eval()
    frozen = exchange_batch_norm(norm, "frozen_bn").train()
    maps = torch.randn(2, 4, 5, 6)
    kept = []
    gradients = []
    for layer in (frozen, norm):
        x = maps.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
            result = layer(x)
        result.sin().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)
    assert kept[0] == (4,) and kept.count(maps.shape) == 1  # that of the trained one


def test_group_norm_keeps_scale_shift_and_eps():
    norm = trained_batch_norm()
    group_norm = exchange_batch_norm(norm, "gn")
    assert torch.equal(group_norm.weight, norm.weight)
    assert torch.equal(group_norm.bias, norm.bias)
    assert group_norm.eps == 0.01


def test_group_norm_keeps_the_activation_inside_timms_batch_norm():
    body = timm.create_model("tf_efficientnet_lite0", features_only=True)
    exchanged = exchange_batch_norm(body, "gn")
    assert isinstance(exchanged.bn1.act, nn.ReLU6)
    assert exchanged.bn1(torch.randn(1, 32, 4, 4)).min() == 0
    assert isinstance(exchanged.blocks[0][0].bn2.act, nn.Identity)


def test_sync_batch_norm_keeps_the_statistics():
    norm = trained_batch_norm()
    assert torch.equal(exchange_batch_norm(norm, "sync_bn").running_var, norm.running_var)


def test_bn_changes_nothing():
    norm = nn.BatchNorm2d(4)
    assert exchange_batch_norm(norm, "bn") is norm
