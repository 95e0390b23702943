"""The recipes of BoxSup: each trains, two steps at a tiny size, on what its row of the paper learns from."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import timm
import yaml
from torch import nn

import boxel
from boxel.data import Annotations, write
from boxel.data.annotations import Category
from boxel.data.formats.voc import CLASSES as VOC_CLASSES
from boxel.data.label_maps import label_map
from boxel.data.synthetic import write_scenes
from boxel.models.boxsup import BoxSup
from boxel.models.boxsup.dataset import NONE
from boxel.training.boxsup import BoxSupTask
from boxel.training.callbacks import pictures as samples
from boxel.training.config import BoxSupTraining
from boxel.training.recipe import read_config
from boxel.training.schedule import lr_factor, plan

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
PAPER = {path.stem: path for path in sorted((FOLDER / "boxsup").glob("*.yaml"))}
ALL = PAPER | {path.stem: path for path in sorted(FOLDER.glob("boxsup*.yaml"))}
INDEX = (FOLDER / "README.md").read_text(encoding="utf-8").partition("## BoxSup")[2].partition("\n## ")[0]
NARROW = [4, 4, "M", 8, 8, "M", 16, 16, 16, "M", 32, 32, 32, "M", 32, 32, 32, "M"]
"""The channels of VGG-16, a sixteenth of them."""

SHAPES = {
    "voc": ["person", "dog", "bus", "boat", "sofa"],
    "coco": ["person", "dog", "truck", "boat", "couch"],
}
"""What the five shapes of the scenes are called; VOC has no trucks, and another name for a couch."""

# Recipe; table and row, of those that are one training; mean IoU.
PUBLISHED = """
voc_vgg16 | 1, VOC, mask | 63.8
voc_vgg16 | 1, VOC, box; 2, ours; 3, MCG; 4, box | 62.0 64.6
voc_vgg16 | 1, VOC, semi; 4, semi, V 1.4k | 63.5 66.2
voc_coco_vgg16 | 1, VOC + COCO, mask | 68.1
voc_coco_vgg16 | 1, VOC + COCO, semi; 4, semi, C 123k | 68.2 71.0
voc_vgg16 | 2, rectangles | 52.3
voc_vgg16 | 2, GrabCut | 55.2
voc_vgg16 | 2, WSSL, as Bbox-Seg | 58.5
table2_wssl_em | 2, WSSL, as Bbox-EM | 58.5
table2_without_sampling | 2, ours w/o sampling | 59.7
table3_selective_search | 3, SS | 59.5
table3_gop | 3, GOP | 60.4
voc_coco_vgg16 | 4, semi, V07 + C 133k; 4, BoxSup+ | 73.1 75.2
table5_context | 5, baseline | 35.7
table5_context | 5, BoxSup | 40.5
voc_vgg16_printed | none: Eqs. 2 and 3 as printed |
voc_vgg16_large_fov | none: LargeFOV |
voc_r101 | none: ResNet-101 |
"""
ROWS = [tuple(cell.strip() for cell in line.split("|")) for line in PUBLISHED.strip().splitlines()]

# What a recipe sets that the base does not.
OWN: dict[str, dict[str, Any]] = {
    "voc_vgg16": {},
    "voc_coco_vgg16": {
        "data.rename": {
            "airplane": "aeroplane",
            "couch": "sofa",
            "dining table": "diningtable",
            "motorcycle": "motorbike",
            "potted plant": "pottedplant",
            "tv": "tvmonitor",
        },
        "data.categories": list(VOC_CLASSES),
    },
    "table2_without_sampling": {"updates.sampled": 1},
    "table2_wssl_em": {"label": "rectangle", "model.box_bias": 2.0},
    "table3_selective_search": {"segments.source": "selective-search"},
    "table3_gop": {"segments.source": "gop"},
    "table5_context": {},
    "voc_vgg16_printed": {"updates.normalizer": "printed"},
    "voc_vgg16_large_fov": {"model.kernel": 3, "model.dilation": 12, "model.hidden": 1024},
    "voc_r101": {
        "model.backbone": "resnet101.tv_in1k",
        "model.classifier": "dilated",
        "model.kernel": 5,
        "model.dilation": 12,
        "model.hidden": 0,
    },
}

LEARNED_FROM = {
    **{name: ["boxes"] for name in ALL},
    "voc_vgg16": ["boxes", "some masks", "masks", "rectangles"],
    "voc_coco_vgg16": ["masks and boxes"],
    "table2_wssl_em": ["rectangles"],
    "table5_context": ["label maps", "label maps, begun on boxes"],
}
CASES = [(name, given) for name, kinds in LEARNED_FROM.items() for given in kinds]


class Run(NamedTuple):
    """What is seen of a training."""

    model: BoxSup
    out: Path
    data: Annotations
    """What was learned from."""
    choices: list[np.ndarray]
    """The segment of each instance, after each update."""


def shrunk(name: str) -> dict[str, Any]:
    """What is small about the trainings of these tests; all else, the batch too, is the recipe's."""
    model, views = recipe(name).model, recipe(name).views
    return {
        "model.backbone": "resnet10t" if model.backbone.startswith("resnet") else model.backbone,
        "model.weights": "none",
        "model.backbone_norm": "bn",
        "model.hidden": model.hidden // 64,
        "segments.count": 20,
        "views.crop": 64,
        "views.long_side": views.long_side and 96,
        "updates.every": min(recipe(name).updates.every, 1),
        "data.workers": 0,
        "steps": 2,
        "device": "cpu",
    }


@cache
def recipe(name: str) -> BoxSupTraining:
    return read_config(ALL[name])


def by_path(values: Any) -> dict[str, Any]:
    """Settings by their path, as ``model.kernel``, with lists for tuples."""
    values = json.loads(json.dumps(values))
    parts = ("model", "views", "segments", "updates", "data", "optim", "schedule")
    flat = {name: value for name, value in values.items() if name not in parts}
    return flat | {f"{part}.{key}": value for part in parts for key, value in values[part].items()}


def differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What `one` has that `other` has not."""
    return {path: value for path, value in one.items() if other[path] != value}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Four scenes of VOC's classes as VOC, COCO and label maps come, and two others with COCO's names."""
    folder = tmp_path_factory.mktemp("sets")
    masks = renamed(write_scenes(folder / "scenes", 4, height=64, width=96), VOC_CLASSES, SHAPES["voc"])
    first = replace(masks, segmentations=np.where(masks.image_index < 2, masks.segmentations, None))
    write(first, folder / "voc", format="voc")
    write(boxel.read(folder / "voc").without_masks(), folder / "boxes.json")
    write(masks, folder / "masks.json")
    write(masks.select_categories(SHAPES["voc"]), folder / "labels", format="semantic")
    words = {new: old for old, new in recipe("voc_coco_vgg16").data.rename.items()}
    coco = ["truck", *(words.get(name, name) for name in VOC_CLASSES)]
    others = write_scenes(folder / "others", 2, seed=1, height=64, width=96)
    others = renamed(others, coco, SHAPES["coco"])
    write(others.without_masks(), folder / "coco.json")
    return {
        "boxes": folder / "boxes.json",
        "some masks": folder / "voc",
        "masks": folder / "masks.json",
        "rectangles": folder / "boxes.json",
        "masks and boxes": [folder / "voc", folder / "coco.json"],
        "label maps": folder / "labels",
    }


def renamed(scenes: Annotations, names: Sequence[str], shapes: list[str]) -> Annotations:
    """Scenes with categories of these names, of which the five shapes are some."""
    labels = np.array([names.index(shape) for shape in shapes], dtype=np.int32)
    categories = tuple(Category(k, name) for k, name in enumerate(names, start=1))
    return replace(scenes, categories=categories, labels=labels[scenes.labels])


@pytest.fixture(scope="module")
def run(sets: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A function that trains a recipe for two steps, once."""
    segments = str(tmp_path_factory.mktemp("segments"))
    seen: list[tuple[Annotations, np.ndarray]] = []
    update = BoxSupTask._update

    def watched(self: BoxSupTask) -> None:
        update(self)
        seen.append((self.dataset.data, self.dataset.choices.numpy().copy()))

    @cache
    def trained(name: str, given: str) -> Run:
        seen.clear()
        out = tmp_path_factory.mktemp("run") / "out"
        options = {"out": out, "config": ALL[name], "segments_folder": segments, **shrunk(name)}
        data, _, begun = given.partition(", begun on ")
        if begun:
            options["init"] = trained("voc_vgg16", begun).out
            options["seed"] = 1  # its own start would be another
            seen.clear()
        if data == "rectangles":
            options["label"] = "rectangle"
        model = boxel.train("boxsup", sets[data], **options)
        return Run(model, out, seen[0][0], [choices for _, choices in seen])

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(timm.models.vgg.cfgs, "vgg16", NARROW)
        patch.setattr(timm.models.vgg, "ConvMlp", lambda *options, **more: nn.Identity())  # 100M weights
        patch.setattr(samples, "plot_curves", lambda *_: None)  # takes as long as the training
        patch.setattr(BoxSupTask, "_update", watched)
        yield trained


@pytest.mark.parametrize(("name", "given"), CASES)
@pytest.mark.filterwarnings("ignore:the classifier's field of view")
def test_a_recipe_trains(name: str, given: str, run: Any) -> None:
    model, out, data, choices = run(name, given)
    assert json.loads((out / "metrics.json").read_text())["step"] == 2
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    # Nothing but what was made small is other than in the recipe.
    record = by_path(yaml.safe_load((out / "config.yaml").read_text()))
    wanted = by_path(asdict(recipe(name)))
    assert differing(wanted, record).keys() <= {*shrunk(name), "segments_folder", "seed"} | (
        {"label"} if given == "rectangles" else set()
    )
    # And it is what the network is made of.
    config = recipe(name).model
    looking = model.network.classifier[0]
    assert (looking.kernel_size[0], looking.dilation[0]) == (config.kernel, config.dilation)
    assert hasattr(model.network.classifier, "fc7") == (config.classifier == "fully-connected")
    assert model.network.stride == config.output_stride
    # Segments are chosen for what has a box alone, before each epoch, which is one step here.
    assert len(choices) == (2 if recipe(name).updates.every else 1)
    boxed = ~data.has_mask & ~data.has_label_map[data.image_index] & ~data.iscrowd
    assert all(((found != NONE) == boxed).all() for found in choices)
    own = recipe(name).label == "segments"
    assert set(boxed) == {
        "boxes": {own},
        "some masks": {True, False},
        "masks": {False},
        "rectangles": {False},
        "masks and boxes": {True, False},
    }.get(given, set())


def test_the_classes_of_coco_go_by_vocs_names(sets: dict[str, Any], run: Any) -> None:
    model, _, data, _ = run("voc_coco_vgg16", "masks and boxes")
    assert [category.name for category in model.categories] == ["background", *VOC_CLASSES]
    given = boxel.read(sets["masks and boxes"][1])
    theirs = [given.categories[label].name for label in given.labels]
    assert {"couch", "truck"} <= {*theirs}
    learned = [VOC_CLASSES[label] for label in data.labels[data.image_index >= 4]]
    assert learned == [{"couch": "sofa"}.get(name, name) for name in theirs if name != "truck"]
    # The values of VOC's label maps stand for what they did.
    assert np.array_equal(label_map(data, 0), label_map(boxel.read(sets["some masks"]), 0))


def test_all_but_the_last_layer_goes_on_to_other_classes(run: Any) -> None:
    first, second = run("voc_vgg16", "boxes"), run("table5_context", "label maps, begun on boxes")
    assert (first.model.num_classes, second.model.num_classes) == (21, 6)
    begun = second.model.state_dict()
    for name, tensor in first.model.state_dict().items():
        if name.endswith("weight") and "scores" not in name:
            assert (begun[name] - tensor).norm() < 0.01 * tensor.norm(), name


def test_every_recipe_has_a_row_and_every_row_a_recipe() -> None:
    assert {name for name, _, _ in ROWS} == PAPER.keys() == OWN.keys()


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_differs_in_what_its_row_says(name: str) -> None:
    base, own = (by_path(asdict(recipe(each))) for each in ("voc_vgg16", name))
    assert differing(own, base) == OWN[name]
    assert recipe(name).model.field_of_view <= recipe(name).views.crop


def test_the_base_is_the_papers() -> None:
    config = recipe("voc_vgg16")
    model, optim, updates = config.model, config.optim, config.updates
    assert (model.backbone, model.output_stride, model.classifier) == (
        "vgg16.tv_in1k",
        8,
        "fully-connected",
    )
    assert (model.kernel, model.dilation, model.hidden) == (4, 4, 4096)
    assert (optim.name, optim.lr, optim.reference_batch, config.batch_size) == ("sgd", 0.001, 20, 20)
    assert (updates.regression_weight, updates.sampled, updates.every) == (3, 5, 1)
    assert config.segments.source == "mcg"
    # Which is what BoxSup is without a recipe, but for its candidates' choice and its validation.
    default = by_path(asdict(BoxSupTraining()))
    assert differing(by_path(asdict(config)), default) == {
        "mask_share": 0,
        "segments.grabcut": False,
        "updates.regression_weight": 3,
        "updates.least_share": 0,
        "updates.shape_weight": 0,
        "data.val_share": 0.0,
        "schedule.drops": pytest.approx([1 / 3, 2 / 3], abs=1e-6),
    }


@pytest.mark.parametrize("processes", [1, 4])
def test_the_rate_falls_to_a_tenth_after_15_and_30_of_45_epochs(processes: int) -> None:
    config = replace(recipe("voc_vgg16"), batch_size=20 // processes)
    course = plan(config, num_images=10_582, processes=processes)
    assert (course.lr, course.warmup, course.steps) == (0.001, 0, round(45 * 10_582 / 20))
    middles = [round((epoch + 0.5) * course.steps_per_epoch) for epoch in range(45)]
    rates = [lr_factor(step, course.steps, course.warmup, config.schedule) for step in middles]
    assert rates == pytest.approx([1.0] * 15 + [0.1] * 15 + [0.01] * 15)


@pytest.mark.parametrize("name", PAPER)
def test_a_head_states_tables_commands_figures_and_that_it_was_not_run(name: str) -> None:
    head = [line for line in PAPER[name].read_text().splitlines() if line.startswith("#")]
    text = " ".join(line.removeprefix("#") for line in head)
    assert re.search(r"Tables? \d", text)
    assert f"--config recipes/boxsup/{name}.yaml" in text
    published = text.partition("Published")[2]
    figures = [figure for each, _, own in ROWS if each == name for figure in own.split()]
    assert sorted(re.findall(r"\d\d\.\d", published)) == sorted(figures)
    assert head[-1] == "# Not run by this project."


def test_the_index_states_the_papers_figures() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in INDEX.splitlines()]
    found = [
        (name[1], row[1], " ".join(re.findall(r"\d\d\.\d", row[-2])))
        for row in rows
        if row and (name := re.fullmatch(r"\[\w+\]\(boxsup/(\w+)\.yaml\)", row[0]))
    ]
    assert found == ROWS
    assert INDEX.count("| not run |") == len(ROWS)


def test_the_commands_name_recipes_that_are_there() -> None:
    named = re.findall(r"recipes/\S+?\.yaml", INDEX + "".join(path.read_text() for path in PAPER.values()))
    assert named and all((FOLDER.parent / path).is_file() for path in named)


def test_the_names_are_those_of_cocos_files(shared_data: Path) -> None:
    truth = boxel.read(shared_data / "coco" / "val_boxes.json", images=shared_data / "coco")
    words = recipe("voc_coco_vgg16").data.rename
    names = truth.rename_categories(words).select_categories(VOC_CLASSES)
    assert len(names.categories) == 20 and len(truth.categories) == 80


def test_the_backbones_have_imagenet_weights() -> None:
    names = {recipe(name).model.backbone for name in PAPER}
    assert names == {"vgg16.tv_in1k", "resnet101.tv_in1k"}
    assert all(timm.models.get_pretrained_cfg(name).has_weights for name in names)
