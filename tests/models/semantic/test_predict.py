"""How photos are shown to a segmenter."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from boxel.crf import CRFConfig, mean_field
from boxel.data.annotations import Category
from boxel.models.semantic.predict import (
    LabelMap,
    LookConfig,
    own_looks,
    probabilities,
)
from boxel.utils.errors import BoxelError


class Local(nn.Module):
    """Scores of a cell are the means of its own pixels' colors: nothing else is looked at."""

    stride = 8
    fill = torch.tensor([0.5, 0.5, 0.5]).view(3, 1, 1)

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, images):
        self.shapes.append(tuple(images.shape[-2:]))
        height, width = images.shape[-2:]
        padded = F.pad(images - self.fill, (0, -width % 8, 0, -height % 8)) + self.fill
        return 10 * F.avg_pool2d(padded, 8)


@pytest.fixture
def photo() -> torch.Tensor:
    return torch.randint(0, 256, (3, 88, 120), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_probabilities_are_those_of_the_enlarged_scores(photo) -> None:
    scores = 10 * F.avg_pool2d(photo.float() / 255, 8)
    expected = F.interpolate(scores[None], (88, 120), mode="bilinear")[0].softmax(0)
    torch.testing.assert_close(probabilities(Local(), photo, LookConfig()), expected)


@pytest.mark.parametrize(("tile", "overlap"), [(32, 0.0), (40, 1 / 3), (64, 0.5), (120, 0.0), (500, 0.0)])
def test_tiles_of_a_network_without_context_give_what_the_whole_gives(photo, tile, overlap) -> None:
    network = Local()
    found = probabilities(network, photo, LookConfig(tile=tile, overlap=overlap))
    torch.testing.assert_close(found, probabilities(Local(), photo, LookConfig()))
    assert max(max(shape) for shape in network.shapes) <= max(tile, 32)
    assert len(network.shapes) == 1 or tile < 120


def test_several_looks_are_averaged(photo) -> None:
    one, half = (probabilities(Local(), photo, LookConfig(scales=(scale,))) for scale in (1.0, 0.5))
    both = probabilities(Local(), photo, LookConfig(scales=(1.0, 0.5)))
    torch.testing.assert_close(both, (one + half) / 2)
    # Of a network that is symmetric, a photo of whole cells looks the same in a mirror.
    torch.testing.assert_close(probabilities(Local(), photo, LookConfig(flip=True)), one)


@pytest.mark.parametrize("shifts", [2, 4])
def test_shifted_looks_interleave_where_they_belong(shifts) -> None:
    """On a ramp the score of a point is its own place, however it was looked at; but for the border."""
    ramp = torch.arange(96).expand(3, 64, 96) + torch.arange(64)[None, :, None]

    class Ramp(Local):
        def forward(self, images):
            return super().forward(images) * 25.5

    network = Ramp()
    found = probabilities(network, ramp.to(torch.uint8), LookConfig(shifts=shifts))
    assert len(network.shapes) == shifts**2
    torch.testing.assert_close(found, torch.full_like(found, 1 / 3))

    class Seen(Ramp):
        seen = None

    from boxel.models.semantic import predict

    dense = predict._interleaved(Seen(), ramp.float() / 255, LookConfig(shifts=shifts))
    inner = (slice(None), slice(8, -8), slice(8, -8))
    # The mean of a cell is the value in its middle, which on a ramp lies half a pixel before its fourth pixel.
    torch.testing.assert_close(dense[inner], ramp[inner].float(), atol=1e-3, rtol=0)


def test_a_long_side_is_brought_to_its_length(photo) -> None:
    network = Local()
    found = probabilities(network, photo, LookConfig(long_side=60))
    assert network.shapes == [(44, 60)] and found.shape == (3, 88, 120)


@pytest.mark.parametrize(
    "wrong", [{"scales": ()}, {"scales": (0.0,)}, {"overlap": 1}, {"shifts": 0}, {"tile": 8}]
)
def test_looks_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(BoxelError, match=f"{next(iter(wrong))} is"):
        LookConfig(**wrong)


def test_shifts_that_do_not_divide_a_cell_are_refused(photo) -> None:
    with pytest.raises(BoxelError, match="shifts is 3; with cells of 8 pixels give one of 1, 2 and 4"):
        probabilities(Local(), photo, LookConfig(shifts=3))


def test_a_label_map_is_written_with_the_values_of_its_set(tmp_path) -> None:
    labels = np.array([[0, 1], [2, 1]], dtype=np.uint8)
    for ids in ((7, 0, 33), (7, 0, 459)):
        classes = tuple(Category(id, str(id)) for id in ids)
        found = LabelMap(labels, np.ones((2, 2), dtype=np.float32), classes)
        found.save(tmp_path / "m.png")
        assert np.array(Image.open(tmp_path / "m.png")).tolist() == [[7, 0], [ids[2], 0]]
        assert found.mask("0").tolist() == [[False, True], [False, True]]


def test_a_crf_comes_after_all_looks_at_the_size_of_the_photo(photo) -> None:
    looks, crf = {"scales": (1.0, 0.5), "flip": True}, CRFConfig(appearance_weight=2, iterations=3)
    mean = probabilities(Local(), photo, LookConfig(**looks))
    found = probabilities(Local(), photo, LookConfig(**looks, crf=crf))
    torch.testing.assert_close(found, mean_field(photo[None].float() / 255, mean[None], crf)[0])
    assert found.shape == (3, 88, 120) and (found - mean).abs().max() > 0.1


def test_a_crf_is_asked_for_and_is_the_run_s_own() -> None:
    new = SimpleNamespace(settings={"views": {"long_side": 320}})
    tuned = SimpleNamespace(settings={"crf": {"appearance_weight": 4.0}})
    assert own_looks(new) == own_looks(new, crf=False) == LookConfig(long_side=320, crf=None)
    assert own_looks(tuned).crf is None
    assert own_looks(new, crf=True) == LookConfig(long_side=320, crf=CRFConfig())
    assert own_looks(tuned, crf=True, flip=True) == LookConfig(flip=True, crf=CRFConfig(appearance_weight=4))
    assert own_looks(tuned, crf=CRFConfig(iterations=1)).crf == CRFConfig(iterations=1)
