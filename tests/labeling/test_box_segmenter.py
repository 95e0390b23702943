"""`boxel.BoxSegmenter`: the masks of `boxel label`, on single images."""

import msgspec
import numpy as np
import pytest
from PIL import Image

from boxel.data import read
from boxel.data.images import read_image
from boxel.data.synthetic import write_scenes
from boxel.labeling import BoxSegmenter, SoftMask, label
from boxel.masks import decode, tight_boxes
from boxel.utils.errors import BoxelError, UsageError

IMAGE = np.full((40, 60, 3), 90, np.uint8)
BOXES = [[10.0, 5, 40, 35], [20, 10, 30, 20]]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 2, height=160, width=224)
    return read(folder / "masks.json").without_masks()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("teacher", "settings"),
    [
        ("boxcaseg", {}),
        (["boxcaseg", "grabcut-ellipse"], {"merge": "smaller", "drop": 0.6, "box_slack": 0.1}),
    ],
)
def test_masks_equal_those_of_label(scenes, teacher, settings):
    made = label(scenes, teacher=teacher, **settings)
    segmenter = BoxSegmenter(teacher, **settings)
    for image in range(len(scenes)):
        own = scenes.instances_in(image)
        result = segmenter(scenes.image_path(image), scenes.boxes[own])
        assert [msgspec.json.encode(rle) for rle in result.rles] == made.segmentations[own].tolist()
        np.testing.assert_array_equal(result.quality.astype(np.float32), made.quality[own])
        np.testing.assert_array_equal(result.trusted, made.trusted[own])
        np.testing.assert_array_equal(result.boxes, tight_boxes(result.masks))
        assert ((result.scores > 0) & (result.scores <= 1)).all()


@pytest.mark.slow
def test_any_kind_of_image(scenes):
    segmenter, path = BoxSegmenter("grabcut-ellipse"), scenes.image_path(0)
    pixels, boxes = read_image(path), scenes.boxes[scenes.instances_in(0)]
    expected = segmenter(path, boxes).masks
    alpha = np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8)])
    for image in (pixels, str(path), Image.fromarray(pixels), pixels / 255, alpha):
        np.testing.assert_array_equal(segmenter(image, boxes.tolist()).masks, expected)
    gray = pixels[..., 0]
    np.testing.assert_array_equal(
        segmenter(gray, boxes).masks, segmenter(gray[..., None].repeat(3, 2), boxes).masks
    )
    with pytest.raises(BoxelError, match=r"float images must be in \[0, 1\]"):
        segmenter(pixels.astype(float), boxes)


def test_a_list_of_images_gives_a_list_of_results(scenes):
    segmenter = BoxSegmenter("ellipse")
    paths = [scenes.image_path(image) for image in range(2)]
    boxes = [scenes.boxes[scenes.instances_in(image)] for image in range(2)]
    results = segmenter(paths, boxes, [["thing"] * len(own) for own in boxes])
    for path, own, result in zip(paths, boxes, results, strict=True):
        np.testing.assert_array_equal(result.masks, segmenter(path, own).masks)
        assert result.labels == ["thing"] * len(own)
    with pytest.raises(UsageError, match="2 images have 1 arrays of boxes and 2 lists of labels"):
        segmenter(paths, boxes[:1])


def test_boxes_without_a_mask_are_empty():
    class Blind:
        name = "blind"

        def __call__(self, image, boxes, labels):
            assert len(boxes) == 2  # only those with an area in the image
            logits = [5.0, -5.0]
            return [SoftMask(np.full((1, 1), x), tuple(b)) for x, b in zip(logits, boxes, strict=True)]

    boxes = [
        [10, 5, 40, 35],
        [80, 5, 90, 9],
        [5, 5, 5, 9],
        [np.nan, 0, 4, 4],
        [0, 0, np.inf, 8],
        [0, 0, 8, 8],
    ]
    result = BoxSegmenter(Blind())(IMAGE, boxes)
    assert result.masks.sum(axis=(1, 2)).tolist() == [900, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(result.boxes, boxes)
    assert np.isfinite(result.quality).tolist() == [True, False, False, False, False, False]
    assert result.scores.tolist() == [1, 0, 0, 0, 0, 0]
    assert result.trusted.tolist() == [True, False, False, False, False, False]
    assert result.plot().shape == IMAGE.shape


def test_no_boxes():
    for boxes in ([], np.zeros((0, 4))):
        result = BoxSegmenter("ellipse")(IMAGE, boxes)
        assert len(result) == 0 and result.masks.shape == (0, 40, 60) and result.boxes.shape == (0, 4)
        np.testing.assert_array_equal(result.plot(), IMAGE)


def test_results_can_be_indexed_and_shown():
    result = BoxSegmenter("ellipse")(IMAGE, BOXES, labels=["cat", "dog"])
    assert len(result) == 2 and [len(one) for one in result] == [1, 1]
    assert result[np.array([False, True])].labels == result[1].labels == result[-1:].labels == ["dog"]
    np.testing.assert_array_equal(result[1].masks[0], decode(result.rles[1]))
    assert repr(result).startswith("BoxMasks(2 in 60 x 40 pixels, mean quality 0.")
    assert result._repr_png_().startswith(b"\x89PNG") and (result.plot() != IMAGE).any()


@pytest.mark.slow
def test_supervision_takes_the_result():
    pytest.importorskip("supervision")
    segmenter = BoxSegmenter("ellipse")
    detections = segmenter(IMAGE, BOXES, labels=["cat", "dog"]).to_supervision()
    assert len(detections) == 2 and detections["class_name"].tolist() == ["cat", "dog"]
    assert detections.mask.shape == (2, 40, 60) and len(detections["quality"]) == 2
    assert segmenter(IMAGE, BOXES, labels=[3, 7]).to_supervision().class_id.tolist() == [3, 7]
    assert segmenter(IMAGE, BOXES).to_supervision().class_id is None


def test_categories_reach_teachers():
    seen = []

    class Labels:
        name = "labels"

        def __call__(self, image, boxes, labels):
            seen.append(labels.tolist())
            return [SoftMask(np.full((1, 1), 5.0), tuple(box)) for box in boxes]

    segmenter = BoxSegmenter(Labels(), categories=["cat", "dog"])
    for labels in (["dog", "cat"], [1, 0], None):
        segmenter(IMAGE, BOXES, labels)
    assert seen == [[1, 0], [1, 0], [2, 2]]
    with pytest.raises(UsageError, match=r"there is no category 'dogg'\. Did you mean 'dog'\?"):
        segmenter(IMAGE, BOXES, ["dogg", "cat"])
    with pytest.raises(UsageError, match="label 2 is not an index of the 2 categories"):
        segmenter(IMAGE, BOXES, [2, 0])


@pytest.mark.parametrize(
    ("boxes", "labels", "message"),
    [
        ([1, 2, 3, 4], None, r"boxes have shape \(4,\).* a single box is \[\[x0, y0, x1, y1\]\]"),
        ([[1, 2, 3]], None, r"boxes have shape \(1, 3\); give \(N, 4\) xyxy pixels\."),
        ("boxes.json", None, "boxes cannot be of type str"),
        ([["a", "b", "c", "d"]], None, "boxes are not an array of numbers"),
        ([[1, 2, 3, 4], [1, 2]], None, "boxes are not an array of numbers"),
        (BOXES, ["cat"], "2 boxes have 1 labels"),
    ],
)
def test_wrong_boxes_and_labels_are_one_sentence(boxes, labels, message):
    with pytest.raises(UsageError, match=message):
        BoxSegmenter("ellipse")(IMAGE, boxes, labels)


def test_wrong_settings_are_one_sentence():
    with pytest.raises(BoxelError, match=r"no setting 'dropp'\. Did you mean 'drop'\?"):
        BoxSegmenter("ellipse", dropp=0.5)
    with pytest.raises(BoxelError, match="drop"):
        BoxSegmenter("ellipse", drop=2)
    with pytest.raises(UsageError, match="there is no teacher 'elipse'"):
        BoxSegmenter("elipse")


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (
            [[10, 5, 40, 35], [80, 5, 90, 9]],
            "1 of 2 boxes are inverted, empty, not finite or outside the image (rows [1])",
        ),
        ([[np.nan, 0, 4, 4], [0, 0, np.inf, 8]], "outside the image (rows [0 1])"),
        (
            [[40, 30, 10, 5], [0, 0, 9, 9]],
            "(rows [0]); boxes look like x, y, width, height; give x0, y0, x1, y1",
        ),
        ([[0.1, 0.1, 0.5, 0.5]], "boxes look normalized, since all lie between 0 and 1.5; give pixels"),
        (BOXES, None),
        ([], None),
    ],
)
def test_boxes_that_cannot_be_meant_are_one_warning(boxes, message, logged):
    BoxSegmenter("rectangle")(IMAGE, boxes)
    assert len(logged) == (message is not None) and all(text.endswith(message) for text in logged)
