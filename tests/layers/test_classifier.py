import pytest
import torch

from boxel.layers.classifier import DilatedClassifier, field_of_view


@pytest.mark.parametrize(
    ("kernel", "dilation", "stride", "pixels"),
    [
        (3, 6, 16, 208),
        (3, 6, 8, 104),
        (3, 12, 8, 200),
        (3, 18, 8, 296),
        (5, 6, 8, 200),
        (5, 12, 8, 392),
        (5, 18, 8, 584),
        (7, 6, 8, 296),
        (7, 12, 8, 584),
    ],
)
def test_the_fields_of_view_of_the_papers_tables(kernel, dilation, stride, pixels):
    assert field_of_view(kernel, dilation, stride) == pixels


@pytest.mark.parametrize(("kernel", "dilation", "hidden"), [(3, 2, 0), (5, 3, 0), (3, 2, 8)])
def test_what_a_cell_sees(kernel, dilation, hidden):
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
    reach = layers * (field_of_view(kernel, dilation, 1) - 1) + 1
    assert rows[-1] - rows[0] + 1 == columns[-1] - columns[0] + 1 == reach


def test_it_begins_near_zero():
    torch.manual_seed(0)
    classifier = DilatedClassifier(16, 3, 3, 1)
    last = classifier[-1]
    assert float(last.weight.detach().std()) == pytest.approx(0.01, rel=0.2) and (last.bias == 0).all()
