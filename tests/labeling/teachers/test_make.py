"""Teachers by their names."""

import sys
import types

import numpy as np
import pytest

from boxel.data.annotations import Category
from boxel.labeling.teachers import make_teacher
from boxel.utils.errors import BoxelError, UsageError

CATEGORIES = (Category(1, "cat"),)


@pytest.mark.parametrize("name", ["rectangle", "ellipse", "inner-box", "grabcut", "grabcut-ellipse"])
def test_teachers_without_weights_give_one_mask_per_box(name):
    teacher = make_teacher(name, CATEGORIES)
    assert teacher.name == name
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    soft = teacher(image, np.array([[2.0, 3, 20, 25], [10, 10, 30, 20]]), np.zeros(2, np.int32))
    assert len(soft) == 2 and all(mask.score == 1 for mask in soft)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r"no teacher 'elipse'.* Did you mean 'ellipse'\?"):
        make_teacher("elipse", CATEGORIES)
    with pytest.raises(UsageError, match="no teacher 'sam:'"):
        make_teacher("sam:", CATEGORIES)


def test_networks_are_imported_when_they_are_used(monkeypatch, tmp_path):
    made = []
    for module, function in (("detector", "load_teacher"), ("sam", "SamTeacher")):
        stand_in = types.ModuleType(module)
        setattr(stand_in, function, lambda source, *_, **__: made.append(source))
        monkeypatch.setitem(sys.modules, f"boxel.labeling.teachers.{module}", stand_in)
    for name in ("sam:hub/sam-tiny", "sam-refine:hub/other", str(tmp_path), "owner/model"):
        make_teacher(name, CATEGORIES, "cpu")
    assert made == ["hub/sam-tiny", "hub/other", str(tmp_path), "owner/model"]


def test_a_folder_takes_precedence_over_a_bundled_model_of_its_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "boxcaseg").mkdir()
    with pytest.raises(BoxelError, match="boxcaseg is not a model folder"):
        make_teacher("boxcaseg", CATEGORIES, "cpu")


def test_an_unavailable_device_is_refused(tmp_path):
    with pytest.raises(UsageError, match="device nowhere is not available"):
        make_teacher(str(tmp_path), CATEGORIES, "nowhere")


@pytest.mark.parametrize("name", ["sam:hub/sam-tiny", "owner/model", "crf"])
def test_a_missing_package_is_named_with_the_extra_to_install(name, monkeypatch):
    for module in ("crf", "detector", "sam"):
        monkeypatch.delitem(sys.modules, f"boxel.labeling.teachers.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BoxelError, match=rf"^{name} needs torch, .* pip install 'boxel\[train\]' "):
        make_teacher(name, CATEGORIES, "cpu")
