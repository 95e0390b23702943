"""The recipes of FCRN: each trains, two steps at a tiny size, as its row of the paper says."""

import json
import re
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest
import timm
import torch
import yaml

import boxel
from boxel.data.synthetic import write_scenes
from boxel.training.callbacks import pictures as samples
from boxel.training.config import FCRNInstancesTraining
from boxel.training.recipe import read_config
from boxel.training.schedule import lr_factor, plan

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
PAPER = {path.stem: path for path in sorted((FOLDER / "fcrn").glob("*.yaml"))}
ALL = PAPER | {path.stem: path for path in sorted(FOLDER.glob("fcrn*.yaml"))}
INDEX = (FOLDER / "README.md").read_text(encoding="utf-8")
SHRUNK = {
    "model.backbone": "resnet10t",
    "model.weights": "none",
    "model.backbone_norm": "bn",
    "model.frozen_stages": 0,
    "views.crop": 64,
    "data.workers": 0,
    "steps": 2,
    "optim.reference_batch": 0,
    "batch_size": 2,
}
"""What is small about the trainings of these tests; all else is the recipe's."""

# Depth, stride, kernel, dilation, field of view; pixel accuracy, mean accuracy, mean IoU.
TABLE_1 = """
 50 16 3  6 208  92.74 78.68 69.09
 50  8 3  6 104  92.50 77.60 67.61
 50  8 3 12 200  93.03 79.51 69.94
 50  8 3 18 296  93.02 79.28 70.01
 50  8 5  6 200  92.98 79.34 69.81
 50  8 5 12 392  93.25 79.84 71.10
 50  8 7  6 296  93.14 79.54 70.67
101 16 3  6 208  93.22 80.16 70.93
101  8 3  6 104  93.20 79.87 70.20
101  8 3 12 200  93.68 81.29 72.34
101  8 3 18 296  93.67 81.15 72.37
101  8 5  6 200  93.52 81.00 71.97
101  8 5 12 392  93.87 81.87 73.41
101  8 7  6 296  93.61 81.34 72.56
"""
TABLE_3 = """
 50 16 3  6 208  93.83 74.67 66.41
 50  8 3  6 104  94.38 74.89 66.58
 50  8 3 12 200  94.47 75.91 67.68
 50  8 3 18 296  94.53 76.52 68.38
 50  8 5  6 200  94.48 76.17 68.04
 50  8 5 12 392  94.61 76.68 68.71
 50  8 5 18 584  94.64 76.34 68.53
 50  8 7  6 296  94.58 76.88 68.79
 50  8 7 12 584  94.64 76.57 68.79
101 16 3  6 208  94.11 76.26 67.62
101  8 3  6 104  94.68 77.15 68.58
101  8 3 12 200  94.78 78.30 69.99
101  8 3 18 296  94.82 78.21 70.00
101  8 5  6 200  94.75 78.11 69.89
101  8 5 12 392  94.87 79.17 71.16
101  8 7  6 296  94.75 78.43 70.40
152 16 3  6 208  94.26 76.89 68.30
152  8 3  6 104  94.82 78.30 69.69
152  8 3 12 200  94.94 78.79 70.66
152  8 3 18 296  94.93 79.19 70.92
152  8 5  6 200  94.88 78.77 70.61
152  8 5 12 392  95.00 79.38 71.51
152  8 7  6 296  94.91 79.08 70.87
"""
# The others: depth, stride, kernel, dilation, cells kept (0 for all) of each; then the published figures.
OTHERS = {
    "voc_r101": "101 8 5 12 512  94.23 82.09 74.80",
    "table7_voc_256": "101 8 5 12 256  94.11 81.44 74.41",
    "table7_voc_1024": "101 8 5 12 1024  94.08 81.84 74.17",
    "cityscapes_r152": "152 8 5 12 512  95.46 82.04 74.64",
    "table7_cityscapes_256": "152 8 5 12 256  95.41 81.37 73.97",
    "table7_cityscapes_1024": "152 8 5 12 1024  95.38 81.00 73.45",
    "table2_voc_test": "101 8 3 12 512  79.1",
    "table5_context": "101 8 5 12 512  72.9 54.8 44.5",
    "table6_r50": "50 8 5 12 0  57.2 40.5 52.5",
    "table6_r50_bs": "50 8 5 12 512  58.7 42.0 53.8",
    "table6_r50_bs_weighted": "50 8 5 12 512  59.8 43.5 54.7",
    "table6_r101_bs_weighted": "101 8 5 12 512  60.9 44.6 55.5",
}


def rows_of(number, table):
    """The rows of Table 1 or 3 by recipe: depth, stride, kernel, dilation, field of view, and the figures."""
    rows = [line.split() for line in table.strip().splitlines()]
    return {"table{}_r{}_s{}_k{}_d{}".format(number, *row): (*map(int, row[:5]), row[5:]) for row in rows}


VANILLA = rows_of(1, TABLE_1) | rows_of(3, TABLE_3)
ROWS = {name: (*row[:4], None, row[5]) for name, row in VANILLA.items()} | {
    name: (*map(int, row.split()[:4]), int(row.split()[4]) or None, row.split()[5:])
    for name, row in OTHERS.items()
}


@cache
def recipe(name, small=False):
    return read_config(ALL[name], **(SHRUNK if small else {}))


def settings(name, small=False):
    """A recipe's settings by path, as a run's config.yaml has them."""
    return by_path(json.loads(json.dumps(asdict(recipe(name, small)))))  # with lists for tuples


def by_path(values):
    return {
        f"{part}.{key}" if isinstance(inner, dict) else part: value
        for part, inner in values.items()
        for key, value in (inner.items() if isinstance(inner, dict) else [(part, inner)])
    }


def differing(one, other):
    return {path for path, value in one.items() if other[path] != value}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function that trains a recipe for two steps; those that come to the same once they are small, once."""
    scenes = write_scenes(tmp_path_factory.mktemp("scenes"), 4, height=64, width=96)
    done = {}

    def trained(name):
        key = str(settings(name, small=True))
        if key not in done:
            config, out = recipe(name, small=True), tmp_path_factory.mktemp("run") / "out"
            instances = isinstance(config, FCRNInstancesTraining)
            method, semantic = ("fcrn-instances", trained("voc_r101")[1]) if instances else ("fcrn", None)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(samples, "plot_curves", lambda *_: None)  # takes as long as the training
                done[key] = boxel.train(method, scenes, semantic=semantic, out=out, config=config), out
        return done[key]

    return trained


@pytest.mark.parametrize("name", ALL)
@pytest.mark.filterwarnings("ignore:the classifier's field of view")
def test_a_recipe_trains(name, run):
    model, out = run(name)
    assert json.loads((out / "metrics.json").read_text())["step"] == 2
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    # What was not made small is the recipe's, but for the semantic network, which is the given run's.
    record = by_path(yaml.safe_load((out / "config.yaml").read_text()))
    assert differing(settings(name), record) <= {*SHRUNK, "model.semantic"}
    # And it is what the network is made of.
    last, config = model.network.classifier[-1], recipe(name).model
    assert (last.kernel_size[0], last.dilation[0]) == (config.kernel, config.dilation)
    assert model.network.stride == config.output_stride
    assert (len(model.network.classifier) > 1) == (config.hidden > 0)


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_is_the_row_it_says(name):
    config, (depth, stride, kernel, dilation, kept, _) = recipe(name), ROWS[name]
    model = config.model
    assert model.backbone == f"resnet{depth}.tv_in1k"
    assert (model.output_stride, model.kernel, model.dilation) == (stride, kernel, dilation)
    assert (model.min_kept, model.threshold) == (kept, None)
    assert model.field_of_view <= config.views.crop  # no weight of the classifier sees padding alone
    if name in VANILLA:
        assert model.field_of_view == VANILLA[name][4]
    assert config.data.val_share == 0  # every image is learned from


def test_every_row_has_a_recipe():
    assert ROWS.keys() == PAPER.keys()


@pytest.mark.parametrize("name", PAPER)
def test_rows_differ_in_what_their_table_varies(name):
    network = {f"model.{key}" for key in ("backbone", "output_stride", "kernel", "dilation")}
    learned = {"model.min_kept", "model.size_power"}
    varied = {
        "table1": network | {"model.min_kept"},
        "table2": {"model.kernel", "model.hidden", "model.dropout"},
        "table3": network | {"model.min_kept"},
        "table6": learned | {"model.backbone"},
        "table7": {"model.min_kept"},
    }
    base = {"table3": "cityscapes_r152", "table6": "table6_r101_bs_weighted"}.get(name[:6], "voc_r101")
    base = "cityscapes_r152" if "table7_cityscapes" in name else base
    allowed = {"model.backbone", "views.crop"} if name == "cityscapes_r152" else varied.get(name[:6], set())
    assert differing(settings(base), settings(name)) <= allowed


def test_the_localization_network_is_trained_as_the_semantic_one():
    classes, boxes = settings("voc_r101"), settings("table6_r101_bs_weighted")
    assert differing({path: classes[path] for path in classes.keys() & boxes.keys()}, boxes) == set()
    weights = [recipe(name).model.size_power for name in PAPER if name.startswith("table6")]
    assert sorted(weights) == [0, 0, 0.5, 0.5]


def test_the_numbers_of_the_later_code():
    voc, test = recipe("voc_r101"), recipe("table2_voc_test")
    assert (voc.optim.lr, voc.optim.momentum, voc.optim.weight_decay) == (0.0016, 0.9, 5e-4)
    assert (voc.views.scale, voc.views.flip) == ((0.7, 1.3), 0.5)
    assert (test.model.hidden, test.model.dropout) == (512, [0.3, 0.5])
    # Two layers of it together see what the linear classifier does.
    assert 2 * (test.model.field_of_view - 8) + 8 == voc.model.field_of_view == 392


def test_the_rate_holds_and_falls_as_in_the_later_code():
    # Four devices of four crops: 204 epochs of Cityscapes' 2975 images, the rate constant for 140 of them.
    config = recipe("cityscapes_r152")
    course = plan(config, num_images=2975, processes=4)
    assert (course.lr, course.warmup) == (0.0016, 0)
    assert course.steps == pytest.approx(204 * 2975 / 16, rel=0.002)
    factors = [lr_factor(step, course.steps, course.warmup, config.schedule) for step in range(course.steps)]
    held = course.steps * 140 // 204
    assert set(factors[:held]) == {1.0}
    left = (course.steps - torch.arange(held, course.steps)) / (course.steps - held)
    assert factors[held:] == pytest.approx(left.tolist(), abs=1e-3)


@pytest.mark.parametrize("name", PAPER)
def test_head_and_index_state_the_published_figures_and_that_it_was_not_run(name):
    head = [line for line in PAPER[name].read_text().splitlines() if line.startswith("#")]
    assert re.search(r"Table \d", head[0])
    assert re.findall(r"\d\d\.\d+", head[-2].partition("Published: ")[2]) == ROWS[name][-1]
    assert head[-1] == "# Not run by this project."
    rows = [line for line in INDEX.splitlines() if f"(fcrn/{name}.yaml)" in line]
    assert len(rows) == 1 and rows[0].endswith("| not run |")
    assert re.findall(r"\d\d\.\d+", rows[0]) == ROWS[name][-1]


def test_the_index_names_recipes_that_are_there():
    named = {*re.findall(r"recipes/(\S+\.yaml)", INDEX), *re.findall(r"\((\w\S*\.yaml)\)", INDEX)}
    assert named and all((FOLDER / path).is_file() for path in named)


def test_the_backbones_have_imagenet_weights_and_can_be_dilated():
    names = {recipe(name).model.backbone for name in PAPER}
    assert names == {f"resnet{depth}.tv_in1k" for depth in (50, 101, 152)}
    for name in names:
        assert timm.models.get_pretrained_cfg(name).has_weights
        with torch.device("meta"):
            backbone = timm.create_model(name, features_only=True, output_stride=8)
        assert backbone.feature_info.reduction()[-1] == 8
