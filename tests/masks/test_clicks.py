"""Clicks on drawn masks: what they change, and what they leave."""

import time

import cv2
import numpy as np
import pytest

from boxel.masks.clicks import correct_by_click

BOX = (20, 20, 80, 60)


@pytest.fixture
def plate() -> tuple[np.ndarray, np.ndarray]:
    """An image of an orange plate on a blue table, slightly noisy, and the mask of the plate."""
    truth = np.zeros((80, 100), dtype=bool)
    truth[20:60, 20:80] = True
    image = np.where(truth[..., None], (220, 140, 40), (40, 60, 150))
    return (image + np.random.default_rng(0).integers(-4, 5, image.shape)).astype(np.uint8), truth


def test_a_missing_part_is_added_up_to_the_boundary_of_the_colors(plate) -> None:
    image, truth = plate
    half = truth.copy()
    half[:, 50:] = False
    assert_same_up_to_a_pixel(correct_by_click(image, half, (15, 15, 85, 65), (65, 40), True), truth)


def test_a_wrong_part_is_removed_up_to_the_boundary_of_the_colors(plate) -> None:
    image, truth = plate
    large = truth.copy()
    large[20:60, 80:95] = True
    corrected = correct_by_click(image, large, (20, 20, 95, 60), (87, 40), False)
    assert_same_up_to_a_pixel(corrected, truth)


def assert_same_up_to_a_pixel(mask: np.ndarray, truth: np.ndarray) -> None:
    smaller, larger = (
        cv2.erode(truth.astype(np.uint8), np.ones((3, 3))),
        cv2.dilate(truth.astype(np.uint8), np.ones((3, 3))),
    )
    assert mask[smaller > 0].all() and not mask[larger == 0].any()


def draw_noise(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stripes and noise, and a mask of blobs."""
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.integers(0, 256, (90, 120, 3)).astype(np.uint8), (0, 0), 4)
    image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)
    blobs = cv2.GaussianBlur(rng.normal(size=(90, 120)), (0, 0), 7)
    return image, blobs > 0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("add", [True, False])
def test_one_region_that_holds_the_click_changes_and_nothing_else(seed: int, add: bool) -> None:
    image, mask = draw_noise(seed)
    before = mask.copy()
    for y, x in np.random.default_rng(seed).permutation(np.argwhere(mask != add))[:5].tolist():
        corrected = correct_by_click(image, mask, (10, 10, 110, 80), (x, y), add)
        changed = corrected != mask
        assert corrected[y, x] == add and changed[y, x]
        assert (corrected[changed] == add).all()
        assert cv2.connectedComponents(changed.astype(np.uint8))[0] == 2
    np.testing.assert_array_equal(mask, before)


def test_a_click_on_what_is_right_changes_nothing(plate) -> None:
    image, truth = plate
    for click, add in (((40, 40), True), ((5, 5), False)):
        np.testing.assert_array_equal(correct_by_click(image, truth, BOX, click, add), truth)


def test_the_result_is_deterministic() -> None:
    image, mask = draw_noise(0)
    y, x = np.argwhere(~mask)[1000].tolist()
    first = correct_by_click(image, mask, (10, 10, 110, 80), (x, y), True)
    np.testing.assert_array_equal(correct_by_click(image, mask, (10, 10, 110, 80), (x, y), True), first)


def test_later_clicks_do_not_undo_earlier_ones() -> None:
    undone = 0
    for seed in range(6):
        image, mask = draw_noise(seed)
        rng, fixed = np.random.default_rng(seed), []
        for _ in range(12):
            x, y, add = int(rng.integers(12, 108)), int(rng.integers(12, 78)), bool(rng.random() < 0.5)
            forgetful = correct_by_click(image, mask, (10, 10, 110, 80), (x, y), add)
            mask = correct_by_click(image, mask, (10, 10, 110, 80), (x, y), add, fixed)
            fixed = [*fixed, (x, y, add)]
            assert all(mask[row, column] == inside for column, row, inside in fixed)
            undone += any(forgetful[row, column] != inside for column, row, inside in fixed)
    assert undone  # some of them, if the earlier clicks are not given


def test_the_later_of_two_clicks_on_a_pixel_holds(plate) -> None:
    image, truth = plate
    corrected = correct_by_click(image, truth, BOX, (40, 40), False, [(40, 40, True)])
    assert not corrected[40, 40]


def test_nothing_is_added_outside_the_box_unless_the_click_is_there(plate) -> None:
    image, truth = plate
    empty = np.zeros_like(truth)
    inside = correct_by_click(image, empty, (30, 30, 60, 50), (45, 40), True)
    assert inside.any() and not inside[:30].any() and not inside[50:].any() and not inside[:, 60:].any()
    outside = correct_by_click(image, inside, (30, 30, 60, 50), (70, 55), True)
    assert outside[55, 70] and not outside[56:].any() and not outside[:, 71:].any()
    assert outside.sum() - inside.sum() < 800


def test_a_wrong_part_far_from_the_box_is_removed(plate) -> None:
    image, truth = plate
    mask = truth.copy()
    mask[70:75, 2:8] = True
    np.testing.assert_array_equal(correct_by_click(image, mask, BOX, (4, 72), False), truth)


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("add", [True, False])
def test_in_an_image_of_one_color_a_small_disc_changes(value: int, add: bool) -> None:
    image, mask = np.full((100, 100, 3), value, np.uint8), np.full((100, 100), not add)
    changed = correct_by_click(image, mask, (0, 0, 100, 100), (50, 40), add) != mask
    y, x = np.mgrid[:100, :100]
    np.testing.assert_array_equal(changed, np.hypot(x - 50, y - 40) <= 3)


def test_the_first_click_on_an_empty_mask_stays_in_the_box(plate) -> None:
    image, truth = plate
    found = correct_by_click(image, np.zeros_like(truth), BOX, (50, 40), True)
    assert found[40, 50] and not found[~truth].any()


def test_a_click_does_not_remove_a_mask_of_the_whole_image(plate) -> None:
    image, truth = plate
    left = correct_by_click(image, np.ones_like(truth), (0, 0, 100, 80), (10, 40), False)
    assert not left[40, 10] and left[truth].mean() > 0.9


def test_a_line_thinner_than_a_pixel_of_the_reduced_copy_is_changed_around_the_click() -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (2000, 1500, 3)).astype(np.uint8), np.zeros((2000, 1500), bool)
    mask[100:1900, 700] = True
    corrected = correct_by_click(image, mask, (100, 100, 1400, 1900), (700, 1000), False)
    assert not corrected[1000, 700] and corrected[200, 700]
    corrected = correct_by_click(image, ~mask, (100, 100, 1400, 1900), (700, 1000), True)
    assert corrected[1000, 700] and not corrected[200, 700]


@pytest.mark.parametrize("seed", range(6))
def test_a_click_never_removes_all_of_a_large_mask(seed: int) -> None:
    image, _ = draw_noise(seed)
    mask = np.zeros((90, 120), bool)
    mask[20:70, 20:100] = True
    assert correct_by_click(image // 8, mask, (20, 20, 100, 70), (60, 45), False).sum() >= 0.15 * mask.sum()


@pytest.mark.parametrize(
    "box",
    [(3, 3, 4, 4), (3.2, 3.2, 3.4, 3.4), (3, 3, 3, 3), (0, 0, 1, 5), (-9, -9, 40, 40), (50, 50, 60, 60)],
)
@pytest.mark.parametrize("add", [True, False])
def test_tiny_and_odd_boxes(box: tuple[float, ...], add: bool) -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    for start in (not add, "stripes"):
        mask = np.tile(np.arange(5) % 2 == 0, (6, 1)) if start == "stripes" else np.full((6, 5), start)
        for x, y in ((0, 0), (4, 5), (3, 3), (2, 1)):
            assert correct_by_click(image, mask, box, (x, y), add)[y, x] == add


def test_an_image_of_one_pixel() -> None:
    assert correct_by_click(
        np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), bool), (0, 0, 1, 1), (0, 0), True
    ).all()


def test_a_large_object_is_corrected_in_full_resolution(plate) -> None:
    image, truth = (
        cv2.resize(part.astype(np.uint8), None, fx=20, fy=20, interpolation=cv2.INTER_NEAREST)
        for part in plate
    )
    half = truth > 0
    half[:, 1000:] = False
    corrected = correct_by_click(image, half, (300, 300, 1700, 1300), (1300, 800), True)
    wrong = cv2.erode((corrected != (truth > 0)).astype(np.uint8), np.ones((21, 21)))
    assert not wrong.any() and (corrected != (truth > 0)).mean() < 0.01


def test_a_crop_of_the_image_gives_the_same(plate) -> None:
    image, truth = plate
    image, truth = np.pad(image, ((300, 200), (100, 400), (0, 0))), np.pad(truth, ((300, 200), (100, 400)))
    half = truth.copy()
    half[:, 150:] = False
    whole = correct_by_click(image, half, (115, 315, 185, 365), (165, 340), True, [(105, 330, False)])
    part = np.s_[290:390, 90:210]
    crop = correct_by_click(image[part], half[part], (25, 25, 95, 75), (75, 50), True, [(15, 40, False)])
    np.testing.assert_array_equal(crop, whole[part])
    assert whole.sum() > half.sum()


def test_an_image_of_48_megapixels_takes_no_longer() -> None:
    image, mask = np.zeros((6000, 8000, 3), np.uint8), np.zeros((6000, 8000), bool)
    image[3000:3100, 4000:4100] = 200
    mask[3000:3100, 4000:4050] = True
    began = time.process_time()
    corrected = correct_by_click(image, mask, (3990, 2990, 4110, 3110), (4075, 3050), True)
    assert time.process_time() - began < 2
    assert 9000 < corrected.sum() < 11000
