"""The CRF as an option of labeling."""

import json

import numpy as np
import pytest
from scipy.special import expit

from boxel.data.images import read_image
from boxel.labeling.api import label_data
from boxel.labeling.config import LabelConfig, parse_label_config
from boxel.labeling.fusion import label_image
from boxel.labeling.teachers.base import SoftMask
from boxel.labeling.teachers.crf import refine
from boxel.masks.boxes import Region
from boxel.utils.errors import BoxelError


class Middle:
    """A teacher that is confident of the middle of each box, and barely of the rest."""

    name = "middle"
    logits = np.array([[0.2, 0.2, 0.2], [0.2, 2, 0.2], [0.2, 0.2, 0.2]], dtype=np.float32)

    def __call__(self, image, boxes, labels):
        return [SoftMask(self.logits, tuple(box)) for box in boxes]


def test_the_mask_is_that_of_the_refined_probability(make_set) -> None:
    data = make_set(1)
    photo, boxes, region = read_image(data.image_path(0)), data.boxes[:1], Region(22, 12, 38, 28)
    disc = np.hypot(*(np.mgrid[:16, :16] - 7.5)) < 8

    def mask(**settings):
        config = LabelConfig(min_component=0, **settings)
        return label_image(photo, boxes, np.zeros(1, np.int32), [Middle()], config).masks[0]

    (soft,) = Middle()(photo, boxes, None)
    chances = expit(soft.resample(region))
    assert mask().all() and mask(crf=False).all()  # the box, corners and all
    np.testing.assert_array_equal(mask(crf=True), refine(photo, region, chances).resample(region) > 0)
    assert (mask(crf=True) ^ disc).sum() < 0.25 * (~disc).sum()


def test_it_is_off_by_default() -> None:
    assert not parse_label_config().crf and parse_label_config(crf=True).crf


def test_masks_with_and_without_it_do_not_mix(make_set, tmp_path) -> None:
    make_set(2)
    options = {"out": tmp_path / "masks.json", "teacher": "ellipse"}
    with_crf = label_data(tmp_path / "set" / "boxes.json", crf=True, **options)
    assert with_crf.labeled == 2 and with_crf.settings["crf"] is True
    assert label_data(tmp_path / "set" / "boxes.json", crf=True, workers=1, **options).reused == 2
    with pytest.raises(BoxelError, match="crf was true and is false"):
        label_data(tmp_path / "set" / "boxes.json", **options)


@pytest.mark.slow
def test_threads_make_no_difference(make_set, tmp_path) -> None:
    make_set(6)
    made = []
    for workers in (1, 3):
        out = tmp_path / f"{workers}" / "masks.json"
        options = {"teacher": "crf", "crf": True, "workers": workers}
        label_data(tmp_path / "set" / "boxes.json", out=out, **options)
        made.append({k: v for k, v in json.loads(out.read_text()).items() if k != "info"})
    assert made[0] == made[1]
