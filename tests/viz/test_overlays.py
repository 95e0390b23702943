"""Overlays and sheets: what they draw, where, and how large."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from boxel.data.label_maps import make_label_map
from boxel.data.synthetic import write_scenes
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError
from boxel.viz.overlays import contact_sheet, draw_dataset, overlay, overlay_labels, save_image

NAMES = ["cat", "dog"]


def scene(height=200, width=300):
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def disc(height=200, width=300):
    y, x = np.mgrid[:height, :width]
    return np.hypot(x - 150, y - 100) < 40


def changed(before, after):
    return (before != after).any(axis=2)


def frame(box, thickness, shape):
    """(H, W) bool: pixels within ``thickness`` of the outline of a box."""
    outline = np.zeros(shape, dtype=np.uint8)
    cv2.rectangle(outline, tuple(box[:2]), tuple(box[2:]), 1, 2 * thickness + 1)
    return outline > 0


def test_only_the_mask_and_the_box_are_painted():
    image, mask, box = scene(), disc(), [100, 50, 200, 150]
    drawn = overlay(image, [box], [encode(mask)], None, NAMES)
    differs = changed(image, drawn)
    assert differs[mask].mean() > 0.99  # a pixel may have the color of the tint already
    assert not (differs & ~mask & ~frame(box, 1, mask.shape)).any()


def test_the_image_is_not_changed():
    image = scene()
    kept = image.copy()
    overlay(image, [[10, 10, 60, 60]], None, [0], NAMES)
    np.testing.assert_array_equal(image, kept)


def test_masks_tint_and_their_rims_are_solid():
    image = np.zeros((200, 300, 3), dtype=np.uint8)
    mask = disc()
    drawn = overlay(image, [[0, 0, 300, 200]], mask[None], None, NAMES)
    rim, core = drawn[100, 111].astype(float), drawn[100, 150].astype(float)
    assert mask[100, 111]
    assert not mask[100, 110]
    np.testing.assert_allclose(core, 0.45 * rim, atol=1)
    assert rim.max() > 100


def test_codes_and_arrays_draw_the_same():
    image, mask = scene(), disc()
    boxes = [[100, 50, 200, 150], [0, 0, 20, 20]]
    from_codes = overlay(image, boxes, [encode(mask), encode(~mask)], [0, 1], NAMES)
    np.testing.assert_array_equal(from_codes, overlay(image, boxes, np.stack([mask, ~mask]), [0, 1], NAMES))


def test_instances_have_distinct_colors():
    image = np.zeros((200, 400, 3), dtype=np.uint8)
    boxes = [[20 * i, 0, 20 * i + 10, 200] for i in range(20)]
    masks = np.zeros((20, 200, 400), dtype=bool)
    for i, mask in enumerate(masks):
        mask[:, 20 * i : 20 * i + 10] = True
    drawn = overlay(image, boxes, masks, None, NAMES)
    assert len({tuple(drawn[100, 20 * i + 5]) for i in range(20)}) == 20


def test_an_instance_may_have_only_a_box():
    image, box = scene(), [100, 50, 200, 150]
    with_none = overlay(image, [box], [None], [1], NAMES)
    np.testing.assert_array_equal(with_none, overlay(image, [box], None, [1], NAMES))
    assert changed(image, with_none).any()


def test_labels_and_scores_are_written():
    image = np.zeros((200, 300, 3), dtype=np.uint8)
    box = [[50, 100, 250, 180]]
    plain = overlay(image, box, None, None, NAMES)
    named = overlay(image, box, None, [0], NAMES)
    scored = overlay(image, box, None, [0], NAMES, scores=[0.5])
    only_score = overlay(image, box, None, None, NAMES, scores=[0.5])
    areas = [int(changed(image, drawn).sum()) for drawn in (plain, named, scored)]
    assert areas[0] < areas[1] < areas[2]
    assert changed(plain, only_score).any()


@pytest.mark.parametrize("side", [40, 400, 2000])
def test_lines_grow_with_the_image(side):
    image = np.zeros((side, side, 3), dtype=np.uint8)
    quarter = side // 4
    drawn = overlay(image, [[quarter, quarter, 3 * quarter, 3 * quarter]], None, None, NAMES)
    line = int(changed(image, drawn)[side // 2, : side // 2].sum())
    thickness = max(1, round(side / 300))
    assert thickness <= line <= thickness + 2  # OpenCV rounds a thick line outwards


def test_no_instances_and_empty_masks():
    image = scene()
    np.testing.assert_array_equal(overlay(image, np.zeros((0, 4)), [], [], NAMES, []), image)
    empty = np.zeros((1, 200, 300), dtype=bool)
    box = [[10, 10, 90, 90]]
    np.testing.assert_array_equal(
        overlay(image, box, empty, None, NAMES), overlay(image, box, None, None, NAMES)
    )


def test_classes_are_tinted_above_a_legend():
    photo = np.full((40, 60, 3), 200, dtype=np.uint8)
    labels = np.zeros((40, 60), dtype=np.uint8)
    labels[:, 30:], labels[0, :5] = 2, 255
    drawn = overlay_labels(photo, labels, ["background", "cat", "dog"])
    assert drawn.shape == (56, 60, 3) and (photo == 200).all()
    assert (drawn[:40, :30] == 200).all()  # background, and what is of no class
    # VOC's third color, olive, over gray: 0.55 * 200 + 0.45 * (128, 128, 0).
    assert (drawn[:40, 31:] == [168, 168, 110]).all()
    assert (drawn[:40, 30] == 255).all()  # the outline
    assert (drawn[40:] == [128, 128, 0]).all(2).sum() == 80  # its square in the legend
    assert overlay_labels(photo, np.zeros_like(labels), ["background"]).shape == photo.shape


def test_a_legend_has_as_many_rows_as_needed():
    labels = np.arange(6, dtype=np.uint8).repeat(100).reshape(6, 100)
    drawn = overlay_labels(np.zeros((6, 100, 3), dtype=np.uint8), labels, [f"class {k}" for k in range(6)])
    assert drawn.shape == (6 + 6 * 16, 100, 3)


def test_contact_sheet_fits_images_into_cells():
    red, green = np.zeros((10, 20, 3), np.uint8), np.zeros((40, 10, 3), np.uint8)
    red[..., 0], green[..., 1] = 255, 255
    sheet = contact_sheet([red, green, red], columns=2, cell=20)
    assert sheet.shape == (30, 40, 3)  # a row of 20, with the tall image, and one of 10
    assert tuple(sheet[10, 10]) == (255, 0, 0)
    assert tuple(sheet[2, 10]) == (255, 255, 255)  # above the wide image
    assert tuple(sheet[10, 30]) == (0, 255, 0)
    assert tuple(sheet[10, 22]) == (255, 255, 255)  # beside the tall one
    assert (sheet[20:, :20] == (255, 0, 0)).all()
    assert (sheet[20:, 20:] == 255).all()  # no fourth image


def test_contact_sheet_of_nothing_is_a_white_row():
    sheet = contact_sheet([], columns=3, cell=8)
    assert sheet.shape == (8, 24, 3)
    assert (sheet == 255).all()


def test_images_are_saved_or_refused_in_one_sentence(tmp_path):
    image = scene(20, 30)
    save_image(image, tmp_path / "new" / "a.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), image)
    with pytest.raises(BoxelError, match="not an image format"):
        save_image(image, tmp_path / "a.what")
    (tmp_path / "file").write_text("")
    with pytest.raises(BoxelError, match="cannot be written"):
        save_image(image, tmp_path / "file" / "a.png")


def test_texts_of_boxes_in_one_corner_do_not_cover_each_other():
    image = np.zeros((300, 300, 3), dtype=np.uint8)
    one = overlay(image, [[100, 100, 200, 200]], None, [0], NAMES)
    two = overlay(image, [[100, 100, 200, 200]] * 2, None, [0, 1], NAMES)
    line = changed(image, overlay(image, [[100, 100, 200, 200]], None, None, NAMES))
    written = [int((changed(image, drawn) & ~line).sum()) for drawn in (one, two)]
    assert written[1] > 1.7 * written[0]


@pytest.mark.parametrize("box", [[-1e12, -1e12, 1e12, 1e12], [500, 500, 600, 600], [250, 0, 299, 1]])
def test_boxes_of_any_size_are_drawn(box):
    assert overlay(scene(), [box], None, [0], NAMES, [0.5]).shape == (200, 300, 3)


def test_a_dataset_is_drawn_and_bad_images_cost_only_themselves(tmp_path, caplog):
    data = write_scenes(tmp_path, 3, height=64, width=96)
    (tmp_path / "images" / "000001.png").write_bytes(b"no image")
    data.segmentations[0] = b"[[1, 2, 3, 4, 5, 6, 7]]"  # is drawn as a box
    (error,) = draw_dataset(data, tmp_path / "drawn")
    assert "000001.png" in error and len(caplog.records) == 2
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["000000.jpg", "000002.jpg"]
    drawn = np.asarray(Image.open(tmp_path / "drawn" / "000002.jpg")).astype(int)
    before = np.asarray(Image.open(tmp_path / "images" / "000002.png").convert("RGB")).astype(int)
    mask = data.mask(int(data.instances_in(2)[0])) > 0
    assert np.abs(drawn - before).max(2)[mask].mean() > 20


def test_a_label_map_is_drawn_with_a_legend(tmp_path):
    data = write_scenes(tmp_path, 1, height=64, width=96)
    Image.fromarray(make_label_map(data, 0)).save(data.root / "map.png")
    semantic = replace(data.select_instances([]), label_maps=["map.png"], map_labels=None)
    assert draw_dataset(semantic, tmp_path / "drawn") == []
    assert Image.open(tmp_path / "drawn" / "000000.jpg").height > 64
