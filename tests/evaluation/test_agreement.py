import numpy as np
import pytest

from boxel.evaluation import box_agreement, mean_fill


def test_box_agreement_by_hand(make_truth, make_result, rectangle):
    truth = make_truth(
        [(100, 100)], [{"box": (10, 10, 30, 30)}, {"box": (50, 50, 70, 70)}, {"box": (80, 0, 90, 10)}]
    )
    fits = make_result(rectangle(100, 100, 10, 10, 30, 30), 0.9)
    narrow = make_result(rectangle(100, 100, 50, 50, 70, 62), 0.8)  # a tight box of 0.6 in the right box
    narrow["bbox"] = [50.0, 50.0, 20.0, 20.0]
    assert box_agreement(truth, [fits, narrow]) == {
        "mean": pytest.approx(0.8),
        "share50": 1.0,
        "share75": 0.5,
        "matched": 2,
        "instances": 3,
    }
    empty = make_result(np.zeros((100, 100), dtype=bool), 0.9)
    empty["bbox"] = [50.0, 50.0, 20.0, 20.0]
    assert box_agreement(truth, [fits, empty])["mean"] == pytest.approx(0.5)
    nothing = box_agreement(truth, [])
    assert np.isnan([nothing["mean"], nothing["share50"], nothing["share75"]]).all()
    assert nothing["matched"] == 0


def test_mean_fill_by_hand(make_result, rectangle):
    filled = make_result(rectangle(50, 50, 0, 0, 20, 20), 0.5)
    quarter = {**make_result(rectangle(50, 50, 0, 0, 10, 10), 0.5), "bbox": [0.0, 0.0, 20.0, 20.0]}
    no_area = {**filled, "bbox": [3.0, 3.0, 0.0, 5.0]}
    assert mean_fill([filled, quarter, no_area]) == pytest.approx(0.625)
    tight = {key: value for key, value in quarter.items() if key != "bbox"}
    assert mean_fill([tight]) == 1.0
    assert np.isnan(mean_fill([]))
