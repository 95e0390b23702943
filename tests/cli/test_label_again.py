"""`boxel label` again, after a user has edited what it wrote, with another dataset, and after it was stopped."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import boxel
from boxel.cli import main
from boxel.data.synthetic import write_scenes


@pytest.fixture
def label(tmp_path, capsys):
    """A function that labels scenes into ``m.json`` by the command line; it returns the code and what is printed."""
    write_scenes(tmp_path / "scenes", 2, height=64, width=96)

    def run(*words, boxes=tmp_path / "scenes" / "boxes.json", out=tmp_path / "m.json"):
        given = [
            boxes,
            "--images",
            tmp_path / "scenes" / "images",
            "--out",
            out,
            "--teacher",
            "ellipse",
            *words,
        ]
        code = main(["label", *map(str, given)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_mask_that_was_edited_by_hand_survives(label, tmp_path):
    masks = tmp_path / "m.json"
    assert label()[0] == 0
    content = json.loads(masks.read_text())
    first = content["annotations"]
    x, y, w, h = first[0]["bbox"]
    triangle = [x, y, x + w, y, x, y + h]
    edited = [first[0] | {"segmentation": [triangle]}, *first[1:]]
    masks.write_text(json.dumps(content | {"annotations": edited}))
    code, out, err = label()
    sentence = (
        f"warning: {masks} was edited since it was written: 1 mask kept as trusted (id {first[0]['id']}); --overwrite "
        "discards these edits\n"
    )
    assert code == 0 and sentence in err and f"; {len(first) - 1} made, 1 kept" in out
    kept = json.loads(masks.read_text())["annotations"]
    assert kept[0]["segmentation"] == [triangle] and "source" not in kept[0] and "trusted" not in kept[0]
    other_image = [row for row in first if row["image_id"] != first[0]["image_id"]]
    assert [row for row in kept if row["image_id"] != first[0]["image_id"]] == other_image
    written = masks.read_bytes()
    assert label()[0] == 0 and masks.read_bytes() == written
    code, out, err = label("--overwrite")
    assert json.loads(masks.read_text())["annotations"] == first


@pytest.mark.filterwarnings("ignore")
def test_a_shape_that_was_edited_in_labelme_survives(label, tmp_path):
    masks, folder = tmp_path / "m.json", tmp_path / "m_labelme"
    assert label("--to", "labelme")[0] == 0
    before = boxel.read(masks)
    file = next(path for path in sorted(folder.glob("*.json")) if path.name != "boxel-ids.json")
    content = json.loads(file.read_text())
    points = np.array(content["shapes"][0]["points"])
    content["shapes"][0]["points"] = points.clip(max=points.max(axis=0) - 2).tolist()
    del content["shapes"][1]
    file.write_text(json.dumps(content))
    code, _, err = label("--to", "labelme")
    assert (
        code == 0
        and f"{folder} was edited since it was written: 1 mask kept as trusted (id 1), 1 object" in err
    )
    after = boxel.read(masks)
    assert after.ids == [id for id in before.ids if id != 2] and after.source[0] is None
    assert after.mask(0).sum() < before.mask(0).sum()
    assert boxel.read(folder).ids == after.ids
    assert boxel.read(folder).segmentations[0] == after.segmentations[0]


def test_a_second_dataset_beside_the_first_is_refused(label, tmp_path):
    masks = tmp_path / "m.json"
    assert label()[0] == 0
    written = masks.read_bytes()
    first = tmp_path / "scenes" / "boxes.json"
    data = boxel.read(first)
    second = tmp_path / "scenes" / "second.json"
    boxel.write(data.select_instances(np.arange(len(data.ids)) % 2 == 0), second)
    code, _, err = label(boxes=second)
    assert code == 1 and err.count("\n") == 1
    assert (
        f"it has masks of {first}, and " in err and f"not in {second}" in err and "name another --out" in err
    )
    for content in (None, b""):
        masks.with_suffix(".sqlite").unlink(missing_ok=True)
        if content is not None:
            masks.with_suffix(".sqlite").write_bytes(content)
        code, _, err = label(boxes=second)
        assert code == 2 and err.startswith(f"boxel: {masks}: this file exists, and the record of its job")
        assert err.count("\n") == 1
    assert masks.read_bytes() == written
    assert label(boxes=second, out=tmp_path / "second_masks.json")[0] == 0


def test_segmentations_that_are_no_masks_are_replaced_and_listed(label, tmp_path):
    boxes = tmp_path / "scenes" / "boxes.json"
    content = json.loads(boxes.read_text())
    rows = content["annotations"]
    x, y, w, h = rows[4]["bbox"]
    left, top, *_ = rows[5]["bbox"]
    for row, segmentation in zip(
        rows,
        [
            [[1, 2, 3]],
            {"size": [64, 96], "counts": "0"},
            [[500, 500, 510, 500, 510, 510]],
            {"size": [9, 9], "counts": "09"},
            [[x, y, x + w, y, x + w, y + h, x, y + h]],
            [[left, top, left + 9, top, left, top + 9]],
        ],
        strict=False,
    ):
        row["segmentation"] = segmentation
    boxes.write_text(json.dumps(content))
    code, out, err = label()
    ids = [row["id"] for row in rows]
    assert code == 0 and f"{len(rows) - 6} made, 1 kept, " in out
    for verdict, id in [
        ("outside the image", ids[2]),
        ("of another size than the image", ids[3]),
        ("merely the filled box", ids[4]),
    ]:
        assert f"1 replaced because {verdict} (annotation {id})" in out
        assert f"1 {verdict} (annotation {id})" in err
    assert f"unreadable (annotations {ids[0]}, {ids[1]})" in out or f"(annotation {ids[0]})" in out
    masks = boxel.read(tmp_path / "m.json")
    assert [masks.source[k] for k in range(6)] == ["ellipse"] * 5 + [None]
    assert all(masks.mask(k).any() for k in range(6))


@pytest.mark.parametrize("turned", [False, True])
def test_a_dataset_of_rectangles_says_so(label, tmp_path, turned):
    boxes = tmp_path / "scenes" / "boxes.json"
    content = json.loads(boxes.read_text())
    for row in content["annotations"]:
        x, y, w, h = row["bbox"]
        corners = [x, y, x + w, y, x + w, y + h, x, y + h]
        if turned:  # a square whose corners lie in the middle of the sides
            x, y, w = x + w / 2, y + h / 2, min(w, h) / 2
            corners = [x - w, y, x, y - w, x + w, y, x, y + w]
            row["bbox"] = [x - w, y - w, 2 * w, 2 * w]
        row["segmentation"] = [corners]
    boxes.write_text(json.dumps(content))
    count = len(content["annotations"])
    _, out, err = label()
    if turned:
        assert (
            f"all {count} masks are turned rectangles: these are oriented boxes, not masks; --relabel makes"
            in err
        )
        assert f"0 made, {count} kept" in out
        _, out, err = label("--relabel", out=tmp_path / "new.json")
        assert "rectangles" not in err and set(boxel.read(tmp_path / "new.json").source) == {"ellipse"}
    else:
        assert (
            f"all {count} masks are axis-parallel rectangles: these are boxes, not masks; masks are made"
            in err
        )
        assert f"{count} of {count} boxes" in out


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_with_a_sentence_and_the_same_command_resumes(tmp_path, number):
    write_scenes(tmp_path / "scenes", 300, height=96, width=128)
    words = [
        "label",
        str(tmp_path / "scenes" / "boxes.json"),
        "--images",
        str(tmp_path / "scenes" / "images"),
    ]
    words += ["--out", str(tmp_path / "m.json"), "--teacher", "grabcut-ellipse", "--workers", "1"]
    command = [sys.executable, "-c", "import sys; from boxel.cli import main; sys.exit(main())", *words]
    job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    store = tmp_path / "m.sqlite"
    while not store.exists() and job.poll() is None:
        time.sleep(0.05)
    time.sleep(0.2)  # in the middle of the work
    job.send_signal(number)
    _, err = job.communicate(timeout=60)
    assert job.returncode == 1
    assert re.search(
        r"boxel: stopped( after \d+ of 1,053 boxes)?; the same command resumes, and nothing", err
    )
    assert "Traceback" not in err and not (tmp_path / "m.json").exists()
    assert main(words) == 0
    assert boxel.read(tmp_path / "m.json").has_segmentation.mean() > 0.9


def test_boxes_that_look_wrong_are_counted_and_listed(label, tmp_path, monkeypatch):
    from boxel.labeling import shard
    from boxel.labeling.quality import CUES
    from boxel.labeling.suspects import SuspectScores

    monkeypatch.setattr(
        shard,
        "find_suspect_scores",
        lambda name: SuspectScores(
            np.zeros(len(CUES)),
            np.ones(len(CUES)),
            {"empty": np.eye(1 + len(CUES))[1 + CUES.index("fill")]},
        ),
    )
    page = tmp_path / "page.html"
    code, out, _ = label("--report", page)
    masks = boxel.read(tmp_path / "m.json")
    marked = [b'"suspect":"empty"' in (extras or b"") for extras in masks.extras]
    sides = (masks.boxes[:, 2:] - masks.boxes[:, :2]).min(axis=1)
    assert marked == (sides >= 16).tolist() and 5 < sum(marked) < len(marked)
    ids = [id for id, mark in zip(masks.ids, marked, strict=True) if mark]
    named = ", ".join(map(str, ids[:5]))
    count = len(ids)
    assert code == 0 and out.splitlines()[-1] == (
        f"{count} boxes look wrong: {count} empty (annotations {named} and {count - 5} more); listed in {page}"
    )
    text = page.read_text()
    assert f"<h3>Boxes that look wrong: {count}</h3>" in text
    for id in ids:
        file = masks.paths[masks.image_index[masks.ids.index(id)]]
        assert f"<li>{file}: annotation {id}: empty</li>" in text
    assert label()[1].endswith(" more); `suspect` in the masks file marks each\n")
