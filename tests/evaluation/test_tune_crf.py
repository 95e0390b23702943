"""The search for a segmenter's CRF."""

import inspect
from dataclasses import replace
from types import MethodType, SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from boxel.cli.main import build_parser
from boxel.crf import CRFConfig
from boxel.data.annotations import Annotations, Category, values_to_labels
from boxel.data.formats.builder import Builder
from boxel.evaluation.semantic import measure_segmenter
from boxel.evaluation.tune_crf import VALUES, Trial, best_crf, descend, format_trials, tune_crf
from boxel.models.semantic.inference import semantic_inference_config
from boxel.models.semantic.model import Segmenter
from boxel.utils.errors import BoxelError

CLASSES = [Category(1, "field"), Category(2, "thing")]


class Coarse(nn.Module):
    """Separates red things from a blue field, but only in cells of 16 pixels, and never with certainty."""

    stride = 16

    def __init__(self):
        super().__init__()
        self.widths = []

    def forward(self, images):
        self.widths.append(images.shape[-1])
        padded = F.pad(images, (0, -images.shape[-1] % 16, 0, -images.shape[-2] % 16), mode="replicate")
        red = F.avg_pool2d(padded[:, :1] - padded[:, 2:], 16)
        return 3 * torch.cat([-red, red], 1)


@pytest.fixture
def model():
    network = Coarse()
    weight = nn.Parameter(torch.zeros(1))
    segmenter = SimpleNamespace(
        network=network, parameters=lambda: iter([weight]), categories=tuple(CLASSES), settings={}
    )
    segmenter.predict_batch = MethodType(Segmenter.predict_batch, segmenter)
    return segmenter


@pytest.fixture
def truth(tmp_path) -> Annotations:
    """Five photos, 48 to 56 pixels wide, of a noisy red disc on blue; the rim of each disc is void."""
    rows, rng = Builder(), np.random.default_rng(0)
    for k in range(5):
        y, x = np.mgrid[:40, : 48 + 2 * k]
        away = np.hypot(x - 22 - k, y - 19)
        pixels = np.where(away[..., None] < 13, (200, 60, 60), (60, 60, 200)) + rng.normal(
            0, 12, (*x.shape, 3)
        )
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{k}.png")
        values = np.where(away < 13, 2, 1)
        values[np.abs(away - 13) < 0.5] = 9
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / f"{k}_map.png")
        rows.add_image(k, f"{k}.png", 48 + 2 * k, 40, f"{k}_map.png")
    data = rows.build(tmp_path, CLASSES, tmp_path)
    return replace(data, map_labels=values_to_labels({1: 0, 2: 1}))


@pytest.mark.slow
def test_trials_equal_evaluation_with_the_same_crf(model, truth, caplog) -> None:
    caplog.set_level("INFO")
    tries = tune_crf(model, truth)
    assert tries[0].crf is None and tries[1].crf == CRFConfig()
    best = best_crf(tries)
    for attempt in (tries[0], tries[1], max(tries, key=lambda attempt: attempt.mean_iou)):
        measured = measure_segmenter(truth, model, semantic_inference_config(model, crf=attempt.crf))[
            "mean_iou"
        ]
        assert attempt.mean_iou == pytest.approx(measured, abs=1e-3)
    # Cells of 16 pixels are a poor disc, and colors tell where it ends.
    assert tries[0].mean_iou < 0.9 and measured > 0.97
    assert measured == pytest.approx(max(mean_iou for _, mean_iou in tries), abs=1e-3)
    assert best.smooth_sigma == 3 and len(caplog.records) == len(tries) == len(
        {str(attempt.crf) for attempt in tries}
    )


def test_a_hundred_images_decide_as_in_section_5_1() -> None:
    assert inspect.signature(tune_crf).parameters["count"].default == 100
    assert build_parser("tune-crf").parse(["run", "val.json"])["max_images"] == 100


@pytest.mark.slow
def test_the_network_runs_once_on_images_drawn_at_random(model, truth) -> None:
    tune_crf(model, truth, count=3)
    assert model.network.widths == [48 + 2 * k for k in sorted(np.random.default_rng(0).permutation(5)[:3])]
    assert model.network.widths not in (
        [48, 52, 56],
        [48, 50, 52],
    )  # neither evenly spaced nor the first ones


@pytest.mark.slow
def test_an_image_that_cannot_be_used_is_skipped(model, truth, caplog) -> None:
    (truth.root / "1.png").unlink()
    Image.new("L", (5, 5)).save(truth.root / "2_map.png")
    tune_crf(model, truth)
    left_out = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(left_out) == 2 and "1.png" in left_out[0] and "5 x 5" in left_out[1]
    assert model.network.widths == [48, 54, 56]
    for file in truth.root.glob("?.png"):
        file.unlink()
    with pytest.raises(BoxelError, match="none of its 5 images can be evaluated"):
        tune_crf(model, truth)


def test_descent_finds_the_peak_step_by_step() -> None:
    peak, asked = CRFConfig(appearance_weight=2, appearance_sigma=120, color_sigma=3, smooth_weight=1), []

    def places(crf: CRFConfig) -> np.ndarray:
        return np.array([VALUES[name].index(getattr(crf, name)) for name in VALUES])

    def score(crf: CRFConfig) -> float:
        asked.append(crf)
        return -float(np.abs(places(crf) - places(peak)).sum())

    assert descend(score, CRFConfig()) == peak
    # Three steps down and one too far, then one up; no value is tried that is not beside the best.
    assert list(dict.fromkeys(crf.appearance_weight for crf in asked)) == [10, 7, 4, 2, 1]
    assert {crf.smooth_sigma for crf in asked} == {3} and {crf.iterations for crf in asked} == {10}


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_equal_scores_end_the_descent(value) -> None:
    assert descend(lambda crf: value, CRFConfig()) == CRFConfig()


def test_the_table_ends_with_a_conclusion() -> None:
    weak, strong = CRFConfig(appearance_weight=4), CRFConfig(appearance_weight=15, color_sigma=5)
    tries = [Trial(None, 0.5), Trial(CRFConfig(), 0.25), Trial(weak, 0.5125), Trial(strong, 0.4)]
    assert best_crf(tries) == weak
    assert format_trials(tries).splitlines() == [
        "appearance_weight  appearance_sigma  color_sigma  smooth_weight  mean IoU",
        "no CRF                                                             0.5000",
        "10                               80           13              3    0.2500",
        "4                                80           13              3    0.5125",
        "15                               80            5              3    0.4000",
        "",
        "mean IoU 0.5000 without a CRF, 0.5125 with the best one.",
    ]
    assert best_crf([tries[0], tries[1]]) == CRFConfig()
    assert format_trials(tries[:2]).endswith("0.2500 with the best one; do not use `crf`.")
