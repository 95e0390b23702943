"""Overlays, sheets and curves: what is drawn, where, and how large."""

import cv2
import numpy as np
import pytest
from PIL import Image

from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError
from boxel.viz.overlays import (
    contact_sheet,
    overlay,
    overlay_labels,
    plot_affinity,
    plot_curves,
    plot_trimap,
    save_image,
)

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


def test_the_image_given_stays_as_it_is():
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


def test_instances_have_colors_of_their_own():
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


def test_a_legend_takes_as_many_rows_as_it_needs():
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


def test_save_image(tmp_path):
    image = scene(20, 30)
    save_image(image, tmp_path / "new" / "a.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), image)
    with pytest.raises(BoxelError, match="no image format"):
        save_image(image, tmp_path / "a.what")
    (tmp_path / "file").write_text("")
    with pytest.raises(BoxelError, match="can't be written"):
        save_image(image, tmp_path / "file" / "a.png")


def colors_in(path):
    image = Image.open(path).convert("RGB")
    return {color for _, color in image.getcolors(image.width * image.height)}


BLUE, RED, ORANGE = (31, 119, 180), (214, 39, 40), (255, 127, 14)  # matplotlib's tab: colors


def test_plot_curves_of_a_log_with_gaps(tmp_path):
    log = tmp_path / "metrics.csv"
    log.write_text(
        "epoch,step,loss/classification,loss/projection,lr-AdamW,val/mask_AP\n"
        "0,0,2.0,1.0,,\n0,0,,,0.001,\n0,50,1.5,nan,,\n0,99,,,,0.1\n1,150,1.0,inf,,\n1,199,,,,0.2\n1,2"
    )
    plot_curves(log, tmp_path / "out" / "curves.png")
    three_panels = Image.open(tmp_path / "out" / "curves.png").size
    assert {BLUE, ORANGE} <= colors_in(tmp_path / "out" / "curves.png")

    log.write_text("epoch,step,loss/classification\n0,0,2.0\n0,50,1.0\n")
    plot_curves(log, tmp_path / "two.png")
    two_panels = Image.open(tmp_path / "two.png").size
    assert two_panels[0] == three_panels[0]
    assert two_panels[1] * 3 == three_panels[1] * 2
    assert BLUE in colors_in(tmp_path / "two.png")
    assert ORANGE not in colors_in(tmp_path / "two.png")


def test_plot_curves_leaves_the_weights_of_losses_out(tmp_path):
    log = tmp_path / "metrics.csv"
    log.write_text("epoch,step,weight/affinity\n0,0,0.1\n0,50,1.0\n")
    plot_curves(log, tmp_path / "curves.png")
    assert BLUE not in colors_in(tmp_path / "curves.png")


@pytest.mark.parametrize("text", ["", "epoch,step,loss\n", "epoch,step,loss\n0,0,\n"])
def test_plot_curves_before_anything_is_logged(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    plot_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert BLUE not in colors_in(tmp_path / "curves.png")


def test_plot_curves_without_a_file(tmp_path):
    with pytest.raises(BoxelError, match=r"metrics\.csv: can't be read"):
        plot_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")


def test_plot_affinity_is_blue_and_red(tmp_path):
    table = {"tau": [0.0, 0.1, 0.2], "precision": [0.94, 0.98, 0.99], "recall": [1.0, 0.9, 0.8]}
    plot_affinity(table, tmp_path / "affinity.png")
    assert {BLUE, RED} <= colors_in(tmp_path / "affinity.png")
    pixels = np.asarray(Image.open(tmp_path / "affinity.png").convert("RGB"))[:, :-10]
    top = {c: np.nonzero((pixels == c).all(2))[0].min() for c in (BLUE, RED)}
    assert top[RED] < top[BLUE]  # only recall reaches 1


def test_plot_trimap_has_a_color_a_name_and_a_dashed_boundary(tmp_path):
    curves = {
        "masks only": {"width": [1, 10, 40], "boundary": [0.3, 0.5, 0.6], "interior": [0.65, 0.7, None]},
        "more boxes": {"width": [1, 10, 40], "boundary": [0.32, 0.52, 0.62], "interior": [0.7, 0.76, np.nan]},
    }
    plot_trimap(curves, tmp_path / "new" / "trimap.png")
    assert {BLUE, ORANGE} <= colors_in(tmp_path / "new" / "trimap.png")
    flat = {"width": [1, 40], "boundary": [0.4, 0.4], "interior": [0.8, 0.8]}
    plot_trimap({"a": flat}, tmp_path / "flat.png")
    pixels = np.asarray(Image.open(tmp_path / "flat.png").convert("RGB"))
    rows = (pixels == BLUE).all(2).sum(1)
    interior, boundary = rows[: len(rows) // 2].max(), rows[len(rows) // 2 :].max()
    assert 0 < boundary < 0.8 * interior  # solid above, dashed below


def test_a_plot_that_can_not_be_written_is_told_in_a_sentence(tmp_path):
    flat = {"width": [1], "boundary": [0.4], "interior": [0.8]}
    with pytest.raises(BoxelError, match="no image format"):
        plot_trimap({"a": flat}, tmp_path / "a.what")
    (tmp_path / "file").write_text("")
    with pytest.raises(BoxelError, match="can't be written"):
        plot_trimap({"a": flat}, tmp_path / "file" / "a.png")
