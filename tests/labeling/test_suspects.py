"""Boxes that look wrong by content: which are marked, and how the marks are kept."""

import json

import numpy as np
import pytest

import boxel
from boxel.data.suspects import describe_suspects, find_suspects, mark_suspect
from boxel.labeling import shard
from boxel.labeling.api import label_data
from boxel.labeling.fusion import LabeledImage
from boxel.labeling.quality import CUES
from boxel.labeling.suspects import SuspectScores, find_suspect_scores, has_two_parts
from boxel.masks.boxes import Region


def scores(**thresholds):
    """Scores by the cue `size` alone: a box is suspect above its threshold in log2 pixels."""
    only = np.array([name == "size" for name in CUES], dtype=float)
    weights = {name.replace("_", " "): np.r_[-value, 10 * only] for name, value in thresholds.items()}
    return SuspectScores(np.zeros(len(CUES)), np.full(len(CUES), 10.0), weights)


def labeled(masks, side=20):
    boxes = np.tile([0.0, 0, side, side], (len(masks), 1))
    regions = [Region(0, 0, side, side)] * len(masks)
    image = np.zeros((40, 40, 3), np.uint8)
    return LabeledImage(image, boxes, regions, [], list(masks), list(masks), [], boxes[:, 0], boxes[:, 0] > 0)


def parts(*widths):
    """A mask of 20 x 20 pixels with columns of these widths, one pixel apart."""
    mask, left = np.zeros((20, 20), dtype=bool), 0
    for width in widths:
        mask[:, left : left + width] = True
        left += width + 1
    return mask


@pytest.mark.parametrize(
    ("widths", "two"),
    [((20,), False), ((10, 9), True), ((10, 5), True), ((10, 4), False), ((8, 8, 1), False), ((), False)],
)
def test_two_parts_of_similar_size_are_two_objects(widths, two):
    assert has_two_parts(parts(*widths)) is two


def test_the_highest_score_above_zero_names_the_kind():
    cues = np.zeros((4, len(CUES)))
    cues[:, CUES.index("size")] = [1, 2.5, 2.5, np.nan]
    found = scores(empty=2, far_too_loose=1.5).judge(cues, labeled([parts(20), parts(20), parts(9, 9), None]))
    assert found == [None, "far too loose", "far too loose", None]
    found = scores(empty=2, far_too_loose=3).judge(cues, labeled([parts(9, 9), *[parts(20)] * 2, None]))
    assert found == ["two objects", "empty", "empty", None]


def test_small_boxes_are_not_judged():
    cues = np.full((1, len(CUES)), 2.5)
    for side, suspect in ((16, "empty"), (15, None)):
        mask = np.ones((side, side), dtype=bool)
        assert scores(empty=2).judge(cues, labeled([mask], side)) == [suspect]


def test_marks_live_beside_other_fields():
    assert mark_suspect(None, None) is None and mark_suspect(b'{"a":1}', None) == b'{"a":1}'
    assert json.loads(mark_suspect(b'{"a":1,"suspect":"x"}', "empty")) == {"a": 1, "suspect": "empty"}
    assert mark_suspect(b'{"suspect":"empty"}', None) is None
    data = boxel.data.example_scenes()
    data.extras[:4] = [b'{"suspect":"empty"}', b'{"note":"suspect"}', b'{"suspect":7}', b'{"suspect":"old"}']
    assert find_suspects(data) == {"empty": [0]}
    assert describe_suspects(data, {"empty": [0]}) == "1 box looks wrong: 1 empty (annotation 1)"
    many = describe_suspects(boxel.data.example_scenes(2), {"empty": range(7)})
    assert many == "7 boxes look wrong: 7 empty (annotations 1, 2, 3, 4, 5 and 2 more)"


def test_bundled_scores_are_of_the_default_teacher_alone():
    assert find_suspect_scores("boxcaseg").mean.shape == (len(CUES),)
    assert all(find_suspect_scores(name) is None for name in ("grabcut", "boxcaseg-boxes", "../boxcaseg"))


def test_marks_are_written_kept_and_go_with_an_edit(make_set, tmp_path, monkeypatch):
    make_set(2)  # boxes of 16 and 18 pixels, and two of 30 x 20
    file, out = tmp_path / "set" / "boxes.json", tmp_path / "masks.json"

    def run(**options):
        result = label_data(file, out=out, teacher="ellipse", **options)
        return result, json.loads(out.read_text())["annotations"]

    plain = run()[1]
    out.unlink(), out.with_suffix(".sqlite").unlink()
    monkeypatch.setattr(shard, "find_suspect_scores", lambda name: scores(empty=9, far_too_loose=4.4))
    for _ in range(2):
        result, rows = run()
        assert result.describe_suspects() == "2 boxes look wrong: 2 far too loose (annotations 2, 4)"
        assert [row.pop("suspect", None) for row in rows] == [None, "far too loose"] * 2
        assert rows == plain
    content = json.loads(out.read_text())
    del content["annotations"][1]["suspect"]
    content["annotations"][3]["segmentation"] = [[0, 0, 30, 0, 30, 20]]
    out.write_text(json.dumps(content))
    for _ in range(2):
        result, rows = run()
        assert result.describe_suspects() == "" and "source" in rows[1] and "source" not in rows[3]
    again = label_data(out, out=tmp_path / "again.json", teacher="rectangle", relabel=True).data
    assert find_suspects(again) == {"far too loose": [1, 3]}
    monkeypatch.undo()
    again = label_data(tmp_path / "again.json", out=tmp_path / "third.json", teacher="ellipse", relabel=True)
    assert again.describe_suspects() == ""
