"""Masks carried along tracks: better where a frame is spoiled, untouched where frames do not correspond."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import boxel
from boxel.data.synthetic import make_scene
from boxel.labeling import label_data
from boxel.labeling.carrying import MAX_DOUBTFUL, carry_masks
from boxel.masks.rle import encode

COUNT, BAD = 5, 2
SIDE = 96


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.fixture(scope="module")
def frames() -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and true masks of a textured blob that moves over a textured backdrop; frame `BAD` is nearly gray."""
    random = np.random.default_rng(0)
    backdrop, skin = (
        cv2.GaussianBlur(random.integers(0, 256, (SIDE + 40, SIDE + 40, 3), dtype=np.uint8), (0, 0), 2)
        for _ in range(2)
    )
    angle = np.arange(0, 2 * np.pi, 0.05)
    radius = 20 + 6 * np.sin(3 * angle)
    made = []
    for number in range(COUNT):
        center = np.array([40 + 3 * number, 45 + number])
        points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1) + center
        mask = cv2.fillPoly(np.zeros((SIDE, SIDE), np.uint8), [points.round().astype(np.int32)], 1) > 0
        image = backdrop[:SIDE, :SIDE].copy()
        x, y = 3 * number, number
        moved = skin[20 - y : 20 - y + SIDE, 20 - x : 20 - x + SIDE]
        image[mask] = 60 + moved[mask] // 2
        made.append((image, mask))
    return made


def write(folder: Path, frames: list, **fields: Any) -> Path:
    images, annotations = [], []
    for number, (image, mask) in enumerate(frames):
        Image.fromarray(image).save(folder / f"{number}.png")
        x, y, w, h = map(int, cv2.boundingRect(mask.astype(np.uint8)))
        images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
        row = {"id": 10 + number, "image_id": number, "category_id": 1, "bbox": [x, y, w, h]}
        annotations.append(row | {"track_id": 3} | fields)
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "blob"}]}
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder / "boxes.json"


def labeled(folder: Path, frames: list, quality: list[float], **fields: Any) -> boxel.Annotations:
    """The dataset with true masks, but that of `BAD` is its box, and with the qualities that are stated."""
    data = boxel.read(write(folder, frames, **fields))
    masks = [mask for _, mask in frames]
    x0, y0, x1, y1 = data.boxes[BAD].astype(int)
    masks[BAD] = np.zeros((SIDE, SIDE), bool)
    masks[BAD][y0:y1, x0:x1] = True
    for row, mask in enumerate(masks):
        data.segmentations[row] = json.dumps(encode(mask)).encode()
        data.quality[row], data.source[row] = quality[row], "net"
    return data


def test_a_doubtful_mask_is_replaced_by_its_neighbors(frames, tmp_path: Path) -> None:
    data = labeled(tmp_path, frames, [0.9, 0.85, 0.6, 0.95, 0.9])
    found, carried = carry_masks(data, np.ones(COUNT, bool))
    assert np.flatnonzero(carried).tolist() == [BAD]
    true = frames[BAD][1]
    assert iou(data.mask(BAD) > 0, true) < 0.75 and iou(found.mask(BAD) > 0, true) > 0.9
    assert 0.75 < found.quality[BAD] < 0.95 and found.areas[BAD] == found.mask(BAD).sum()
    assert json.loads(found.extras[BAD]) == {"track_id": 3, "carried_from": 13} and found.source[BAD] == "net"
    same = [row for row in range(COUNT) if row != BAD]
    assert [found.segmentations[row] for row in same] == [data.segmentations[row] for row in same]
    assert data.quality[BAD] == np.float32(0.6)  # the given dataset stays as it is


def test_what_stays(frames, tmp_path: Path) -> None:
    made = np.ones(COUNT, bool)
    for quality in (MAX_DOUBTFUL, 0.97):  # it is not doubtful
        data = labeled(tmp_path, frames, [0.99, 0.99, quality, 0.99, 0.99])
        assert not carry_masks(data, made)[1].any()
    assert not carry_masks(labeled(tmp_path, frames, [0.6] * COUNT), made)[1].any()  # none is better
    data = labeled(tmp_path, frames, [0.9, 0.9, 0.6, 0.9, 0.9])
    mine = made.copy()
    mine[BAD] = False  # it was not made
    assert not carry_masks(data, mine)[1].any()
    data.extras[BAD] = b'{"track_id":4}'  # another object
    assert not carry_masks(data, made)[1].any()
    data = labeled(tmp_path, frames, [0.9, 0.9, 0.6, 0.9, 0.9])
    for number in (0, 1, 3, 4):  # frames that show something else
        Image.fromarray(make_scene(number, 0, SIDE, SIDE)[0]).save(tmp_path / f"{number}.png")
    assert not carry_masks(data, made)[1].any()


def test_a_true_mask_counts_as_perfect(frames, tmp_path: Path) -> None:
    data = labeled(tmp_path, frames, [0.5, 0.5, 0.6, np.nan, 0.5])
    made = np.array([True, True, True, False, True])
    found, carried = carry_masks(data, made)
    assert carried.tolist() == [False, True, True, False, True]
    assert [json.loads(found.extras[row])["carried_from"] for row in (1, 2, 4)] == [13, 13, 13]


def test_an_image_that_is_gone_costs_only_itself(frames, tmp_path: Path) -> None:
    data = labeled(tmp_path, frames, [0.9, 0.9, 0.6, 0.9, 0.9])
    (tmp_path / f"{BAD}.png").unlink()
    assert not carry_masks(data, np.ones(COUNT, bool))[1].any()


def test_drop_decides_which_carried_masks_are_trusted(frames, tmp_path: Path) -> None:
    data = labeled(tmp_path, frames, [0.9, 0.9, 0.6, 0.9, 0.9])
    assert carry_masks(data, np.ones(COUNT, bool), drop=0.5)[0].trusted[BAD]
    assert not carry_masks(data, np.ones(COUNT, bool), drop=0.999)[0].trusted[BAD]


def test_a_carried_mask_is_compared_with_its_box_as_others_are(frames, tmp_path: Path) -> None:
    """A box may be off by the slack, and a mask cannot reach past the image."""
    data = labeled(tmp_path, frames, [0.9, 0.9, 0.6, 0.9, 0.9])
    data.boxes[:] += [-5, -5, 5, 5]
    made = np.ones(COUNT, bool)
    assert not carry_masks(data, made, drop=0.9)[0].trusted[BAD]
    assert carry_masks(data, made, drop=0.9, slack=0.2)[0].trusted[BAD]


def test_labeling_carries_masks_unless_told_not_to(frames, tmp_path: Path) -> None:
    spoiled = list(frames)
    image = frames[BAD][0] * 0.2
    noise = np.random.default_rng(1).normal(0, 22, image.shape)
    spoiled[BAD] = (image + noise).clip(0, 255).astype(np.uint8), frames[BAD][1]
    boxes = write(tmp_path, spoiled)
    plain = label_data(boxes, carry=False, out=tmp_path / "plain.json")
    result = label_data(boxes, out=tmp_path / "masks.json")
    assert plain.carried == 0 and result.carried >= 1
    assert f"{result.carried} carried over from neighboring frames" in result.summary()
    true = [mask for _, mask in frames]
    before, after = (
        np.mean([iou(data.mask(row) > 0, true[row]) for row in range(COUNT)])
        for data in (plain.data, result.data)
    )
    assert after > before
    again = label_data(boxes, out=tmp_path / "masks.json")  # an edit is not what was carried
    assert again.reused == COUNT and [*again.data.segmentations] == [*result.data.segmentations]
    assert label_data(boxes, out=tmp_path / "masks.json", carry=False).carried == 0  # the same job
