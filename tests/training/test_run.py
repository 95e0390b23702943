"""Complete tiny trainings: the run folder that they leave, and what is refused."""

import csv
import json
import math
import shutil
import signal
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import boxel
from boxel.data import write
from boxel.data.dataset import InstanceDataset
from boxel.evaluation.run import predict_dataset
from boxel.models.boxinst import BoxInst
from boxel.training import train
from boxel.training.instances import validation_metrics
from boxel.training.prepare import split
from boxel.utils.errors import BoxelError

pytestmark = pytest.mark.slow


def _rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def _interrupt_at(monkeypatch, images):
    """Interrupt the run with Ctrl-C while an image is read."""
    seen = []
    read = InstanceDataset._read

    def counted(self, index):
        seen.append(index)
        if len(seen) == images:
            signal.raise_signal(signal.SIGINT)
        return read(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(InstanceDataset, "_read", counted)
        yield


def test_a_run_folder_is_complete(scenes, tiny, run_folder, caplog):
    caplog.set_level("INFO", logger="boxel")
    model = train("boxinst", scenes, out=run_folder, config=tiny, validate_every=1.0)
    said = caplog.text
    assert "2 of 8 images set aside for validation" in said
    assert "boxinst with tf_efficientnet_lite0: 6 images" in said
    assert f"6 steps of 2 images, lr 0.001, on 1 x cpu; everything goes to {run_folder}" in said

    files = {path.relative_to(run_folder).as_posix() for path in run_folder.rglob("*") if path.is_file()}
    assert files > {
        "config.yaml",
        "categories.json",
        "model.safetensors",
        "metrics.json",
        "metrics.csv",
        "curves.png",
        "report.html",
        "samples/step_000003.jpg",
        "samples/step_000006.jpg",
        "checkpoints/last.ckpt",
    }
    assert any("tfevents" in name for name in files)
    assert yaml.safe_load((run_folder / "config.yaml").read_text())["model"]["head_convs"] == 1

    rows = _rows(run_folder)
    trained = [row for row in rows if row["loss/total"]]
    assert [int(row["step"]) for row in trained] == list(range(6))
    terms = ("classification", "box", "centerness", "projection", "affinity", "mask")
    for row in trained:
        total = sum(float(row[f"weight/{term}"]) * float(row[f"loss/{term}"]) for term in terms)
        assert total == pytest.approx(float(row["loss/total"]), rel=1e-5)
    assert [int(row["step"]) for row in rows if row["val/mask_AP"]] == [2, 5]

    # The metrics are those of the weights in the folder on the images that were set aside.
    metrics = json.loads((run_folder / "metrics.json").read_text())
    again = boxel.load(run_folder)
    assert not again.training and not model.training
    found = validation_metrics(
        predict_dataset(again, split(scenes, 0.25, 0)[1], batch_size=4), split(scenes, 0.25, 0)[1]
    )
    assert found.keys() >= {"mask_AP", "mask_fill"}
    assert {f"val/{name}": pytest.approx(value, abs=2e-3) for name, value in found.items()} | {
        "step": metrics["step"]
    } == metrics
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )

    with pytest.raises(BoxelError, match="holds a run already; continue it with `resume`"):
        train("boxinst", scenes, out=run_folder, config=tiny)
    finished = train("boxinst", scenes, out=run_folder, config=tiny, validate_every=1.0, resume=True)
    assert "is finished already" in caplog.text
    assert torch.equal(finished.head.scales, again.head.scales)


def test_the_best_weights_are_kept_and_the_last_of_equal_ones(scenes, tiny, run_folder, monkeypatch, caplog):
    values = iter([0.1, 0.3, 0.3, 0.2])
    monkeypatch.setattr("boxel.training.instances.validation_metrics", lambda *_: {"mask_AP": next(values)})
    thresholds = [{"all": step / 100, "by_class": {}} for step in (3, 6, 9, 12)]
    choices = iter(thresholds)
    monkeypatch.setattr("boxel.training.instances.choose_thresholds", lambda *_: next(choices))
    caplog.set_level("INFO", logger="boxel")
    model = train("boxinst", scenes, out=run_folder, config=tiny, steps=12)
    assert json.loads((run_folder / "score_thresholds.json").read_text()) == thresholds[1]
    assert (
        model.settings["score_thresholds"]
        == boxel.load(run_folder).settings["score_thresholds"]
        == thresholds[1]
    )
    assert (
        "best F1 on the validation images: all classes 0.06; `boxel predict --score-threshold best` uses them"
        in caplog.text
    )
    assert json.loads((run_folder / "metrics.json").read_text()) == {"step": 6, "val/mask_AP": 0.3}
    kept = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    weights = load_file(run_folder / "model.safetensors")
    assert all(torch.equal(kept[f"model.{name}"], tensor) for name, tensor in weights.items())


def test_the_last_weights_are_kept_if_validated_by_boxes_alone(scenes, tiny, run_folder):
    train("boxinst", scenes.without_masks(), out=run_folder, config=tiny)
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert metrics["step"] == 6 and "val/box_AP" in metrics and "val/mask_AP" not in metrics
    best = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["metrics"]["val/box_AP"] >= metrics["val/box_AP"]


def test_a_run_ended_by_box_ap_keeps_its_best_weights(scenes, tiny, run_folder, monkeypatch):
    values = iter([0.1, 0.3, 0.2, 0.1, 0.0])
    monkeypatch.setattr("boxel.training.instances.validation_metrics", lambda *_: {"box_AP": next(values)})
    train("boxinst", scenes.without_masks(), out=run_folder, config=tiny, steps=30, patience=2)
    assert json.loads((run_folder / "metrics.json").read_text()) == {"step": 6, "val/box_AP": 0.3}


def test_the_splits_of_a_yolo_dataset_are_used(scenes, tiny, run_folder, tmp_path, caplog):
    """`data.yaml` names both splits, and the training uses one of them."""
    caplog.set_level("INFO", logger="boxel")
    for name, images in (("train", range(6)), ("val", range(6, 8))):
        part = scenes.without_masks().select_images(list(images))
        write(part, tmp_path / name, "yolo")
    names = [category.name for category in scenes.categories]
    config = {"train": "train/images", "val": "val/images", "names": names}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(config))
    file = tmp_path / "data.yaml"
    train("boxinst", file, val=file, out=run_folder, config=tiny, steps=1)
    assert "6 images" in caplog.text


def test_init_without_config_uses_the_model_settings_of_the_run(scenes, tiny, tmp_path):
    train("boxinst", scenes, out=tmp_path / "first", config=tiny, steps=1)
    changes = {"steps": 1, "batch_size": 2, "device": "cpu", "data.workers": 0, "augment.short_sides": [64]}
    model = train("boxinst", scenes, out=tmp_path / "second", init=tmp_path / "first", **changes)
    assert model.config.neck_channels == tiny["model"]["neck_channels"]
    assert model.config.backbone == tiny["model"]["backbone"]
    with pytest.raises(BoxelError, match="no model to start from"):
        train("boxinst", scenes, out=tmp_path / "third", init=tmp_path / "nowhere", **changes)


def test_a_wrong_image_folder_is_reported_at_once(scenes, tiny, run_folder, tmp_path):
    with pytest.raises(BoxelError, match=r"masks.json: its images, .* do not exist; .*`images`"):
        train("boxinst", replace(scenes, root=tmp_path), out=run_folder, config=tiny)
    assert not run_folder.exists()


def test_init_with_the_same_backbone_downloads_nothing(scenes, tiny, tmp_path, monkeypatch):
    train("boxinst", scenes, out=tmp_path / "first", config=tiny, steps=1)

    def offline(*_, **__):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
    changes = {"steps": 1, "model.weights": "imagenet"}
    train("boxinst", scenes, out=tmp_path / "second", init=tmp_path / "first", config=tiny, **changes)
    assert (tmp_path / "second" / "model.safetensors").exists()


def test_training_ends_early_without_improvement(scenes, tiny, run_folder, monkeypatch):
    monkeypatch.setattr("boxel.training.instances.validation_metrics", lambda *_: {"mask_AP": 0.5})
    train("boxinst", scenes, out=run_folder, config=tiny, steps=30, patience=2)
    assert torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 9


@pytest.mark.parametrize("changes", [{"ema": 0.9, "accumulate": 2, "steps": 8, "optim.clip": 1.0}])
def test_a_resumed_run_equals_an_uninterrupted_one(scenes, tiny, tmp_path, monkeypatch, caplog, changes):
    caplog.set_level("INFO", logger="boxel")
    tiny |= {"steps": 8, "checkpoint_every": 3}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    model = train("boxinst", scenes, out=whole, config=tiny, **changes)
    handler = signal.getsignal(signal.SIGINT)
    for images in (2, 14):  # in the middle of the first step and of a later one
        for _ in _interrupt_at(monkeypatch, images):
            resume = (broken / "checkpoints").exists()
            assert train("boxinst", scenes, out=broken, config=tiny, resume=resume, **changes) is None
        assert signal.getsignal(signal.SIGINT) == handler
    assert f"stopped at step 1 of 8; its state is in {broken}" in caplog.text
    # Resuming needs neither the hub nor the run that it was started from.
    again = train("boxinst", scenes, out=broken, config=tiny, resume=True, init="nowhere", **changes)
    assert _rows(broken) == _rows(whole)
    assert (broken / "metrics.json").read_text() == (whole / "metrics.json").read_text()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_resuming_with_other_settings_is_refused(scenes, tiny, run_folder, tmp_path, monkeypatch):
    for _ in _interrupt_at(monkeypatch, 3):
        train("boxinst", scenes, out=run_folder, config=tiny)
    with pytest.raises(BoxelError, match=r"config\.yaml: the run started with other settings \(optim\)"):
        train("boxinst", scenes, out=run_folder, config=tiny, resume=True, **{"optim.lr": 1.0})
    renamed = replace(scenes, categories=tuple(replace(c, name=c.name + "s") for c in scenes.categories))
    with pytest.raises(BoxelError, match=r"other settings \(categories\)"):
        train("boxinst", renamed, out=run_folder, config=tiny, resume=True)
    with pytest.raises(BoxelError, match="5 samples to learn from, but the run started with 6"):
        train("boxinst", scenes.select_images(range(7)), out=run_folder, config=tiny, resume=True)
    with pytest.raises(BoxelError, match=r"no checkpoints/last\.ckpt to resume from"):
        train("boxinst", scenes, out=run_folder / "other", config=tiny, resume=True)
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(run_folder / "checkpoints" / "last.ckpt", tmp_path / "checkpoints")
    with pytest.raises(
        BoxelError, match=r"no config\.yaml to resume from; start from scratch in another `out`"
    ):
        train("boxinst", scenes, out=tmp_path, config=tiny, resume=True)


def test_fine_tuning_reports_loaded_and_new_weights(scenes, tiny, tmp_path, caplog):
    caplog.set_level("INFO", logger="boxel")
    train("boxinst", scenes, out=tmp_path / "first", config=tiny, steps=1)
    before = boxel.load(tmp_path / "first")
    tuned = train(
        "boxinst",
        scenes,
        out=tmp_path / "second",
        config=tiny,
        steps=1,
        init=tmp_path / "first",
        class_agnostic=True,
        **{"optim.lr": 0.0, "data.val_share": 0.0, "model.backbone_norm": "frozen_bn"},
    )
    count = len(before.state_dict()) - sum("num_batches_tracked" in name for name in before.state_dict())
    reported = f"{count - 2} weights loaded; new: head.classify; not used: head.classify"
    assert reported in caplog.text
    assert tuned.num_classes == 1 and [c.name for c in tuned.categories] == ["object"]
    assert torch.equal(before.head.regress.weight, tuned.head.regress.weight)


def test_a_detector_starts_from_the_frozen_stem_of_boxcaseg(scenes, tiny, run_folder, caplog):
    caplog.set_level("INFO", logger="boxel")
    backbone = {"backbone": "tf_efficientnet_lite2", "backbone_norm": "frozen_bn", "frozen_stages": 1}
    tiny["model"] |= backbone
    tuned = train("boxinst", scenes, out=run_folder, config=tiny, steps=1, init="boxcaseg")
    stem = boxel.load("boxcaseg").backbone.body.conv_stem.weight
    assert torch.equal(tuned.backbone.body.conv_stem.weight, stem[:, :3])
    assert "new: neck, head, mask_branch; not used: " in caplog.text


def test_frozen_layers_that_would_stay_random_are_refused_with_a_remedy(scenes, tiny, tmp_path):
    tiny["model"]["backbone_norm"] = "gn"
    train("boxinst", scenes, out=tmp_path / "first", config=tiny, steps=1)
    options = {"config": tiny, "steps": 1, "init": tmp_path / "first"}
    with pytest.raises(
        BoxelError, match=r"first: it has no weights that fit backbone\..* stay random; set"
    ) as error:
        train("boxinst", scenes, out=tmp_path / "second", **options, **{"model.backbone_norm": "frozen_bn"})
    for part in ("running_mean", "`model.frozen_stages` to 0", "`model.backbone_norm` to bn"):
        assert part in str(error.value)
    remedy = {"model.frozen_stages": 0, "model.backbone_norm": "bn"}
    train("boxinst", scenes, out=tmp_path / "third", **options, **remedy)


def test_a_non_finite_loss_skips_its_step_only(scenes, tiny, run_folder, monkeypatch, caplog):
    losses, states = BoxInst.compute_losses, []

    def poisoned(self, *args):
        states.append([p.detach().clone() for p in self.parameters()])
        found = losses(self, *args)
        return found | {"box": found["box"] * float("nan")} if len(states) == 2 else found

    monkeypatch.setattr(BoxInst, "compute_losses", poisoned)
    train("boxinst", scenes, out=run_folder, config=tiny, steps=4)
    assert "step 1: the loss box is not finite" in caplog.text
    same = [all(torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in pairwise(states)]
    assert same == [False, True, False]
    assert all(math.isfinite(float(row["loss/box"])) for row in _rows(run_folder)[2:] if row["loss/box"])


def test_bfloat16(scenes, tiny, run_folder):
    train("boxinst", scenes, out=run_folder, config=tiny, steps=2, precision="bf16-mixed")
    assert all(math.isfinite(float(row["loss/total"])) for row in _rows(run_folder) if row["loss/total"])
    assert json.loads((run_folder / "metrics.json").read_text())["val/mask_fill"] >= 0


def test_data_settings_reach_the_model(scenes, tiny, run_folder, caplog):
    caplog.set_level("INFO", logger="boxel")
    names = ["star", "ring", "cross"]
    model = train(
        "boxinst",
        scenes.without_masks(),
        masks=scenes,
        out=run_folder,
        config=tiny,
        steps=1,
        categories=names,
        mask_classes=["star"],
        **{"data.min_box": 4.0, "data.val_share": 0.0},
    )
    assert [category.name for category in model.categories] == names
    label = [scenes.categories[k].name for k in scenes.labels]
    count = len([name for name in label if name in names])
    assert f"8 images, {count} instances ({label.count('star')} with masks" in caplog.text
    assert "of 3 categories" in caplog.text


def test_validation_images_may_be_in_another_folder(scenes, tiny, run_folder, tmp_path, caplog):
    caplog.set_level("INFO", logger="boxel")
    from boxel.data.synthetic import write_scenes

    write_scenes(tmp_path / "val", 3, seed=9, height=64, width=96)
    seen = []
    tiny |= {"steps": 1}
    from boxel.training.instances import InstanceTask

    original = InstanceTask.__init__

    def watched(self, model, config, plan, truth, dataset):
        seen.append(truth)
        original(self, model, config, plan, truth, dataset)

    InstanceTask.__init__ = watched
    try:
        # Both folders have files of the same names.
        train(
            "boxinst",
            scenes.root.parent / "boxes.json",
            images=scenes.root,
            val=tmp_path / "val" / "masks.json",
            out=run_folder,
            config=tiny,
        )
    finally:
        InstanceTask.__init__ = original
    assert seen[0].root == tmp_path / "val" / "images" and len(seen[0]) == 3
    assert "8 images" in caplog.text and "set aside" not in caplog.text
    (tmp_path / "val" / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(BoxelError, match="name their folder with `val_images`"):
        train("boxinst", scenes, val=tmp_path / "val" / "masks.json", out=tmp_path / "b", config=tiny)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.backbone_norm": "frozen_bn"},
            "frozen_bn cannot learn.*set `model.backbone_norm` to bn or gn",
        ),
        ({"device": "abacus"}, "this combination of `device`, `devices`, `strategy` and `precision` is not"),
        (
            {"strategy": "abacus"},
            "this combination of `device`, `devices`, `strategy` and `precision` is not",
        ),
        ({"data.categories": ["sta"]}, "no category 'sta'.*Did you mean 'star'"),
        ({"data.min_box": 1000.0}, "there is no instance to learn from"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(scenes, tiny, run_folder, changes, message):
    with pytest.raises(BoxelError, match=message) as error:
        train("boxinst", scenes, out=run_folder, config=tiny, **changes)
    assert "\n" not in str(error.value)
    # No file is left that would block the next attempt.
    assert not (run_folder / "checkpoints" / "last.ckpt").exists()


def test_an_unreadable_image_is_skipped(scenes, tiny, run_folder, caplog):
    paths = ["absent.png", *scenes.paths[1:]]
    broken = replace(scenes, paths=paths)
    model = train("boxinst", broken, out=run_folder, config=tiny, steps=4, **{"data.val_share": 0.5})
    assert model is not None and "absent.png" in caplog.text


def test_a_dataset_of_crowds_alone_is_refused(scenes, tiny, run_folder):
    crowds = replace(scenes, iscrowd=np.ones_like(scenes.iscrowd))
    with pytest.raises(BoxelError, match="no instance to learn from"):
        train("boxinst", crowds, out=run_folder, config=tiny)
