import numpy as np
import pytest

from boxel.evaluation import coco_ap, fill_boxes, paired_bootstrap
from boxel.evaluation.bootstrap import sample_ap
from boxel.evaluation.coco import match_detections
from boxel.evaluation.results import filter_categories
from boxel.utils.errors import BoxelError


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["segm", "bbox"])
@pytest.mark.parametrize("seed", range(3))
def test_aps_equal_coco_ap(random_set, seed, metric):
    truth, results = random_set(seed)
    filled = fill_boxes(truth, results)
    interval = paired_bootstrap(truth, results, filled, metric, samples=10)
    assert interval["a"] == pytest.approx(coco_ap(truth, results, metric)["AP"], abs=1e-9)
    assert interval["b"] == pytest.approx(coco_ap(truth, filled, metric)["AP"], abs=1e-9)
    assert interval["ratio"] == pytest.approx(interval["a"] / interval["b"])


def test_one_threshold_gives_the_ap_at_it(random_set):
    truth, results = random_set(1)
    for threshold, name in ((0.25, "AP25"), (0.5, "AP50"), (0.7, "AP70"), (0.75, "AP75")):
        interval = paired_bootstrap(truth, results, results, samples=5, thresholds=[threshold])
        assert interval["a"] == pytest.approx(coco_ap(truth, results, "segm")[name], abs=1e-9)


def test_several_runs_are_averaged(random_set):
    truth, results = random_set(0)
    filled, half = fill_boxes(truth, results), results[::2]
    aps = [coco_ap(truth, found, "segm")["AP"] for found in (results, half, filled)]
    interval = paired_bootstrap(truth, [results, half], filled, samples=50)
    assert interval["a"] == pytest.approx((aps[0] + aps[1]) / 2, abs=1e-9)
    assert interval["b"] == pytest.approx(aps[2], abs=1e-9)
    assert interval["low"] < interval["ratio"] < interval["high"]
    same = paired_bootstrap(truth, [results, half], [results, half], samples=50)
    assert same["low"] == same["ratio"] == same["high"] == 1
    assert paired_bootstrap(truth, [[], []], [results], samples=5)["ratio"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_counting_an_image_n_times_equals_repeating_it(random_set, seed):
    truth, results = random_set(seed, distinct_scores=True)
    draw = np.random.default_rng(seed).multinomial(len(truth), np.full(len(truth), 1 / len(truth)))
    counted = sample_ap(match_detections(sorted_by_id(truth), results), draw[None].astype(float))
    ordered = sorted_by_id(truth)
    drawn = ordered.select_images(np.flatnonzero(draw))
    image_ids, repeated, copies = [], [], []
    for image in np.flatnonzero(draw):
        for _ in range(draw[image]):
            image_ids.append(len(image_ids))
            copies.append(list(drawn.image_ids).index(ordered.image_ids[image]))
            own = [r for r in results if r["image_id"] == ordered.image_ids[image]]
            repeated += [{**r, "image_id": image_ids[-1]} for r in own]
    physical = concatenate(drawn, copies, image_ids)
    assert max(draw) > 1 and min(draw) == 0
    assert counted[0] == pytest.approx(coco_ap(physical, repeated, "segm")["AP"], abs=1e-9)


def sorted_by_id(truth):
    return truth.select_images(np.argsort(truth.image_ids))


def concatenate(truth, copies, image_ids):
    """A set of `copies` (indices of images, which may repeat) under new ids."""
    from dataclasses import replace

    parts = [truth.select_images([image]) for image in copies]

    def joined(name):
        return np.concatenate([getattr(part, name) for part in parts])

    columns = ("labels", "boxes", "iscrowd", "segmentations", "quality", "source", "trusted", "areas")
    return replace(
        truth,
        image_ids=image_ids,
        paths=[""] * len(parts),
        label_maps=[None] * len(parts),
        widths=joined("widths"),
        heights=joined("heights"),
        ids=list(range(sum(len(part.labels) for part in parts))),
        image_index=np.repeat(np.arange(len(parts)), [len(p.labels) for p in parts]).astype(np.int32),
        **{name: joined(name) for name in columns},
    )


def test_results_against_themselves_have_a_ratio_of_1(random_set):
    truth, results = random_set(0)
    interval = paired_bootstrap(truth, results, results, samples=50)
    assert (interval["ratio"], interval["low"], interval["high"]) == (1, 1, 1)


def test_the_interval_contains_the_ratio_and_depends_on_the_seed(random_set):
    truth, results = random_set(2)
    filled = fill_boxes(truth, results)
    one = paired_bootstrap(truth, results, filled, samples=200, seed=1)
    assert one["low"] < one["ratio"] < one["high"]
    assert one == paired_bootstrap(truth, results, filled, samples=200, seed=1)
    assert one != paired_bootstrap(truth, results, filled, samples=200, seed=2)


def test_the_interval_by_hand(make_truth, make_result, rectangle):
    """Two images of one instance each, a finds both and b the first: drawn, b has AP 1, half of it, or 0.

    Half the recall is 51 of 101 recalls. The draws (2, 0), (1, 1), (0, 2) have the chances 1/4, 1/2, 1/4, so
    the ratios that are defined are 1 (a third) and 101 / 51 (two thirds).
    """
    mask = rectangle(50, 50, 5, 5, 30, 30)
    truth = make_truth([(50, 50)] * 2, [{"image": 0, "mask": mask}, {"image": 1, "mask": mask}])
    both = [make_result(mask, 0.9, 1), make_result(mask, 0.8, 2)]
    interval = paired_bootstrap(truth, both, both[:1], samples=400)
    assert interval["ratio"] == pytest.approx(101 / 51)
    assert (interval["low"], interval["high"]) == pytest.approx((1, 101 / 51))


def test_undefined_ratios_are_nan(make_truth, make_result, rectangle):
    mask = rectangle(50, 50, 5, 5, 30, 30)
    truth = make_truth([(50, 50)], [{"mask": mask}])
    found = [make_result(mask, 0.5)]
    assert np.isnan(paired_bootstrap(truth, found, [], samples=5)["ratio"])
    assert paired_bootstrap(truth, [], found, samples=5)["high"] == 0
    assert np.isnan(
        list(paired_bootstrap(make_truth([(50, 50)], []), found, found, samples=5).values())
    ).all()
    assert np.isnan(list(paired_bootstrap(make_truth([], []), [], [], samples=5).values())).all()
    with pytest.raises(BoxelError, match="none of the 1 results is of an image of the ground truth"):
        paired_bootstrap(truth, found, [make_result(mask, 0.5, 9)])


@pytest.mark.parametrize("selected", [{"categories": ["class 7"]}, {"class_agnostic": True}])
def test_aps_of_selected_categories(random_set, selected):
    truth, results = filter_categories(*random_set(3, distinct_scores=True), **selected)
    interval = paired_bootstrap(truth, results, results, samples=2)
    assert interval["a"] == pytest.approx(coco_ap(truth, results)["AP"], abs=1e-9)
