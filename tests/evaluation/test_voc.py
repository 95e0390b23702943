import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from boxel.evaluation import region_ap


@pytest.mark.parametrize("seed", range(4))
def test_region_ap_equals_pycocotools_with_fine_recalls(random_set, to_coco, seed):
    truth, results = random_set(seed)
    scores = region_ap(truth, results)
    dataset, ious = to_coco(truth), [0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dataset
        coco.createIndex()
        evaluator = COCOeval(
            coco, coco.loadRes([{k: v for k, v in r.items() if k != "bbox"} for r in results])
        )
        evaluator.params.iouThrs = np.array(ious)
        evaluator.params.recThrs = np.linspace(0, 1, 1001)
        evaluator.params.maxDets = [1000]
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"][..., 0, 0]  # (T, R, K)
    known = precision[0, 0] > -1
    by_iou = dict(zip(ious, precision[:, :, known].mean(axis=(1, 2)), strict=True))
    assert by_iou[0.5] > 0.02
    for iou in (0.25, 0.5, 0.7, 0.75):
        assert scores[f"mAPr{round(100 * iou)}"] == pytest.approx(by_iou[iou], abs=1e-3)
    volume = np.mean([by_iou[iou] for iou in ious if iou not in (0.25, 0.75)])
    assert scores["mAPr_vol"] == pytest.approx(volume, abs=1e-3)


def test_region_ap_by_hand(make_truth, make_result, rectangle):
    """Three instances; the best detection finds one, the next none, the third another: 1/3 x 1 + 1/3 x 2/3."""
    cell = [rectangle(90, 30, 0, 30 * k, 30, 30 * k + 30) for k in range(3)]
    truth = make_truth([(90, 30)], [{"mask": mask} for mask in cell])
    half = rectangle(90, 30, 0, 15, 30, 45)  # an IoU of a third with two of them
    found = [make_result(cell[0], 0.9), make_result(half, 0.8), make_result(cell[2], 0.7)]
    scores = region_ap(truth, found)
    assert scores["mAPr50"] == scores["mAPr70"] == pytest.approx(1 / 3 + 2 / 9)
    assert scores["mAPr75"] == scores["mAPr50"] and scores["mAPr25"] == 1
    # At 0.1, 0.2 and 0.3, below an IoU of a third, it finds the second instance, and nothing is false.
    assert scores["mAPr_vol"] == pytest.approx((3 * 1 + 6 * 5 / 9) / 9)


def test_a_second_detection_of_an_instance_is_false(make_truth, make_result, rectangle):
    """The second detection of an instance is false."""
    mask = rectangle(20, 20, 0, 0, 10, 10)
    truth = make_truth([(20, 20)], [{"mask": mask}, {"mask": rectangle(20, 20, 10, 10, 20, 20)}])
    assert region_ap(truth, [make_result(mask, 0.9), make_result(mask, 0.8)])["mAPr50"] == pytest.approx(0.5)


def test_missing_instances_give_nan(make_truth, make_result, rectangle):
    truth = make_truth([(20, 20)], [])
    scores = region_ap(truth, [make_result(rectangle(20, 20, 0, 0, 5, 5), 0.9)])
    assert np.isnan(scores["mAPr50"]) and np.isnan(scores["mAPr_vol"])
