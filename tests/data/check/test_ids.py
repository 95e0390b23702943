from dataclasses import replace

from boxel.data.annotations import Category
from boxel.data.check import check, repair
from boxel.data.faults import Fault

BOXES = [(10, 10, 50, 40), (20, 20, 60, 60), (30, 30, 70, 70)]


def test_what_the_reader_found_comes_first_and_is_mended_by_being_left_out(make) -> None:
    found = Fault(
        "unknown-image", "set.json: annotation 3 is of image 99.", "set.json", 99, 3, {}, "left out"
    )
    data = replace(make([(10, 10, 10, 40)]), faults=[found])
    assert [fault.kind for fault in check(data)] == ["unknown-image", "box-empty"]
    mended, _ = repair(data)
    assert mended.faults == []
    assert data.faults == [found]


def test_references_to_nothing(make) -> None:
    data = make(BOXES, image_index=[0, 5, 0], labels=[-1, 0, 1])
    faults = check(data)
    assert [(f.kind, f.image_id, f.annotation_id, f.values) for f in faults] == [
        ("unknown-image", None, 12, {"index": 5}),
        ("unknown-category", 1, 11, {"index": -1}),
    ]
    mended, _ = repair(data)
    assert mended.ids == [13]
    assert check(mended) == []


def test_without_images(make) -> None:
    data = make(BOXES, image_ids=[], paths=[])
    assert [fault.kind for fault in check(data)] == ["unknown-image"] * 3 + ["set-empty"]
    mended, _ = repair(data)
    assert (len(mended), mended.ids) == (0, [])


def test_a_category_name_twice(make) -> None:
    categories = (Category(7, "cat"), Category(9, "dog"), Category(12, " cat"))
    data = make(BOXES, categories=categories, labels=[2, 1, 0])
    (fault,) = check(data)
    assert (fault.kind, fault.values, fault.repair) == (
        "category-twice",
        {"name": "cat", "ids": [7, 12]},
        "merged into 7",
    )
    mended, _ = repair(data)
    assert mended.categories == categories[:2]
    assert mended.labels.tolist() == [0, 1, 0]
    assert check(mended) == []


def test_a_category_id_twice(make) -> None:
    data = make(BOXES, categories=(Category(7, "cat"), Category(7, "dog")), labels=[0, 1, 1])
    (fault,) = check(data)
    assert (fault.kind, fault.values) == ("category-id-twice", {"id": 7, "name": "dog"})
    mended, _ = repair(data)
    assert mended.categories == (Category(7, "cat"), Category(8, "dog"))
    assert mended.labels.tolist() == [0, 1, 1]


def test_an_image_id_twice_for_one_file_is_merged(make) -> None:
    data = make(BOXES, image_ids=[4, 4], paths=["a.png", "a.png"], image_index=[0, 1, 1])
    (fault,) = check(data)
    assert (fault.kind, fault.image_id, fault.repair) == ("image-id-twice", 4, "merged")
    mended, _ = repair(data)
    assert (mended.image_ids, mended.paths, mended.image_index.tolist()) == ([4], ["a.png"], [0, 0, 0])
    assert mended.ids == [11, 12, 13]


def test_an_image_id_twice_for_two_files_is_renumbered(make) -> None:
    data = make(BOXES, image_ids=[4, 4], image_index=[0, 1, 1])
    (fault,) = check(data)
    assert fault.values == {"paths": ["a.png", "b.png"]}
    assert fault.repair == "renumbered 5"
    mended, _ = repair(data)
    assert (mended.image_ids, mended.image_index.tolist()) == ([4, 5], [0, 1, 1])
    assert check(mended) == []


def test_an_annotation_id_twice(make) -> None:
    data = make(BOXES, ids=[3, 3, "8"])
    (fault,) = check(data)
    assert (fault.kind, fault.annotation_id, fault.values) == ("annotation-id-twice", 3, {"position": 1})
    mended, _ = repair(data)
    assert mended.ids == [3, 9, "8"]  # 8 is avoided too
    assert check(mended) == []


def test_the_row_that_stays_keeps_its_id(make) -> None:
    data = make([(10, 10, 10, 10), BOXES[0], BOXES[1]], ids=[3, 3, 3])
    kinds = [(f.kind, f.repair) for f in check(data)]
    assert kinds == [
        ("box-empty", "left out"),
        ("annotation-id-twice", "kept, for the other is left out"),
        ("annotation-id-twice", "renumbered 4"),
    ]
    mended, _ = repair(data)
    assert mended.ids == [3, 4]
