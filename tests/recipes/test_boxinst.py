"""Every recipe trains two steps at a tiny size, and its figures are the paper's."""

import re
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml

import boxel
from boxel.data import write
from boxel.data.annotations import Annotations, Category
from boxel.data.formats.voc import CLASSES as VOC_CLASSES
from boxel.data.synthetic import write_scenes
from boxel.layers.bifpn import BiFPN
from boxel.layers.deformable import ModulatedDeformConv2d
from boxel.models.boxinst import BoxInst
from boxel.training import train
from boxel.training.config import BoxInstTraining
from boxel.training.recipe import read_config
from boxel.training.schedule import lr_factor, plan
from boxel.utils.errors import BoxelError

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
PAPER = {path.stem: path for path in sorted((FOLDER / "boxinst").glob("*.yaml"))}
ALL = {
    path.stem: path
    for path in sorted([*FOLDER.rglob("*.yaml"), Path(boxel.__file__).parent / "demo.yaml"])
    if isinstance(read_config(path), BoxInstTraining)
}

SHRUNK_MODEL = {
    "backbone": "resnet10t",
    "weights": "none",
    "backbone_norm": "bn",
    "neck_channels": 16,
    "head_convs": 1,
    "mask_convs": 1,
    "mask_channels": 16,
}
"""What is small about the model of these tests; all its other options are the recipe's."""

SCENE_CLASSES = {
    "coco": ["person", "dog", "truck", "kite", "baseball bat"],
    "voc": ["person", "dog", "bus", "sofa", "tvmonitor"],
}
"""What the five shapes of the scenes are called: in COCO's set two of the 20 classes of VOC, three of the other 60."""


@dataclass
class Run:
    """What is seen of a training."""

    model: BoxInst
    record: dict[str, Any]
    losses: list[dict[str, float]]
    seen: list[tuple[str, bool]]
    """Class and whether there was a mask, of each object learned from."""


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Annotations]:
    """The same four scenes as a COCO file with all 80 categories and as a VOC folder, read back from disk."""
    folder = tmp_path_factory.mktemp("sets")
    scenes = write_scenes(folder / "scenes", 4, height=64, width=96)
    coco = [*mask_classes("table6_discard"), *mask_classes("table7_discard")]
    write(renamed(scenes, coco, SCENE_CLASSES["coco"]), folder / "coco.json")
    write(renamed(scenes, VOC_CLASSES, SCENE_CLASSES["voc"]), folder / "voc", format="voc")
    return {
        "coco": boxel.read(folder / "coco.json", images=folder / "scenes" / "images"),
        "voc": boxel.read(folder / "voc"),
    }


def renamed(scenes: Annotations, names: Any, own: list[str]) -> Annotations:
    categories = tuple(Category(k, name) for k, name in enumerate(names, start=1))
    label = [list(names).index(name) for name in own]
    return replace(
        scenes,
        categories=categories,
        labels=scenes.labels.astype("int32") * 0 + [label[i] for i in scenes.labels],
    )


def mask_classes(recipe: str) -> list[str]:
    names = read_config(PAPER[recipe]).data.mask_classes
    assert names is not None
    return names


@pytest.fixture(scope="module")
def run(sets: dict[str, Annotations], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that trains a recipe for two steps, once."""

    @cache
    def trained(name: str) -> Run:
        data = sets["voc" if "voc" in name else "coco"]
        return two_steps(ALL[name], data, tmp_path_factory.mktemp("run") / "out")

    return trained


def two_steps(recipe: Path | None, data: Annotations, out: Path, **arguments: Any) -> Run:
    sides = read_config(recipe).augment.short_sides
    changes = {f"model.{name}": value for name, value in SHRUNK_MODEL.items()} | {
        "augment.short_sides": [side * 64 // min(sides) for side in sides],
        "augment.max_size": 128,
        "optim.reference_batch": 0,
        "steps": 2,
        "batch_size": 2,
        "data.workers": 0,
        "device": "cpu",
    }
    names = [category.name for category in data.categories]
    losses, seen = [], []
    forward = BoxInst.forward

    def spy(self: BoxInst, images: Any, targets: Any = None) -> Any:
        found = forward(self, images, targets)
        if self.training:
            losses.append({name: float(loss) for name, loss in found.items()})
            for target in targets:
                labels, known = target["labels"].tolist(), target["has_mask"].tolist()
                seen.extend((names[label], mask) for label, mask in zip(labels, known, strict=True))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BoxInst, "forward", spy)
        model = train("boxinst", data, out=out, config=recipe, **arguments, **changes)
    return Run(model, yaml.safe_load((out / "config.yaml").read_text()), losses, seen)


@pytest.mark.parametrize("name", ALL)
def test_a_recipe_trains(name: str, run: Any) -> None:
    wanted = read_config(ALL[name])
    done = run(name)
    assert len(done.losses) == 2
    assert all(value == value and value < 1e4 for losses in done.losses for value in losses.values())
    # What was not made small is the recipe's.
    assert asdict(done.model.config) == asdict(wanted.model) | SHRUNK_MODEL
    for part in ("schedule", "data", "optim", "augment"):
        own = done.record[part]
        differing = {key for key, value in asdict(getattr(wanted, part)).items() if own[key] != value}
        assert differing <= {"workers", "reference_batch", "short_sides", "max_size"}
    # And it is what the network is made of and what it learned from.
    modules = list(done.model.modules())
    assert any(isinstance(m, BiFPN) for m in modules) == (wanted.model.neck == "bifpn")
    assert any(isinstance(m, ModulatedDeformConv2d) for m in modules) == wanted.model.deformable
    assert ("projection" in done.losses[0]) == (wanted.model.projection_weight > 0)
    assert ("affinity" in done.losses[0]) == (wanted.model.affinity_weight > 0)
    allowed = wanted.data.mask_classes
    assert {known for known in done.seen} == {
        (label, allowed is None or label in allowed) for label, _ in done.seen
    }
    assert (done.losses[0]["mask"] > 0) == any(mask for _, mask in done.seen)


def test_the_semi_supervised_scenes_have_both_kinds(run: Any) -> None:
    six, seven = set(run("table6_discard").seen), set(run("table7_discard").seen)
    assert {("person", True), ("truck", False)} <= six
    assert seven == {(label, not mask) for label, mask in six}


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("table1a_tau_0", "affinity"),
        ("table1a_tau_0.2", "affinity"),
        ("table1b_size_3_dilation_1", "affinity"),
        ("table1b_size_5_dilation_1", "affinity"),
        ("table1b_size_5_dilation_2", "affinity"),
    ],
)
def test_an_option_of_the_loss_changes_it(name: str, loss: str, run: Any) -> None:
    base, other = run("coco_r50_1x").losses[0], run(name).losses[0]
    assert other["projection"] == pytest.approx(base["projection"])  # the same network, images and weights
    assert other[loss] != pytest.approx(base[loss], rel=1e-3)


def test_supervision_by_mask_has_two_losses(run: Any) -> None:
    dice, proposed = run("table2_dice").losses[0], run("table2_proposed").losses[0]
    assert dice["classification"] == pytest.approx(proposed["classification"])
    assert dice["mask"] != pytest.approx(proposed["mask"], rel=1e-3)


def test_at_tau_0_every_edge_counts(run: Any) -> None:
    # A new network gives every pixel about 1/2, so that both ends agree with probability 1/2: -log(1/2) an edge.
    assert run("table1a_tau_0").losses[0]["affinity"] == pytest.approx(0.693, abs=0.01)


COCO_STEPS = (90_000, 60_000, 80_000)
PINS: dict[str, dict[str, Any]] = {
    "coco_r50_1x": {"model.tau": 0.1, "model.patch_size": 3, "model.dilation": 2, "data.mask_classes": []},
    "coco_r50_1x_practice": {
        "model.tau": 0.3,
        "model.bottom_rows": 10,
        "model.affinity_inside": "center",
        "model.affinity_normalizer": "supervised",
    },
    "table1a_tau_0": {"model.tau": 0.0},
    "table1a_tau_0.2": {"model.tau": 0.2},
    "table1b_size_3_dilation_1": {"model.patch_size": 3, "model.dilation": 1},
    "table1b_size_5_dilation_1": {"model.patch_size": 5, "model.dilation": 1},
    "table1b_size_5_dilation_2": {"model.patch_size": 5, "model.dilation": 2},
    "table2_dice": {"model.supervised_loss": "dice", "data.mask_classes": None},
    "table2_proposed": {"model.supervised_loss": "affinity", "data.mask_classes": None},
    "table3_projection": {"model.projection_weight": 1, "model.affinity_weight": 0, "data.mask_classes": []},
    "table4_r101_1x_one_scale": {"model.backbone": "resnet101.tv_in1k", "augment.short_sides": [800]},
    "table4_r101_1x": {"model.backbone": "resnet101.tv_in1k"},
    "table4_r50_3x": {"model.backbone": "resnet50.tv_in1k", "model.neck": "fpn"},
    "table4_r101_3x": {"model.backbone": "resnet101.tv_in1k", "model.neck": "fpn"},
    "table4_r101_bifpn_3x": {
        "model.backbone": "resnet101.tv_in1k",
        "model.neck": "bifpn",
        "model.deformable": False,
    },
    "table4_dcn_r101_bifpn_3x": {
        "model.backbone": "resnet101.tv_in1k",
        "model.neck": "bifpn",
        "model.deformable": True,
    },
    "table5_voc_r50": {
        "model.backbone": "resnet50.tv_in1k",
        "augment.short_sides": [800],
        "augment.flip": 0.5,
    },
    "table5_voc_r101": {"model.backbone": "resnet101.tv_in1k", "augment.short_sides": [800]},
    "table6_discard": {"model.projection_weight": 0, "model.affinity_weight": 0},
    "table6_projection": {"model.projection_weight": 1, "model.affinity_weight": 0},
    "table6_projection_affinity": {"model.projection_weight": 1, "model.affinity_weight": 1},
    "table7_discard": {"model.projection_weight": 0, "model.affinity_weight": 0},
    "table7_projection": {"model.projection_weight": 1, "model.affinity_weight": 0},
    "table7_projection_affinity": {"model.projection_weight": 1, "model.affinity_weight": 1},
}


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_is_the_row_it_says(name: str) -> None:
    config = read_config(PAPER[name])
    for path, value in PINS[name].items():
        part, key = path.split(".")
        assert getattr(getattr(config, part), key) == value, path
    if name != "coco_r50_1x_practice":
        assert config.model.tau == PINS[name].get("model.tau", 0.1)
        assert (config.model.affinity_inside, config.model.affinity_normalizer) == ("either", "edges")
        assert (config.model.mask_features, config.model.mask_width) == (16, 16)  # section 3.1
    if "augment.short_sides" not in PINS[name]:
        assert config.augment.short_sides == [640, 672, 704, 736, 768, 800]
    assert config.augment.max_size == 1333
    assert config.model.area_weight == 0  # no part of the paper
    assert config.data.val_share == 0


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_has_the_papers_schedule(name: str) -> None:
    config = read_config(PAPER[name])
    voc = "voc" in name
    steps, *drops = (20_000, 15_000) if voc else (270_000, 210_000, 250_000) if "3x" in name else COCO_STEPS
    # Four devices of two images make VOC's batch of 8, eight of them COCO's of 16.
    course = plan(config, num_images=100_000, processes=4 if voc else 8)
    assert (course.steps, course.warmup, course.lr) == (steps, 1000, 0.01)
    assert lr_factor(steps - 1, steps, 1000, config.schedule) == pytest.approx(0.1 ** len(drops))
    for k, drop in enumerate(drops):
        assert lr_factor(drop - 2, steps, 1000, config.schedule) == pytest.approx(0.1**k)
        assert lr_factor(drop + 2, steps, 1000, config.schedule) == pytest.approx(0.1 ** (k + 1))
    assert config.optim.weight_decay == 1e-4 and config.optim.momentum == 0.9


def test_the_classes_of_voc_and_the_others_are_cocos_80() -> None:
    voc, others = mask_classes("table6_discard"), mask_classes("table7_discard")
    assert (len(voc), len(others), len({*voc, *others})) == (20, 60, 80)
    # COCO's own words for six of VOC's classes.
    words = {
        "aeroplane": "airplane",
        "diningtable": "dining table",
        "motorbike": "motorcycle",
        "pottedplant": "potted plant",
        "sofa": "couch",
        "tvmonitor": "tv",
    }
    assert set(voc) == {words.get(name, name) for name in VOC_CLASSES}


def test_the_names_are_those_of_cocos_files(shared_data: Path) -> None:
    truth = boxel.read(shared_data / "coco" / "val_boxes.json", images=shared_data / "coco")
    names = {category.name for category in truth.categories}
    assert names == {*mask_classes("table6_discard"), *mask_classes("table7_discard")}


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_states_table_figure_and_whether_it_was_run(name: str) -> None:
    head = [line for line in PAPER[name].read_text().splitlines() if line.startswith("#")]
    assert re.search(r"Tables? \d", " ".join(head))
    published = re.search(r"Published: .*?(\d+\.\d)", " ".join(head))
    assert published
    assert re.fullmatch(r"# (Not run by this project\.|Run by this project: .+)", head[-1])
    rows = [
        line for line in (FOLDER / "README.md").read_text().splitlines() if f"({path_in_index(name)})" in line
    ]
    assert len(rows) == 1 and published[1] in rows[0]
    assert ("not run" in rows[0]) == head[-1].startswith("# Not run")


def test_the_backbones_of_the_recipes_have_imagenet_weights() -> None:
    """Under a tag that stays what it is; the trainings above put a small network in their place."""
    settings = [read_config(path).model for path in PAPER.values()]
    names = {model.backbone for model in settings if model.weights == "imagenet"}
    assert names == {"resnet50.tv_in1k", "resnet101.tv_in1k"}
    for name in names:
        pretrained = timm.models.get_pretrained_cfg(name)
        assert pretrained.tag == "tv_in1k" and pretrained.has_weights
        with torch.device("meta"):
            backbone = timm.create_model(name, features_only=True)
        assert {8, 16, 32} <= set(backbone.feature_info.reduction())


def path_in_index(name: str) -> str:
    return str(PAPER[name].relative_to(FOLDER))


def test_the_index_names_the_unseen_classes() -> None:
    text = (FOLDER / "README.md").read_text()
    for variable, recipe in (("VOC20", "table6_discard"), ("OTHER60", "table7_discard")):
        listed = re.search(rf'^{variable}="(.+)"$', text, re.MULTILINE)
        assert listed and listed[1].split(",") == mask_classes(recipe)


def test_plain_arguments_are_settings(sets: dict[str, Annotations], tmp_path: Path) -> None:
    given = {"categories": ["truck", "person"], "mask_classes": ["truck"], "class_agnostic": True}
    done = two_steps(None, sets["coco"], tmp_path / "out", **given)
    assert {key: done.record["data"][key] for key in given} == given
    assert done.model.num_classes == 1


def test_categories_of_a_recipe_are_kept_in_their_order(sets: dict[str, Annotations], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {categories: [truck, person], val_share: 0}")
    done = two_steps(recipe, sets["coco"], tmp_path / "out")
    assert [category.name for category in done.model.categories] == ["truck", "person"]


# ---------------------------------------------------------------- a recipe that builds on another


def write_recipes(folder: Path, **texts: str) -> dict[str, Path]:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return {name: folder / f"{name}.yaml" for name in texts}


def test_what_a_recipe_says_wins_over_its_base(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "first.yaml").write_text(
        "epochs: 3\nmodel: {tau: 0.2, dilation: 1}\naugment: {short_sides: [1, 2]}"
    )
    files = write_recipes(
        tmp_path,
        second="base: below/first.yaml\nmodel: {tau: 0.4, theta: 3}\naugment: {short_sides: [3]}",
        third="base: second.yaml\nmodel: {theta: 5}",
    )
    config = read_config(files["third"], **{"model.patch_size": 5})
    default = BoxInstTraining()
    assert config == replace(
        default,
        epochs=3,
        model=replace(default.model, tau=0.4, dilation=1, theta=5, patch_size=5),
        augment=replace(default.augment, short_sides=[3]),
    )


def test_changes_leave_the_callers_recipe_alone() -> None:
    recipe = {"model": {"tau": 0.2}}
    assert read_config(recipe, **{"model.tau": 0.4}).model.tau == 0.4
    assert recipe == {"model": {"tau": 0.2}}


@pytest.mark.parametrize("ring", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_recipes_that_build_on_each_other_are_refused(ring: list[str], tmp_path: Path) -> None:
    files = write_recipes(
        tmp_path, **{name: f"base: {ring[k - len(ring) + 1]}.yaml" for k, name in enumerate(ring)}
    )
    with pytest.raises(BoxelError, match=r"builds on it in turn"):
        read_config(files["a"])


def test_a_missing_base_is_named_with_the_recipe(tmp_path: Path) -> None:
    files = write_recipes(tmp_path, a="base: gone.yaml")
    with pytest.raises(BoxelError, match=r"a\.yaml: it builds on .*gone\.yaml, which is no file"):
        read_config(files["a"])


def test_a_misspelt_key_of_the_base_is_an_error(tmp_path: Path) -> None:
    files = write_recipes(tmp_path, a="model: {tua: 0.2}", b="base: a.yaml")
    with pytest.raises(BoxelError, match=r"b\.yaml: there is no setting 'model\.tua'"):
        read_config(files["b"])
