"""The setting `label`: a teacher makes masks of boxes before the training."""

from __future__ import annotations

import inspect
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import boxel
from boxel.data import Annotations, write
from boxel.data.annotations import Category
from boxel.data.label_maps import make_label_map
from boxel.data.synthetic import write_scenes
from boxel.training.boxsup import BoxSupTask
from boxel.utils.errors import BoxelError, UsageError

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(tiny_segmenter: dict[str, Any]) -> dict[str, Any]:
    """Settings of a training of one step."""
    return tiny_segmenter | {"steps": 1}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Annotations:
    """Four scenes with masks."""
    return write_scenes(tmp_path_factory.mktemp("scenes"), 4, height=64, width=96)


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[Annotations]:
    """The data that each training learns from."""
    seen: list[Annotations] = []
    begin = BoxSupTask.on_train_start

    def watching(self: BoxSupTask) -> None:
        seen.append(self.dataset.data)
        begin(self)

    monkeypatch.setattr(BoxSupTask, "on_train_start", watching)
    return seen


def filled(data: Annotations, image: int) -> np.ndarray:
    """(H, W) whether a pixel is in a box."""
    found = np.zeros((int(data.heights[image]), int(data.widths[image])), dtype=bool)
    for x0, y0, x1, y1 in data.boxes[data.instances_in(image)].round().astype(int):
        found[y0:y1, x0:x1] = True
    return found


def test_boxsup_trains_on_the_masks_of_boxel_label(settings, scenes, learned, tmp_path) -> None:
    boxes, out = scenes.without_masks(), tmp_path / "run"
    boxel.train("boxsup", boxes, out=out, config=settings, label="boxcaseg")
    made = boxel.label(boxes, teacher="boxcaseg")
    (data,) = learned
    assert data.has_mask.all() and set(data.source) == {"boxcaseg"}
    for image in range(len(scenes)):
        assert np.array_equal(make_label_map(data, image), make_label_map(made, image))
    assert boxel.read(out / "masks.json", images=scenes.root).has_mask.all()
    assert not (out / "segments").exists()  # no candidates are needed
    assert [path.name for path in (out / "labels").iterdir()] == ["update_001.jpg"]
    assert yaml.safe_load((out / "config.yaml").read_text())["label"] == "boxcaseg"


def test_other_methods_accept_a_teacher(settings, scenes, tmp_path) -> None:
    settings |= {"label": "rectangle"}
    boxel.train("fcrn", scenes.without_masks(), out=tmp_path / "run", config=settings)
    made = boxel.read(tmp_path / "run" / "masks.json", images=scenes.root)
    for image in range(len(scenes)):
        assert np.array_equal(make_label_map(made, image) > 0, filled(scenes, image))


def test_given_masks_are_kept(settings, scenes, learned, tmp_path) -> None:
    """Masks of the dataset and of another file stay, and those of categories outside `mask_classes` do not."""
    few = scenes.select_images([0])
    settings |= {"label": "rectangle"}
    boxel.train("boxsup", scenes.without_masks(), masks=few, out=tmp_path / "some", config=settings)
    given = learned[-1].image_index == 0
    assert [name is None for name in learned[-1].source] == given.tolist()
    assert np.array_equal(make_label_map(learned[-1], 0), make_label_map(scenes, 0))
    name = scenes.categories[0].name
    boxel.train("boxsup", scenes, mask_classes=[name], out=tmp_path / "classes", config=settings)
    kept = scenes.labels == 0
    assert [name is None for name in learned[-1].source] == kept.tolist() and learned[-1].has_mask.all()


def test_nothing_is_labeled_if_no_box_lacks_a_mask(settings, scenes, learned, tmp_path) -> None:
    """Either all masks are given, or the others belong to images with label maps."""
    settings |= {"label": "rectangle"}
    boxel.train("boxsup", scenes, out=tmp_path / "masks", config=settings)
    write(scenes, tmp_path / "set", format="semantic")
    maps = boxel.read(tmp_path / "set")
    both = replace(scenes.without_masks(), root=maps.root, paths=maps.paths, label_maps=maps.label_maps)
    boxel.train("boxsup", both, out=tmp_path / "maps", config=settings)
    assert [data.has_mask.any() for data in learned] == [True, False]
    assert not any((tmp_path / name / "masks.json").exists() for name in ("masks", "maps"))


def test_untrusted_masks_are_not_made_again(settings, scenes, learned, tmp_path) -> None:
    doubtful = replace(scenes, trusted=scenes.image_index != 0)
    segmentations = scenes.segmentations.copy()
    segmentations[-1] = None
    settings |= {"label": "rectangle"}
    boxel.train(
        "boxsup", replace(doubtful, segmentations=segmentations), out=tmp_path / "run", config=settings
    )
    assert np.array_equal(learned[0].has_mask, doubtful.trusted)
    assert learned[0].source[-1] == "rectangle" and not (tmp_path / "run" / "segments").exists()


def test_a_teacher_sees_the_categories_before_they_are_merged(settings, scenes, learned, tmp_path) -> None:
    classes = boxel.train("fcrn", scenes, out=tmp_path / "classes", config=settings)
    assert [category.name for category in classes.categories][1:] == [c.name for c in scenes.categories]
    settings |= {"label": str(tmp_path / "classes")}
    boxel.train("boxsup", scenes.without_masks(), out=tmp_path / "run", config=settings, class_agnostic=True)
    assert learned[0].has_mask.any() and len(learned[0].categories) == 1


def test_train_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(boxel.train)) is boxel.train
    assert "resume" in inspect.signature(boxel.train).parameters and "Args:" in boxel.train.__doc__


def test_an_existing_run_is_not_labeled(settings, scenes, tmp_path) -> None:
    boxel.train("boxsup", scenes, out=tmp_path / "run", config=settings)
    with pytest.raises(BoxelError, match="holds a run already"):
        boxel.train("boxsup", scenes.without_masks(), out=tmp_path / "run", config=settings)
    assert not (tmp_path / "run" / "masks.json").exists()


def test_labeled_images_are_not_labeled_again(settings, scenes, tmp_path, caplog) -> None:
    out, boxes = tmp_path / "run", scenes.without_masks()
    boxel.label(boxes, teacher="rectangle", out=out / "masks.json")
    caplog.set_level("INFO", logger="boxel")
    boxel.train("boxsup", boxes, out=out, config=settings | {"label": "rectangle"})
    assert "4 of 4 images are labeled already" in caplog.text


def test_unusable_inputs_are_reported(settings, scenes, tmp_path: Path) -> None:
    boxes = scenes.without_masks()
    with pytest.raises(BoxelError, match="rectangel"):
        boxel.train("boxsup", boxes, out=tmp_path / "c", config=settings, label="rectangel")
    with pytest.raises(UsageError, match="fcrn has no candidate segments to choose among; name a teacher"):
        boxel.train("fcrn", boxes, out=tmp_path / "d", config=settings, label="segments")
    other = replace(scenes, categories=tuple(Category(k, f"x{k}") for k in range(1, 6)))
    boxel.train("fcrn", other, out=tmp_path / "other", config=settings)
    with pytest.raises(BoxelError, match=r"other made no mask of its \d+ boxes; name another `label`"):
        boxel.train("boxsup", boxes, out=tmp_path / "e", config=settings, label=str(tmp_path / "other"))
