"""What a segmentation is, judged without rasterizing it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from boxel.data.checks import check, repair
from boxel.data.checks.mask_shapes import measure_codes, measure_polygons
from boxel.data.checks.masks import Verdict, describe_rectangles, drop_bad_masks, judge_masks
from boxel.masks.boxes import tight_boxes
from boxel.masks.rle import decode, encode, parse_runs, to_rle

BOX = (20, 15, 60, 55)
L_SHAPE = [20, 15, 60, 15, 60, 35, 40, 35, 40, 55, 20, 55]


def rectangle(x0: int, y0: int, x1: int, y1: int) -> dict:
    mask = np.zeros((80, 100))
    mask[y0:y1, x0:x1] = 1
    return encode(mask)


@pytest.mark.parametrize(
    "segmentation, verdict",
    [
        ([L_SHAPE], Verdict.SOUND),
        (rectangle(20, 15, 60, 40), Verdict.SOUND),  # a rectangle, but not the box
        ([20, 15, 60, 15, 60, 55, 20, 55], Verdict.UNREADABLE),
        ([[20, 15], [60, 15], [60, 55], [20, 55]], Verdict.EMPTY),
        ([[20, 15, 60, 55]], Verdict.EMPTY),
        ([], Verdict.EMPTY),
        ({"size": [80, 100], "counts": [1615.0, 40.0, 6345.0]}, Verdict.UNREADABLE),
        ({"size": [80, 100], "counts": [8000]}, Verdict.EMPTY),
        ({"size": [80, 100], "counts": [1615, 40]}, Verdict.UNREADABLE),
        ({"size": [100, 80], "counts": [8000]}, Verdict.OTHER_SIZE),
        ([[200, 200, 260, 200, 260, 255]], Verdict.OUTSIDE),
        ([[-30, 10, -1, 10, -1, 40]], Verdict.OUTSIDE),
        ([[20, 15, 60, 15, 60, 55, 20, 55]], Verdict.FILLED_BOX),
        ([[60, 55, 20, 55, 20, 15, 60, 15]], Verdict.FILLED_BOX),
        ([[20, 15, 60, 15, 60, 55, 20, 55, 20, 15]], Verdict.FILLED_BOX),  # closed
        ([[20, 15, 40, 15, 60, 15, 60, 55, 20, 55]], Verdict.FILLED_BOX),  # a vertex on an edge
        ([[20.4, 15.6, 60.3, 15.2, 60, 55.4, 20, 54.8]], Verdict.FILLED_BOX),  # rounded
        ([[1, 2, 3, 4], [20, 15, 60, 15, 60, 55, 20, 55]], Verdict.FILLED_BOX),
        (rectangle(*BOX), Verdict.FILLED_BOX),
        (rectangle(20, 15, 61, 54), Verdict.FILLED_BOX),
        ([[0.2, 0.15, 0.6, 0.15, 0.4, 0.55]], Verdict.APART),  # shares of the image
        ([[62, 20, 80, 20, 80, 50]], Verdict.APART),
        ([[59, 20, 80, 20, 80, 50], [20, 20, 40, 50, 20, 50]], Verdict.SOUND),
        (rectangle(0, 60, 60, 80), Verdict.APART),
    ],
)
def test_each_segmentation_gets_its_verdict(make, segmentation, verdict) -> None:
    data = make([BOX, BOX], [segmentation, None])
    assert judge_masks(data).verdicts.tolist() == [verdict, Verdict.NONE]


def test_the_filled_box_of_a_program_a_crowd_or_a_small_object_is_a_mask(make) -> None:
    small, box = (20, 20, 27, 40), [[20, 15, 60, 15, 60, 55, 20, 55]]
    made = np.array(["sam", None, None], dtype=object)
    data = make([BOX, BOX, small], [box, box, rectangle(*small)], source=made, iscrowd=[False, True, False])
    assert judge_masks(data).verdicts.tolist() == [Verdict.SOUND] * 3


def test_sizes_that_are_not_recorded_are_those_of_the_code(make) -> None:
    data = make([BOX, BOX], [rectangle(30, 15, 60, 40), [L_SHAPE]], widths=[0, 0], heights=[0, 0])
    assert judge_masks(data).verdicts.tolist() == [Verdict.SOUND] * 2


codes = st.one_of(
    st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=30),
    st.text(max_size=8),
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1)).map(
        lambda mask: encode(mask)["counts"]
    ),
)


@pytest.mark.slow
@given(st.lists(st.tuples(codes, st.integers(1, 81)), max_size=12))
def test_codes_are_sound_in_a_batch_as_they_are_one_by_one(pairs) -> None:
    areas = []
    for text, pixels in pairs:
        try:
            areas.append(int(parse_runs(text, pixels)[1::2].sum()))
        except ValueError:
            areas.append(None)
    shapes = measure_codes([text for text, _ in pairs], [(1, pixels) for _, pixels in pairs])
    assert shapes.sound.tolist() == [area is not None for area in areas]
    assert shapes.areas.tolist() == [area or 0 for area in areas]


def test_codes_in_several_parts_are_measured_as_in_one(monkeypatch) -> None:
    masks = [np.random.default_rng(k).integers(0, 2, (6, 9)) for k in range(12)]
    texts = [encode(mask)["counts"] for mask in masks]
    texts[4] = texts[4][:-1]  # not sound
    whole = measure_codes(texts, [(6, 9)] * 12)
    monkeypatch.setattr("boxel.data.checks.mask_shapes._CHARS", 3 * len(texts[0]))
    parts = measure_codes(texts, [(6, 9)] * 12)
    assert parts.sound.tolist() == [k != 4 for k in range(12)]
    assert parts.areas.tolist() == [0 if k == 4 else int(mask.sum()) for k, mask in enumerate(masks)]
    assert np.array_equal(parts.boxes, whole.boxes, equal_nan=True)
    assert np.isnan(measure_codes(texts, [(6, 9)] * 12, with_boxes=False).boxes).all()


@pytest.mark.slow
@given(
    st.lists(arrays(np.uint8, (7, 5), elements=st.integers(0, 1)), min_size=1, max_size=9),
    st.data(),
)
def test_codes_have_the_box_and_the_shape_of_their_pixels(make, masks, data) -> None:
    written = []
    for mask in masks:
        runs = parse_runs(encode(mask)["counts"], 35).tolist()
        cut = data.draw(st.sampled_from([None, *range(1, len(runs))]))
        if cut is not None:  # a run of no pixels splits one in two
            runs[cut : cut + 1] = [runs[cut] - 1, 0, 1] if runs[cut] > 1 else [runs[cut]]
        written.append({"size": [7, 5], "counts": runs} if cut else encode(mask))
    n = len(masks)
    judged = judge_masks(make([(0, 0, 5, 7)] * n, written, widths=[0, 0], heights=[0, 0]))
    for mask, box, full in zip(masks, judged.boxes, judged.rectangle, strict=True):
        if not mask.any():
            assert np.isnan(box).all() and not full
            continue
        x0, y0, x1, y1 = tight_boxes([mask])[0].astype(int)
        assert box.tolist() == [x0, y0, x1, y1]
        assert full == bool(mask[y0:y1, x0:x1].all())


@pytest.mark.slow
@given(st.lists(st.lists(st.floats(-20, 120), min_size=0, max_size=12), max_size=3))
def test_a_sound_mask_can_be_rasterized(make, polygons) -> None:
    data = make([BOX], [polygons])
    if judge_masks(data).verdicts[0] == Verdict.SOUND:
        decode(to_rle(polygons, 80, 100))


def test_rectangles_are_found_whatever_their_angle() -> None:
    angle = np.deg2rad(np.arange(0, 180, 7))
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    across = along[:, ::-1] * [-1, 1]
    corners = np.stack([a * 20 * along + b * 10 * across for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))], 1)
    shapes = measure_polygons([[ring.ravel().tolist()] for ring in corners + 50])
    assert shapes.oriented.all() and not shapes.rectangle[1:13].any()
    kite, triangle = [0.0, 0.0, 10.0, 20.0, 0.0, 60.0, -10.0, 20.0], [0.0, 0.0, 10.0, 20.0, 0.0, 60.0]
    assert not measure_polygons([[kite], [triangle], [corners[1].ravel().tolist(), kite]]).oriented.any()


DIAMOND, PARALLELOGRAM = [40, 15, 60, 35, 40, 55, 20, 35], [84, 16, 98, 30, 90, 42, 76, 28]


def test_a_dataset_of_turned_rectangles_says_so(make) -> None:
    boxes = [(20, 15, 60, 55), (76, 16, 98, 42)]
    data = make(boxes, [[DIAMOND], [PARALLELOGRAM]])
    sentence = "all 2 masks are turned rectangles: these are oriented boxes, not masks; "
    sentence += "`boxel label --relabel` makes masks"
    assert describe_rectangles(data) == sentence
    kept, sentences = drop_bad_masks(data)
    assert kept.has_mask.all() and sentences == [f"set.json: {sentence}."]
    (issue,) = check(data)
    assert (issue.kind, issue.values) == ("masks-are-boxes", {"masks": 2, "turned": 2})
    repaired, _ = repair(data)
    assert not repaired.has_mask.any() and repaired.boxes.tolist() == [list(box) for box in boxes]
    assert check(repaired) == []
    assert describe_rectangles(make([*boxes, BOX], [[DIAMOND], [PARALLELOGRAM], [L_SHAPE]])) == ""


def test_a_dataset_of_filled_boxes_says_so(make) -> None:
    square = [[20, 15, 60, 15, 60, 55, 20, 55]]
    data = make([BOX, (70, 20, 90, 60)], [square, rectangle(70, 20, 90, 60)])
    assert "all 2 masks are axis-parallel rectangles" in describe_rectangles(data)
    assert [issue.kind for issue in check(data)] == ["masks-are-boxes"]
    assert not repair(data)[0].has_mask.any()
    kept, sentences = drop_bad_masks(data)
    assert not kept.has_mask.any() and sentences[0] == (
        "set.json: 2 of 2 masks cannot be used, only their boxes are: "
        "2 merely the filled box (annotations 11, 12); `boxel check` states why."
    )


def test_bad_masks_are_dropped_with_what_is_known_of_them(make) -> None:
    columns = {"quality": np.array([0.5, 0.5]), "trusted": np.array([False, False])}
    data = make([BOX, BOX], [[], [L_SHAPE]], source=np.array(["a", "b"], dtype=object), **columns)
    kept, _ = drop_bad_masks(data)
    assert kept.source.tolist() == [None, "b"] and kept.trusted.tolist() == [True, False]
    assert np.isnan(kept.quality).tolist() == [True, False]
    sound = replace(data, segmentations=np.array([None, data.segmentations[1]], dtype=object))
    assert drop_bad_masks(sound)[0] is sound


def test_many_bad_masks_are_counted_and_few_are_named(make) -> None:
    data = make([BOX] * 7, [b"{"] * 7)
    described = judge_masks(data).describe(data.ids)
    assert described == "7 unreadable (annotations 11, 12, 13, 14, 15 and 2 more)"


@pytest.mark.parametrize(
    ("mask", "verdict"),
    [
        ([[0.3, 0.2, 0.6, 0.2, 0.6, 0.8, 0.4, 0.9]], Verdict.APART),  # shares of the image
        ([[62, 20, 80, 20, 84, 60, 62, 50]], Verdict.APART),  # beside the box
        ([[20, 20, -900, 20, -900, 2000, 900, 2000, 900, 25]], Verdict.APART),  # far outside the image
        ([[22, 22, 30, 22, 31, 31, 22, 28]], Verdict.SOUND),  # the visible part of an object
    ],
)
def test_a_mask_away_from_its_box_is_not_one(make, mask, verdict) -> None:
    data = make([(10, 10, 60, 70)], [mask])
    judgment = judge_masks(data)
    assert judgment.verdicts.tolist() == [verdict]
    _, sentences = drop_bad_masks(data)
    assert ("1 unlike the box (annotation 11)" in "".join(sentences)) == (verdict == Verdict.APART)
    issues = check(data)
    assert {issue.kind for issue in issues} == {"mask-box"}
    left_out = {issue.repair for issue in issues} == {"mask left out, box kept"}
    assert left_out == (verdict == Verdict.APART)
