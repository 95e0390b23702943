"""Prediction on photos: sizes, mirrored looks, several scales, and what comes out.

The model is a stand-in that finds what is bright, so that every box and mask can be worked out by hand.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from boxel.data.annotations import Category
from boxel.masks.rle import encode
from boxel.models.detector import Detections, over_image
from boxel.models.predict import (
    Instances,
    PredictConfig,
    own_config,
    predict,
    predict_batch,
    predict_photos,
)
from boxel.utils.errors import BoxelError


class BrightFinder(nn.Module):
    """Finds the bright rectangle of each image, if `sees(box, image)`; remembers the sizes it was shown."""

    def __init__(self, sees=lambda box, image: True):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(nms_threshold=0.6, max_detections=100)
        self.categories = (Category(5, "lamp"), Category(9, "sun"))
        self.sees, self.shown = sees, []

    def detect(self, images: list[Tensor]) -> list[Detections]:
        found = []
        for image in images:
            self.shown.append(tuple(image.shape[1:]))
            bright = image.mean(0) > 0.5
            rows, columns = bright.any(1).nonzero(), bright.any(0).nonzero()
            box = [0, 0, 0, 0]
            if len(rows):
                box = [int(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]
            keep = len(rows) > 0 and self.sees(box, image)
            height, width = (-(-side // 32) * 32 for side in bright.shape)  # padded, as models do
            padded = torch.zeros(1, height, width)
            padded[:, : bright.shape[0], : bright.shape[1]] = bright
            logits = nn.functional.avg_pool2d(padded, 4) * 20 - 10
            found.append(
                over_image(
                    torch.tensor([box]).float()[: int(keep)],
                    torch.tensor([0.8 if bright.shape[1] < 200 else 0.9])[: int(keep)],
                    torch.tensor([1])[: int(keep)],
                    logits[: int(keep)],
                    stride=4,
                )
            )
        return found


def photo(box=(8, 12, 40, 32), height=64, width=96):
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    x0, y0, x1, y1 = box
    pixels[y0:y1, x0:x1] = 255
    return pixels


AS_IT_IS = PredictConfig(short_side=64, max_size=96)


def only(model, pixels, config=AS_IT_IS):
    (instances,) = predict_batch(model, [pixels], config)
    return instances


def assert_shows(instances, box):
    """The one mask fills the box but for its corners, which grids of 4 x 4 pixels round off."""
    x0, y0, x1, y1 = box
    expected = photo(box)[..., 0] > 0
    expected[np.ix_([y0, y1 - 1], [x0, x1 - 1])] = False
    np.testing.assert_array_equal(instances.mask(0), expected)


def test_by_hand():
    instances = only(BrightFinder(), photo())
    assert len(instances) == 1
    assert instances.boxes.tolist() == [[8, 12, 40, 32]]
    assert instances.boxes.dtype == np.float32
    assert instances.scores.tolist() == pytest.approx([0.8])
    assert instances.labels.tolist() == [1]
    assert instances.names == ["sun"]
    assert_shows(instances, (8, 12, 40, 32))
    assert instances.as_coco("x") == [
        {
            "image_id": "x",
            "category_id": 9,
            "bbox": [8, 12, 32, 20],
            "score": 0.8,
            "segmentation": encode(instances.mask(0)),
        }
    ]


def test_nothing_found():
    for config in (AS_IT_IS, PredictConfig(64, 96, flip=True, scales=(1.0, 2.0))):
        instances = only(BrightFinder(), photo((0, 0, 0, 0)), config)
        assert len(instances) == 0
        assert instances.boxes.shape == (0, 4)
        assert instances.masks == instances.names == instances.as_coco(1) == []


@pytest.mark.parametrize("size", [(37, 91), (301, 77), (13, 13)])
def test_any_size(size):
    """Boxes and masks are those of the photo, whatever size the model saw."""
    box = (size[1] // 4, size[0] // 3, size[1] * 3 // 4, size[0] * 2 // 3)
    model = BrightFinder()
    instances = only(model, photo(box, *size), PredictConfig(short_side=128, max_size=512))
    assert min(model.shown[0]) == 128 or max(model.shown[0]) == 512
    np.testing.assert_allclose(instances.boxes[0], box, atol=0.6)
    assert instances.masks[0]["size"] == list(size)
    truth = photo(box, *size)[..., 0] > 0
    mask = instances.mask(0) > 0
    assert (mask & truth).sum() / (mask | truth).sum() > 0.8


def test_short_side_max_size_and_scales_are_what_the_model_sees():
    for config, sizes in [
        (PredictConfig(128, 1000), [(128, 192)]),
        (PredictConfig(128, 150), [(100, 150)]),
        (PredictConfig(64, 96, scales=(0.5, 2.0)), [(32, 48), (128, 192)]),
        (PredictConfig(64, 96, flip=True), [(64, 96)] * 2),
        (PredictConfig(None), [(64, 96)]),
        (PredictConfig(None, 50, scales=(0.5,)), [(32, 48)]),
    ]:
        model = BrightFinder()
        only(model, photo(), config)
        assert model.shown == sizes


def test_flip_shows_the_mirrored_photo():
    """A model that sees only what is left: the mirrored look finds what is right, and it is put back there."""
    model = BrightFinder(sees=lambda box, image: box[0] < 30)
    right = photo((60, 12, 92, 32))
    assert len(only(model, right)) == 0
    instances = only(model, right, PredictConfig(64, 96, flip=True))
    assert instances.boxes.tolist() == [[60, 12, 92, 32]]
    assert_shows(instances, (60, 12, 92, 32))


@pytest.mark.parametrize("width", [96, 90, 91])
def test_flip_gives_the_same_for_the_mirrored_photo(width):
    """Also where the grid of masks ends in padding, and the photo within a cell."""
    model = BrightFinder()
    pixels = photo((5, 12, 41, 32), width=width)
    config = PredictConfig(64, width, flip=True)
    plain, mirrored = only(model, pixels, config), only(model, pixels[:, ::-1].copy(), config)
    assert len(plain) == len(mirrored) == 1
    flipped = mirrored.boxes[:, [2, 1, 0, 3]]
    flipped[:, [0, 2]] = width - flipped[:, [0, 2]]
    np.testing.assert_allclose(plain.boxes, flipped, atol=1e-4)
    away = np.abs(np.arange(width) - 5) > 3  # sides inside a cell are a matter of rounding
    away &= np.abs(np.arange(width) - 41) > 3
    np.testing.assert_array_equal(plain.mask(0)[:, away], mirrored.mask(0)[:, ::-1][:, away])


def test_a_mirrored_look_alone_lands_on_the_object():
    """Photo of 91 x 64 in a padded grid: the mask is where the object is, not where the padding puts it."""
    model = BrightFinder(sees=lambda box, image: box[0] < 30)
    pixels = photo((58, 12, 86, 32), width=91)
    instances = only(model, pixels, PredictConfig(64, 91, flip=True))
    truth, mask = pixels[..., 0] > 0, instances.mask(0) > 0
    assert (mask & truth).sum() / (mask | truth).sum() > 0.9


def test_scales_are_merged():
    """One object in two looks is one finding, the better one; what a single scale finds is kept."""
    both = only(BrightFinder(), photo(), PredictConfig(64, 96, scales=(1.0, 3.0)))
    assert both.scores.tolist() == pytest.approx([0.9])  # the finder is surer of large images
    assert both.boxes.tolist() == [[8, 12, 40, 32]]
    large_only = BrightFinder(sees=lambda box, image: image.shape[2] > 200)
    assert len(only(large_only, photo())) == 0
    instances = only(large_only, photo(), PredictConfig(64, 96, scales=(1.0, 3.0)))
    assert instances.boxes.tolist() == [[8, 12, 40, 32]]
    np.testing.assert_array_equal(instances.mask(0), photo()[..., 0] > 0)  # its grid is finer


def test_merging_obeys_the_models_limits():
    """Looks that disagree: boxes of IoU 1/3 are two objects, unless the model's threshold is lower."""
    model = BrightFinder()

    def detect(images):
        x = 0.0 if images[0].shape[2] < 100 else 32.0  # in the photo: 0 and 16
        side = 32.0 if x == 0 else 64.0
        logits = torch.zeros(1, *(side // 4 for side in images[0].shape[1:]))
        return [
            over_image(
                torch.tensor([[x, 0, x + side, side]]),
                torch.tensor([0.5 + x / 100]),
                torch.tensor([0]),
                logits,
                stride=4,
            )
        ]

    model.detect = detect
    config = PredictConfig(64, 96, scales=(1.0, 2.0))
    assert only(model, photo(), config).boxes.tolist() == [[16, 0, 48, 32], [0, 0, 32, 32]]
    model.config.nms_threshold = 0.3
    assert only(model, photo(), config).boxes.tolist() == [[16, 0, 48, 32]]
    model.config = SimpleNamespace(nms_threshold=0.6, max_detections=1)
    assert only(model, photo(), config).boxes.tolist() == [[16, 0, 48, 32]]


def test_score_is_the_lowest_given_out():
    assert len(only(BrightFinder(), photo(), PredictConfig(64, 96, score=0.79))) == 1
    assert len(only(BrightFinder(), photo(), PredictConfig(64, 96, score=0.81))) == 0


def test_photos_in_every_form(tmp_path):
    pixels = photo()
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    read_only = pixels.copy()
    read_only.flags.writeable = False
    forms = [tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(pixels), pixels]
    forms += [np.ascontiguousarray(pixels[:, :, ::-1])[:, :, ::-1], read_only]  # OpenCV's order turned round
    for form in forms:
        (instances,) = predict(BrightFinder(), form, AS_IT_IS)
        assert instances.boxes.tolist() == [[8, 12, 40, 32]]
    colors = np.zeros((64, 96, 3), dtype=np.uint8)
    colors[..., 0] = 200
    seen = []
    model = BrightFinder()
    model.sees = lambda box, image: True
    model.detect = lambda images: seen.extend(images) or BrightFinder().detect(images)
    list(predict(model, [colors, Image.fromarray(colors)], AS_IT_IS))
    for image in seen:
        torch.testing.assert_close(image[:, 0, 0], torch.tensor([200 / 255, 0, 0]))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_give_the_photos_in_their_order(batch_size):
    boxes = [(8, 12, 40, 32), (20, 4, 60, 24), (0, 0, 32, 64)]
    found = list(predict(BrightFinder(), [photo(box) for box in boxes], AS_IT_IS, batch_size))
    assert [tuple(instances.boxes[0]) for instances in found] == boxes


def test_a_bad_photo_raises_where_its_turn_comes(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    instances = predict(BrightFinder(), [photo(), tmp_path / "bad.jpg", photo()], AS_IT_IS)
    assert len(next(instances)) == 1
    with pytest.raises(BoxelError, match=r"bad\.jpg"):
        next(instances)


def test_own_config_is_the_size_of_training():
    def own(**settings):
        return own_config(SimpleNamespace(settings=settings, detect=None))

    assert own(augment={"short_sides": [288, 352, 320], "max_size": 544}) == PredictConfig(352, 544)
    assert own() == PredictConfig(800, 1333)
    jittered = {"short_sides": [288, 352], "max_size": 544, "scale_jitter": [0.1, 2.0]}
    assert own(augment=jittered) == PredictConfig(352, 352)
    assert own(views={"long_side": 320}) == PredictConfig(320, 320)
    assert own(views={"long_side": None}).short_side is None
    with pytest.raises(BoxelError, match="a SimpleNamespace finds no instances"):
        own_config(SimpleNamespace(settings={}))


@pytest.mark.parametrize(
    "setting", [{"short_side": 0}, {"max_size": 0}, {"scales": ()}, {"scales": (1.0, -1.0)}, {"score": 2.0}]
)
def test_settings_that_mean_nothing(setting):
    with pytest.raises(BoxelError, match=next(iter(setting))):
        PredictConfig(**setting)


def test_own_config_is_used_where_none_is_given():
    model = BrightFinder()
    model.settings = {"augment": {"short_sides": [32], "max_size": 100}}
    list(predict(model, photo()))
    assert model.shown == [(32, 48)]


class LeftHalfFinder(BrightFinder):
    """Two cells over each box, of which the left one is on."""

    def detect(self, images: list[Tensor]) -> list[Detections]:
        cells = torch.tensor([[[1.0, -1.0]]])
        return [Detections(*f[:3], cells.expand(len(f.boxes), 1, 2), f.boxes) for f in super().detect(images)]


@pytest.mark.parametrize("size", [(64, 96), (32, 48), (160, 240)])
def test_masks_over_windows_lie_in_the_photos_pixels(size):
    instances = only(LeftHalfFinder(), photo((16, 12, 48, 32)), PredictConfig(*size))
    np.testing.assert_array_equal(instances.mask(0), photo((16, 12, 32, 32))[..., 0] > 0)


@pytest.mark.parametrize("width", [96, 95])
def test_masks_over_windows_seen_in_a_mirror(width):
    """What is found there alone is put back on its side: the left half in the mirror is the right one."""
    model = LeftHalfFinder(sees=lambda box, image: box[0] < 30)
    pixels = photo((60, 12, 92, 32), width=width)
    assert len(only(model, pixels, PredictConfig(64, width))) == 0
    instances = only(model, pixels, PredictConfig(64, width, flip=True))
    np.testing.assert_array_equal(instances.mask(0), photo((76, 12, 92, 32), width=width)[..., 0] > 0)


def test_predict_photos_takes_one_or_several_and_leaves_the_mode():
    model = BrightFinder()
    model.settings = {"augment": {"short_sides": [64], "max_size": 96}}
    assert predict_photos(model.train(), photo()).boxes.tolist() == [[8, 12, 40, 32]]
    assert model.training
    for several in ([photo()], (photo(), photo())):
        assert [len(found) for found in predict_photos(model, several, score=0.9)] == [0] * len(several)
    assert predict_photos(model.eval(), []) == []
    assert not model.training
    with pytest.raises(BoxelError):
        predict_photos(model.train(), "none.jpg")
    assert model.training


def test_instances_know_nothing_of_torch():
    instances = only(BrightFinder(), photo())
    assert isinstance(instances, Instances)
    assert all(isinstance(v, np.ndarray) for v in (instances.boxes, instances.scores, instances.labels))
    assert isinstance(instances.masks[0]["counts"], str)
