"""The recipes of BoxSup against the paper; some run two steps at a tiny size."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import timm
from torch import nn

import boxel
from boxel.data import write
from boxel.data.annotations import Category
from boxel.data.formats.voc import CLASSES as VOC_CLASSES
from boxel.data.label_maps import make_label_map
from boxel.data.synthetic import write_scenes
from boxel.training.boxsup import BoxSupTask
from boxel.training.recipe import read_config
from boxel.training.schedule import make_plan

NARROW = [4, 4, "M", 8, 8, "M", 16, 16, 16, "M", 32, 32, 32, "M", 32, 32, 32, "M"]
"""The channels of VGG-16, a sixteenth of them."""

SHAPES = {
    "voc": ["person", "dog", "bus", "boat", "sofa"],
    "coco": ["person", "dog", "truck", "boat", "couch"],
}
"""Names of the five shapes of the scenes; VOC has no trucks, and another name for a couch."""

SHRUNK = {
    "model.weights": "none",
    "model.backbone_norm": "bn",
    "model.hidden": 64,
    "segments.count": 20,
    "views.crop": 64,
    "data.workers": 0,
    "steps": 2,
    "device": "cpu",
}


def test_the_base_is_the_papers():
    config = read_config("boxsup/voc-vgg16")
    model, optim, updates = config.model, config.optim, config.updates
    assert (model.backbone, model.output_stride, model.classifier) == ("vgg16.tv_in1k", 8, "fully-connected")
    assert (model.kernel, model.dilation, model.hidden) == (4, 4, 4096)
    assert (optim.name, optim.lr, optim.reference_batch, config.batch_size) == ("sgd", 0.001, 20, 20)
    assert (updates.regression_weight, updates.top_k, updates.every) == (3, 5, 1)
    assert (updates.normalizer, updates.enlarge, updates.min_share, updates.shape_weight) == (
        "mean",
        0.2,
        0,
        0,
    )
    assert (config.label, config.segments.source, config.segments.grabcut) == ("segments", "mcg", False)
    assert config.mask_share == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("table1-voc-mask", {}),
        ("table2-grabcut", {"label": "grabcut"}),
        ("table2-wssl-em", {"label": "rectangle", "model.box_bias": 2.0}),
        ("table2-without-sampling", {"updates.top_k": 1}),
        ("table3-selective-search", {"segments.source": "selective-search"}),
        ("table3-gop", {"segments.source": "gop"}),
        ("table3-mcg", {"segments.fit_boxes": False}),
        ("voc-vgg16-printed", {"updates.normalizer": "printed", "updates.enlarge": None}),
        ("voc-vgg16-large-fov", {"model.kernel": 3, "model.dilation": 12, "model.hidden": 1024}),
    ],
)
def test_rows_differ_from_the_base_in_what_they_state(row, expected):
    assert asdict(read_config(f"boxsup/{row}")) == asdict(read_config("boxsup/voc-vgg16", **expected))


@pytest.mark.parametrize("processes", [1, 4])
def test_the_rate_falls_after_15_and_30_of_45_epochs(processes):
    config = replace(read_config("boxsup/voc-vgg16"), batch_size=20 // processes)
    schedule = make_plan(config, num_samples=10_582, processes=processes)
    assert (schedule.lr, schedule.warmup, schedule.steps) == (0.001, 0, round(45 * 10_582 / 20))
    assert [share * 45 for share in config.schedule.drops] == pytest.approx([15, 30], abs=1e-4)


def test_names_of_classes_are_those_of_cocos_files(shared_data):
    truth = boxel.read(shared_data / "coco" / "val_boxes.json", images=shared_data / "coco")
    words = read_config("boxsup/voc-coco-vgg16").data.rename
    names = truth.rename_categories(words).select_categories(VOC_CLASSES)
    assert len(names.categories) == 20 and len(truth.categories) == 80


def renamed(scenes, names, shapes):
    """Scenes with categories of these names, of which the five shapes are some."""
    labels = np.array([names.index(shape) for shape in shapes], dtype=np.int32)
    categories = tuple(Category(k, name) for k, name in enumerate(names, start=1))
    return replace(scenes, categories=categories, labels=labels[scenes.labels])


@pytest.fixture
def train(monkeypatch, tmp_path):
    """A function that trains a row for two steps with a narrow VGG-16, and the data that it trains on."""
    monkeypatch.setitem(timm.models.vgg.cfgs, "vgg16", NARROW)
    monkeypatch.setattr(timm.models.vgg, "ConvMlp", lambda *options, **more: nn.Identity())  # 100M weights
    seen = []
    update = BoxSupTask._update

    def watched(self):
        update(self)
        seen.append(self.dataset.data)

    monkeypatch.setattr(BoxSupTask, "_update", watched)

    def run(row, data, name, **options):
        seen.clear()
        settings = SHRUNK | {"segments_folder": str(tmp_path / "segments")} | options
        model = boxel.train("boxsup", data, out=tmp_path / name, config=f"boxsup/{row}", **settings)
        return model, seen[0]

    return run


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the classifier's field of view")
def test_classes_of_coco_get_the_names_of_voc(train, tmp_path):
    masks = renamed(write_scenes(tmp_path / "scenes", 4, height=64, width=96), VOC_CLASSES, SHAPES["voc"])
    first = replace(masks, segmentations=np.where(masks.image_index < 2, masks.segmentations, None))
    write(first, tmp_path / "voc", format="voc")
    words = {new: old for old, new in read_config("boxsup/voc-coco-vgg16").data.rename.items()}
    coco = ["truck", *(words.get(name, name) for name in VOC_CLASSES)]
    others = renamed(write_scenes(tmp_path / "others", 2, seed=1, height=64, width=96), coco, SHAPES["coco"])
    write(others.without_masks(), tmp_path / "coco.json")

    model, data = train("voc-coco-vgg16", [tmp_path / "voc", tmp_path / "coco.json"], "run")
    assert [category.name for category in model.categories] == ["background", *VOC_CLASSES]
    names = [others.categories[label].name for label in others.labels]
    assert {"couch", "truck"} <= {*names}
    learned = [VOC_CLASSES[label] for label in data.labels[data.image_index >= 4]]
    assert learned == [{"couch": "sofa"}.get(name, name) for name in names if name != "truck"]
    # The values of VOC's label maps keep their meaning.
    assert np.array_equal(make_label_map(data, 0), make_label_map(boxel.read(tmp_path / "voc"), 0))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the classifier's field of view")
def test_all_but_the_last_layer_of_table_5_comes_from_the_first_run(train, tmp_path):
    scenes = write_scenes(tmp_path / "scenes", 4, height=64, width=96)
    write(scenes, tmp_path / "labels", format="semantic")
    boxes = renamed(scenes, VOC_CLASSES, SHAPES["voc"]).without_masks()
    first, _ = train("voc-vgg16", boxes, "first")
    second, _ = train("table5-context", tmp_path / "labels", "second", init=tmp_path / "first", seed=1)
    assert (first.num_classes, second.num_classes) == (21, 6)
    start = second.state_dict()
    for name, tensor in first.state_dict().items():
        if name.endswith("weight") and "scores" not in name:
            assert (start[name] - tensor).norm() < 0.01 * tensor.norm(), name
