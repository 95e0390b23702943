"""The recipes of BoxCaseg and of its Mask R-CNN against the paper; some run two steps at a tiny size."""

from dataclasses import asdict

import pytest
import torch

import boxel
from boxel.data import write
from boxel.data.samplers import MixedBatchSampler
from boxel.data.synthetic import write_scenes
from boxel.losses import mil_loss, smoothness_loss
from boxel.models.mask_rcnn import MaskRCNNConfig
from boxel.training.recipe import list_recipes, read_config
from boxel.training.schedule import make_plan

SHRUNK = {
    "model.backbone": "resnet10t",
    "model.weights": "none",
    "model.backbone_norm": "bn",
    "data.workers": 0,
    "data.min_box": 0,
    "steps": 2,
    "optim.reference_batch": 0,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), 4, height=64, width=96)


def test_the_base_is_the_papers():
    voc = read_config("boxcaseg/voc-w48")
    assert (voc.model.alpha, voc.model.side, voc.crops.side) == (0.7, 320, 288)
    assert (voc.model.backbone, voc.model.backbone_norm) == ("hrnet_w48.ms_in1k", "sync_bn")
    assert (voc.epochs, voc.schedule.kind, voc.schedule.power) == (40, "poly", 0.9)
    assert (voc.optim.lr, voc.optim.momentum, voc.optim.weight_decay) == (0.004, 0.9, 1e-4)
    assert (voc.crops.salient_ratio, voc.crops.shift, voc.crops.scale) == ((9, 7), 0.25, (0.5, 1.5))


def test_all_rows_have_the_losses_as_printed_but_that_of_the_authors_code():
    """Eq. 1 and 2 are sums, Eq. 3 mixes probabilities."""
    rows = [recipe.name for recipe in list_recipes() if recipe.name.startswith("boxcaseg/")]
    assert len(rows) == 25
    losses = {row: (model.mil_reduction, model.mix) for row in rows for model in [read_config(row).model]}
    assert losses.pop("boxcaseg/voc-w48-practice") == ("mean", "logits")
    assert set(losses.values()) == {("sum", "probabilities")}
    assert read_config("boxcaseg/voc-w48-practice").crops.shift == 0.125


def test_sums_change_the_balance_of_the_two_terms():
    """On crops of 288 pixels there are 576 bags, and 330,050 pairs of neighbors, which the sum counts twice."""
    logits = torch.randn(1, 288, 288, generator=torch.Generator().manual_seed(0))
    rows = torch.zeros(1, 288, dtype=torch.bool)
    bags = [mil_loss(logits, rows, rows, reduction) for reduction in ("sum", "mean")]
    pairs = [smoothness_loss(logits, reduction) for reduction in ("sum", "mean")]
    assert float(bags[0] / bags[1]) == pytest.approx(576)
    assert float(pairs[0] / pairs[1]) == pytest.approx(2 * 330_050)
    assert round(2 * 330_050 / 576) == 1146


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "part", "expected"),
    [
        *(
            (f"table3-salient-{count}", "crops", {"salient_count": count})
            for count in (100, 500, 1000, 2500, 4701)
        ),
        ("table4-weak-transferred", "model", {"heads": ["weak", "transferred"]}),
        ("table6-alpha-0.3", "model", {"alpha": 0.3}),
    ],
)
def test_rows_differ_from_the_base_in_what_they_state(row, part, expected):
    base, own = asdict(read_config("boxcaseg/voc-w48")), asdict(read_config(f"boxcaseg/{row}"))
    base[part] |= expected
    assert own == base


def test_the_salient_head_alone_sees_salient_images_alone():
    row = read_config("boxcaseg/table4-salient")
    assert row.model.heads == ["salient"] and row.crops.salient_ratio == (0, 1)
    assert read_config("boxcaseg/table4-weak-salient").crops.salient_ratio == (9, 7)


def test_table_5_is_of_coco():
    row = read_config("boxcaseg/table5-13-3")
    assert (row.crops.salient_ratio, row.crops.overlap_drop) == ((13, 3), 0.75)
    assert (row.model.alpha, row.optim.lr) == (0.6, 0.008)


def test_random_sampling_of_table_5_takes_as_many_steps_as_the_best_ratio(scenes):
    """An epoch of 9:7 is all 7,991 salient images, 7 per batch; of both datasets it would be 868,000 crops."""

    def count_steps(config):
        batches = len(MixedBatchSampler(scenes, 7991, config.crops, config.batch_size))
        return make_plan(config, batches * config.batch_size, processes=2).steps

    best, random = (read_config(f"boxcaseg/{row}") for row in ("coco-w48", "table5-random"))
    assert count_steps(best) == count_steps(random) == 22_840
    assert asdict(random) == asdict(best) | {"steps": 22_840, "crops": asdict(best.crops) | {"random": True}}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["boxcaseg/voc-w48", "boxcaseg/voc-w48-practice", "boxcaseg/table4-salient", "boxcaseg-small"]
)
@pytest.mark.filterwarnings("ignore:a salient dataset has neither")
def test_a_recipe_trains(name, scenes, tmp_path):
    single = scenes.select_instances([scenes.instances_in(image)[0] for image in range(4)])
    write(single, tmp_path / "salient", format="salient")
    model = boxel.train(
        "boxcaseg", scenes, salient=boxel.read(tmp_path / "salient"), out=tmp_path / "run", config=name,
        **SHRUNK | {"model.side": 64, "crops.side": 64, "batch_size": 8},
    )  # fmt: skip
    assert set(model.heads) == set(read_config(name).model.heads)


@pytest.mark.parametrize(
    ("row", "batch", "lr", "steps", "drops"),
    [
        ("table1-voc-r50", 6, 0.0075, 22_500, [15_000]),
        ("table1-voc-r101-bbtp", 8, 0.01, 20_000, [15_000]),
        ("table2-coco-r101-bbtp", 16, 0.02, 90_000, [60_000, 80_000]),
        ("table8-drop-0.9", 16, 0.02, 90_000, [60_000, 80_000]),
    ],
)
def test_proxy_mask_rcnn_has_the_papers_schedule(row, batch, lr, steps, drops):
    config = read_config(f"mask-rcnn/{row}")
    assert (config.optim.reference_batch, config.optim.lr, config.steps) == (batch, lr, steps)
    assert config.optim.bias_lr == 2
    assert [round(share * steps) for share in config.schedule.drops] == drops
    assert (config.augment.short_sides, config.augment.max_size) == ([800], 1333)
    bbtp = row.endswith("bbtp")
    backbone = f"resnet{50 if row.endswith('r50') else 101}.tv_in1k"
    assert config.model == MaskRCNNConfig(
        backbone=backbone, mask_loss="mil" if bbtp else "none", level_scale=1
    )
    assert config.data.mask_classes == ([] if bbtp else None)


@pytest.mark.slow
def test_mask_rcnn_trains_from_boxes(scenes, tmp_path):
    small = {"model.neck_channels": 16, "augment.short_sides": [64], "augment.max_size": 128, "batch_size": 2}
    model = boxel.train(
        "mask-rcnn", scenes, out=tmp_path / "run", config="mask-rcnn/table1-voc-r101-bbtp", **SHRUNK | small
    )
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
