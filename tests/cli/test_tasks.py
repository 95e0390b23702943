"""`boxel next --to` writes tasks for annotation tools, and `boxel merge` takes back what was corrected there."""

import base64
import json
import shutil
import xml.etree.ElementTree as ElementTree
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import boxel
from boxel.cli import main
from boxel.data.synthetic import write_scenes
from boxel.masks.rle import encode
from boxel.review import Decision, DecisionStore

SQUARE = [[4.0, 4.0], [16.0, 4.0], [16.0, 12.0], [4.0, 12.0]]  # 12 x 8 pixels


def run(line: str) -> int:
    return main(line.split())


def rows(file: str = "masks.json") -> dict:
    return {row["id"]: row for row in json.loads(Path(file).read_text())["annotations"]}


def area(id: int, file: str = "masks.json") -> int:
    data = boxel.read(file)
    return int(data.mask(data.ids.index(id)).sum())


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 6, height=64, width=96)
    boxes, images = folder / "boxes.json", folder / "images"
    assert run(f"label {boxes} --images {images} --teacher ellipse --out {folder}/labeled.json") == 0
    (folder / "labeled.json").replace(folder / "masks.json")
    return folder


@pytest.fixture
def before(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """The rows of `masks.json`, which lies in the current folder with `images`, by id."""
    shutil.copytree(scenes, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    content = json.loads(Path("masks.json").read_text())
    for place, row in enumerate(content["annotations"]):  # whose order is not that of the images
        row["quality"] = round(0.9 - 0.04 * (7 * place % 11), 2)
    content["info"]["images"] = "images"
    Path("masks.json").write_text(json.dumps(content))
    return rows()


def write_tasks(tool: str, count: int = 4) -> list[int]:
    """Write tasks, and return the ids of the masks to correct."""
    assert run(f"next masks.json --count {count} --out tasks --to {tool} --json listed.json") == 0
    return [row["id"] for row in json.loads(Path("listed.json").read_text())]


def decide(id: int, version: int = 0) -> None:
    """Accept an object on the review page."""
    data = boxel.read("masks.json")
    image = data.paths[data.image_index[data.ids.index(id)]]
    with closing(DecisionStore(Path("masks.review.sqlite"))) as store:
        store.add((image, id), version, b"", Decision(state="accepted", category="any", box=(0, 0, 4, 4)))


def save_labelme(file: Path, change) -> None:
    """Change the shapes of a file and save it with all that LabelMe writes."""
    content = json.loads(file.read_text())
    change(content["shapes"])
    image = (file.parent / content["imagePath"]).read_bytes()
    content |= {"version": "5.11.4", "imageData": base64.b64encode(image).decode()}
    for shape in content["shapes"]:
        for name, value in {"group_id": None, "description": "", "flags": {}, "mask": None}.items():
            shape.setdefault(name, value)
    file.write_text(json.dumps(content, indent=2))


def find_labelme(id: int) -> tuple[Path, int]:
    """Return the file and the place of a shape."""
    for file in sorted(Path("tasks").glob("[0-9]*.json")):
        for place, shape in enumerate(json.loads(file.read_text())["shapes"]):
            if shape.get("id") == id:
                return file, place
    raise KeyError(id)


def set_points(id: int, points=SQUARE) -> None:
    file, place = find_labelme(id)
    save_labelme(file, lambda shapes: shapes[place].update(points=points))


def drawn(label: str, points=SQUARE) -> dict:
    return {"label": label, "points": points, "shape_type": "polygon"}


@pytest.mark.parametrize("tool", ["labelme", "cvat", "label-studio"])
def test_tasks_come_worst_first_with_marks_and_without_a_loss(before: dict, tool: str, capsys) -> None:
    ids = write_tasks(tool)
    listed = [before[id]["quality"] for id in ids]
    assert listed == sorted(listed)
    data = boxel.read("tasks")
    source = boxel.read("masks.json")
    names = [source.paths[source.image_index[source.ids.index(id)]] for id in ids]
    expected = [f"{place}_{name}" for place, name in enumerate(dict.fromkeys(names), 1)]
    assert [Path(path).name for path in data.paths] == expected == sorted(expected)
    assert all(
        data.image_path(image).samefile(Path("images", name[2:])) for image, name in enumerate(expected)
    )
    whole = {id for id, row in before.items() if row["image_id"] in data.image_ids}
    assert {*data.ids} == whole
    text = Path("tasks/tasks.json" if tool == "label-studio" else "tasks/annotations.xml")
    texts = [text] if tool != "labelme" else [Path("tasks", name).with_suffix(".json") for name in expected]
    assert sum(file.read_text().count("to correct: ") for file in texts) == 4
    assert run("merge masks.json tasks") == 0
    out = capsys.readouterr().out
    assert "merged: nothing new\nleft as they were: 4 masks to correct" in out and "--all-checked" in out
    assert rows() == before
    assert run("merge masks.json tasks --all-checked") == 0
    after = rows()
    for id, row in before.items():
        changed = {key: row[key] for key in row if key not in ("quality", "source", "suspect", "trusted")}
        assert after[id] == (changed if id in ids else row)


def test_labelme_edits_are_merged_by_id(before: dict, capsys) -> None:
    ids = write_tasks("labelme")
    set_points(ids[0])
    others = sorted({shape_id for shape_id in boxel.read("tasks").ids} - {*ids})
    file, place = find_labelme(others[0])
    save_labelme(file, lambda shapes: shapes.pop(place))
    file, place = find_labelme(others[1])
    save_labelme(file, lambda shapes: shapes[place].update(label="new kind"))
    file, _ = find_labelme(ids[0])
    save_labelme(file, lambda shapes: shapes.insert(0, drawn("new kind", [[40, 40], [50, 40], [50, 44]])))
    capsys.readouterr()
    assert run("merge masks.json tasks") == 0
    out = capsys.readouterr().out
    new = max(before) + 1
    assert out.splitlines()[0] == (
        f"merged: 1 object corrected (id {ids[0]}), 1 object with another class (id {others[1]}), 1 object deleted "
        f"(id {others[0]}), 1 object added (id {new})"
    )
    after = rows()
    assert after.keys() == before.keys() - {others[0]} | {new}
    untouched = before.keys() - {ids[0], *others[:2]}
    assert {id: after[id] for id in untouched} == {id: before[id] for id in untouched}
    assert area(ids[0]) == 96 and after[ids[0]]["bbox"] == [4, 4, 12, 8]
    assert not {"quality", "source", "trusted", "flags", "description"} & after[ids[0]].keys()
    assert after[others[1]] == before[others[1]] | {"category_id": after[new]["category_id"]}
    assert run("merge masks.json tasks") == 0
    assert capsys.readouterr().out.startswith("merged: nothing new\n")
    assert rows() == after


def test_what_was_merged_can_be_corrected_further(before: dict, capsys) -> None:
    ids = write_tasks("labelme")
    file, place = find_labelme(ids[0])
    original = json.loads(file.read_text())["shapes"][place]["points"]
    set_points(ids[0])
    save_labelme(file, lambda shapes: shapes.append(drawn("disc")))
    assert run("merge masks.json tasks") == 0
    new = max(rows())
    set_points(ids[0], [[x + 2, y] for x, y in SQUARE])
    save_labelme(file, lambda shapes: shapes[-1].update(points=SQUARE[:3]))
    capsys.readouterr()
    assert run("merge masks.json tasks") == 0
    assert capsys.readouterr().out.startswith(f"merged: 2 objects corrected (ids {ids[0]}, {new})\n")
    assert rows().keys() == before.keys() | {new}
    assert rows()[ids[0]]["bbox"] == [6, 4, 12, 8] and area(new) < 60
    set_points(ids[0], original)
    save_labelme(file, lambda shapes: shapes.pop())
    assert run("merge masks.json tasks") == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"merged: 1 object corrected (id {ids[0]}), 1 object deleted (id {new})"
    assert rows().keys() == before.keys() and area(ids[0]) != 96


def test_newer_decisions_stay_and_newer_predictions_do_not(before: dict, capsys) -> None:
    ids = write_tasks("labelme")
    for id in ids:
        set_points(id)
    content = json.loads(Path("masks.json").read_text())
    by_id = {row["id"]: row for row in content["annotations"]}
    corrected, predicted, reviewed, removed = ids
    shape = {"segmentation": [[20, 20, 30, 20, 30, 30]], "bbox": [20, 20, 10, 10], "area": 50}
    by_id[corrected] |= shape
    del by_id[corrected]["source"], by_id[corrected]["quality"]
    by_id[predicted] |= shape
    content["annotations"].remove(by_id[removed])
    Path("masks.json").write_text(json.dumps(content))
    between = rows()
    decide(reviewed)
    capsys.readouterr()
    assert run("merge masks.json tasks") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"merged: 1 object corrected (id {predicted})"
    kept = sorted([corrected, reviewed, removed])
    assert lines[1].startswith("not merged: 3 objects (ids ") and "changed in the dataset since" in lines[1]
    assert sorted(map(int, lines[1].split("ids ")[1].split(")")[0].split(", "))) == kept
    after = rows()
    assert area(predicted) == 96
    assert after == between | {predicted: after[predicted]}


def test_decisions_before_the_tasks_were_written_do_not_count(before: dict, capsys) -> None:
    for id in before:
        decide(id)
    first, second, *_ = write_tasks("labelme")
    decide(second, version=1)
    for id in (first, second):
        set_points(id)
    capsys.readouterr()
    assert run("merge masks.json tasks") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"merged: 1 object corrected (id {first})"
    assert (
        lines[1] == f"not merged: 1 object (id {second}), changed in the dataset since the tasks were written"
    )


def test_a_new_file_of_decisions_counts_from_its_start(before: dict, capsys) -> None:
    first, second = list(before)[:2]
    decide(first)
    decide(second)
    chosen = write_tasks("labelme")[0]
    Path("masks.review.sqlite").unlink()
    decide(chosen)
    set_points(chosen)
    capsys.readouterr()
    assert run("merge masks.json tasks") == 0
    assert f"not merged: 1 object (id {chosen})" in capsys.readouterr().out


def write_cvat(tree: ElementTree.ElementTree) -> None:
    """Write the file as CVAT exports it: numbers with two decimals, and all attributes of a label on each shape."""
    for shape in tree.iter("polygon"):
        points = [map(float, pair.split(",")) for pair in shape.get("points").split(";")]
        shape.set("points", ";".join(f"{x:.2f},{y:.2f}" for x, y in points))
        for name in ("correct", "boxel_id"):
            if shape.find(f"attribute[@name='{name}']") is None:
                ElementTree.SubElement(shape, "attribute", name=name).text = ""
    tree.write("tasks/annotations.xml")


def test_cvat_edits_are_merged_by_the_id_in_an_attribute(before: dict, capsys) -> None:
    ids = write_tasks("cvat")
    labels = json.loads(Path("tasks/labels.json").read_text())
    assert all([a["name"] for a in label["attributes"]] == ["correct", "boxel_id"] for label in labels)
    tree = ElementTree.parse("tasks/annotations.xml")
    shapes = {int(s.find("attribute[@name='boxel_id']").text): s for s in tree.iter("polygon")}
    owner = {shape: image for image in tree.iter("image") for shape in image}
    others = sorted(shapes.keys() - {*ids})
    far = "80,50;92,50;92,58;80,58"  # of which the box before has no part
    shapes[ids[0]].set("points", far)
    owner[shapes[others[0]]].remove(shapes[others[0]])
    copy = ElementTree.SubElement(owner[shapes[ids[1]]], "polygon", shapes[ids[1]].attrib | {"points": far})
    ElementTree.SubElement(copy, "attribute", name="boxel_id").text = str(ids[1])
    write_cvat(tree)
    capsys.readouterr()
    assert run("merge masks.json tasks") == 0
    new = max(before) + 1
    assert capsys.readouterr().out.splitlines()[0] == (
        f"merged: 1 object corrected (id {ids[0]}), 1 object deleted (id {others[0]}), 1 object added (id {new})"
    )
    after = rows()
    assert after[ids[0]]["bbox"] == after[new]["bbox"] == [80, 50, 12, 8]
    assert "attributes" not in after[ids[0]] and "attributes" not in after[new]
    untouched = before.keys() - {ids[0], others[0]}
    assert {id: after[id] for id in untouched} == {id: before[id] for id in untouched}


def test_label_studio_exports_are_merged_as_far_as_they_go(before: dict, capsys) -> None:
    write_tasks("label-studio", 5)
    file = Path("tasks/tasks.json")
    tasks = json.loads(file.read_text())
    images = len(tasks)
    absent = tasks.pop()["data"]["file_name"][2:]  # nobody has come this far
    assert tasks[-1]["predictions"]
    for task in tasks[:-1]:
        (prediction,) = task.pop("predictions")
        results = [result | {"origin": "prediction"} for result in prediction["result"]]
        task["annotations"] = [
            {"result": results, "was_cancelled": False, "created_at": "2026-11-30T18:00:00Z"}
        ]
    results = tasks[0]["annotations"][0]["result"]
    corrected, deleted = int(results[0]["id"]), int(results[-1]["id"])
    points = [[100 * x / 96, 100 * y / 64] for x, y in SQUARE]
    results[0]["value"]["points"], results[0]["origin"] = points, "prediction-changed"
    del results[-1]
    value = {"points": points[:3], "closed": True, "polygonlabels": ["disc"]}
    results.append(results[0] | {"id": "aB3dE", "origin": "manual", "value": value, "meta": {}})
    file.write_text(json.dumps(tasks))
    capsys.readouterr()
    assert run("merge masks.json tasks") == 0
    new = max(before) + 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"merged: 1 object corrected (id {corrected}), 1 object deleted (id {deleted}), 1 object added (id {new})"
    )
    assert images > 2 and f"did not come back: 1 image ({absent})" in lines
    after = rows()
    assert area(corrected) == 96 and "label_studio" not in after[corrected]
    untouched = before.keys() - {corrected, deleted}
    assert {id: after[id] for id in untouched} == {id: before[id] for id in untouched}


def test_tasks_that_would_lose_objects_are_refused(before: dict, capsys) -> None:
    ids = write_tasks("labelme")
    assert run("next masks.json --count 2 --out tasks --to labelme") == 2
    assert "there is such a file or folder already" in capsys.readouterr().err
    for file in Path("tasks").glob("[0-9]*.json"):
        save_labelme(file, lambda shapes: shapes.clear())
    assert run("merge masks.json tasks") == 1
    assert "import the annotations into the tool before" in capsys.readouterr().err
    file = next(Path("tasks").glob("1_*.json"))
    save_labelme(
        file, lambda shapes: shapes.append({"label": "disc", "points": [[1, 1]], "shape_type": "polygon"})
    )
    assert run("merge masks.json tasks") == 1
    assert "not all of it can be read" in capsys.readouterr().err
    assert rows() == before and ids


@pytest.mark.parametrize(
    ("line", "code", "sentence"),
    [
        ("next masks.json --to labelme", 2, "--to needs --out"),
        ("next masks.json --out tasks --to labelm", 2, "Did you mean 'labelme'?"),
        ("merge masks.json images", 1, "`boxel next --to` has not written these tasks"),
    ],
)
def test_wrong_usage_is_one_sentence(before: dict, capsys, line: str, code: int, sentence: str) -> None:
    assert run(line) == code
    assert sentence in capsys.readouterr().err


def test_tasks_of_another_dataset_are_refused(before: dict, capsys) -> None:
    write_tasks("labelme")
    content = json.loads(Path("masks.json").read_text())
    for row in content["annotations"]:
        row["id"] += 1000
    Path("other.json").write_text(json.dumps(content))
    assert run("merge other.json tasks --all-checked") == 1
    assert "other.json: has none of the objects of the tasks in tasks; name the" in capsys.readouterr().err
    assert rows("other.json").keys() == {id + 1000 for id in before}


def test_links_out_of_the_image_folder_are_tasks_only_if_they_lead_to_images(
    before: dict, tmp_path: Path, capsys
) -> None:
    data = boxel.read("masks.json")
    for name in data.paths:
        Path("images", name).rename(tmp_path.parent / f"{tmp_path.name}-{name}")
        Path("images", name).symlink_to(tmp_path.parent / f"{tmp_path.name}-{name}")
    assert run("next masks.json --count 2 --out real --to cvat") == 0
    assert not any(file.is_symlink() or file.stat().st_nlink > 1 for file in Path("real").rglob("*.png"))
    for name in data.paths:
        (tmp_path.parent / f"{tmp_path.name}-{name}").write_text("private")
    assert run("next masks.json --count 2 --out tasks --to cvat") == 1
    assert "to files that are not images" in capsys.readouterr().err and not Path("tasks").exists()
    Path("images", data.paths[0]).unlink()
    for name in data.paths[1:]:
        Path("images", name).unlink()
    assert run("next masks.json --count 2 --out tasks --to cvat") == 1
    assert "images are missing" in capsys.readouterr().err


def test_masks_of_another_tool_than_polygons_are_merged(before: dict) -> None:
    (id,) = write_tasks("cvat", 1)
    tree = ElementTree.parse("tasks/annotations.xml")
    image = tree.find("image")
    shape = next(s for s in image if s.find("attribute[@name='boxel_id']").text == str(id))
    image.remove(shape)  # and painted again by the brush
    fields = {
        "label": shape.get("label"),
        "left": "10",
        "top": "20",
        "width": "3",
        "height": "2",
        "rle": "0, 4, 1, 1",
    }
    mask = ElementTree.SubElement(image, "mask", fields)
    ElementTree.SubElement(mask, "attribute", name="boxel_id").text = str(id)
    tree.write("tasks/annotations.xml")
    assert run("merge masks.json tasks --out other.json") == 0
    expected = np.zeros((64, 96), bool)
    expected[20, 10:13] = expected[21, 10] = expected[21, 12] = True
    expected[21, 11] = False
    data = boxel.read("other.json", images="images")
    assert encode(data.mask(data.ids.index(id))) == encode(expected)
    assert rows() == before


def test_accepted_masks_survive_another_box_in_their_image(scenes: Path, tmp_path: Path, monkeypatch) -> None:
    shutil.copytree(scenes / "images", tmp_path / "images")
    shutil.copy(scenes / "boxes.json", tmp_path)
    monkeypatch.chdir(tmp_path)
    label = "label boxes.json --images images --teacher ellipse --out masks.json"
    assert run(label) == 0
    (accepted,) = write_tasks("labelme", count=1)
    assert run("merge masks.json tasks --all-checked") == 0
    before = rows()
    content = json.loads(Path("boxes.json").read_text())
    image = before[accepted]["image_id"]
    x, y, width, height = before[accepted]["bbox"]
    inner = {"id": 999, "image_id": image, "category_id": before[accepted]["category_id"]}
    inner |= {"bbox": [x + width / 4, y + height / 4, width / 2, height / 2], "iscrowd": 0}
    content["annotations"].append(inner | {"area": width * height / 4})
    Path("boxes.json").write_text(json.dumps(content))
    for _ in range(2):
        assert run(label) == 0
        assert rows()[accepted] == before[accepted] and 999 in rows()
