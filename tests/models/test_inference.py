"""Inference of instance segmenters: sizes, flips, scales and the resulting instances.

The model is a stand-in that detects bright rectangles, so that every box and mask can be worked out by hand.
"""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from boxel.data.annotations import Category
from boxel.masks.rle import encode, mask_iou
from boxel.models.detector import Detections, Detector, full_image_detections
from boxel.models.inference import (
    InferenceConfig,
    inference_config,
    inference_config_from_training,
    predict_batch,
)
from boxel.models.instances import Instances
from boxel.models.prediction import iter_predictions, predict
from boxel.utils.errors import BoxelError, UsageError


class BrightFinder(Detector):
    """Detects the bright rectangle of each image, if `sees(box, image)`; records the sizes of its inputs."""

    def __init__(self, sees=lambda box, image: True):
        super().__init__(2, SimpleNamespace(nms_threshold=0.6, max_detections=100))
        self.weight = nn.Parameter(torch.zeros(1))
        self.categories = (Category(5, "lamp"), Category(9, "sun"))
        self.sees, self.input_sizes = sees, []

    def detect(self, images: list[Tensor]) -> list[Detections]:
        found = []
        for image in images:
            self.input_sizes.append(tuple(image.shape[1:]))
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
                full_image_detections(
                    torch.tensor([box]).float()[: int(keep)],
                    torch.tensor([0.8 if bright.shape[1] < 200 else 0.9])[: int(keep)],
                    torch.tensor([1])[: int(keep)],
                    logits[: int(keep)],
                    stride=4,
                )
            )
        return found


def image_with(box=(8, 12, 40, 32), height=64, width=96):
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    x0, y0, x1, y1 = box
    pixels[y0:y1, x0:x1] = 255
    return pixels


UNCHANGED_SIZE = InferenceConfig(short_side=64, max_size=96)


def only(model, pixels, config=UNCHANGED_SIZE):
    (instances,) = predict_batch(model, [pixels], config)
    return instances


def assert_mask_fills(instances, box):
    """The one mask fills the box except for its corners, which grids of 4 x 4 pixels round off."""
    x0, y0, x1, y1 = box
    expected = image_with(box)[..., 0] > 0
    expected[np.ix_([y0, y1 - 1], [x0, x1 - 1])] = False
    np.testing.assert_array_equal(instances.masks[0], expected)


def test_boxes_masks_and_scores_match_hand_computed_values():
    instances = only(BrightFinder(), image_with())
    assert len(instances) == 1
    assert instances.boxes.tolist() == [[8, 12, 40, 32]]
    assert instances.boxes.dtype == np.float32
    assert instances.scores.tolist() == pytest.approx([0.8])
    assert instances.labels.tolist() == [1]
    assert instances.names == ["sun"]
    assert_mask_fills(instances, (8, 12, 40, 32))
    assert instances.to_coco("x") == [
        {
            "image_id": "x",
            "category_id": 9,
            "bbox": [8, 12, 32, 20],
            "score": 0.8,
            "segmentation": encode(instances.masks[0]),
        }
    ]


def test_an_image_without_detections_gives_empty_instances():
    for config in (UNCHANGED_SIZE, InferenceConfig(64, 96, flip=True, scales=(1.0, 2.0))):
        instances = only(BrightFinder(), image_with((0, 0, 0, 0)), config)
        assert len(instances) == 0
        assert instances.boxes.shape == (0, 4)
        assert instances.rles == instances.names == instances.to_coco(1) == []


@pytest.mark.parametrize("size", [(37, 91), (301, 77), (13, 13)])
def test_boxes_and_masks_are_in_pixels_of_the_image_whatever_the_input_size(size):
    box = (size[1] // 4, size[0] // 3, size[1] * 3 // 4, size[0] * 2 // 3)
    model = BrightFinder()
    instances = only(model, image_with(box, *size), InferenceConfig(short_side=128, max_size=512))
    assert min(model.input_sizes[0]) == 128 or max(model.input_sizes[0]) == 512
    np.testing.assert_allclose(instances.boxes[0], box, atol=0.6)
    assert instances.rles[0]["size"] == list(size)
    truth = image_with(box, *size)[..., 0] > 0
    mask = instances.masks[0]
    assert (mask & truth).sum() / (mask | truth).sum() > 0.8


def test_short_side_max_size_and_scales_determine_the_input_sizes():
    for config, sizes in [
        (InferenceConfig(128, 1000), [(128, 192)]),
        (InferenceConfig(128, 150), [(100, 150)]),
        (InferenceConfig(64, 96, scales=(0.5, 2.0)), [(32, 48), (128, 192)]),
        (InferenceConfig(64, 96, flip=True), [(64, 96)] * 2),
        (InferenceConfig(None), [(64, 96)]),
        (InferenceConfig(None, 50, scales=(0.5,)), [(32, 48)]),
    ]:
        model = BrightFinder()
        only(model, image_with(), config)
        assert model.input_sizes == sizes


def test_detections_of_the_flipped_pass_are_mapped_back():
    """A model that detects only objects on the left finds one on the right in the flipped pass."""
    model = BrightFinder(sees=lambda box, image: box[0] < 30)
    right = image_with((60, 12, 92, 32))
    assert len(only(model, right)) == 0
    instances = only(model, right, InferenceConfig(64, 96, flip=True))
    assert instances.boxes.tolist() == [[60, 12, 92, 32]]
    assert_mask_fills(instances, (60, 12, 92, 32))


@pytest.mark.parametrize("width", [96, 90, 91])
def test_predictions_with_flip_are_symmetric(width):
    """Also if the grid of masks ends in padding, and the image within a cell."""
    model = BrightFinder()
    pixels = image_with((5, 12, 41, 32), width=width)
    config = InferenceConfig(64, width, flip=True)
    plain, reversed_ = only(model, pixels, config), only(model, pixels[:, ::-1].copy(), config)
    assert len(plain) == len(reversed_) == 1
    flipped = reversed_.boxes[:, [2, 1, 0, 3]]
    flipped[:, [0, 2]] = width - flipped[:, [0, 2]]
    np.testing.assert_allclose(plain.boxes, flipped, atol=1e-4)
    away = np.abs(np.arange(width) - 5) > 3  # sides inside a cell are a matter of rounding
    away &= np.abs(np.arange(width) - 41) > 3
    np.testing.assert_array_equal(plain.masks[0][:, away], reversed_.masks[0][:, ::-1][:, away])


def test_masks_of_the_flipped_pass_ignore_the_padding():
    """An image of 91 x 64 in a padded grid."""
    model = BrightFinder(sees=lambda box, image: box[0] < 30)
    pixels = image_with((58, 12, 86, 32), width=91)
    instances = only(model, pixels, InferenceConfig(64, 91, flip=True))
    truth, mask = pixels[..., 0] > 0, instances.masks[0]
    assert (mask & truth).sum() / (mask | truth).sum() > 0.9


def test_detections_of_several_scales_are_merged():
    """An object detected in two passes is kept once, with the higher score; one of a single pass is kept."""
    both = only(BrightFinder(), image_with(), InferenceConfig(64, 96, scales=(1.0, 3.0)))
    assert both.scores.tolist() == pytest.approx([0.9])  # the stand-in's score for large inputs
    assert both.boxes.tolist() == [[8, 12, 40, 32]]
    large_only = BrightFinder(sees=lambda box, image: image.shape[2] > 200)
    assert len(only(large_only, image_with())) == 0
    instances = only(large_only, image_with(), InferenceConfig(64, 96, scales=(1.0, 3.0)))
    assert instances.boxes.tolist() == [[8, 12, 40, 32]]
    np.testing.assert_array_equal(instances.masks[0], image_with()[..., 0] > 0)  # its grid is finer


def test_merging_uses_the_nms_threshold_and_max_detections_of_the_model():
    """Boxes of IoU 1/3 in two passes are two objects, unless the threshold is lower."""
    model = BrightFinder()

    def detect(images):
        x = 0.0 if images[0].shape[2] < 100 else 32.0  # in the image: 0 and 16
        side = 32.0 if x == 0 else 64.0
        logits = torch.zeros(1, *(side // 4 for side in images[0].shape[1:]))
        return [
            full_image_detections(
                torch.tensor([[x, 0, x + side, side]]),
                torch.tensor([0.5 + x / 100]),
                torch.tensor([0]),
                logits,
                stride=4,
            )
        ]

    model.detect = detect
    config = InferenceConfig(64, 96, scales=(1.0, 2.0))
    assert only(model, image_with(), config).boxes.tolist() == [[16, 0, 48, 32], [0, 0, 32, 32]]
    model.config.nms_threshold = 0.3
    assert only(model, image_with(), config).boxes.tolist() == [[16, 0, 48, 32]]
    model.config = SimpleNamespace(nms_threshold=0.6, max_detections=1)
    assert only(model, image_with(), config).boxes.tolist() == [[16, 0, 48, 32]]


def rivals(*found):
    """A model that finds a mask of the left `columns` of 16 within a box of 16 pixels, per score, label and columns."""
    model = BrightFinder()

    def detect(images):
        scores, labels, columns = zip(*found, strict=True)
        logits = torch.full((len(found), 16, 24), -10.0)
        for mask, count in zip(logits, columns, strict=True):
            mask[:4, : count // 4] = 10
        boxes = torch.tensor([[0.0, 0, 16, 16]]).repeat(len(found), 1)
        return [full_image_detections(boxes, torch.tensor(scores), torch.tensor(labels), logits, stride=4)]

    model.detect = detect
    return model


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [0.9, 0.8, 0.7]),
        ({"class_agnostic_nms": True}, [0.9]),  # one box, so one object
        ({"mask_nms": 0.7}, [0.9, 0.8]),  # of the sun's masks, 12 of 16 columns are common
        ({"mask_nms": 0.8}, [0.9, 0.8, 0.7]),
    ],
)
def test_one_object_gets_one_instance_if_asked(settings, kept):
    """The lamp and the better sun have one mask, the other sun three quarters of it; all have one box."""
    model = rivals((0.9, 1, 16), (0.8, 0, 16), (0.7, 1, 12))
    found = only(model, image_with(), InferenceConfig(64, 96, **settings))
    assert found.scores.tolist() == pytest.approx(kept)
    assert found.labels.tolist() == [1, 0, 1][: len(kept)]


def test_masks_of_different_classes_compete_if_all_classes_do():
    """At a box threshold of 1 nothing is dropped by boxes."""
    model = rivals((0.9, 1, 16), (0.8, 0, 12), (0.7, 0, 4))
    model.config.nms_threshold = 1.0
    found = only(model, image_with(), InferenceConfig(64, 96, class_agnostic_nms=True, mask_nms=0.7))
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    assert [int(mask.sum()) for mask in found.masks][1] < 16 * 6


def test_detections_below_the_score_threshold_are_dropped():
    assert len(only(BrightFinder(), image_with(), InferenceConfig(64, 96, score_threshold=0.79))) == 1
    assert len(only(BrightFinder(), image_with(), InferenceConfig(64, 96, score_threshold=0.81))) == 0


def test_the_best_score_threshold_is_that_of_the_class_in_the_training():
    model = BrightFinder()
    with pytest.raises(UsageError, match="`score_threshold` is best, but the model has no score thresholds"):
        model.predict(image_with(), score_threshold="best")
    model.settings = {"score_thresholds": {"all": 0.9, "by_class": {"sun": 0.79}}}
    assert len(model.predict(image_with(), short_side=64, score_threshold="best")) == 1
    model.settings = {"score_thresholds": {"all": 0.1, "by_class": {"lamp": 0.1, "sun": 0.81}}}
    assert len(model.predict(image_with(), short_side=64, score_threshold="best")) == 0
    assert len(model.predict(image_with(), short_side=64)) == 1
    with pytest.raises(
        BoxelError, match=r"score_threshold is bets; give a number from 0 to 1 or best\. Did you mean"
    ):
        model.predict(image_with(), score_threshold="bets")


def test_paths_pil_images_and_arrays_give_the_same(tmp_path):
    pixels = image_with()
    Image.fromarray(pixels).save(tmp_path / "image.png")
    read_only = pixels.copy()
    read_only.flags.writeable = False
    inputs = [tmp_path / "image.png", str(tmp_path / "image.png"), Image.fromarray(pixels), pixels]
    inputs += [np.ascontiguousarray(pixels[:, :, ::-1])[:, :, ::-1], read_only]  # OpenCV's order reversed
    for source in inputs:
        instances = BrightFinder().predict(source, short_side=64, max_size=96)
        assert instances.boxes.tolist() == [[8, 12, 40, 32]]
    colors = np.zeros((64, 96, 3), dtype=np.uint8)
    colors[..., 0] = 200
    inputs = []
    model = BrightFinder()
    model.detect = lambda images: inputs.extend(images) or BrightFinder().detect(images)
    model.predict([colors, Image.fromarray(colors)])
    for image in inputs:
        torch.testing.assert_close(image[:, 0, 0], torch.tensor([200 / 255, 0, 0]))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_predictions_keep_the_order_of_the_sources(batch_size):
    boxes = [(8, 12, 40, 32), (20, 4, 60, 24), (0, 0, 32, 64)]
    sources = [image_with(box) for box in boxes]
    predictions = list(iter_predictions(BrightFinder(), sources, UNCHANGED_SIZE, batch_size))
    assert [tuple(prediction.result.boxes[0]) for prediction in predictions] == boxes
    assert [prediction.index for prediction in predictions] == [0, 1, 2]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_unreadable_image_is_skipped_and_reported_once(tmp_path, caplog, batch_size):
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    errors = []
    sources = [image_with(), tmp_path / "bad.jpg", image_with()]
    predictions = list(iter_predictions(BrightFinder(), sources, UNCHANGED_SIZE, batch_size, errors=errors))
    assert [prediction.index for prediction in predictions] == [0, 2]
    assert len(errors) == len(caplog.records) == 1 and "bad.jpg" in errors[0]


def test_inference_config_is_that_of_the_training():
    def own(**settings):
        return inference_config_from_training(settings)

    assert own(augment={"short_sides": [288, 352, 320], "max_size": 544}) == InferenceConfig(352, 544)
    assert own() == InferenceConfig(800, 1333)
    assert own(views={"long_side": 320}) == InferenceConfig(320, 320)
    assert own(views={"long_side": None}).short_side is None
    with pytest.raises(BoxelError, match=r"the model \(SimpleNamespace\) predicts no instances"):
        inference_config(SimpleNamespace(settings={}))


@pytest.mark.parametrize(
    "setting",
    [{"short_side": 0}, {"max_size": 0}, {"scales": ()}, {"scales": (1.0, -1.0)}, {"score_threshold": 2.0}],
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(BoxelError, match=next(iter(setting))):
        InferenceConfig(**setting)


def test_the_training_determines_the_input_size_by_default():
    model = BrightFinder()
    model.settings = {"augment": {"short_sides": [32], "max_size": 100}}
    model.predict(image_with())
    assert model.input_sizes == [(32, 48)]


def test_short_side_alone_scales_the_max_size_of_the_training():
    model = BrightFinder()
    model.settings = {"augment": {"short_sides": [32], "max_size": 40}}
    assert inference_config(model, short_side=64) == InferenceConfig(64, 80)
    assert inference_config(model, short_side=64, max_size=70) == InferenceConfig(64, 70)


@pytest.mark.parametrize(
    ("setting", "meant"), [("conf", "score_threshold"), ("imgsz", "short_side"), ("flips", "flip")]
)
def test_an_unknown_setting_names_the_nearest(setting, meant):
    with pytest.raises(
        UsageError, match=rf"predict\(\) got an unknown setting '{setting}'; did you mean '{meant}'\?$"
    ):
        BrightFinder().predict(image_with(), **{setting: 1})


class LeftHalfFinder(BrightFinder):
    """Two cells per box, of which the left one is foreground."""

    def detect(self, images: list[Tensor]) -> list[Detections]:
        cells = torch.tensor([[[1.0, -1.0]]])
        found = super().detect(images)
        return [Detections(*f[:3], cells.expand(len(f.boxes), 1, 2), f.boxes, f.boxes) for f in found]


@pytest.mark.parametrize("size", [(64, 96), (32, 48), (160, 240)])
def test_masks_over_windows_are_in_pixels_of_the_image(size):
    instances = only(LeftHalfFinder(), image_with((16, 12, 48, 32)), InferenceConfig(*size))
    np.testing.assert_array_equal(instances.masks[0], image_with((16, 12, 32, 32))[..., 0] > 0)


@pytest.mark.parametrize("width", [96, 95])
def test_masks_over_windows_of_the_flipped_pass_are_flipped_back(width):
    """The left half in the flipped image is the right half."""
    model = LeftHalfFinder(sees=lambda box, image: box[0] < 30)
    pixels = image_with((60, 12, 92, 32), width=width)
    assert len(only(model, pixels, InferenceConfig(64, width))) == 0
    instances = only(model, pixels, InferenceConfig(64, width, flip=True))
    np.testing.assert_array_equal(instances.masks[0], image_with((76, 12, 92, 32), width=width)[..., 0] > 0)


class NarrowFinder(BrightFinder):
    """Boxes that end 8 pixels (of an image of 96 pixels) too early on the right; masks grow by a share of them."""

    def __init__(self, margin, sees=lambda box, image: True):
        super().__init__(sees)
        self.margin = margin

    def detect(self, images: list[Tensor]) -> list[Detections]:
        found = []
        for image, full in zip(images, super().detect(images), strict=True):
            boxes = full.boxes - image.shape[-1] / 96 * torch.tensor([0, 0, 8, 0])
            found.append(full_image_detections(boxes, *full[1:4], stride=4, margin=self.margin))
        return found


@pytest.mark.parametrize(
    ("margin", "end"), [(None, 40), (0.0, 32), (1 / 6, 36)], ids=["whole image", "box", "grown box"]
)
def test_masks_reach_beyond_their_boxes_by_the_margin(margin, end):
    """The object is [8, 40), its box [8, 32), 24 pixels wide."""
    pixels = image_with()
    for config in (UNCHANGED_SIZE, InferenceConfig(64, 96, scales=(1.0, 3.0)), InferenceConfig(128, 192)):
        instances = only(NarrowFinder(margin), pixels, config)
        assert instances.boxes.tolist() == [[8, 12, 32, 32]]
        columns = instances.masks[0].any(0).nonzero()[0]
        assert (columns[0], columns[-1] + 1) == (8, end)


@pytest.mark.parametrize(("margin", "start"), [(None, 60), (0.0, 68), (1 / 6, 64)])
def test_masks_of_the_flipped_pass_reach_beyond_their_boxes(margin, start):
    """Seen in the flipped pass only, the right end there is the left end of the object, [60, 92)."""
    model = NarrowFinder(margin, sees=lambda box, image: box[0] < 30)
    instances = only(model, image_with((60, 12, 92, 32)), InferenceConfig(64, 96, flip=True))
    assert instances.boxes.tolist() == [[68, 12, 92, 32]]
    columns = instances.masks[0].any(0).nonzero()[0]
    assert (columns[0], columns[-1] + 1) == (start, 92)


def test_predict_takes_one_image_or_several_and_keeps_the_mode():
    model = BrightFinder()
    model.settings = {"augment": {"short_sides": [64], "max_size": 96}}
    assert model.train().predict(image_with()).boxes.tolist() == [[8, 12, 40, 32]]
    assert model.training
    for several in ([image_with()], (image_with(), image_with())):
        assert [len(found) for found in model.predict(several, score_threshold=0.9)] == [0] * len(several)
    assert model.eval().predict([]) == []
    assert not model.training
    with pytest.raises(BoxelError):
        model.train().predict("none.jpg")
    assert model.training


def test_instances_hold_arrays_and_no_tensors():
    instances = only(BrightFinder(), image_with())
    assert isinstance(instances, Instances)
    assert all(isinstance(v, np.ndarray) for v in (instances.boxes, instances.scores, instances.labels))
    assert isinstance(instances.rles[0]["counts"], str)


# ---------------------------------------------------------------- tiles


class BlobFinder(Detector):
    """Detects each bright blob of an image, as far as it is visible."""

    def __init__(self):
        super().__init__(1, SimpleNamespace(nms_threshold=0.6, max_detections=100))
        self.weight = nn.Parameter(torch.zeros(1))
        self.input_sizes = []

    def detect(self, images: list[Tensor]) -> list[Detections]:
        found = []
        for image in images:
            self.input_sizes.append(tuple(image.shape[1:]))
            bright = (image.mean(0) > 0.5).numpy().astype(np.uint8)
            count, blobs, stats, _ = cv2.connectedComponentsWithStats(bright)
            boxes = torch.tensor(stats[1:, :4].astype(np.float32)).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            masks = torch.from_numpy(np.stack([blobs == k + 1 for k in range(count - 1)] or [bright[:0]]))
            scores = torch.full((count - 1,), 0.9)
            logits = masks.float()[: count - 1] * 20 - 10
            windows = torch.tensor([0.0, 0, image.shape[2], image.shape[1]]).expand(count - 1, 4)
            found.append(Detections(boxes, scores, torch.zeros(count - 1).long(), logits, windows, windows))
        return found


@pytest.fixture
def blobs():
    """(400, 600, 3): discs apart from each other, one of them larger than a tile of 128 pixels, and a ring."""
    pixels = np.zeros((400, 600, 3), dtype=np.uint8)
    for x, y, radius in [
        (60, 60, 9),
        (128, 60, 20),
        (97, 130, 30),
        (300, 220, 90),
        (500, 90, 50),
        (597, 397, 30),
    ]:
        cv2.circle(pixels, (x, y), radius, (255, 255, 255), -1)
    cv2.ellipse(pixels, (120, 310), (90, 60), 20, 0, 360, (255, 255, 255), 12)
    return pixels


@pytest.mark.parametrize("settings", [{}, {"flip": True}, {"scales": (1.0, 0.5)}])
def test_objects_in_tiles_are_those_of_the_whole_image(blobs, settings) -> None:
    model = BlobFinder()
    whole = model.predict(blobs, short_side=None)
    assert len(whole) == 7
    tiled = model.predict(blobs, short_side=128, max_size=128, tile=128, **settings)
    assert len(tiled) == 7 and tiled.image_size == (400, 600)
    for instance in whole:
        ious = [mask_iou(instance.rles[0], rle) for rle in tiled.rles]
        assert sorted(iou > 0.1 for iou in ious) == [False] * 6 + [True]
        assert max(ious) >= 0.95


def test_a_tile_that_shows_too_little_is_refused() -> None:
    with pytest.raises(BoxelError, match="tile is 16; give a number from 32 up"):
        InferenceConfig(tile=16)


@pytest.mark.parametrize(("short_side", "expected"), [(128, (128, 128)), (64, (64, 64)), (256, (256, 256))])
def test_tiles_are_resized_like_images_of_their_size(blobs, short_side, expected) -> None:
    model = BlobFinder()
    model.predict(blobs, short_side=short_side, max_size=1000, tile=128)
    assert set(model.input_sizes) == {expected} and len(model.input_sizes) == 4 * 6
    model.input_sizes.clear()
    model.predict(blobs[:100, :120], short_side=50, max_size=1000, tile=128)  # no larger than a tile
    assert model.input_sizes == [(50, 60)]
    model.input_sizes.clear()
    model.predict(blobs[:64], short_side=short_side, max_size=1000, tile=128)  # thin tiles, at the same scale
    assert set(model.input_sizes) == {(expected[0] // 2, expected[1])}


def test_a_folder_is_predicted_in_tiles_with_as_many_per_pass_as_wanted(blobs, tmp_path) -> None:
    Image.fromarray(blobs).save(tmp_path / "a.png")
    Image.fromarray(blobs[::-1]).save(tmp_path / "b.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "a.png").read_bytes()[:900])
    model, errors = BlobFinder().eval(), []
    config = InferenceConfig(short_side=128, max_size=128, tile=128)
    passes = []
    detect = model.detect
    model.detect = lambda images: passes.append(len(images)) or detect(images)
    sources = sorted(tmp_path.glob("*.png"))
    found = list(iter_predictions(model, sources, config, batch_size=5, errors=errors))
    assert [prediction.index for prediction in found] == [0, 1] and [len(one.result) for one in found] == [
        7,
        7,
    ]
    assert passes == [5, 5, 5, 5, 4] * 2 and len(errors) == 1 and "torn.png" in errors[0]
    assert found[0].size == (400, 600) and found[0].image.shape == (400, 600, 3)


def test_an_image_that_is_shrunk_to_less_than_a_quarter_is_announced_once(blobs, tmp_path, caplog) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(blobs).save(tmp_path / name)
    model, sources = BlobFinder().eval(), sorted(tmp_path.glob("*.png"))
    list(iter_predictions(model, sources, InferenceConfig(short_side=100, max_size=1000)))
    list(iter_predictions(model, sources, InferenceConfig(short_side=80, max_size=80, tile=400)))
    assert caplog.messages == []
    list(iter_predictions(model, sources, InferenceConfig(short_side=90, max_size=1000)))
    (message,) = caplog.messages
    assert (
        message.startswith(f"{sources[0]}: its 600 x 400 pixels are shrunk to 135 x 90")
        and "`tile`" in message
    )


def test_predicting_a_geotiff_reads_parts_alone_and_writes_geojson(blobs, tmp_path, monkeypatch) -> None:
    rasterio = pytest.importorskip("rasterio")
    layout = {"tiled": True, "blockxsize": 128, "blockysize": 128, "photometric": "rgb", "crs": "EPSG:32633"}
    transform = rasterio.transform.from_origin(389000, 5819000, 0.5, 0.5)
    with rasterio.open(
        *(tmp_path / "a.tif", "w"), "GTiff", 600, 400, 3, dtype="uint8", transform=transform, **layout
    ) as file:
        file.write(blobs.transpose(2, 0, 1))
    monkeypatch.setattr("boxel.data.images.MAX_PIXELS", 100_000)
    model = BlobFinder().eval()
    summary = predict(
        model, tmp_path / "a.tif", tmp_path / "a.geojson", short_side=128, max_size=128, tile=128
    )
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert summary.instances == len(features) == 7
    assert features[0]["properties"] == {"category": "0", "score": 0.9, "image": "a.tif"}
    with pytest.raises(BoxelError, match="more than 100000 pixels"):
        model.predict(tmp_path / "a.tif")
    monkeypatch.undo()
    Image.fromarray(blobs).save(tmp_path / "b.png")
    with pytest.raises(BoxelError, match=r"b.png: the image has no coordinate system"):
        predict(model, tmp_path / "b.png", tmp_path / "b.geojson")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_a_large_tiff_is_never_held_as_a_whole(tmp_path) -> None:
    """Of 8000 x 8000 pixels, 192 MB, no more than some tiles are in memory."""
    rasterio = pytest.importorskip("rasterio")
    layout = {
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "deflate",
        "photometric": "rgb",
    }
    with rasterio.open(tmp_path / "a.tif", "w", "GTiff", 8000, 8000, 3, dtype="uint8", **layout) as file:
        file.write(np.full((3, 100, 100), 255, np.uint8), window=((950, 1050), (950, 1050)))
    code = f"""
    import os, resource, sys
    os.environ["GDAL_CACHEMAX"] = "16"
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from test_inference import BlobFinder
    from boxel.models import InferenceConfig
    from boxel.models.tiles import predict_in_tiles
    from boxel.data.windows import open_windows
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    model, config = BlobFinder().eval(), InferenceConfig(short_side=256, max_size=256, tile=1000)
    before = []
    with open_windows({str(tmp_path / "a.tif")!r}) as image:
        from boxel.masks.boxes import Region
        image.read(Region(0, 0, 1000, 1000))
        before = peak()
        found = predict_in_tiles(image, model.predict_batch, config)
    print(len(found), found.rles[0]["size"], peak() - before < 100)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300
    )
    assert run.stdout.strip() == "1 [8000, 8000] True", run.stderr
