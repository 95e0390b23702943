import copy
import itertools

import pytest
import torch
from timm.models.vgg import ConvMlp
from torch import nn

from boxel.layers.classifier import (
    DilatedClassifier,
    FullyConnectedClassifier,
    evenly_spaced_indices,
    load_fully_connected,
)
from boxel.utils.errors import BoxelError


@pytest.mark.parametrize(("kernel", "dilation", "hidden"), [(3, 2, 0), (5, 3, 0), (3, 2, 8)])
def test_a_cell_depends_on_its_field_of_view_only(kernel, dilation, hidden):
    """The gradient of one score reaches as far as its field, and no further."""
    torch.manual_seed(0)
    classifier = DilatedClassifier(4, 3, kernel, dilation, hidden).eval()
    features = torch.rand(1, 4, 41, 45, requires_grad=True)
    scores = classifier(features)
    assert scores.shape == (1, 3, 41, 45)
    scores[0, :, 20, 22].sum().backward()
    seen = features.grad[0].abs().sum(0) > 0
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    layers = 2 if hidden else 1
    reach = layers * (kernel - 1) * dilation + 1
    assert rows[-1] - rows[0] + 1 == columns[-1] - columns[0] + 1 == reach


def test_scores_start_near_zero():
    torch.manual_seed(0)
    classifier = DilatedClassifier(16, 3, 3, 1)
    last = classifier[-1]
    assert float(last.weight.detach().std()) == pytest.approx(0.01, rel=0.2) and (last.bias == 0).all()


# fully connected layers as convolutions --------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "dilation", "pixels"), [(4, 4, 104), (3, 12, 200)])
def test_the_fields_of_view_of_deeplab_and_large_fov(kernel, dilation, pixels):
    """The field of an even kernel is centered on its cell if the dilation is even."""
    torch.manual_seed(0)
    classifier = FullyConnectedClassifier(2, 3, kernel, dilation, hidden=16).eval()
    features = torch.rand(1, 2, 31, 33, requires_grad=True)
    scores = classifier(features)
    assert scores.shape == (1, 3, 31, 33)
    scores[0, :, 15, 16].sum().backward()
    rows, columns = ((features.grad[0].abs().sum(0) > 0).any(axis).nonzero().flatten() for axis in (1, 0))
    reach = pixels // 8 // 2
    assert rows.tolist() == list(range(15 - reach, 15 + reach + 1, dilation))
    assert columns.tolist() == list(range(16 - reach, 16 + reach + 1, dilation))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_an_odd_field_reaches_further_down_and_right():
    classifier = FullyConnectedClassifier(1, 1, kernel=2, dilation=1, hidden=4).eval()
    classifier.fc6.weight.data.fill_(1)
    features = torch.rand(1, 1, 5, 5, requires_grad=True)
    classifier.fc6(features)[0, :, 2, 2].sum().backward()
    assert (features.grad[0, 0] > 0).nonzero().tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]


def test_dropout_follows_both_layers_in_training_only():
    torch.manual_seed(0)
    classifier = FullyConnectedClassifier(2, 3, hidden=200)
    features, dropped = torch.rand(1, 2, 6, 6), []
    for name in ("dropout6", "dropout7"):
        classifier.get_submodule(name).register_forward_hook(lambda _, given, out: dropped.append(out == 0))
    classifier(features)
    assert [bool(zeros.float().mean() > 0.65) for zeros in dropped] == [True, True]
    assert torch.equal(classifier.eval()(features), classifier(features))


def test_undecimated_layers_reproduce_the_vgg():
    """On the 7x7 map that they were trained for, in the center of the convolution."""
    torch.manual_seed(0)
    layers = ConvMlp(3, 16, 7, drop_rate=0.5).eval()
    state = {f"pre_logits.{name}": tensor for name, tensor in layers.state_dict().items()}
    classifier = FullyConnectedClassifier(3, 5, kernel=7, dilation=1, hidden=16).eval()
    scores = classifier.scores.weight.clone()
    assert load_fully_connected(classifier, state)
    features = torch.randn(2, 3, 7, 7)
    found = nn.Sequential(*list(classifier)[:-1])(features)[..., 3:4, 3:4]
    assert (found > 0).any()
    torch.testing.assert_close(found, layers(features))
    assert torch.equal(classifier.scores.weight, scores)


def numbered(channels, hidden, flat):
    """Layers of a VGG whose weights are their own indices: for fc6 (out, channel, row, column)."""
    first = torch.arange(hidden * channels * 49).float().reshape(hidden, channels, 7, 7)
    second = torch.arange(hidden * hidden).float().reshape(hidden, hidden, 1, 1)
    six, seven = ("classifier.0", "classifier.3") if flat else ("pre_logits.fc1", "pre_logits.fc2")
    if flat:
        first, second = first.flatten(1), second.flatten(1)
    biases = 10 + torch.arange(hidden).float(), 20 + torch.arange(hidden).float()
    return {
        f"{six}.weight": first,
        f"{six}.bias": biases[0],
        f"{seven}.weight": second,
        f"{seven}.bias": biases[1],
    }


@pytest.mark.parametrize("flat", [False, True], ids=["timm", "torchvision"])
@pytest.mark.parametrize(
    ("kernel", "hidden", "taps", "kept"),
    [(4, 7, [0, 2, 4, 6], [0, 1, 2, 3, 4, 5, 6]), (3, 3, [0, 3, 6], [0, 3, 6]), (1, 1, [3], [3])],
)
def test_decimated_weights_are_evenly_spaced(kernel, hidden, taps, kept, flat):
    classifier = FullyConnectedClassifier(2, 5, kernel, 4, hidden)
    assert load_fully_connected(classifier, numbered(2, 7, flat))
    first = [
        [
            [[98 * out + 49 * channel + 7 * row + column for column in taps] for row in taps]
            for channel in (0, 1)
        ]
        for out in kept
    ]
    assert classifier.fc6.weight.tolist() == first
    assert classifier.fc7.weight.flatten(1).tolist() == [[7 * out + into for into in kept] for out in kept]
    assert classifier.fc6.bias.tolist() == [10 + out for out in kept]
    assert classifier.fc7.bias.tolist() == [20 + out for out in kept]


def test_evenly_spaced_indices():
    assert evenly_spaced_indices(7, 7) == [0, 1, 2, 3, 4, 5, 6]
    assert evenly_spaced_indices(7, 2) == [0, 6] and evenly_spaced_indices(7, 5) == [0, 2, 3, 4, 6]
    channels = evenly_spaced_indices(4096, 1024)
    assert channels[0] == 0 and channels[-1] == 4095
    assert {after - before for before, after in itertools.pairwise(channels)} <= {4, 5}


def test_layers_of_other_networks_are_ignored():
    """The layers of torchvision's MobileNetV3 have the names of a VGG."""
    classifier = FullyConnectedClassifier(2, 5, hidden=3)
    before = copy.deepcopy(classifier.state_dict())
    assert not load_fully_connected(classifier, {"features.0.weight": torch.ones(2, 3, 3, 3)})
    assert not load_fully_connected(
        classifier, {"classifier.0.weight": torch.ones(5, 7), "classifier.3.weight": torch.ones(5, 5)}
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.state_dict().items())


@pytest.mark.parametrize("options", [{"kernel": 8, "hidden": 7}, {"kernel": 4, "hidden": 8}])
def test_more_than_the_vgg_has_is_an_error(options):
    with pytest.raises(BoxelError, match="give at most 7 and 7"):
        load_fully_connected(FullyConnectedClassifier(2, 5, **options), numbered(2, 7, flat=False))


def test_features_keep_their_scale_and_scores_start_near_zero():
    """He initialization: the weights compensate for the half that ReLU removes."""
    torch.manual_seed(0)
    classifier = FullyConnectedClassifier(32, 3, kernel=3, dilation=1, hidden=256).eval()
    features = torch.randn(1, 32, 20, 20)
    for name in ("fc6", "fc7"):
        layer = classifier.get_submodule(name)
        assert float(layer.weight.detach().std()) == pytest.approx(
            (2 / layer.weight[0].numel()) ** 0.5, rel=0.02
        )
        assert (layer.bias == 0).all()
    assert float(classifier.scores.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    assert classifier(features).abs().max() < 1
