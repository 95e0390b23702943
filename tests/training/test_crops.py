"""Complete tiny trainings of BoxCaseg, on boxes of generated scenes and a folder of salient images."""

import csv
import json
import signal
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

import boxel
from boxel.cli import main
from boxel.data.crops import CropDataset
from boxel.data.images import read_image
from boxel.evaluation.boxes import measure_masks
from boxel.masks.rle import encode
from boxel.training import train
from boxel.utils.errors import UsageError

pytestmark = pytest.mark.slow


@pytest.fixture
def tiny(tiny):
    """Settings of a training of four steps."""
    shared = {key: tiny[key] for key in ("data", "optim", "device")}
    model = {"backbone": "resnet10t", "weights": "none", "neck": "top_down", "neck_channels": 16, "side": 64}
    return shared | {"model": model, "crops": {"side": 64}, "batch_size": 4, "steps": 4}


@pytest.fixture(scope="session")
def objects(scenes):
    """The largest instance of each scene."""
    areas = np.array([scenes.mask(i).sum() for i in range(len(scenes.labels))])
    largest = [own[areas[own].argmax()] for own in map(scenes.instances_in, range(len(scenes)))]
    return scenes.select_instances(np.array(largest)).class_agnostic()


@pytest.fixture(scope="session")
def salient(objects, tmp_path_factory):
    folder = tmp_path_factory.mktemp("salient") / "set"
    boxel.write(objects, folder, format="salient")
    return folder


def read_rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def labeled(model, data):
    """The dataset with the model's masks of its boxes."""
    codes = np.full(len(data.labels), None, dtype=object)
    for index in range(len(data)):
        own = data.instances_in(index)
        image = torch.from_numpy(read_image(data.image_path(index))).permute(2, 0, 1) / 255
        masks, _ = model([image], boxes=[torch.from_numpy(data.boxes[own])])
        codes[own] = [msgspec.json.encode(encode(mask.numpy())) for mask in masks[0]]
    return replace(data, segmentations=codes)


@pytest.mark.parametrize("heads", [["weak", "salient", "transferred"], ["shared"]], ids="+".join)
def test_training_on_boxes_and_salient_images(scenes, salient, tiny, run_folder, caplog, heads):
    caplog.set_level("INFO", logger="boxel")
    tiny["model"]["heads"] = heads
    held_out = scenes.select_images([6, 7])
    training = scenes.without_masks().select_images(range(6))
    model = boxel.train("boxcaseg", training, salient=salient, val=held_out, out=run_folder, config=tiny)
    assert "of 8 salient images show a single object and are used" in caplog.text
    assert f"boxcaseg with resnet10t: 6 images, {len(training.labels)} instances (0 with masks" in caplog.text
    assert "4 steps of 4 crops" in caplog.text

    trained = [row for row in read_rows(run_folder) if row["loss/total"]]
    assert [int(row["step"]) for row in trained] == list(range(4))
    for row in trained:
        losses = {name: float(row[f"loss/{name}"]) for name in ("mil", "smooth", "pixel")}
        assert losses["mil"] > 0 and losses["pixel"] > 0
        total = losses["mil"] + 0.05 * losses["smooth"] + losses["pixel"]
        assert total == pytest.approx(float(row["loss/total"]), rel=1e-5)
    assert list((run_folder / "samples").glob("*.jpg")) and (run_folder / "curves.png").exists()

    # The folder has the trained model, and the metrics of its masks.
    again = boxel.load(run_folder)
    assert not again.training and again.config.heads == heads
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    metrics = json.loads((run_folder / "metrics.json").read_text())
    made = labeled(again, held_out.without_masks())
    measured = measure_masks(held_out, made, min_side=0)
    assert measured.pop("instances") == len(held_out.labels) and measured.pop("min_side") == 0
    assert measured.keys() == {"mask_iou", "IoU@50", "IoU@75", "mask_iou_by_class"}
    assert {name: metrics[f"val/{name}"] for name in measured} == pytest.approx(measured, abs=1e-4)
    assert 0 <= metrics["val/box_agreement"] <= 1
    boxes = np.array(made.boxes)
    for instance in range(len(made.labels)):
        x0, y0, x1, y1 = boxes[instance].astype(int)
        outside = made.mask(instance)
        outside[y0:y1, x0:x1] = 0
        assert not outside.any()


def test_a_resumed_run_equals_an_uninterrupted_one(scenes, objects, tiny, tmp_path, monkeypatch):
    """Any dataset with masks may be the salient one."""
    tiny |= {"steps": 6, "checkpoint_every": 2, "ema": 0.9}
    given = {"salient": objects, "config": tiny, "crops.color": 0.3, "crops.overlap_drop": 0.5}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    model = train("boxcaseg", scenes.without_masks(), out=whole, **given)
    sample = CropDataset._sample
    for crops in (3, 14):  # in the middle of the first step and of a later one
        seen = []

        def interrupted(self, index, seed, seen=seen, crops=crops):
            seen.append(index)
            if len(seen) == crops:
                signal.raise_signal(signal.SIGINT)
            return sample(self, index, seed)

        with monkeypatch.context() as patch:
            patch.setattr(CropDataset, "_sample", interrupted)
            resume = (broken / "checkpoints").exists()
            assert train("boxcaseg", scenes.without_masks(), out=broken, resume=resume, **given) is None
    again = train("boxcaseg", scenes.without_masks(), out=broken, resume=True, **given)
    assert read_rows(broken) == read_rows(whole)
    assert (broken / "metrics.json").read_text() == (whole / "metrics.json").read_text()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_training_without_salient_images_ignores_empty_images(scenes, tiny, run_folder):
    """Boxes alone train the weak head; images without any are used neither for training nor for validation."""
    tiny["model"]["heads"] = ["weak"]
    empty = scenes.select_instances(~np.isin(scenes.image_index, [0, 7]))
    train("boxcaseg", empty.without_masks(), val=empty.select_images([6, 7]), out=run_folder, config=tiny)
    trained = [row for row in read_rows(run_folder) if row["loss/total"]]
    assert len(trained) == 4 and all(np.isfinite(float(row["loss/mil"])) for row in trained)
    assert "loss/pixel" not in trained[0]
    assert 0 <= json.loads((run_folder / "metrics.json").read_text())["val/mask_iou"] <= 1


def test_salient_images_are_refused_by_boxinst(scenes, salient, run_folder, capsys):
    with pytest.raises(UsageError, match="boxinst does not use `salient`; leave it out"):
        train("boxinst", scenes, salient=salient, out=run_folder)
    assert not run_folder.exists()
    assert (
        main(["train", "boxinst", str(scenes.file), "--salient", str(salient), "--out", str(run_folder)]) == 2
    )
    assert "--salient" in capsys.readouterr().err
