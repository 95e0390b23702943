"""Several processes learn together: here two on a CPU, as Lightning starts them."""

import csv
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import yaml

from boxel.data import write


def test_two_processes_of_which_one_has_no_boxes(scenes, tiny, tmp_path):
    # Three images, the objects all in the first: the processes can't both have it, and the images to validate
    # on don't come out even.
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
    done = subprocess.run(
        [sys.executable, "-m", "boxel", *map(str, words)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,  # it would wait for ever if one process waited for the other
    )
    assert done.returncode == 0, done.stderr
    assert "3 steps of 2 images, lr 0.001, on 2 x cpu" in done.stdout
    assert done.stdout.count("done: the model") == 1
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["step"] == 3 and {"val/mask_AP", "val/box_AP"} <= metrics.keys()
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file) if row["loss/total"]] == ["0", "1", "2"]
