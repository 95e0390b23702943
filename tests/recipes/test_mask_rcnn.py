"""The recipes say what the paper says, in words the configuration knows."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from boxel.models.mask_rcnn import MaskRCNNConfig

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
PAPER = {path.stem: path for path in sorted((FOLDER / "mask_rcnn").glob("*.yaml"))}
COCO = (16, 0.02, 90_000, [60_000, 80_000])


def read(path: Path) -> dict[str, Any]:
    """A recipe over its base, section by section."""
    values = yaml.safe_load(path.read_text())
    below = read(path.parent / values.pop("base")) if "base" in values else {}
    joined = {
        name: below[name] | values[name] for name in below.keys() & values if isinstance(values[name], dict)
    }
    return below | values | joined


def settings(name: str) -> tuple[dict[str, Any], MaskRCNNConfig]:
    values = read(PAPER[name])
    return values, MaskRCNNConfig(**values["model"])


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_has_the_papers_schedule(name):
    values, config = settings(name)
    bbtp = name == "table1_voc_r101_bbtp"
    voc = (8, 0.01, 20_000, [15_000]) if bbtp else (6, 0.0075, 22_500, [15_000])
    batch, lr, steps, drops = voc if "voc" in name else COCO
    assert values["method"] == "mask_rcnn"
    assert (values["optim"]["reference_batch"], values["optim"]["lr"], values["steps"]) == (batch, lr, steps)
    assert [round(share * steps) for share in values["schedule"]["drops"]] == drops
    assert values["optim"]["weight_decay"] == 1e-4
    assert values["augment"] == {"short_sides": [800], "max_size": 1333, "flip": 0.5}
    # What the paper does not vary is as it comes.
    own = MaskRCNNConfig(backbone=config.backbone, mask_loss=config.mask_loss)
    assert asdict(config) == asdict(own)
    assert config.backbone == f"resnet{'50' if name.endswith('r50') else '101'}.tv_in1k"
    assert config.mask_loss == ("mil" if name.endswith("bbtp") else "none")
    assert values["data"].get("mask_classes") == ([] if name.endswith("bbtp") else None)


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_states_table_figure_labels_and_whether_it_was_run(name):
    head = [line for line in PAPER[name].read_text().splitlines() if line.startswith("#")]
    text = " ".join(head)
    published = re.search(r"Published: .*?(\d+\.\d)", text)
    assert re.search(r"Tables? \d", text) and published
    assert head[-1] == "# Not run by this project."
    assert ("# Masks: " in text) or "itself" in text or "proxy masks of table1_voc_r101" in text
    rows = [
        line
        for line in (PAPER[name].parent / "README.md").read_text().splitlines()
        if f"({name}.yaml)" in line
    ]
    assert len(rows) == 1 and published[1] in rows[0] and "not run" in rows[0]


@pytest.mark.parametrize(("threshold", "ap"), [("0.75", 30.2), ("0.85", 30.4), ("0.9", 30.7)])
def test_thresholds_of_table_8(threshold, ap):
    text = PAPER[f"table8_drop_{threshold}"].read_text()
    assert f"--drop {threshold}.\n" in text and f"AP {ap} on val2017" in text


def test_the_small_recipe_is_small():
    values = read(FOLDER / "mask_rcnn_small.yaml")
    config = MaskRCNNConfig(**values["model"])
    assert values["method"] == "mask_rcnn"
    assert (config.backbone, config.weights, config.mask_loss) == ("tf_efficientnet_lite0", "lite", "none")
    assert config.anchor_size == 16 and max(values["augment"]["short_sides"]) < 300
