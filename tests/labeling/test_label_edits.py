"""What a user edits in the outputs of a labeling job survives the next run."""

import json
import shutil
import sqlite3
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import boxel
from boxel.data.formats import ConversionWarning
from boxel.labeling import target as target_module
from boxel.labeling.api import label_data
from boxel.labeling.edits import Edit, Edits, Row, join, merge
from boxel.labeling.store import Store
from boxel.labeling.teachers import FunctionTeacher
from boxel.labeling.teachers.base import SoftMask
from boxel.masks.boxes import Region
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError, UsageError

SQUARE = [[20, 10, 28, 10, 28, 20, 20, 20]]  # 8 x 10 pixels in the corner's box and the disc's


@pytest.fixture
def run(tmp_path):
    """A function that labels ``set/boxes.json``, or another dataset, into ``out/masks.json``."""

    def label(data=None, teacher="rectangle", **options):
        data = tmp_path / "set" / "boxes.json" if data is None else data
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConversionWarning)
            return label_data(data, out=tmp_path / "out" / "masks.json", teacher=teacher, **options)

    return label


@pytest.fixture
def masks(tmp_path):
    return tmp_path / "out" / "masks.json"


def edit(path, change):
    """Change the content of a JSON file as a user's script does."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=2))


def rows(path):
    return {row["id"]: row for row in json.loads(path.read_text())["annotations"]}


def set_mask(id, segmentation=SQUARE):
    def change(content):
        row = next(row for row in content["annotations"] if row["id"] == id)
        row["segmentation"] = segmentation

    return change


def remove(id):
    def change(content):
        content["annotations"] = [row for row in content["annotations"] if row["id"] != id]

    return change


def test_an_edited_mask_is_trusted_and_respected_by_its_neighbor(make_set, run, masks, logged):
    make_set(2)
    run()
    first = rows(masks)
    edit(masks, set_mask(1))  # the disc
    outcome = run()
    assert (
        f"{masks} was edited since it was written: 1 mask kept as trusted (id 1); `overwrite` discards these edits"
        in logged
    )
    data = boxel.read(masks)
    assert data.source[0] is None and data.trusted[0] and np.isnan(data.quality[0])
    assert data.mask(0).sum() == 80
    corner = np.zeros((40, 60), dtype=bool)
    corner[:20, :30] = True
    corner[10:20, 20:28] = False
    np.testing.assert_array_equal(data.mask(1), corner)
    assert rows(masks)[3] == first[3] and rows(masks)[4] == first[4]
    assert (outcome.labeled, outcome.reused) == (1, 1)
    assert "3 made, 1 kept" in outcome.summary()


def test_a_mask_that_a_user_draws_leaves_no_pixel_undecided(make_set, run, masks):
    make_set(1)

    def predict(image, box):
        logits = np.full(image.shape[:2], 9.0)
        logits[::2] = np.nan
        return SoftMask(logits, Region(0, 0, 60, 40))

    teacher = FunctionTeacher("half", predict)
    run(teacher=teacher)
    assert all("undecided_pixels" in row for row in rows(masks).values())
    edit(masks, set_mask(1))
    for _ in range(2):
        run(teacher=teacher)
        assert ["undecided_pixels" in rows(masks)[id] for id in (1, 2)] == [False, True]


def test_edits_stay_in_later_runs_until_they_are_discarded(make_set, run, masks, logged):
    make_set(2)
    run()
    first = masks.read_bytes()
    edit(masks, set_mask(1))
    run()
    second = masks.read_bytes()
    del logged[:]
    run()
    assert masks.read_bytes() == second
    assert not any("was edited" in text for text in logged)
    assert "1 edit of earlier runs kept; `overwrite` discards them" in logged
    run(overwrite=True)
    assert rows(masks) == {row["id"]: row for row in json.loads(first)["annotations"]}
    run()
    assert rows(masks)[1]["source"] == "rectangle"


def test_relabeling_keeps_edits_too(make_set, run, masks):
    make_set(1)
    run(relabel=True)
    edit(masks, set_mask(1))
    run(relabel=True)
    assert boxel.read(masks).mask(0).sum() == 80


def test_deleted_and_added_objects(make_set, run, masks, logged):
    make_set(3)
    run()

    def change(content):
        remove(2)(content)
        content["annotations"] += [
            {"id": 50, "image_id": 1, "category_id": 9, "bbox": [40, 5, 8, 8]},
            {"id": 51, "image_id": 2, "category_id": 3, "bbox": [20, 10, 8, 10], "segmentation": SQUARE},
        ]

    edit(masks, change)
    for _ in range(3):
        outcome = run()
        found = boxel.read(masks)
        assert found.ids == [1, 3, 4, 5, 6, 50, 51]
        assert found.source.tolist() == ["rectangle"] * 6 + [None]
        assert found.mask(5).sum() == 64 and found.mask(6).sum() == 80
    assert (outcome.labeled, outcome.reused) == (0, 3)
    assert any("1 object deleted (id 2), 2 objects added (ids 50, 51)" in text for text in logged)
    edit(masks, remove(50))
    edit(masks, set_mask(51, [[20, 10, 24, 10, 24, 20, 20, 20]]))
    run()
    found = boxel.read(masks)
    assert found.ids == [1, 3, 4, 5, 6, 51] and found.mask(5).sum() == 40


def test_a_changed_class_or_box_and_other_fields(make_set, run, masks, logged):
    make_set(3)
    run()
    before = rows(masks)

    def change(content):
        content["categories"].append({"id": 12, "name": "edge"})
        by_id = {row["id"]: row for row in content["annotations"]}
        by_id[1]["category_id"] = 12
        by_id[4]["bbox"] = [0, 0, 20, 20]
        by_id[6] |= {"trusted": False, "attributes": {"seen": True}}
        del by_id[2]["segmentation"]
        by_id[2]["bbox"] = [0, 0, 12, 10]

    edit(masks, change)
    for _ in range(2):
        run()
        found = rows(masks)
        # Its mask is still the teacher's; the quality depends on the neighbor's box.
        assert found[1] == before[1] | {"category_id": 12, "quality": found[1]["quality"]}
        assert found[4]["bbox"] == [0, 0, 20, 20] and "source" not in found[4]
        assert found[2]["area"] == 120 and found[2]["source"] == "rectangle"  # made for the new box
        assert found[6]["trusted"] is False and found[6]["attributes"] == {"seen": True}
        assert found[6]["source"] == "rectangle"
    for text in (
        "1 mask kept as trusted (id 4), 1 object without a mask kept (id 2)",
        "1 object with another class kept (id 1), 1 object with other fields kept (id 6)",
    ):
        assert any(text in sentence for sentence in logged)


def test_a_file_that_was_only_saved_again_has_no_edits(make_set, run, masks, logged):
    make_set(2)
    run()
    first = masks.read_bytes()

    def spell(content):
        for row in content["annotations"]:
            row["bbox"] = [float(v) for v in row["bbox"]]
            row["segmentation"] = dict(reversed(row["segmentation"].items()))

    edit(masks, spell)
    run()
    assert masks.read_bytes() == first
    assert f"{masks} was saved again since it was written; its objects are the same" in logged


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_interruption_while_an_output_takes_its_place_is_no_edit(
    moment, make_set, run, masks, monkeypatch, logged
):
    run(make_set(2))
    name = "add_output" if moment == "before" else "keep_output"
    original = getattr(Store, name)

    def interrupted(self, *arguments):
        if moment == "before":
            original(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(make_set(3))
    monkeypatch.undo()
    assert len(rows(masks)) == (4 if moment == "before" else 6)
    edit(masks, set_mask(1))
    run(make_set(3))
    assert sum("was edited" in text for text in logged) == 1
    assert any("edited since it was written: 1 mask kept as trusted (id 1); " in text for text in logged)
    assert boxel.read(masks).source.tolist() == [None] + ["rectangle"] * 5


def test_an_interruption_between_two_outputs_repeats_nothing(make_set, run, masks, monkeypatch, logged):
    make_set(2)
    run(to=["labelme"])
    folder = masks.with_name("masks_labelme")

    def add(content):
        shape = {"label": "disc", "points": [[40, 30], [50, 30], [50, 39]], "shape_type": "polygon"}
        content["shapes"].append(shape)

    edit(folder / "0.json", add)
    write = target_module.write_as_given

    def breaks(data, path, format):
        if format == "labelme":
            raise KeyboardInterrupt
        write(data, path, format)

    monkeypatch.setattr(target_module, "write_as_given", breaks)
    with pytest.raises(KeyboardInterrupt):
        run(to=["labelme"])
    assert len(rows(masks)) == 5
    monkeypatch.undo()
    for _ in range(2):
        run(to=["labelme"])
        assert len(rows(masks)) == len(boxel.read(folder).labels) == 5


def test_an_empty_store_beside_masks_is_refused(make_set, run, masks):
    make_set(1)
    run()
    edit(masks, set_mask(1))
    before = masks.read_bytes()
    for content in (b"", None):
        masks.with_suffix(".sqlite").unlink()
        if content is not None:
            masks.with_suffix(".sqlite").write_bytes(content)
        for _ in range(2):
            with pytest.raises(UsageError, match=r"masks\.json: this file exists, and the record of its job"):
                run()
        assert masks.read_bytes() == before
        if content is None:
            run(overwrite=True)
            assert rows(masks)[1]["source"] == "rectangle"


def test_folders_are_edited_too(make_set, run, masks):
    make_set(4)
    to = ["labelme", "yolo", "voc"]
    run(to=to)
    labelme, yolo, voc = (masks.with_name(f"masks_{format}") for format in to)
    edit(
        labelme / "0.json", lambda content: content["shapes"][0].update(points=[[22, 12], [38, 12], [38, 28]])
    )
    lines = (yolo / "labels" / "1.txt").read_text().splitlines()
    (yolo / "labels" / "1.txt").write_text(lines[0] + "\n")
    png = voc / "SegmentationObject" / "2.png"
    with Image.open(png) as image:
        pixels, palette = np.asarray(image).copy(), image.getpalette()
    pixels[25:] = 0
    painted = Image.fromarray(pixels, "P")
    painted.putpalette(palette)
    painted.save(png)
    for _ in range(2):
        run(to=to)
        found = boxel.read(masks)
        assert found.ids == [1, 2, 3, 5, 6, 7, 8]
        assert found.source.tolist() == [None, "rectangle", "rectangle", None, *["rectangle"] * 3]
        assert 110 < found.mask(0).sum() < 146
        assert found.mask(3).sum() == 20 * 15 and not found.mask(3)[25:].any()
        for folder in (labelme, yolo, voc):
            assert boxel.read(folder).ids == found.ids


def test_masks_of_sbd_are_edited_too(make_set, run, masks):
    from scipy.io import loadmat, savemat

    make_set(2)
    run(to=["sbd"])
    file = masks.with_name("masks_sbd") / "inst" / "0.mat"
    content = loadmat(file)
    struct = content["GTinst"][0, 0]
    struct["Segmentation"][25:] = 0
    savemat(file, {"GTinst": content["GTinst"]})
    run(to=["sbd"])
    found = boxel.read(masks)
    assert found.source.tolist()[0] is None and not found.mask(0)[25:].any()


def test_edits_in_two_outputs_are_joined_or_refused(make_set, run, masks):
    make_set(2)
    run(to=["labelme"])
    folder = masks.with_name("masks_labelme")
    saved = masks.parent.with_name("saved")
    triangle = [[22, 12], [38, 12], [38, 28]]
    edit(masks, set_mask(1, [np.ravel(triangle).tolist()]))
    edit(
        folder / "1.json", lambda content: content["shapes"][0].update(points=[[22, 12], [38, 12], [38, 28]])
    )
    shutil.copytree(masks.parent, saved)
    run(to=["labelme"])
    assert boxel.read(masks).source.tolist() == [None, "rectangle", None, "rectangle"]
    shutil.rmtree(masks.parent)
    saved.rename(masks.parent)
    edit(folder / "0.json", lambda content: content["shapes"].pop(0))
    before = masks.read_bytes()
    message = rf"annotation 1 of 0\.png was edited differently in {masks} and in {folder}; undo one"
    with pytest.raises(BoxelError, match=message):
        run(to=["labelme"])
    assert masks.read_bytes() == before
    shape = {"label": "disc", "points": triangle, "shape_type": "polygon"}
    edit(folder / "0.json", lambda content: content["shapes"].insert(0, shape))
    run(to=["labelme"])
    assert boxel.read(masks).ids == [1, 2, 3, 4] and 110 < boxel.read(masks).mask(0).sum() < 146


def test_an_edited_folder_that_is_not_named_is_mentioned(make_set, run, masks, logged):
    make_set(1)
    run(to=["labelme"])
    folder = masks.with_name("masks_labelme")
    edit(folder / "0.json", lambda content: content["shapes"].pop())
    run()
    assert f"{folder}: its edits are not taken over; name labelme in `to`" in logged
    run(to=["labelme"])
    assert boxel.read(masks).ids == [1]


def test_an_output_that_cannot_be_read_is_not_overwritten(make_set, run, masks):
    make_set(2)
    run(to=["labelme"])
    whole = masks.read_bytes()
    image = {"id": 9, "file_name": "new.png", "width": 60, "height": 40}
    broken = json.loads(whole)
    broken["annotations"][1]["bbox"] = ["a", 0, 1, 1]
    for content, message in [
        (whole[:500], r"was edited since it was written and can no longer be read"),
        (json.dumps(broken).encode(), "not all of it can be read"),
    ]:
        assert content != whole
        masks.write_bytes(content)
        with pytest.raises(BoxelError, match=message) as raised:
            run(to=["labelme"])
        assert str(raised.value).startswith(str(masks)) and "`overwrite`" in str(raised.value)
        assert masks.read_bytes() == content
    masks.write_bytes(whole)

    def add(content):
        content["images"].append(image)
        content["annotations"].append({"id": 50, "image_id": 9, "category_id": 3, "bbox": [1, 1, 5, 5]})

    edit(masks, add)
    with pytest.raises(
        BoxelError, match=r"has objects in images that are not in the dataset, new\.png; add them"
    ):
        run(to=["labelme"])
    masks.write_bytes(whole)
    edit(masks, set_mask(1, {"size": [4, 4], "counts": "0@"}))
    with pytest.raises(BoxelError, match=r"edited masks cannot be used: 1 of another size .*annotation 1"):
        run(to=["labelme"])
    masks.write_bytes(whole)
    shape = masks.with_name("masks_labelme") / "0.json"
    shape.write_text(shape.read_text()[:50])
    with pytest.raises(BoxelError, match=r"masks_labelme: it was edited .* not all of it can be read"):
        run(to=["labelme"])
    run(to=["labelme"], overwrite=True)
    assert boxel.read(shape.parent).ids == [1, 2, 3, 4]


def test_work_of_a_user_that_is_not_read_is_not_overwritten(make_set, run, masks):
    make_set(2)
    to = ["voc", "label-studio"]
    run(to=to)
    voc, label_studio = (masks.with_name(f"masks_{format}") for format in to)
    png = voc / "SegmentationObject" / "0.png"
    whole = png.read_bytes()
    with Image.open(png) as image:
        pixels = np.asarray(image).copy()
    pixels[:3, :5] = 9
    Image.fromarray(pixels).save(png)
    with pytest.raises(BoxelError, match=r"masks_voc: .* object 9 matches no box of 0\.xml"):
        run(to=to)
    png.write_bytes(whole)
    tasks = label_studio / "tasks.json"
    edit(tasks, lambda content: content[0].update(annotations=[content[0]["predictions"][0], {"result": []}]))
    with pytest.raises(BoxelError, match=r"masks_label-studio: .* tasks with several annotations: 1"):
        run(to=to)
    # A user did not make the mask of an object that is deleted in the XML file alone.
    edit(tasks, lambda content: content[0].pop("annotations"))
    xml = voc / "Annotations" / "0.xml"
    text = xml.read_text()
    xml.write_text(text[: text.index("<object>")] + text[text.index("</object>") + len("</object>") :])
    run(to=to)
    assert boxel.read(masks).ids == [2, 3, 4]


def test_a_rectangle_that_a_user_draws_stays(make_set, run, masks):
    make_set(1)
    run(teacher="ellipse")
    edit(masks, set_mask(2, [[0, 0, 30, 0, 30, 20, 0, 20]]))
    run(teacher="ellipse")
    assert boxel.read(masks).mask(1).sum() == 600


def test_a_removed_image_stays_removed(make_set, run, masks, logged):
    make_set(3)
    run()

    def change(content):
        del content["images"][1]
        content["annotations"] = [row for row in content["annotations"] if row["image_id"] != 2]

    edit(masks, change)
    for _ in range(2):
        run()
        assert boxel.read(masks).paths == ["0.png", "2.png"] and boxel.read(masks).ids == [1, 2, 5, 6]
    assert any("1 image removed (id 2)" in text for text in logged)


def test_ids_that_are_text_keep_their_numbers(make_set, run, masks, tmp_path):
    boxel.write(make_set(3), tmp_path / "yolo", "yolo")
    (tmp_path / "yolo" / "boxel-ids.json").unlink()
    run(tmp_path / "yolo")
    first = rows(masks)
    assert list(first) == [1, 2, 3, 4, 5, 6]
    edit(masks, remove(2))
    edit(masks, set_mask(5))
    for _ in range(2):
        run(tmp_path / "yolo")
        assert list(rows(masks)) == [1, 3, 4, 5, 6]
        assert {id: row for id, row in rows(masks).items() if id in (3, 4)} == {
            id: first[id] for id in (3, 4)
        }
        assert boxel.read(masks).mask(3).sum() == 80


def test_edits_follow_objects_whose_ids_have_changed(make_set, run, masks):
    data = make_set(2)
    run()
    edit(masks, set_mask(2))
    run()
    boxel.write(replace(data, ids=[2, 1, 7, 8]), data.file)
    run()
    found = boxel.read(masks)
    assert found.ids == [2, 1, 7, 8] and found.source.tolist() == [
        "rectangle",
        None,
        "rectangle",
        "rectangle",
    ]


def test_edits_win_over_a_changed_input(make_set, run, masks):
    data = make_set(2)
    run()
    edit(masks, set_mask(1))
    edit(masks, remove(3))
    run()
    boxes = data.boxes.copy()
    boxes[[0, 2]] += 1
    boxel.write(replace(data, boxes=boxes), data.file)
    run()
    found = boxel.read(masks)
    assert found.ids == [1, 2, 4] and found.mask(0).sum() == 80
    boxel.write(data.select_instances([1, 2, 3]), data.file)
    run()
    found = boxel.read(masks)  # the object that is gone from the input is kept, since it was edited
    assert found.ids == [2, 4, 1] and found.mask(2).sum() == 80


def test_files_of_others_in_a_folder_stay(make_set, run, masks):
    make_set(1)
    run(to=["yolo"])
    notes = masks.with_name("masks_yolo") / "notes" / "mine.md"
    notes.parent.mkdir()
    notes.write_text("to do")
    for _ in range(2):
        run(to=["yolo"])
        assert notes.read_text() == "to do"


def test_an_output_that_is_edited_meanwhile_is_not_overwritten(make_set, run, masks):
    make_set(1)
    run()

    class Slow:
        name = "rectangle"

        def __call__(self, image, boxes, labels):
            edit(masks, set_mask(1))
            return make_rectangles(image, boxes, labels)

    make_rectangles = boxel.labeling.make_teacher("rectangle", [])
    make_set(2)
    with pytest.raises(
        BoxelError, match=r"masks\.json: it was edited while the job ran; give the same command again"
    ):
        run(teacher=Slow())
    run()
    assert boxel.read(masks).mask(0).sum() == 80 and len(boxel.read(masks)) == 2


def test_another_dataset_never_replaces_masks(make_set, run, masks, tmp_path):
    data = make_set(3)
    run()
    before = masks.read_bytes()
    other = replace(data, boxes=data.boxes + 1, file=str(tmp_path / "set" / "other.json"))
    boxel.write(other, other.file)
    crowds = replace(other, iscrowd=np.ones(6, dtype=bool), file="")
    for dataset, name in [
        (Path(other.file), "other.json"),
        (other, "other.json"),
        (replace(other, file=""), "the dataset in memory"),
        (replace(other, file=data.file), "boxes.json"),
        (crowds, "the dataset in memory"),
    ]:
        with pytest.raises(
            BoxelError, match=rf"it has masks of .*boxes\.json, and 3 .* not in .*{name}.*`out`"
        ):
            run(dataset)
        assert masks.read_bytes() == before
    shutil.rmtree(masks.parent)
    run(replace(data, file=""))
    with pytest.raises(BoxelError, match="another dataset in memory"):
        run(replace(other, file=""))
    # Some boxes that were changed in memory make the same dataset; so does a file that has moved.
    boxes = data.boxes.copy()
    boxes[0] += 1
    shutil.rmtree(masks.parent)
    run(data)
    assert run(replace(data, boxes=boxes)).changed == ["0.png"]
    assert run(replace(data, boxes=boxes, file="moved.json")).reused == 3


def test_info_states_what_made_the_masks(make_set, run, masks):
    make_set(2)
    run(drop=0.5)
    made = json.loads(masks.read_text())["info"]["boxel"]
    assert made["version"] == boxel.__version__ and made["command"] == "boxel.label"
    assert made["input"]["file"] == "boxes.json" and len(made["input"]["digest"]) == 64
    assert made["settings"]["teachers"] == ["rectangle"] and made["settings"]["drop"] == 0.5
    assert made["date"].startswith("20") and masks.stat().st_mode & 0o777 == 0o644 & ~_umask()


def _umask():
    from boxel.utils.files import UMASK

    return UMASK


def test_a_finished_job_writes_the_same_files_again(make_set, run, masks, monkeypatch):
    make_set(2)
    run(to=["voc"])
    files = [path for path in masks.parent.rglob("*") if path.is_file() and path.suffix != ".sqlite"]
    before = [path.read_bytes() for path in files]
    from boxel.data import provenance

    monkeypatch.setattr(
        provenance,
        "describe_origin",
        lambda: {"boxel": boxel.__version__, "command": "other", "date": "later"},
    )
    run(to=["voc"])
    assert [path.read_bytes() for path in files] == before
    make_set(3)
    run(to=["voc"])
    assert json.loads(masks.read_text())["info"]["boxel"]["date"] == "later"


def _edit(kind, id=1, box=(0, 0, 10, 10), segmentation=None, name="cat", **fields):
    values = {"iscrowd": False, "source": None, "trusted": True, "extras": None} | fields
    row = (
        None
        if kind == "deleted"
        else Row(boxel.data.annotations.Category(1, name), box, segmentation, **values)
    )
    return Edit("a.png", id, kind, b"" if kind == "added" else b"12345678", row)


def test_join_and_merge_of_edits():
    drawn, moved, gone = _edit("changed"), _edit("changed", box=(5, 0, 10, 10)), _edit("deleted")
    flags, added = _edit("fields", trusted=False), _edit("added", id=9)
    assert join({"a": Edits([drawn]), "b": Edits([drawn])}).rows == [drawn]
    assert join({"a": Edits([flags]), "b": Edits([drawn])}).rows == [drawn]
    noted, named = _edit("fields", extras=b"{}"), _edit("class", name="dog")
    assert join({"a": Edits([drawn]), "b": Edits([noted])}).rows == [_edit("changed", extras=b"{}")]
    assert join({"a": Edits([named]), "b": Edits([flags])}).rows == [
        _edit("class", name="dog", trusted=False)
    ]
    assert join({"a": Edits([named]), "b": Edits([named])}).rows == [named]
    assert join({"a": Edits([added], ["x"]), "b": Edits([added], ["x"])}) == Edits([added], ["x"])
    for other in (moved, gone, named):
        with pytest.raises(BoxelError, match=r"annotation 1 of a\.png was edited differently in a and in b"):
            join({"a": Edits([drawn]), "b": Edits([other])})
    assert merge(Edits([drawn]), Edits([gone]), [1]).rows == [gone]
    assert merge(Edits([drawn]), Edits([named]), [1]).rows == [_edit("changed", name="dog")]
    assert merge(Edits([named]), Edits([drawn]), [1]).rows == [drawn]
    assert merge(Edits([flags]), Edits([named]), [1]).rows == [named]
    assert merge(Edits([named]), Edits([_edit("fields", name="dog", trusted=False)]), [1]).rows == [
        _edit("class", name="dog", trusted=False)
    ]
    assert merge(Edits([gone]), Edits([_edit("added")]), []).rows == [drawn]
    assert merge(Edits([added]), Edits([_edit("deleted", id=9)]), [1]).rows == []
    assert merge(Edits([added]), Edits([added]), [1]).rows == [added]
    assert merge(Edits([drawn]), Edits([flags]), [1]).rows == [_edit("changed", trusted=False)]
    assert [e.id for e in merge(Edits(), Edits([_edit("added", id=3)]), [1, 3]).rows] == [4]


def test_masks_are_compared_in_two_formats():
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[10:20, 20:28] = 1
    code, polygon = json.dumps(encode(mask)).encode(), json.dumps(SQUARE).encode()
    box = (20.0, 10.0, 28.0, 20.0)
    first, second = (_edit("changed", box=box, segmentation=text) for text in (code, polygon))
    assert join({"a": Edits([first]), "b": Edits([second])}).rows == [first]
    for text in (b"[[20, 10, 28, 10, 28, 20]]", b"[[1, 2, 3]]", b'{"size": [4, 4], "counts": "0@"}'):
        other = _edit("changed", box=box, segmentation=text)
        with pytest.raises(BoxelError, match="edited differently"):
            join({"a": Edits([first]), "b": Edits([other])})


def test_a_class_that_is_renamed_in_a_folder_changes_no_mask(make_set, run, masks, logged):
    data = make_set(2)
    boxes = data.boxes.copy()
    boxes[[1, 3], 2] = 29.5  # which a polygon of whole pixels does not hold
    boxel.write(replace(data, boxes=boxes), data.file)
    run(teacher="ellipse", to=["yolo", "labelme"])
    before = rows(masks)
    yaml = masks.with_name("masks_yolo") / "data.yaml"
    yaml.write_text(yaml.read_text().replace("corner", "edge"))
    edit(
        masks.with_name("masks_labelme") / "0.json", lambda content: content["shapes"][0].update(label="sun")
    )
    for _ in range(2):
        run(teacher="ellipse", to=["yolo", "labelme"])
        found = boxel.read(masks)
        names = [found.categories[label].name for label in found.labels]
        assert names == ["sun", "edge", "disc", "edge"]
        after = {id: row | {"category_id": before[id]["category_id"]} for id, row in rows(masks).items()}
        assert after == before
    assert any("2 objects with another class kept (ids 2, 4)" in text for text in logged)
    assert any("1 object with another class kept (id 1)" in text for text in logged)


def test_numbers_that_another_tool_has_rounded_are_no_edits(make_set, run, masks, logged):
    make_set(2)
    run(teacher="ellipse", to=["yolo"])
    first = masks.read_bytes()
    file = masks.with_name("masks_yolo") / "labels" / "0.txt"

    def change(digits, step=0.0):
        lines = [line.split() for line in file.read_text().splitlines()]
        lines[0][5] = str(float(lines[0][5]) + step)
        words = ([line[0], *(f"{float(word):.{digits}f}" for word in line[1:])] for line in lines)
        file.write_text("".join(" ".join(line) + "\n" for line in words))

    change(4)
    run(teacher="ellipse", to=["yolo"])
    assert masks.read_bytes() == first
    assert f"{file.parents[1]} was saved again since it was written; its objects are the same" in logged
    change(5, step=1 / 60)  # one vertex moves by a pixel to the right
    run(teacher="ellipse", to=["yolo"])
    assert boxel.read(masks).source.tolist() == [None, "ellipse", "ellipse", "ellipse"]


def test_a_class_that_is_changed_in_a_voc_file_costs_no_mask(make_set, run, masks, logged):
    make_set(2)
    run(teacher="ellipse", to=["voc"])
    before = rows(masks)
    file = masks.with_name("masks_voc") / "Annotations" / "0.xml"
    file.write_text(
        file.read_text().replace("<name>corner</name>", "<name>a corner</name>")
    )  # the first of all
    found = boxel.read(file.parents[1])
    assert found.has_segmentation.all()
    run(teacher="ellipse", to=["voc"])
    assert any("edited since it was written: 1 object with another class kept (id 2);" in t for t in logged)
    after = rows(masks)
    assert after[2]["category_id"] not in {row["category_id"] for row in before.values()}
    assert after[2] | {"category_id": before[2]["category_id"]} == before[2]
    assert all(after[id] == before[id] for id in (1, 3, 4))


def test_a_folder_without_its_ids_is_refused_by_name(make_set, run, masks):
    make_set(1)
    run(to=["yolo"])
    (masks.with_name("masks_yolo") / "boxel-ids.json").unlink()
    with pytest.raises(BoxelError, match=r"masks_yolo: .* its boxel-ids\.json, .* is gone; put it back, or"):
        run(to=["yolo"])


def test_a_folder_without_its_class_list_is_refused_by_name(make_set, run, masks):
    make_set(1)
    run(to="yolo")
    (masks.with_name("masks_yolo") / "data.yaml").unlink()
    assert {issue.kind for issue in boxel.read(masks.with_name("masks_yolo")).issues} == {"no-class-names"}
    with pytest.raises(BoxelError, match=r"masks_yolo: .* the list of its classes is gone; put it back, or"):
        run(to="yolo")


def test_edits_besides_objects_are_named_as_lost(make_set, run, masks, logged):
    make_set(2)
    run()

    def change(content):
        content["info"]["description"] = "mine"
        content["categories"].append({"id": 77, "name": "unused"})
        content["images"][1]["weather"] = "rain"

    for _ in range(2):
        edit(masks, change)
        run()
        sentence = f"{masks}: edits of info, category unused, image 2 are not kept; make them in the file of the boxes"
        assert [text for text in logged if text.startswith(str(masks))] == [sentence]
        del logged[:]


@pytest.mark.parametrize("change", ["skip", "leave out"])
def test_an_image_that_is_skipped_in_label_studio_stays_as_it_is(change, make_set, run, masks, logged):
    make_set(2)
    run(to=["label-studio"])
    first = masks.read_bytes()
    tasks = masks.with_name("masks_label-studio") / "tasks.json"
    if change == "skip":
        edit(tasks, lambda content: content[0].update(annotations=[{"was_cancelled": True, "result": []}]))
    else:
        edit(tasks, lambda content: content.pop(0))
    run(to=["label-studio"])
    assert masks.read_bytes() == first and len(boxel.read(tasks)) == 2
    assert f"{tasks.parent}: 1 image not annotated, or skipped, and left as before" in logged


def test_records_that_cannot_be_read_are_refused_in_one_sentence(make_set, run, masks):
    make_set(1)
    run()
    edit(masks, set_mask(1))
    run()
    for table, message in [
        (
            "edits",
            r"masks\.sqlite: the edits of earlier runs in it cannot be read .*; discard them with `overwrite`",
        ),
        ("outputs", r"masks\.json: this file exists, .* does not know it; .*`overwrite`"),
    ]:
        with sqlite3.connect(masks.with_suffix(".sqlite")) as store:
            store.execute(f"UPDATE {table} SET content = ?", [b"\x91\xa1a"])
        store.close()
        with pytest.raises(BoxelError, match=message):
            run()
        assert run(overwrite=True).reused == 1
        run()


def accept(*ids, category=None):
    """Accept masks as a user does in the file: they have no `source` any more."""

    def change(content):
        for row in content["annotations"]:
            if row["id"] in ids:
                row.pop("source")
                row["category_id"] = row["category_id"] if category is None else category

    return change


@pytest.mark.parametrize("category", [None, 9])
def test_an_accepted_mask_is_the_users(make_set, run, masks, logged, category):
    make_set(2)
    run(teacher="ellipse")
    before = boxel.read(masks)
    edit(masks, accept(1, category=category))
    run(teacher="ellipse")
    assert any("1 mask kept as trusted (id 1); " in text for text in logged)
    edit(masks.parents[1] / "set" / "boxes.json", add_box)
    for _ in range(2):
        run(teacher="ellipse")
        data = boxel.read(masks)
        assert data.source.tolist()[:2] == [None, "ellipse"] and np.isnan(data.quality[0])
        np.testing.assert_array_equal(data.mask(0), before.mask(0))
        assert not (data.mask(0) & data.mask(data.ids.index(9))).any()  # its neighbor yields
        assert rows(masks)[1]["category_id"] == (category or 3)


def add_box(content):
    disc = next(row for row in content["annotations"] if row["id"] == 1)
    content["annotations"].append(disc | {"id": 9, "bbox": [26, 16, 20, 20], "area": 400})


def test_a_tool_that_drops_the_source_accepts_nothing(make_set, run, masks, logged):
    make_set(2)
    run()
    first = rows(masks)

    def save(content):
        content.pop("info")
        for row in content["annotations"]:
            row.pop("source")
            row.pop("quality", None)
        content["annotations"][3]["category_id"] = 3

    edit(masks, save)
    run()
    assert any("3 masks lost `source`" in text for text in logged)
    assert any("1 object with another class kept (id 4); " in text for text in logged)
    first[4]["category_id"] = 3
    assert rows(masks) == first


def test_changed_masks_that_keep_their_source_are_named_in_the_next_round(
    make_set, run, masks, tmp_path, logged
):
    make_set(2)
    run()
    options = {"images": tmp_path / "set", "teacher": "ellipse"}
    label_data(masks, out=tmp_path / "next.json", **options)
    assert not any("but still with a `source`" in line for line in logged)
    edit(masks, set_mask(1))
    label_data(masks, out=tmp_path / "next.json", **options)
    assert any("1 mask changed" in line and "so predicted again (id 1)" in line for line in logged)
