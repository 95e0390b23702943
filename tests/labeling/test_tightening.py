"""`--tighten`: loose boxes become the tight boxes of good masks, and the old ones are kept."""

import json
import warnings

import numpy as np
import pytest

import boxel
from boxel.cli import main
from boxel.data import convert
from boxel.data.formats import ConversionWarning
from boxel.data.tightening import describe_tightened, find_tightened, original_box, restore_boxes
from boxel.labeling import api
from boxel.labeling.api import label_data
from boxel.labeling.quality import Calibration
from boxel.labeling.teachers.base import SoftMask
from boxel.utils.errors import UsageError

LOOSE = [4.0, 2.0, 50.0, 36.0]  # around a disc from (22, 12) to (38, 28)
TIGHT = [22.0, 12.0, 38.0, 28.0]


class Red:
    """A teacher that knows the discs; its masks have the quality of the bundled one's."""

    name = "boxcaseg"

    def __call__(self, image, boxes, labels):
        height, width = image.shape[:2]
        logits = image[..., 0].astype(np.float32) - image[..., 2]
        return [SoftMask(logits, (0, 0, width, height)) for _ in boxes]


@pytest.fixture
def boxes(make_set, tmp_path, monkeypatch):
    """A file with a loose box (id 1), one of a quarter of the disc (2), an exact (3) and again a quarter (4)."""
    monkeypatch.setattr(Calibration, "estimate", lambda self, cues: np.resize([0.95, 0.5], len(cues)))
    make_set(2)
    file = tmp_path / "set" / "boxes.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [4, 2, 46, 34]
    file.write_text(json.dumps(content))
    return file


def read_rows(file):
    return {row["id"]: row for row in json.loads(file.read_text())["annotations"]}


def test_a_loose_box_is_tightened_and_kept_beside(boxes, tmp_path):
    out = tmp_path / "masks.json"
    plain = label_data(boxes, out=out, teacher=Red())
    assert "tightened" not in plain.summary()
    before = read_rows(out)
    # Turning it on or off makes no mask again.
    for _ in range(2):
        result = label_data(boxes, out=out, teacher=Red(), tighten=True)
        assert (
            result.labeled == 0 and "1 box was tightened, by 84% of the area on average" in result.summary()
        )
        rows = read_rows(out)
        assert rows[1]["bbox"] == [22, 12, 16, 16] and rows[1]["original_box"] == LOOSE
        assert rows[1]["segmentation"] == before[1]["segmentation"]
        assert {id: rows[id] for id in (2, 3, 4)} == {id: before[id] for id in (2, 3, 4)}
    assert json.loads(out.read_text())["info"]["boxel"]["settings"]["tighten"] is True
    label_data(boxes, out=out, teacher=Red())
    assert read_rows(out) == before


def test_labeling_tightened_masks_starts_from_the_original_boxes(boxes, tmp_path):
    out = tmp_path / "masks.json"
    label_data(boxes, out=out, teacher=Red(), tighten=True)
    filled = boxel.label(out, teacher="rectangle")
    assert filled.boxes[0].tolist() == LOOSE and filled.areas[0] > 1000 and filled.extras[0] is None
    again = boxel.label(out, teacher=Red(), tighten=True)
    assert again.boxes[0].tolist() == TIGHT and original_box(again, 0).tolist() == LOOSE


@pytest.mark.parametrize(
    "format", ["yolo", "voc", "labelme", "cvat", "label-studio", "sbd", "parquet", "fiftyone"]
)
def test_the_original_box_survives_conversions(format, boxes, tmp_path):
    out, there = tmp_path / "masks.json", tmp_path / "there"
    label_data(boxes, out=out, teacher=Red(), tighten=True)
    there = there.with_suffix(".parquet") if format == "parquet" else there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        convert(out, there, format=format)
        convert(there, tmp_path / "back.json")
    back = boxel.read(tmp_path / "back.json")
    row = back.ids.index(1)
    assert np.abs(back.boxes[row] - TIGHT).max() <= 1 and original_box(back, row).tolist() == LOOSE
    assert find_tightened(back).tolist() == [row]


def test_a_mask_that_a_user_draws_has_the_users_box(boxes, tmp_path):
    out = tmp_path / "masks.json"
    label_data(boxes, out=out, teacher=Red(), tighten=True)
    content = json.loads(out.read_text())
    content["annotations"][0]["segmentation"] = [[10, 5, 40, 5, 40, 30, 10, 31]]
    content["annotations"][0]["bbox"] = [10, 5, 30, 26]
    out.write_text(json.dumps(content))
    for tighten in (True, False):
        label_data(boxes, out=out, teacher=Red(), tighten=tighten)
        row = read_rows(out)[1]
        assert row["bbox"] == [10, 5, 30, 26] and "original_box" not in row and "source" not in row


def test_another_field_or_class_that_a_user_changes_stays(boxes, tmp_path):
    out = tmp_path / "masks.json"
    label_data(boxes, out=out, teacher=Red(), tighten=True)
    content = json.loads(out.read_text())
    content["annotations"][0] |= {"note": "wet", "category_id": 9}
    out.write_text(json.dumps(content))
    label_data(boxes, out=out, teacher=Red(), tighten=True)
    assert read_rows(out)[1]["note"] == "wet" and read_rows(out)[1]["original_box"] == LOOSE
    label_data(boxes, out=out, teacher=Red())
    row = read_rows(out)[1]
    assert row["note"] == "wet" and row["category_id"] == 9 and "original_box" not in row
    assert row["bbox"] == [4, 2, 46, 34]


def test_a_box_that_was_edited_since_is_no_longer_the_original(boxes):
    data = label_data(boxes, teacher=Red(), tighten=True).data
    data.boxes[0] = [10, 10, 40, 30]
    assert restore_boxes(data).boxes[0].tolist() == [10, 10, 40, 30]
    data.extras[0] = b'{"original_box": "unknown"}'
    assert restore_boxes(data).boxes[0].tolist() == [10, 10, 40, 30] and describe_tightened(data) == ""


def test_boxes_that_are_not_loose_are_reported(boxes, tmp_path, caplog):
    caplog.set_level("INFO", logger="boxel")
    data = boxel.read(boxes)
    label_data(data.select_instances(np.array(data.ids) == 3), teacher=Red(), tighten=True)
    assert "no box was tightened: none looks loose beside a good mask" in caplog.text


def test_without_a_quality_nothing_can_be_tightened(boxes, tmp_path):
    red = Red()
    red.name = "red"
    with pytest.raises(
        UsageError, match="`tighten` needs a quality that is calibrated on masks of red; name"
    ):
        label_data(boxes, out=tmp_path / "masks.json", teacher=red, tighten=True)
    assert not list(tmp_path.glob("masks*"))


def test_the_command_states_what_was_tightened(boxes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(api, "make_teacher", lambda *args: Red())
    assert main(["label", str(boxes), "--out", str(tmp_path / "masks.json"), "--tighten"]) == 0
    assert "1 box was tightened, by 84% of the area on average" in capsys.readouterr().out
