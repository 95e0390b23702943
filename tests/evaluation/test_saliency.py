import numpy as np
import pytest
from PIL import Image

from boxel.evaluation import saliency_metrics
from boxel.evaluation.saliency import measure_saliency
from boxel.labeling.teachers import make_teacher


def test_saliency_of_two_images_by_hand():
    """At a threshold of 0.8 the images have precisions of 1 and 1 / 2, and recalls of 1 / 2 and 1."""
    row = np.array([[True, True, False, False]])
    first, second = np.array([[0.9, 0.1, 0.1, 0.1]]), np.array([[0.8, 0.9, 0.9, 0.9]])
    metrics = saliency_metrics([(row, first), (row, second)])
    assert metrics["mae"] == pytest.approx(((0.1 + 0.9 + 0.1 + 0.1) / 4 + (0.2 + 0.1 + 0.9 + 0.9) / 4) / 2)
    best = 1.3 * 0.75 * 0.75 / (0.3 * 0.75 + 0.75)
    everything = 1.3 * 0.5 * 1 / (0.3 * 0.5 + 1)
    assert best > everything and metrics["max_f"] == pytest.approx(best)


def test_a_perfect_map_has_no_error_and_an_f_measure_of_1():
    gt = np.eye(5, dtype=bool)
    assert saliency_metrics([(gt, gt.astype(np.float32))]) == {"mae": 0, "max_f": 1}
    assert saliency_metrics([(gt, 1 - gt.astype(np.float32))])["max_f"] == pytest.approx(
        1.3 * 0.2 / (0.3 * 0.2 + 1)
    )


def test_unreadable_images_and_crowds_are_left_out(tmp_path, make_truth, rectangle, caplog):
    masks = [rectangle(8, 8, 0, 0, 4, 4), rectangle(8, 8, 4, 4, 8, 8)]
    truth = make_truth([(8, 8)], [{"mask": masks[0]}, {"mask": masks[1], "crowd": True}], root=tmp_path)
    (tmp_path / "0.png").write_bytes(b"torn")
    assert np.isnan(measure_saliency(truth, make_teacher("rectangle"))["mae"])
    assert "Its saliency is not measured" in caplog.text
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    metrics = measure_saliency(truth, make_teacher("rectangle"))
    assert metrics["mae"] == pytest.approx(0.75, abs=1e-4)
    assert metrics["max_f"] == pytest.approx(1.3 * 0.25 / (0.3 * 0.25 + 1))
