"""Overlays and sheets: what they draw, where, and how large."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError
from boxel.viz import overlays
from boxel.viz.colors import PALETTE, contrasting, pick_color
from boxel.viz.config import DrawConfig
from boxel.viz.output import contact_sheet, save_image
from boxel.viz.overlays import overlay, overlay_labels

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
    np.testing.assert_allclose(core, 0.4 * rim, atol=1)
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
    assert drawn.shape == (60, 60, 3) and (photo == 200).all()
    assert (drawn[:40, :30] == 200).all()  # background, and what is of no class
    # The third color, green, over gray: 0.6 * 200 + 0.4 * (0, 175, 105).
    assert (drawn[:40, 31:] == [120, 190, 162]).all()
    assert (drawn[:40, 30] == 255).all()  # the outline
    assert (drawn[40:] == [0, 175, 105]).all(2).sum() == 12 * 12  # its square in the legend
    assert overlay_labels(photo, np.zeros_like(labels), ["background"]).shape == photo.shape


def test_a_legend_has_as_many_rows_as_needed():
    labels = np.arange(6, dtype=np.uint8).repeat(100).reshape(6, 100)
    drawn = overlay_labels(np.zeros((6, 100, 3), dtype=np.uint8), labels, [f"class {k}" for k in range(6)])
    assert drawn.shape == (6 + 6 * 20, 100, 3)


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


def crowd(count):
    """A scene of overlapping boxes of two classes."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, [500, 350], (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(20, 130, (count, 2))], axis=1)
    return boxes, rng.integers(0, 2, count), rng.uniform(0, 1, count)


def find_chips(image, boxes, labels, scores, monkeypatch):
    """Return the rectangles of the labels that are painted."""
    painted = []

    def record(canvas, chip, color):
        painted.append((chip.x, chip.y, *overlays._chip_size(chip.text, chip.size), chip.text))

    monkeypatch.setattr(overlays, "_paint_chip", record)
    overlay(image, boxes, None, labels, ["person", "traffic light"], scores)
    return painted


@pytest.mark.parametrize("count", [2, 12, 62, 300])
def test_labels_never_overlap(count, monkeypatch):
    image = np.zeros((480, 640, 3), dtype=np.uint8)
    chips = find_chips(image, *crowd(count), monkeypatch)
    covered = np.zeros(image.shape[:2], dtype=int)
    for x, y, w, h, _ in chips:
        assert x >= 0 and y >= 0 and x + w <= 640 and y + h <= 480
        covered[y : y + h, x : x + w] += 1
    assert covered.max() == 1
    assert covered.mean() < 0.26
    if count <= 12:
        assert len(chips) == count and all("0." in text for *_, text in chips)


def test_a_crowd_has_numbers_and_a_legend(monkeypatch):
    image = np.zeros((240, 320, 3), dtype=np.uint8)
    boxes, labels, scores = crowd(62)
    boxes /= 2
    drawn = overlay(image, boxes, None, labels, ["person", "traffic light"], scores)
    assert drawn.shape[1] == 320 and drawn.shape[0] > 240
    chips = find_chips(image, boxes, labels, scores, monkeypatch)
    assert {text for *_, text in chips} <= {"0", "1"} and len(chips) > 10


def test_labels_are_outside_of_objects_if_there_is_room(monkeypatch):
    image = np.zeros((480, 640, 3), dtype=np.uint8)
    boxes = np.array([[x, y, x + 80, y + 60] for x in (20, 240, 460) for y in (40, 180, 330)], dtype=float)
    chips = find_chips(image, boxes, np.zeros(9, dtype=int), None, monkeypatch)
    assert len(chips) == 9
    for x, y, w, h, _ in chips:
        inside = (boxes[:, 0] < x + w) & (boxes[:, 2] > x) & (boxes[:, 1] < y + h) & (boxes[:, 3] > y)
        assert not inside.any()


def test_a_label_of_an_object_as_large_as_the_image_is_inside(monkeypatch):
    image = np.zeros((100, 150, 3), dtype=np.uint8)
    ((x, y, w, h, text),) = find_chips(image, [[-5, -5, 160, 120]], [1], [0.5], monkeypatch)
    assert text == "traffic light 0.50" and x + w <= 150 and y + h <= 100


def test_a_box_that_is_not_known_is_that_of_the_mask(monkeypatch):
    image, mask, nan = scene(), disc(), float("nan")
    boxes = [[nan] * 4, [110, 60, 190, 141]]
    drawn = [overlay(image, [box], [encode(mask)], [0], NAMES) for box in boxes]
    nothing = overlay(image, boxes[:1], None, [0], NAMES)
    np.testing.assert_array_equal(nothing, image)
    assert changed(image, drawn[0])[mask].mean() > 0.99
    assert (changed(*drawn)).mean() < 0.02


def test_boxes_labels_and_fill_can_be_left_out():
    image, mask, box = scene(), disc(), [[100, 50, 200, 150]]
    masks = [encode(mask)]
    no_box = overlay(image, box, masks, [0], NAMES, config=DrawConfig(boxes=False, labels=False))
    assert not changed(image, no_box)[~mask].any()
    outline = overlay(
        image, box, masks, [0], NAMES, config=DrawConfig(boxes=False, labels=False, style="outline")
    )
    differs = changed(image, outline)
    assert differs.any() and not differs[100, 120:180].any()
    wide = overlay(image, box, None, [0], NAMES, config=DrawConfig(labels=False, line_width=7))
    assert changed(image, wide)[100].sum() == 14


def test_lines_are_outside_of_the_box():
    image = np.zeros((300, 300, 3), dtype=np.uint8)
    drawn = overlay(image, [[100, 100, 140, 140]], None, None, NAMES, config=DrawConfig(line_width=5))
    assert not drawn[100:140, 100:140].any() and drawn[95:100, 95:145].any(axis=2).all()


def test_colors_are_of_classes_or_of_instances():
    image = np.zeros((200, 300, 3), dtype=np.uint8)
    boxes = [[10, 10, 60, 60], [100, 10, 160, 60], [200, 10, 260, 60]]
    by = {
        kind: overlay(image, boxes, None, [1, 0, 1], NAMES, config=DrawConfig(color_by=kind, labels=False))
        for kind in ("class", "instance")
    }
    corners = {kind: [tuple(drawn[9, x].tolist()) for x in (20, 110, 210)] for kind, drawn in by.items()}
    assert corners["class"] == [pick_color(1), pick_color(0), pick_color(1)]
    assert len(set(corners["instance"])) == 3


# What a linear color of each kind of eyes sees, by Machado et al. 2009, at full severity.
EYES = {
    "normal": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize(
    ("eyes", "two_of_20", "two_of_8", "neighbors", "next_but_one"),
    [
        ("normal", 12.6, 20.5, 24.5, 20.5),
        ("protanopia", 7.6, 10.5, 19.8, 14.8),
        ("deuteranopia", 8.2, 11.6, 14.6, 13.0),
        ("tritanopia", 5.3, 8.8, 11.0, 7.1),
    ],
)
def test_colors_can_be_told_apart_by_all_eyes(eyes, two_of_20, two_of_8, neighbors, next_but_one):
    """CIEDE2000; 2 is just noticeable side by side. Neighbors are all 96 colors, each and the next one."""
    color = pytest.importorskip("skimage.color")
    rgb = np.array(PALETTE) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(EYES[eyes]).T, 0, 1)
    lab = color.rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)[None])[0]
    apart = color.deltaE_ciede2000(lab[:, None], lab[None])
    np.fill_diagonal(apart, np.inf)
    found = apart[:20, :20].min(), apart[:8, :8].min(), np.diag(apart, 1).min(), np.diag(apart, 2)[:18].min()
    assert found == pytest.approx((two_of_20, two_of_8, neighbors, next_but_one), abs=0.06)


def test_colors_differ_and_text_on_them_can_be_read():
    assert len(set(PALETTE)) == 96

    def luminance(color):
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(color) / 255]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for color in PALETTE:
        lighter, darker = sorted((luminance(color), luminance(contrasting(color))), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5  # WCAG AA


def test_small_objects_are_on_top_of_large_ones():
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    masks = np.zeros((2, 100, 100), dtype=bool)
    masks[0, 40:44, 40:44], masks[1] = True, True
    boxes = [[40, 40, 44, 44], [0, 0, 100, 100]]
    drawn = overlay(image, boxes, masks, [0, 1], NAMES, config=DrawConfig(labels=False, boxes=False))
    assert tuple(drawn[40, 40].tolist()) == pick_color(0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_objects_anywhere_in_images_of_any_size_are_drawn(height, width, count, seed):
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), dtype=np.uint8)
    corners = rng.uniform(-0.3, 1.3, (count, 2, 2)) * [width, height]
    boxes = np.sort(corners, axis=1).reshape(-1, 4)
    boxes[rng.random(count) < 0.1] = rng.choice([np.nan, np.inf, -np.inf, 1e300])
    masks = [encode(rng.random((height, width)) < rng.choice([0, 0.001, 0.9])) for _ in range(count)]
    masks = [mask if rng.random() < 0.7 else None for mask in masks]
    objects = overlays.Objects(boxes, masks, list(range(count)), [f"object {k}" for k in range(count)])
    for scale in (1, None):
        drawn = overlays.draw_objects(image, objects, DrawConfig(), scale=scale)
        assert drawn.shape[1] % width == 0 and drawn.shape[0] >= height and drawn.dtype == np.uint8
