"""Trainings in two processes on a CPU."""

import csv
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from boxel.data import read, write

pytestmark = pytest.mark.slow


def run_boxel(words, folder):
    """Run the command line in a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "boxel", *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,  # a deadlock would last forever
    )
    assert done.returncode == 0, done.stderr
    return done


def run_two_at_once(words, folder, program=("-m", "boxel")):
    """Run a program in two processes that start at the same time, like those of `torchrun` or a cluster."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    started = [
        subprocess.Popen(
            [sys.executable, *map(str, program), *map(str, words)],
            cwd=folder,
            env=os.environ | shared | {"LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        return [(process.communicate(timeout=300)[0], process.returncode) for process in started]
    finally:
        for process in started:
            process.kill()


@pytest.fixture
def labeled_in_two(scenes, tiny_segmenter, tmp_path):
    """A function of a teacher that trains on its masks in two processes, and returns their outputs and exit codes."""
    write(replace(scenes.without_masks().select_images(range(4)), file=""), tmp_path / "boxes.json")
    settings = tiny_segmenter | {"batch_size": 1, "steps": 1, "strategy": "ddp", "devices": 2}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    words = [
        "train",
        "fcrn",
        "boxes.json",
        "--images",
        scenes.root,
        "--config",
        "recipe.yaml",
        "--out",
        "run",
    ]
    return lambda teacher: run_two_at_once([*words, "--label", teacher], tmp_path)


def test_one_of_two_processes_labels_and_both_train_on_its_masks(labeled_in_two, tmp_path):
    (first, first_code), (second, second_code) = labeled_in_two("rectangle")
    assert (first_code, second_code) == (0, 0), first + second
    assert "by rectangle" in first and "by rectangle" not in second
    assert read(tmp_path / "run" / "masks.json").has_mask.all()
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_a_failing_first_process_ends_both_with_its_message(labeled_in_two, tmp_path):
    found = labeled_in_two("no-such-teacher")
    assert [code for _, code in found] == [2, 2]
    assert all("no-such-teacher" in output for output, _ in found)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_two_processes_train_if_one_has_no_boxes(scenes, tiny, tmp_path):
    # Only the first of three images has objects, so that one process has none, and the validation images
    # are not a multiple of two.
    few = scenes.select_images(range(3))
    few = few.select_instances(few.image_index == 0)
    assert 0 < len(few.ids) == int(np.sum(few.image_index == 0))
    write(replace(few, file=""), tmp_path / "few.json")
    tiny |= {"batch_size": 1, "steps": 3, "strategy": "ddp", "devices": 2}
    tiny["data"] |= {"val_share": 0.0}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tiny))
    words = [
        "train",
        "boxinst",
        "few.json",
        "--images",
        scenes.root,
        "--config",
        "recipe.yaml",
        "--out",
        "run",
    ]
    words += ["--val", scenes.root.parent / "masks.json", "--val-images", scenes.root]
    done = run_boxel(words, tmp_path)
    assert "3 steps of 2 images, lr 0.001, on 2 x cpu" in done.stderr
    assert done.stderr.count("done: the model") == done.stdout.count("model: run") == 1
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["step"] == 3 and {"val/mask_AP", "val/box_AP"} <= metrics.keys()
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file) if row["loss/total"]] == ["0", "1", "2"]


def test_two_processes_choose_the_same_segments_as_one(scenes, tiny_boxsup, tmp_path):
    """Each process chooses for its share of the images, and both get all choices."""
    config = tiny_boxsup | {"batch_size": 1, "epochs": 1}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(config))
    few = scenes.without_masks().select_images(range(3))
    write(replace(few, file=""), tmp_path / "few.json")
    chosen = {}
    for devices in (1, 2):
        changes = {"strategy": "ddp" if devices == 2 else "auto", "devices": devices}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(config | changes))
        words = ["train", "boxsup", "few.json", "--images", scenes.root, "--config", "recipe.yaml"]
        done = run_boxel([*words, "--out", f"run{devices}"], tmp_path)
        assert f"update 1 at step 0: {len(few.ids)} boxes" in done.stderr
        checkpoint = torch.load(tmp_path / f"run{devices}" / "checkpoints" / "last.ckpt", weights_only=True)
        chosen[devices] = checkpoint["choices"]
    assert (chosen[1] >= 0).all()
    assert torch.equal(chosen[1], chosen[2])


def test_two_processes_learn_what_one_learns_from_their_batches(
    scenes, tiny, tiny_boxcaseg, tiny_fcrn, tiny_segmenter, segments, tmp_path
):
    """Of all methods, with images without boxes or masks, and with five images for batches of four."""
    few = scenes.select_images(range(5))
    write(replace(few, file=""), tmp_path / "masks.json")
    image = few.image_index
    mixed = few.keep_masks((image < 2) & (np.arange(len(image)) % 2 == 0)).select_instances(image % 2 == 0)
    write(replace(mixed, file=""), tmp_path / "mixed.json")
    write(replace(few.without_masks(), file=""), tmp_path / "boxes.json")
    common = {
        "optim": {"name": "sgd", "lr": 0.01, "momentum": 0.5, "reference_batch": 0},
        "schedule": {"warmup": 0},
        "data": {"workers": 0, "val_share": 0.0},
        "loggers": [],
        "batch_size": 2,
        "steps": 2,
        "device": "cpu",
    }
    # In the first layers of the other backbone, group norms of almost constant channels amplify rounding.
    detector = tiny["model"] | {"backbone": "resnet10t", "backbone_norm": "gn", "max_instances": 100}
    two_stage = {name: detector[name] for name in ("backbone", "weights", "backbone_norm", "frozen_stages")}
    segmenter = tiny_segmenter["model"] | {"backbone_norm": "gn"}
    salient = tiny_boxcaseg["model"] | {"backbone_norm": "gn"}
    voting = tiny_fcrn["model"] | {"backbone_norm": "gn", "min_kept": 10_000, "size_power": 0.5}
    parts = {
        "boxinst": ("mixed", tiny | {"model": detector}),
        "mask-rcnn": ("mixed", tiny | {"model": two_stage | {"mask_loss": "mil", "neck_channels": 32}}),
        "boxcaseg": ("mixed", tiny_boxcaseg | {"model": salient, "hints": "rectangle"}),
        "fcrn": ("masks", tiny_segmenter | {"model": segmenter | {"min_kept": 10_000}}),
        "fcrn-instances": ("masks", tiny_fcrn | {"model": voting}),
        "boxsup": ("boxes", tiny_segmenter | {"model": segmenter, "segments": {"count": 20}}),
    }
    cases = {
        method: {
            "data": str(tmp_path / f"{file}.json"),
            "images": str(scenes.root),
            "config": config | common,
        }
        for method, (file, config) in parts.items()
    }
    cases["fcrn-instances"]["semantic"] = str(tmp_path / "fcrn_1")
    cases["boxsup"]["config"] |= {"segments_folder": segments}
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(cases))
    program = Path(__file__).with_name("equal_runs.py")
    alone = subprocess.run([sys.executable, program, tmp_path], capture_output=True, text=True, timeout=300)
    assert alone.returncode == 0, alone.stderr
    for output, code in run_two_at_once([tmp_path], tmp_path, [program]):
        assert code == 0, output
    for method in cases:
        start = torch.load(tmp_path / f"{method}_1" / "start.pt", weights_only=True)
        one, two = (load_file(tmp_path / f"{method}_{n}" / "model.safetensors") for n in (1, 2))
        learned = max(float((one[name] - start[name]).abs().max()) for name in one)
        assert learned > 1e-3, method
        for name in one:
            torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=0, msg=f"{method}: {name}")
