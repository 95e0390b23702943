"""The recipes of BoxInst against the paper; some run two steps at a tiny size."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import boxel
from boxel.data.annotations import Category
from boxel.data.formats.voc import CLASSES as VOC_CLASSES
from boxel.data.synthetic import write_scenes
from boxel.layers import BiFPN, ModulatedDeformConv2d
from boxel.models.boxinst import BoxInst
from boxel.training.recipe import read_config
from boxel.training.schedule import make_plan

SHRUNK = {
    "model.backbone": "resnet10t",
    "model.weights": "none",
    "model.backbone_norm": "bn",
    "model.neck_channels": 16,
    "model.head_convs": 1,
    "model.mask_convs": 1,
    "model.mask_channels": 16,
    "augment.short_sides": [64],
    "augment.max_size": 128,
    "optim.reference_batch": 0,
    "steps": 2,
    "batch_size": 2,
    "data.workers": 0,
    "device": "cpu",
}


def mask_classes(row):
    return read_config(f"boxinst/{row}").data.mask_classes


def test_the_base_has_the_settings_of_section_3_1():
    config = read_config("boxinst/coco-r50-1x")
    model = config.model
    assert (model.backbone, model.tau, model.patch_size, model.dilation) == ("resnet50.tv_in1k", 0.1, 3, 2)
    assert (model.affinity_inside, model.affinity_normalizer, model.affinity_warmup) == ("either", "edges", 0)
    assert (model.mask_features, model.mask_width, model.area_weight) == (16, 16, 0)
    assert (model.mask_norm, model.projection_loss) == ("bn", "dice")
    assert (model.level_scale, model.max_instances, model.mask_margin) == (1, 64, None)
    assert (config.data.mask_classes, config.data.val_share) == ([], 0)
    assert config.augment.short_sides == [640, 672, 704, 736, 768, 800] and config.augment.max_size == 1333
    assert (config.optim.lr, config.optim.momentum, config.optim.weight_decay) == (0.01, 0.9, 1e-4)


@pytest.mark.parametrize(
    ("row", "processes", "steps", "drops"),
    [
        ("coco-r50-1x", 8, 90_000, [60_000, 80_000]),
        ("table4-dcn-r101-bifpn-3x", 8, 270_000, [210_000, 250_000]),
        ("table5-voc-r101", 4, 20_000, [15_000]),
    ],
)
def test_schedules_are_the_papers_on_as_many_gpus(row, processes, steps, drops):
    config = read_config(f"boxinst/{row}")
    schedule = make_plan(config, num_samples=100_000, processes=processes)
    assert (schedule.steps, schedule.warmup, schedule.lr) == (steps, 1000, 0.01)
    assert [round(share * steps) for share in config.schedule.drops] == drops


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("table1a-tau-0", {"tau": 0.0}),
        ("table1b-size-5-dilation-1", {"patch_size": 5, "dilation": 1}),
        ("table2-dice", {"supervised_loss": "dice"}),
        ("table3-projection", {"projection_weight": 1, "affinity_weight": 0}),
        ("table4-r101-bifpn-3x", {"backbone": "resnet101.tv_in1k", "neck": "bifpn"}),
        ("table7-discard", {"projection_weight": 0, "affinity_weight": 0}),
        (
            "coco-r50-1x-practice",
            {
                "mask_width": 8,
                "tau": 0.3,
                "ignored_bottom_rows": 10,
                "affinity_inside": "center",
                "affinity_normalizer": "supervised",
                "affinity_warmup": 0.1111111,
            },
        ),
    ],
)
def test_rows_differ_from_the_base_in_what_they_state(row, expected):
    base, own = read_config("boxinst/coco-r50-1x").model, read_config(f"boxinst/{row}").model
    assert own == replace(base, **expected)


def test_tables_6_and_7_share_the_80_classes_of_coco():
    voc, others = mask_classes("table6-discard"), mask_classes("table7-discard")
    assert (len(voc), len(others), len({*voc, *others})) == (20, 60, 80)
    words = read_config("boxsup/voc-coco-vgg16").data.rename  # COCO's names of six of VOC's classes
    assert {words.get(name, name) for name in voc} == set(VOC_CLASSES)
    assert mask_classes("table2-dice") is None and mask_classes("table3-projection") == []


def test_names_of_classes_are_those_of_cocos_files(shared_data: Path):
    truth = boxel.read(shared_data / "coco" / "val_boxes.json", images=shared_data / "coco")
    names = {category.name for category in truth.categories}
    assert names == {*mask_classes("table6-discard"), *mask_classes("table7-discard")}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Four scenes whose shapes have names of COCO's classes: two of VOC's 20 and three of the other 60."""
    made = write_scenes(tmp_path_factory.mktemp("scenes"), 4, height=64, width=96)
    names = [*mask_classes("table6-discard"), *mask_classes("table7-discard")]
    of_shape = [names.index(name) for name in ("person", "dog", "truck", "kite", "baseball bat")]
    categories = tuple(Category(k, name) for k, name in enumerate(names, start=1))
    return replace(made, categories=categories, labels=np.array(of_shape, dtype=np.int32)[made.labels])


def two_steps(row, scenes, out):
    """Train two steps and return the model, the losses of each step, and (class, has a mask) of each object."""
    losses, seen = [], set()
    forward = BoxInst.forward

    def spy(self, images, targets=None):
        found = forward(self, images, targets)
        if self.training:
            losses.append({name: loss.item() for name, loss in found.items()})
            for target in targets:
                names = [scenes.categories[label].name for label in target["labels"].tolist()]
                seen.update(zip(names, target["has_mask"].tolist(), strict=True))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BoxInst, "forward", spy)
        model = boxel.train("boxinst", scenes, out=out, config=f"boxinst/{row}", **SHRUNK)
    assert len(losses) == 2
    return model, losses, seen


@pytest.mark.slow
def test_semi_supervised_rows_train_on_masks_of_their_classes_only(scenes, tmp_path):
    _, losses, seen = two_steps("table6-projection-affinity", scenes, tmp_path / "run")
    assert {("person", True), ("truck", False)} <= seen
    assert all(mask == (name in ("person", "dog")) for name, mask in seen)
    assert {"mask", "projection", "affinity"} <= losses[0].keys()


@pytest.mark.slow
def test_the_deformable_row_has_its_layers(scenes, tmp_path):
    model, _, _ = two_steps("table4-dcn-r101-bifpn-3x", scenes, tmp_path / "run")
    kinds = {type(module) for module in model.modules()}
    assert {BiFPN, ModulatedDeformConv2d} <= kinds


@pytest.mark.slow
def test_every_edge_counts_at_tau_0(scenes, tmp_path):
    _, losses, _ = two_steps("table1a-tau-0", scenes, tmp_path / "run")
    # A new network predicts about 1/2 everywhere, so both ends agree with probability 1/2: -log(1/2) per edge.
    assert losses[0]["affinity"] == pytest.approx(0.693, abs=0.01)
