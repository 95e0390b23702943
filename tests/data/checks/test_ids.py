from dataclasses import replace

from boxel.data import example_scenes
from boxel.data.annotations import Category
from boxel.data.checks import check, repair
from boxel.data.issues import Issue

BOXES = [(10, 10, 50, 40), (20, 20, 60, 60), (30, 30, 70, 70)]


def test_issues_of_the_reader_come_first(make) -> None:
    found = Issue(
        "unknown-image", "set.json: annotation 3 is of image 99.", "set.json", 99, 3, {}, "left out"
    )
    data = replace(make([(10, 10, 10, 40)]), issues=[found])
    assert [issue.kind for issue in check(data)] == ["unknown-image", "box-empty"]
    repaired, _ = repair(data)
    assert repaired.issues == []
    assert data.issues == [found]


def test_dangling_references_are_left_out(make) -> None:
    data = make(BOXES, image_index=[0, 5, 0], labels=[-1, 0, 1])
    issues = check(data)
    assert [(f.kind, f.image_id, f.annotation_id, f.values) for f in issues] == [
        ("unknown-image", None, 12, {"index": 5}),
        ("unknown-category", 1, 11, {"index": -1}),
    ]
    repaired, _ = repair(data)
    assert repaired.ids == [13]
    assert check(repaired) == []


def test_a_dataset_without_images_is_empty(make) -> None:
    data = make(BOXES, image_ids=[], paths=[])
    assert [issue.kind for issue in check(data)] == ["unknown-image"] * 3 + ["dataset-empty"]
    repaired, _ = repair(data)
    assert (len(repaired), repaired.ids) == (0, [])


def test_a_duplicate_category_name_is_merged(make) -> None:
    categories = (Category(7, "cat"), Category(9, "dog"), Category(12, " cat"))
    data = make(BOXES, categories=categories, labels=[2, 1, 0])
    (issue,) = check(data)
    assert (issue.kind, issue.values, issue.repair) == (
        "duplicate-category",
        {"name": "cat", "ids": [7, 12]},
        "merged into 7",
    )
    repaired, _ = repair(data)
    assert repaired.categories == categories[:2]
    assert repaired.labels.tolist() == [0, 1, 0]
    assert check(repaired) == []


def test_a_duplicate_category_id_is_renumbered(make) -> None:
    data = make(BOXES, categories=(Category(7, "cat"), Category(7, "dog")), labels=[0, 1, 1])
    (issue,) = check(data)
    assert (issue.kind, issue.values) == ("duplicate-category-id", {"id": 7, "name": "dog"})
    repaired, _ = repair(data)
    assert repaired.categories == (Category(7, "cat"), Category(8, "dog"))
    assert repaired.labels.tolist() == [0, 1, 1]


def test_a_duplicate_image_id_of_one_file_is_merged(make) -> None:
    data = make(BOXES, image_ids=[4, 4], paths=["a.png", "a.png"], image_index=[0, 1, 1])
    (issue,) = check(data)
    assert (issue.kind, issue.image_id, issue.repair) == ("duplicate-image-id", 4, "merged")
    repaired, _ = repair(data)
    assert (repaired.image_ids, repaired.paths, repaired.image_index.tolist()) == ([4], ["a.png"], [0, 0, 0])
    assert repaired.ids == [11, 12, 13]


def test_a_duplicate_image_id_of_two_files_is_renumbered(make) -> None:
    data = make(BOXES, image_ids=[4, 4], image_index=[0, 1, 1])
    (issue,) = check(data)
    assert issue.values == {"paths": ["a.png", "b.png"]}
    assert issue.repair == "renumbered to 5"
    repaired, _ = repair(data)
    assert (repaired.image_ids, repaired.image_index.tolist()) == ([4, 5], [0, 1, 1])
    assert check(repaired) == []


def test_a_duplicate_annotation_id_is_renumbered(make) -> None:
    data = make(BOXES, ids=[3, 3, "8"])
    (issue,) = check(data)
    assert (issue.kind, issue.annotation_id, issue.values) == ("duplicate-annotation-id", 3, {"position": 1})
    repaired, _ = repair(data)
    assert repaired.ids == [3, 9, "8"]  # 8 is avoided too
    assert check(repaired) == []


def test_the_row_that_stays_keeps_its_id(make) -> None:
    data = make([(10, 10, 10, 10), BOXES[0], BOXES[1]], ids=[3, 3, 3])
    kinds = [(f.kind, f.repair) for f in check(data)]
    assert kinds == [
        ("box-empty", "left out"),
        ("duplicate-annotation-id", "kept, since the other is left out"),
        ("duplicate-annotation-id", "renumbered to 4"),
    ]
    repaired, _ = repair(data)
    assert repaired.ids == [3, 4]


def test_two_ids_of_one_file_are_reported():
    scenes = example_scenes(3)
    data = replace(scenes, paths=[scenes.paths[0], f"./{scenes.paths[0]}", *scenes.paths[2:]])
    (issue,) = [issue for issue in check(data) if issue.kind == "shared-image"]
    assert f"the images {data.image_ids[0]} and {data.image_ids[1]} are one file" in issue.message
    assert not issue.repair
