"""Teachers by their names."""

import subprocess
import sys
import types

import numpy as np
import pytest

from boxel.data.annotations import Category
from boxel.labeling.teachers import make_teacher
from boxel.utils.errors import UsageError

CATEGORIES = (Category(1, "cat"),)


@pytest.mark.parametrize("name", ["rectangle", "ellipse", "inner-box", "grabcut", "grabcut-ellipse"])
def test_a_drawn_teacher_gives_a_mask_a_box(name):
    teacher = make_teacher(name, CATEGORIES)
    assert teacher.name == name
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    soft = teacher(image, np.array([[2.0, 3, 20, 25], [10, 10, 30, 20]]), np.zeros(2, np.int32))
    assert len(soft) == 2 and all(mask.score == 1 for mask in soft)


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(UsageError, match=r"no teacher 'elipse'.* Did you mean 'ellipse'\?"):
        make_teacher("elipse", CATEGORIES)
    with pytest.raises(UsageError, match="no teacher 'sam:'"):
        make_teacher("sam:", CATEGORIES)


def test_networks_are_looked_up_when_asked_for(monkeypatch, tmp_path):
    made = []
    for module, function in (("models", "load_teacher"), ("sam", "SamTeacher")):
        stand_in = types.ModuleType(module)
        setattr(stand_in, function, lambda source, *_, **__: made.append(source))
        monkeypatch.setitem(sys.modules, f"boxel.labeling.teachers.{module}", stand_in)
    for name in ("boxcaseg", "sam:hub/sam-tiny", str(tmp_path), "owner/model"):
        make_teacher(name, CATEGORIES, "cpu")
    assert made == ["boxcaseg", "hub/sam-tiny", str(tmp_path), "owner/model"]


def test_a_device_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageError, match="device nowhere can't be had here"):
        make_teacher(str(tmp_path), CATEGORIES, "nowhere")


def test_drawn_teachers_do_not_wait_for_torch():
    code = "import sys, boxel.labeling.runner, boxel.labeling.teachers; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
