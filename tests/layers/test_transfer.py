"""Weight transfer from the weak head to the transferred one (BoxCaseg, section 3.3.2)."""

import torch
import torch.nn.functional as F
from torch import nn

from boxel.layers.transfer import TransferredHead, WeightTransfer, segmentation_head

CHANNELS = 5


def features(batch=2):
    return torch.randn(batch, CHANNELS, 4, 3, generator=torch.Generator().manual_seed(0))


def make_identity(transfer: WeightTransfer) -> None:
    """Make a transfer the identity: x is (leaky(x) - leaky(-x)) / 1.1."""
    first, _, last = transfer.rows
    one = torch.eye(CHANNELS)
    with torch.no_grad():
        for layer in (first, last):
            layer.weight.zero_()
            layer.bias.zero_()
        first.weight[: 2 * CHANNELS] = torch.cat([one, -one])
        last.weight[:, : 2 * CHANNELS] = torch.cat([one, -one], dim=1) / 1.1


def test_a_head_is_conv_norm_relu_conv():
    head = segmentation_head(CHANNELS)
    assert [type(layer) for layer in head] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d]
    first, last = head[0], head[3]
    assert first.weight.shape == (CHANNELS, CHANNELS, 1, 1) and first.bias is not None
    assert last.weight.shape == (1, CHANNELS, 1, 1) and last.bias is not None
    assert head(features()).shape == (2, 1, 4, 3)


def test_the_weights_of_each_output_channel_go_through_one_perceptron():
    """Two layers, 4 units per channel, LeakyReLU 0.1; the bias is k b + c."""
    torch.manual_seed(0)
    source, transfer = nn.Conv2d(CHANNELS, 3, 1), WeightTransfer(CHANNELS)
    first, _, last = transfer.rows
    assert first.weight.shape == (4 * CHANNELS, CHANNELS) and last.weight.shape == (CHANNELS, 4 * CHANNELS)
    with torch.no_grad():
        transfer.scale.fill_(2.0)
        transfer.shift.fill_(-0.5)
    rows = []
    for row in source.weight[:, :, 0, 0]:
        hidden = first.weight @ row + first.bias
        hidden = torch.where(hidden > 0, hidden, 0.1 * hidden)
        rows.append(last.weight @ hidden + last.bias)
    x = features()
    expected = torch.einsum("oc,bchw->bohw", torch.stack(rows), x) + (2 * source.bias - 0.5)[:, None, None]
    torch.testing.assert_close(transfer(x, source), expected)


def test_biases_start_as_those_of_the_source():
    transfer = WeightTransfer(CHANNELS)
    assert (transfer.scale.tolist(), transfer.shift.tolist()) == ([1.0], [0.0])


def test_identity_perceptrons_reproduce_the_source():
    torch.manual_seed(1)
    source, head = segmentation_head(CHANNELS), TransferredHead(CHANNELS)
    make_identity(head.hidden)
    make_identity(head.last)
    x = features()
    torch.testing.assert_close(head(x, source), source(x))
    # Its norm is its own: another scale there than the source's gives other maps.
    with torch.no_grad():
        source[1].weight.fill_(3.0)
    assert not torch.allclose(head(x, source), source(x), atol=1e-3)
    with torch.no_grad():
        head.norm.weight.fill_(3.0)
    torch.testing.assert_close(head(x, source), source(x))


def test_convolutions_do_not_share_a_perceptron():
    torch.manual_seed(2)
    source, head = segmentation_head(CHANNELS), TransferredHead(CHANNELS)
    make_identity(head.hidden)
    # The last one's made to give nothing: only its bias is left.
    with torch.no_grad():
        for parameter in head.last.rows.parameters():
            parameter.zero_()
    expected = source[3].bias.item()
    torch.testing.assert_close(head(features(), source), torch.full((2, 1, 4, 3), expected))
    assert head.hidden.rows[0].weight is not head.last.rows[0].weight


def test_the_gradient_stops_at_the_source():
    torch.manual_seed(3)
    source, head = segmentation_head(CHANNELS).double(), TransferredHead(CHANNELS).double()
    x = features().double().requires_grad_()
    maps = head(x, source)
    F.binary_cross_entropy_with_logits(maps, torch.ones_like(maps)).backward()
    assert [parameter.grad for parameter in source.parameters()] == [None] * 6
    for name, parameter in head.named_parameters():
        # Batch norm takes away what is added to a whole channel before it, so the first bias has no say.
        assert (parameter.grad.abs().max() > 1e-7) == (name not in ("hidden.scale", "hidden.shift")), name
    assert x.grad.abs().sum() > 0


def test_the_norm_of_the_source_is_not_updated():
    source, head = segmentation_head(CHANNELS), TransferredHead(CHANNELS)
    head(features() + 5, source)
    assert source[1].num_batches_tracked == 0 and source[1].running_mean.abs().sum() == 0
    assert head.norm.num_batches_tracked == 1 and head.norm.running_mean.abs().sum() > 0


def test_an_empty_batch_does_not_change_the_statistics():
    """A batch may have no crop with a mask."""
    source, head = segmentation_head(CHANNELS), TransferredHead(CHANNELS)
    for norm, maps in [(head.norm, head(features(0), source)), (source[1], source(features(0)))]:
        assert maps.shape == (0, 1, 4, 3)
        assert norm.running_mean.tolist() == [0] * CHANNELS and norm.running_var.tolist() == [1] * CHANNELS
        maps.sum().backward()
