"""The recipes of BoxCaseg: each trains, two steps at a tiny size, as its row of the paper says."""

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

import boxel
from boxel.data import write
from boxel.data.synthetic import write_scenes
from boxel.training.config import BoxCasegTraining
from boxel.training.recipe import read_config

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
PAPER = {path.stem: path for path in sorted((FOLDER / "boxcaseg").glob("*.yaml"))}
ALL = PAPER | {name: FOLDER / f"{name}.yaml" for name in ("boxcaseg_small", "boxcaseg_small_masks")}
SHRUNK = {
    "model.backbone": "resnet10t",
    "model.weights": "none",
    "model.backbone_norm": "bn",
    "model.side": 64,
    "crops.side": 64,
    "data.workers": 0,
    "data.min_box": 0,
    "steps": 2,
    "optim.reference_batch": 0,
    "batch_size": 8,
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    boxed = write_scenes(folder / "boxed", 4, height=64, width=96)
    single = boxed.select_instances([boxed.instances_of(image)[0] for image in range(4)])
    write(single, folder / "salient", format="salient")
    return boxed, boxel.read(folder / "salient")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.filterwarnings("ignore:a salient set knows")
def test_a_recipe_trains(name, sets, tmp_path):
    wanted = read_config(ALL[name], "boxcaseg")
    boxed, salient = sets
    model = boxel.train("boxcaseg", boxed, salient=salient, out=tmp_path, config=ALL[name], **SHRUNK)
    changed = {key.removeprefix("model."): value for key, value in SHRUNK.items() if key.startswith("model.")}
    assert asdict(model.config) == asdict(wanted.model) | changed
    assert set(model.heads) == set(wanted.model.heads)
    record = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert record["crops"]["salient_ratio"] == list(wanted.crops.salient_ratio)


def test_rows_differ_in_what_their_table_varies():
    base = asdict(read_config(PAPER["voc_w48"]))
    for name, path in PAPER.items():
        row = asdict(read_config(path))
        differing = {
            f"{part}.{key}"
            for part in ("model", "crops", "data", "optim", "schedule")
            for key, value in row[part].items()
            if base[part][key] != value
        }
        differing |= {key for key in ("epochs", "batch_size", "steps") if base[key] != row[key]}
        allowed = {
            "voc": set(),
            "table3": {"crops.salient_count"},
            "table4": {"model.heads"},
            "table6": {"model.alpha"},
        }
        coco = {"model.alpha", "crops.overlap_drop", "optim.lr", "crops.salient_ratio", "crops.random"}
        assert differing <= allowed.get(name.split("_")[0], coco), name


def test_the_paper_is_the_default():
    voc = read_config(PAPER["voc_w48"])
    assert isinstance(voc, BoxCasegTraining)
    assert (voc.model.alpha, voc.model.side, voc.crops.side) == (0.7, 320, 288)
    assert (voc.epochs, voc.schedule.kind, voc.schedule.power) == (40, "poly", 0.9)
    assert (voc.optim.lr, voc.optim.momentum, voc.optim.weight_decay) == (0.004, 0.9, 1e-4)
    assert (voc.crops.salient_ratio, voc.crops.shift, voc.crops.scale) == ((9, 7), 0.25, (0.5, 1.5))
