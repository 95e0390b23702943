"""Comparisons: differences by hand, intervals, what is refused, and what is announced."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from boxel.cli import main
from boxel.data import example_scenes, write
from boxel.evaluation import EvaluateConfig, compare, evaluate, instance_ious, paired_bootstrap, to_results
from boxel.evaluation.bootstrap import draw_images, paired_difference
from boxel.evaluation.compare import _without_classes_if_any
from boxel.evaluation.scores import MaskScores
from boxel.utils.errors import UsageError


@pytest.fixture
def files(tmp_path):
    """Truth of four scenes, and detections of all and of half of its objects."""
    truth = example_scenes(4)
    rows = to_results(truth)
    for name, found in (("all", rows), ("half", rows[::2])):
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    write(truth, tmp_path / "val.json")
    return truth, tmp_path / "all.json", tmp_path / "half.json"


def test_differences_and_intervals_of_ap(files):
    truth, everything, half = files
    found = compare([everything, half], truth)
    first, second = found.metrics["mask_AP"]
    pair = paired_bootstrap(truth, json.loads(half.read_text()), json.loads(everything.read_text()))
    assert (first, second["value"]) == (
        {"run": "all.json", "value": pytest.approx(1)},
        pytest.approx(pair["a"]),
    )
    assert second["difference"] == pytest.approx(pair["a"] - pair["b"])
    # All APs of the first are 1, so the interval of the ratio is that of the difference, plus 1.
    assert (second["low"] + 1, second["high"] + 1) == pytest.approx((pair["low"], pair["high"]))
    assert second["high"] < 0
    assert [*found.metrics] == ["mask_AP", "mask_AP50", "box_AP", "box_AP50"]
    assert (found.kind, found.images, found.notes, found.errors) == ("detections", 4, [], [])


def test_a_difference_is_of_the_same_samples_of_images():
    draws = draw_images(3, samples=2000, seed=1)
    assert draws.shape == (2001, 3) and (draws.sum(axis=1) == 3).all() and (draws[0] == 1).all()
    noise = draws @ np.array([0.0, 5.0, -3.0])
    found = paired_difference(noise + 0.25, noise)
    assert found == {name: pytest.approx(0.25) for name in ("difference", "low", "high")}
    # The mean of a coin of two images: 0, 0.5 or 1, each end of which has a quarter of the samples.
    coin = draw_images(2, samples=2000) @ np.array([0.0, 0.5])
    assert paired_difference(coin, 0 * coin) == {"difference": 0.5, "low": 0.0, "high": 1.0}


def test_metrics_of_masks_are_weighted_by_the_draws(make_truth, rectangle):
    masks = [
        rectangle(40, 40, 0, 0, 20, 20),
        rectangle(40, 40, 0, 0, 20, 20),
        rectangle(40, 40, 20, 20, 40, 40),
    ]
    rows = [{"mask": mask, "image": k, "label": int(k > 1)} for k, mask in enumerate(masks)]
    truth = make_truth([(40, 40)] * 3, rows, (1, 2))
    scores = MaskScores(truth, truth, (np.array([0.5, 1.0, 0.8]), np.arange(3), np.arange(3)))
    sampled = scores.sample(np.array([[1.0, 1, 1], [2, 0, 1], [3, 0, 0]]))
    assert sampled["mask_iou"].tolist() == pytest.approx([2.3 / 3, 0.6, 0.5])
    assert sampled["IoU@50"].tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert sampled["mask_iou_by_class"].tolist() == pytest.approx([(0.75 + 0.8) / 2, 0.65, 0.5])
    assert scores.image_scores().tolist() == [0.5, 1.0, 0.8]
    assert instance_ious(truth, truth)[0].tolist() == [1, 1, 1]


def test_the_command_prints_and_writes_a_page(files, tmp_path, capsys):
    truth, everything, half = files
    (tmp_path / "runs").mkdir()
    given = ["compare", str(everything), str(half), str(tmp_path / "val.json"), "--images", str(truth.root)]
    assert (
        main([*given, "--report", str(tmp_path / "page.html"), "--json", str(tmp_path / "found.json")]) == 0
    )
    out = capsys.readouterr().out
    assert re.search(r"mask AP +half\.json +0\.\d{3} +-0\.\d{3} +-0\.\d{3} +-0\.\d{3}\n", out)
    assert json.loads((tmp_path / "found.json").read_text())["metrics"]["mask_AP"][0]["value"] == 1
    page = (tmp_path / "page.html").read_text()
    assert "Comparison: all.json and half.json" in page and page.count('class="labeled"') % 3 == 0
    assert "half.json: 0." in page  # beside its picture, its F1


def test_one_run_and_runs_of_two_kinds_are_refused(files, tmp_path, capsys):
    truth, everything, _ = files
    with pytest.raises(UsageError, match="two runs or more"):
        compare([everything], truth)
    write(replace(truth, quality=None), tmp_path / "masks.json")
    with pytest.raises(UsageError, match=r"masks\.json gives masks and .*all\.json detections"):
        compare([everything, tmp_path / "masks.json"], truth)
    assert main(["compare", str(everything), str(tmp_path / "val.json")]) == 2
    assert "boxel compare runs/a runs/b val.json" in capsys.readouterr().err


def test_a_run_that_has_learned_from_the_images_is_announced(files, tmp_path, monkeypatch):
    truth, everything, half = files
    source = tmp_path / "val.json"
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").write_text(f"optim:\n  lr: {len(name)}\nname: {name}\n")
        inputs = {"data": {"path": str(source if name == "b" else everything)}}
        (folder / "run.json").write_text(json.dumps({"inputs": inputs}))
    results = {tmp_path / "a": everything, tmp_path / "b": half}
    plain = compare.__globals__["evaluate"]
    monkeypatch.setitem(
        compare.__globals__, "evaluate", lambda run, truth, **given: plain(results[run], truth, **given)
    )
    found = compare([*results], replace(truth, file=str(source)), report=tmp_path / "page.html")
    assert len(found.notes) == 1 and found.notes[0].startswith(f"b was trained on {source}")
    page = (tmp_path / "page.html").read_text()
    assert "b was trained on" in page
    rows = [re.sub(r"<[^>]*>", "|", row) for row in re.findall(r"<tr>.*?</tr>", page)]
    assert "||name||a||b||" in rows and not any("optim.lr" in row for row in rows)


def test_all_are_compared_without_classes_if_one_knows_none(files, caplog):
    truth, everything, _ = files
    wrong = [row | {"category_id": truth.categories[0].id} for row in json.loads(everything.read_text())]
    found = [
        evaluate(wrong, truth, class_agnostic=True, boundary=False),
        evaluate(wrong, truth, boundary=False),
    ]
    assert found[1].metrics["mask"]["AP"] < 0.9
    same = _without_classes_if_any(found, truth, {})
    assert [one.metrics["mask"]["AP"] for one in same] == pytest.approx([1, 1])
    assert "not all subjects know classes, so that all are compared without" in caplog.text
    assert _without_classes_if_any(found[1:] * 2, truth, {}) == found[1:] * 2


def test_a_comparison_without_classes_keeps_categories_and_errors(files):
    truth, everything, _ = files
    name = truth.categories[0].name
    config, rows = EvaluateConfig(categories=[name], boundary=False), json.loads(everything.read_text())
    agnostic = evaluate(rows, truth, config=replace(config, class_agnostic=True))
    other = replace(evaluate(rows, truth, config=config), errors=["a.jpg is damaged."])
    again = _without_classes_if_any([agnostic, other], truth, {"config": config})[1]
    count = int((truth.labels == 0).sum())
    assert again.metrics["instances"] == count < len(truth.ids)
    assert again.errors == ["a.jpg is damaged."]


def test_one_file_twice_gets_two_short_names(files):
    truth, everything, _ = files
    assert compare([everything, everything], truth).names == ["all.json (1)", "all.json (2)"]
