"""COCO's metrics against pycocotools, and matches of boxes by hand."""

import copy
import itertools
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from scipy import ndimage

from boxel.data.formats import read
from boxel.evaluation import coco_ap, filter_categories, mask_iou, match_boxes, read_results
from boxel.evaluation.overlaps import encode_boundary, find_overlaps
from boxel.masks.rle import decode, encode

METRICS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def metrics(scores):
    return np.nan_to_num([scores[name] for name in METRICS], nan=-1)


def only(results, iou_type):
    """Results with one of box and mask, so that pycocotools takes the area of what is compared."""
    drop = "segmentation" if iou_type == "bbox" else "bbox"
    return [{key: value for key, value in result.items() if key != drop} for result in results]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("iou_type", "published"), [("segm", (0.320, 0.562, 0.299)), ("bbox", (0.505, 0.697, 0.573))]
)
def test_coco_equals_published_numbers_and_pycocotools(shared_data, pycocotools_stats, iou_type, published):
    folder = shared_data / "coco-eval"
    annotations = folder / "instances_val2014_100.json"
    detections = folder / f"instances_val2014_fake{iou_type}100_results.json"
    scores = coco_ap(read(annotations), read_results(detections), iou_type)
    assert (scores["AP"], scores["AP50"], scores["AP75"]) == pytest.approx(published, abs=5e-4)
    stats, precision = pycocotools_stats(
        json.loads(annotations.read_text()), json.loads(detections.read_text()), iou_type
    )
    np.testing.assert_allclose(metrics(scores), stats, atol=1e-12)
    by_class = [p[p > -1].mean() if (p > -1).any() else -1 for p in np.moveaxis(precision[..., 0, 2], 2, 0)]
    np.testing.assert_allclose(
        np.nan_to_num(list(scores["per_class"].values()), nan=-1), by_class, atol=1e-12
    )


@pytest.mark.slow
def test_boxes_of_masks_equal_pycocotools(shared_data, pycocotools_stats):
    folder = shared_data / "coco-eval"
    annotations = folder / "instances_val2014_100.json"
    detections = folder / "instances_val2014_fakesegm100_results.json"
    scores = coco_ap(read(annotations), read_results(detections), "bbox")
    stats, _ = pycocotools_stats(
        json.loads(annotations.read_text()), json.loads(detections.read_text()), "bbox"
    )
    np.testing.assert_allclose(metrics(scores), stats, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_random_datasets_equal_pycocotools(random_set, to_coco, pycocotools_stats, seed, iou_type):
    truth, results = random_set(seed)
    stats, _ = pycocotools_stats(to_coco(truth), only(copy.deepcopy(results), iou_type), iou_type)
    assert stats[0] > 0.02
    np.testing.assert_allclose(metrics(coco_ap(truth, results, iou_type)), stats, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_class_agnostic_equals_pycocotools_without_categories(random_set, to_coco, pycocotools_stats, seed):
    truth, results = random_set(seed, distinct_scores=True)
    stats, _ = pycocotools_stats(to_coco(truth), only(results, "segm"), "segm", use_categories=False)
    scores = coco_ap(*filter_categories(truth, results, class_agnostic=True))
    np.testing.assert_allclose(metrics(scores), stats, atol=1e-12)
    assert list(scores["per_class"]) == ["object"]
    foreign = [{**result, "category_id": 12345} for result in results]
    same = coco_ap(*filter_categories(truth, foreign, class_agnostic=True))
    np.testing.assert_array_equal(metrics(same), metrics(scores))


def test_selected_categories_equal_pycocotools(random_set, to_coco, pycocotools_stats):
    truth, results = random_set(1)
    stats, _ = pycocotools_stats(to_coco(truth), only(results, "segm"), "segm", category_ids=[7, 90])
    scores = coco_ap(*filter_categories(truth, results, ["class 90", "class 7"]))
    np.testing.assert_allclose(metrics(scores), stats, atol=1e-12)
    assert list(scores["per_class"]) == ["class 90", "class 7"]
    assert scores["per_class"]["class 7"] == coco_ap(truth, results)["per_class"]["class 7"]


def test_polygons_are_small_or_large_by_the_area_they_enclose(make_truth, make_result, rectangle):
    # 32 x 32 pixels, the polygon's area is 1024 - 1: small, though its pixels number 1024 as well.
    truth = make_truth([(100, 100)], [{"mask": rectangle(100, 100, 10, 10, 42, 42)}])
    truth.segmentations[0] = json.dumps([[10, 10, 42, 10, 42, 41.9375, 10, 42]]).encode()
    assert truth.mask(0).sum() == 1024
    scores = coco_ap(truth, [make_result(rectangle(100, 100, 10, 10, 42, 42), 0.9)])
    assert scores["APs"] == 1
    assert np.isnan(scores["APl"]) and np.isnan(scores["APm"])


def test_instances_are_small_or_large_by_the_area_in_their_file(random_set, to_coco, pycocotools_stats):
    truth, results = random_set(4)
    truth.areas[::2] = np.random.default_rng(0).uniform(100, 20000, len(truth.areas[::2]))
    dataset = to_coco(truth)
    for annotation, area in zip(dataset["annotations"], truth.areas, strict=True):
        if np.isfinite(area):
            annotation["area"] = area
    stats, _ = pycocotools_stats(dataset, only(copy.deepcopy(results), "segm"), "segm")
    scores = coco_ap(truth, results)
    np.testing.assert_allclose(metrics(scores), stats, atol=1e-12)
    assert scores["APs"] != coco_ap(*random_set(4))["APs"]


def test_an_instance_without_a_mask_is_ignored_in_mask_ap(make_truth, make_result, rectangle):
    seen, boxed = rectangle(100, 100, 0, 0, 40, 40), rectangle(100, 100, 50, 50, 90, 90)
    truth = make_truth([(100, 100)], [{"mask": seen}, {"box": (50, 50, 90, 90)}])
    on_the_seen, in_the_box = make_result(seen, 0.5), make_result(rectangle(100, 100, 55, 55, 80, 80), 0.9)
    stray = make_result(rectangle(100, 100, 45, 0, 99, 45), 0.8)
    assert coco_ap(truth, [on_the_seen])["AP"] == 1  # the boxed one isn't missed
    assert coco_ap(truth, [on_the_seen, in_the_box])["AP"] == 1  # nor is a detection there false
    assert coco_ap(truth, [on_the_seen, stray])["AP"] == pytest.approx(0.5)
    assert coco_ap(truth, [on_the_seen, make_result(boxed, 0.9)], "bbox")["AP"] == 1  # boxes count as ever
    assert np.isnan(coco_ap(truth.without_masks(), [on_the_seen])["AP"])


def test_an_untrusted_mask_is_ignored(make_truth, make_result, rectangle):
    mask = rectangle(50, 50, 5, 5, 30, 30)
    truth = make_truth([(50, 50)], [{"mask": mask}])
    truth.trusted[0] = False
    assert np.isnan(coco_ap(truth, [make_result(mask, 1.0)])["AP"])
    assert coco_ap(truth, [make_result(mask, 1.0)], "bbox")["AP"] == 1


@pytest.mark.parametrize("iou_type", ["segm", "bbox", "boundary"])
def test_missing_detections_give_0_and_missing_instances_nan(make_truth, make_result, rectangle, iou_type):
    mask = rectangle(50, 50, 5, 5, 30, 30)
    truth = make_truth([(50, 50), (50, 50)], [{"mask": mask}], category_ids=(0, 5), image_ids=[0, 70])
    missed = coco_ap(truth, [], iou_type)
    assert (missed["AP"], missed["AR100"]) == (0, 0)
    assert missed["per_class"]["class 0"] == 0 and np.isnan(missed["per_class"]["class 5"])
    empty = make_truth([(50, 50)], [], category_ids=(0, 5))
    for results in ([], [make_result(mask, 0.5, 1, 0)]):
        assert all(np.isnan(value) for value in raw_metrics(coco_ap(empty, results, iou_type)))
    assert np.isnan(coco_ap(make_truth([], []), [], iou_type)["AP"])
    # What is found in an image without instances is false: first of two, it halves the precision.
    both = [make_result(mask, 0.9, 70, 0), make_result(mask, 0.5, 0, 0)]
    assert coco_ap(truth, both, iou_type)["AP"] == pytest.approx(0.5)
    # Of a category that nobody knows, or that has no instances: no part in the mean.
    assert coco_ap(truth, [make_result(mask, 0.5, 0, 0), make_result(mask, 0.9, 0, 5)], iou_type)["AP"] == 1
    assert coco_ap(truth, [make_result(mask, 0.5, 0, 0), make_result(mask, 0.9, 0, 44)], iou_type)["AP"] == 1


def raw_metrics(scores):
    return [scores[name] for name in METRICS]


def test_boundary_ap_by_hand(make_truth, make_result, rectangle):
    # The diagonal is 141.4, so a boundary is 3 wide. Rings of a 40 x 40 square and of one shifted by 1 share
    # 6 x 39 + 34 x 4 = 370 of 2 x 444 - 370 = 518 pixels: IoU 0.714, five of the ten thresholds; the masks'
    # own IoU is 0.951, all ten.
    truth = make_truth([(100, 100)], [{"mask": rectangle(100, 100, 20, 20, 60, 60)}])
    shifted = [make_result(rectangle(100, 100, 21, 20, 61, 60), 0.9)]
    assert coco_ap(truth, shifted, "boundary")["AP"] == pytest.approx(0.5)
    assert coco_ap(truth, shifted, "segm")["AP"] == 1


def test_boundary_ap_against_its_definition(make_truth, make_result, ellipse):
    """Each pair in a class of its own: its AP counts the thresholds that the smaller of both IoUs reaches."""
    random = np.random.default_rng(3)
    sizes, instances, results, expected = [], [], [], []
    for k in range(30):
        height, width = random.integers(20, 260, size=2).tolist()  # boundaries of 1 to 7 pixels
        true = ellipse(random, height, width)
        y, x = random.integers(-2, 3, size=2)
        found = np.zeros_like(true)
        found[max(y, 0) : height + y, max(x, 0) : width + x] = true[
            max(-y, 0) : height - y, max(-x, 0) : width - x
        ]
        sizes.append((height, width))
        instances.append({"image": k, "label": k, "mask": true})
        results.append(make_result(found, 0.5, k + 1, k))
        reach = max(1, round(0.02 * float(np.hypot(height, width))))
        ious = [iou(true, found), iou(boundary(true, reach), boundary(found, reach))]
        expected.append(sum(min(ious) >= t for t in np.linspace(0.5, 0.95, 10)) / 10)
    truth = make_truth(sizes, instances, category_ids=range(30))
    assert len(set(expected)) > 5
    scores = coco_ap(truth, results, "boundary")
    np.testing.assert_allclose(list(scores["per_class"].values()), expected)


@pytest.mark.parametrize("share", [0.9, 0.999, 1])
def test_the_boundary_of_masks_as_tall_as_the_image(share):
    mask = np.random.default_rng(0).random((120, 90)) < share
    mask[:, :20] = False
    np.testing.assert_array_equal(decode(encode_boundary(encode(mask))), boundary(mask, 3))


def boundary(mask, reach):
    """The pixels of a mask at most `reach` steps of a king from the outside, the image's outside included."""
    padded = np.pad(mask, 1)
    return mask & (ndimage.distance_transform_cdt(padded, metric="chessboard")[1:-1, 1:-1] <= reach)


def iou(a, b):
    return (a & b).sum() / max((a | b).sum(), 1)


def test_a_crowd_is_matched_by_masks_where_boundaries_are_compared(make_truth, make_result, rectangle):
    """A mask inside of a crowd is ignored, though its boundary is not that of the crowd."""
    seen, crowd = rectangle(100, 100, 0, 0, 40, 40), rectangle(100, 100, 50, 0, 100, 100)
    truth = make_truth([(100, 100)], [{"mask": seen}, {"mask": crowd, "crowd": True}])
    inside = make_result(rectangle(100, 100, 60, 40, 90, 60), 0.9)
    assert coco_ap(truth, [inside, make_result(seen, 0.5)], "boundary")["AP"] == 1


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_many_detections_of_a_class_equal_pycocotools(random_set, to_coco, pycocotools_stats, iou_type):
    """More than 100 per image and class, with ties: those beyond 100 do not count."""
    truth, results = random_set(2)
    random = np.random.default_rng(0)
    many = [
        {**results[k], "score": round(float(random.random()), 2)}
        for k in random.integers(0, len(results), 3000)
    ]
    stats, _ = pycocotools_stats(to_coco(truth), only(copy.deepcopy(many), iou_type), iou_type)
    assert stats[6] < stats[8]
    np.testing.assert_allclose(metrics(coco_ap(truth, many, iou_type)), stats, atol=1e-12)


def test_a_single_pair_of_masks_has_the_iou_of_pycocotools(make_truth, make_result, rectangle):
    sides = [(0, 0, 20, 20), (5, 5, 30, 9), (40, 40, 60, 60)]
    for crowd, side in itertools.product((False, True), sides):
        truth = make_truth([(64, 64)], [{"mask": rectangle(64, 64, 0, 0, 20, 20), "crowd": crowd}])
        result = make_result(rectangle(64, 64, *side), 0.5)
        iou = coco_mask.iou([result["segmentation"]], [truth.rle(0)], [crowd])[0]
        assert find_overlaps(truth, [result]).iou.tolist() == iou[iou > 0].tolist()


def test_results_are_not_changed(random_set):
    truth, results = random_set(0)
    before = copy.deepcopy(results)
    for iou_type in ("bbox", "segm", "boundary"):
        coco_ap(truth, results, iou_type)
    assert results == before


@pytest.mark.parametrize(
    ("columns", "at"),
    [(20, (0, 0, 0, 0)), (30, (1, 0, 0, 0)), (60, (1, 1, 0, 0)), (72, (1, 1, 1, 0)), (80, (1, 1, 1, 1))],
)
def test_ap_at_the_thresholds_of_vocs_tables(make_truth, make_result, rectangle, columns, at):
    """A mask that is so many of the hundred columns of the true one has that IoU."""
    truth = make_truth([(100, 100)], [{"mask": rectangle(100, 100, 0, 0, 100, 50)}])
    scores = coco_ap(truth, [make_result(rectangle(100, 100, 0, 0, columns, 50), 0.9)], "segm")
    assert tuple(scores[name] for name in ("AP25", "AP50", "AP70", "AP75")) == pytest.approx(at)


# matches by boxes -----------------------------------------------------------------------------------------------------


@pytest.fixture
def two_squares(make_truth, rectangle):
    """Two 20 x 20 instances in the first of two images, one of another class in the second, and a crowd."""
    return make_truth(
        [(100, 100), (100, 100)],
        [
            {"image": 0, "label": 0, "mask": rectangle(100, 100, 10, 10, 30, 30)},
            {"image": 1, "label": 1, "mask": rectangle(100, 100, 0, 0, 20, 20)},
            {"image": 0, "label": 0, "mask": rectangle(100, 100, 60, 60, 80, 80)},
            {"image": 0, "label": 0, "mask": rectangle(100, 100, 0, 80, 20, 100), "crowd": True},
        ],
        category_ids=(3, 0),
        image_ids=["a", "b"],
    )


def test_matches_are_one_to_one_best_score_first(two_squares, make_result, rectangle):
    results = [
        make_result(rectangle(100, 100, 10, 10, 30, 30), 0.5, "a", 3),  # exact, but comes too late
        make_result(rectangle(100, 100, 10, 15, 30, 30), 0.9, "a", 3),  # IoU 0.75, best score
        make_result(rectangle(100, 100, 60, 60, 80, 69), 0.8, "a", 3),  # IoU 0.45: too little
        make_result(rectangle(100, 100, 0, 80, 20, 100), 0.7, "a", 3),  # the crowd
        make_result(rectangle(100, 100, 0, 0, 20, 10), 0.7, "b", 3),  # IoU 0.5, of the wrong class
        make_result(rectangle(100, 100, 0, 0, 20, 11), 0.6, "b", 0),  # IoU 0.55
    ]
    assert match_boxes(two_squares, results) == [(1, 0), (5, 1)]
    blind = filter_categories(two_squares, results, class_agnostic=True)
    assert match_boxes(*blind) == [(1, 0), (4, 1)]


def test_a_true_box_that_is_not_finite_hides_no_other(make_truth, make_result, rectangle):
    mask = rectangle(50, 50, 10, 10, 30, 30)
    truth = make_truth([(50, 50)], [{"box": (np.nan,) * 4}, {"mask": mask}])
    assert match_boxes(truth, [make_result(mask, 0.9)]) == [(0, 1)]


def test_mask_iou_by_hand(two_squares, make_result, rectangle):
    half = make_result(rectangle(100, 100, 10, 10, 30, 20), 0.9, "a", 3)  # half of the mask
    half["bbox"] = [10.0, 10.0, 20.0, 20.0]  # in the right box
    exact = make_result(rectangle(100, 100, 60, 60, 80, 80), 0.2, "a", 3)
    assert mask_iou(two_squares, [half, exact]) == {"mask_iou": 0.75, "matched": 2, "instances": 3}
    # An instance that has no mask takes part in the matching, not in the mean.
    two_squares.segmentations[2] = None
    assert mask_iou(two_squares, [half, exact]) == {"mask_iou": 0.5, "matched": 1, "instances": 2}


def test_no_match_gives_nan(two_squares, make_truth):
    assert match_boxes(two_squares, []) == []
    scores = mask_iou(two_squares, [])
    assert np.isnan(scores["mask_iou"]) and scores["matched"] == 0
    assert mask_iou(make_truth([], []), [])["instances"] == 0
