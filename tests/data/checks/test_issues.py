import json

import numpy as np

from boxel.data.checks import check
from boxel.data.issues import Issue, format_issues, issues_to_json
from boxel.data.synthetic import write_scenes


def test_a_file_is_checked_with_its_folder_of_images(tmp_path) -> None:
    write_scenes(tmp_path / "scenes", 2, height=64, width=96)
    (tmp_path / "a/b/c").mkdir(parents=True)  # so deep that the images are not found from there
    file = (tmp_path / "scenes" / "masks.json").rename(tmp_path / "a/b/c/masks.json")
    assert [issue.kind for issue in check(file)] == ["images-missing"]
    assert check(file, images=tmp_path / "scenes" / "images") == []


def test_json_has_every_attribute_and_no_nan(make) -> None:
    rows = issues_to_json(check(make([(10, float("nan"), 50, 40)])))
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows == [
        {
            "kind": "box-nan",
            "message": "set.json: annotation 11 (image 1) has a box with a number that is not finite.",
            "file": "set.json",
            "image_id": 1,
            "annotation_id": 11,
            "values": {"box": [10.0, "nan", 50.0, 40.0]},
            "repair": "left out",
        }
    ]


def test_values_of_any_type_become_json() -> None:
    values = {"a": np.float32(0.5), "b": np.array([1, 2]), "c": (float("inf"), None), 3: {"d": {1}}}
    (row,) = issues_to_json([Issue("kind", "message", values=values)])
    assert row["values"] == {"a": 0.5, "b": [1, 2], "c": ["inf", None], "3": {"d": "{1}"}}
    json.dumps(row, allow_nan=False)


def test_issues_are_formatted_by_kind() -> None:
    boxes = [Issue("box-nan", f"f.json: annotation {i}.", repair="left out") for i in range(5)]
    issues = [Issue("all-crowd", "f.json: all crowd."), *boxes]
    assert format_issues(issues) == [
        "6 issues of 2 kinds",
        "",
        "box-nan: 5 (5 left out by a repair)",
        "  f.json: annotation 0. [left out]",
        "  f.json: annotation 1. [left out]",
        "  f.json: annotation 2. [left out]",
        "  ... and 2 more; `json` lists them all",
        "",
        "all-crowd: 1 (no repair is known)",
        "  f.json: all crowd.",
    ]
    assert format_issues(issues[:1])[0] == "1 issue of 1 kind"
    assert format_issues([]) == ["no issues found"]
