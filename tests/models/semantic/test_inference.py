"""Semantic inference: sizes, flips, scales, tiles, shifts and the CRF."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from boxel.crf import CRFConfig, mean_field
from boxel.data.annotations import Category
from boxel.data.windows import ArrayWindows
from boxel.models.semantic.inference import (
    LabelMap,
    predict_label_map,
    predict_probabilities,
    semantic_inference_config,
)
from boxel.models.settings import SemanticInferenceConfig as Config
from boxel.models.tiles import predict_in_tiles
from boxel.utils.errors import BoxelError

CLASSES = tuple(Category(k, f"class {k}") for k in range(3))


class Local(nn.Module):
    """Scores of a cell are the mean colors of its own pixels."""

    stride = 8
    padding_color = torch.tensor([0.5, 0.5, 0.5]).view(3, 1, 1)

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, images):
        self.shapes.append(tuple(images.shape[-2:]))
        height, width = images.shape[-2:]
        padded = F.pad(images - self.padding_color, (0, -width % 8, 0, -height % 8)) + self.padding_color
        return 10 * F.avg_pool2d(padded, 8)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randint(0, 256, (3, 88, 120), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_probabilities_are_those_of_the_enlarged_scores(image) -> None:
    scores = 10 * F.avg_pool2d(image.float() / 255, 8)
    expected = F.interpolate(scores[None], (88, 120), mode="bilinear")[0].softmax(0)
    torch.testing.assert_close(predict_probabilities(Local(), image, Config()), expected)


def predict_tiled(network, pixels, config):
    model = SimpleNamespace(network=network, categories=CLASSES, parameters=lambda: iter([torch.zeros(1)]))

    def predict(images, config):
        return [predict_label_map(model, image, config) for image in images]

    return predict_in_tiles(ArrayWindows(pixels), predict, config)


@pytest.mark.parametrize(("tile", "count"), [(40, 9), (64, 4), (88, 1), (500, 1)])
def test_tiles_do_not_change_the_result_of_a_network_without_context(image, tile, count) -> None:
    pixels, network = image[:, :88, :88].permute(1, 2, 0).numpy(), Local()
    whole = predict_tiled(Local(), pixels, Config())
    found = predict_tiled(network, pixels, Config(tile=tile))
    assert np.array_equal(found.labels, whole.labels)
    np.testing.assert_allclose(found.scores, whole.scores, atol=1e-5)
    assert network.shapes == [(min(tile, 88),) * 2] * count


def test_each_tile_is_resized_like_an_image_of_its_size(image) -> None:
    network = Local()
    predict_tiled(network, image.permute(1, 2, 0).numpy()[:40], Config(long_side=32, tile=64))
    assert network.shapes == [(20, 32)] * 3  # half the size, though the tiles are 64 wide and 40 high


def test_a_tiled_crf_refines_each_tile(image) -> None:
    pixels, crf = image[:, :64, :64].permute(1, 2, 0).numpy(), CRFConfig(iterations=1)
    found = predict_tiled(Local(), pixels, Config(tile=40, crf=crf))
    corner = predict_tiled(Local(), pixels[:40, :40], Config(crf=crf))
    np.testing.assert_allclose(found.scores[:32, :32], corner.scores[:32, :32])


def test_probabilities_of_all_passes_are_averaged(image) -> None:
    one, half = (predict_probabilities(Local(), image, Config(scales=(scale,))) for scale in (1.0, 0.5))
    both = predict_probabilities(Local(), image, Config(scales=(1.0, 0.5)))
    torch.testing.assert_close(both, (one + half) / 2)
    # Of a network that is symmetric, a image of whole cells gives the same when flipped.
    torch.testing.assert_close(predict_probabilities(Local(), image, Config(flip=True)), one)


@pytest.mark.parametrize("shifts", [2, 4])
def test_shifted_passes_are_interleaved_in_place(shifts) -> None:
    """On a ramp the score of a point is its position, except at the border."""
    ramp = torch.arange(96).expand(3, 64, 96) + torch.arange(64)[None, :, None]

    class Ramp(Local):
        def forward(self, images):
            return super().forward(images) * 25.5

    network = Ramp()
    found = predict_probabilities(network, ramp.to(torch.uint8), Config(shifts=shifts))
    assert len(network.shapes) == shifts**2
    torch.testing.assert_close(found, torch.full_like(found, 1 / 3))

    class Seen(Ramp):
        seen = None

    from boxel.models.semantic import inference

    dense = inference._interleaved(Seen(), ramp.float() / 255, Config(shifts=shifts))
    inner = (slice(None), slice(8, -8), slice(8, -8))
    # The mean of a cell is the value in its middle, which on a ramp lies half a pixel before its fourth pixel.
    torch.testing.assert_close(dense[inner], ramp[inner].float(), atol=1e-3, rtol=0)


def test_the_longer_side_is_resized_to_long_side(image) -> None:
    network = Local()
    found = predict_probabilities(network, image, Config(long_side=60))
    assert network.shapes == [(44, 60)] and found.shape == (3, 88, 120)


@pytest.mark.parametrize(
    "wrong", [{"scales": ()}, {"scales": (0.0,)}, {"overlap": 1}, {"shifts": 0}, {"tile": 8}]
)
def test_settings_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(BoxelError, match=f"{next(iter(wrong))} is"):
        Config(**wrong)


def test_shifts_that_do_not_divide_a_cell_are_refused(image) -> None:
    with pytest.raises(BoxelError, match="shifts is 3; with cells of 8 pixels give one of 1, 2 and 4"):
        predict_probabilities(Local(), image, Config(shifts=3))


def test_a_label_map_is_saved_with_the_original_ids(tmp_path) -> None:
    labels = np.array([[0, 1], [2, 1]], dtype=np.uint8)
    for ids in ((7, 0, 33), (7, 0, 459)):
        classes = tuple(Category(id, str(id)) for id in ids)
        found = LabelMap(labels, np.ones((2, 2), dtype=np.float32), classes)
        found.save(tmp_path / "m.png")
        assert np.array(Image.open(tmp_path / "m.png")).tolist() == [[7, 0], [ids[2], 0]]
        assert found.mask("0").tolist() == [[False, True], [False, True]]


def test_the_crf_refines_the_mean_of_all_passes_at_the_size_of_the_image(image) -> None:
    passes, crf = {"scales": (1.0, 0.5), "flip": True}, CRFConfig(appearance_weight=2, iterations=3)
    mean = predict_probabilities(Local(), image, Config(**passes))
    found = predict_probabilities(Local(), image, Config(**passes, crf=crf))
    torch.testing.assert_close(found, mean_field(image[None].float() / 255, mean[None], crf)[0])
    assert found.shape == (3, 88, 120) and (found - mean).abs().max() > 0.1


def test_crf_true_takes_the_settings_tuned_for_the_run() -> None:
    new = SimpleNamespace(settings={"views": {"long_side": 320}})
    tuned = SimpleNamespace(settings={"crf": {"appearance_weight": 4.0}})
    assert (
        semantic_inference_config(new)
        == semantic_inference_config(new, crf=False)
        == Config(long_side=320, crf=None)
    )
    assert semantic_inference_config(tuned).crf is None
    assert semantic_inference_config(new, crf=True) == Config(long_side=320, crf=CRFConfig())
    assert semantic_inference_config(tuned, crf=True, flip=True) == Config(
        flip=True, crf=CRFConfig(appearance_weight=4)
    )
    assert semantic_inference_config(tuned, crf=CRFConfig(iterations=1)).crf == CRFConfig(iterations=1)
