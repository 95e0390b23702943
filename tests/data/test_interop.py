"""Datasets of supervision and of Hugging Face, there and back."""

from pathlib import Path

import numpy as np
import pytest

from boxel.data import (
    Annotations,
    example_scenes,
    from_huggingface,
    from_supervision,
    read_image,
    to_huggingface,
    to_supervision,
)
from boxel.utils.errors import BoxelError


@pytest.fixture()
def scenes() -> Annotations:
    data = example_scenes(2)
    data.quality[:] = np.linspace(0.25, 1, len(data.quality))
    data.source[0], data.trusted[1], data.iscrowd[2], data.segmentations[3] = "boxcaseg", False, True, None
    return data


def test_supervision_and_back(scenes: Annotations) -> None:
    found = from_supervision(to_supervision(scenes))
    kept = np.flatnonzero(~scenes.iscrowd)
    np.testing.assert_array_equal(found.boxes, scenes.boxes[kept])
    np.testing.assert_array_equal(found.quality, scenes.quality[kept])
    assert [found.categories[label].name for label in found.labels] == [
        scenes.categories[label].name for label in scenes.labels[kept]
    ]
    expected = [scenes.rle(row) if scenes.has_mask[row] else None for row in kept.tolist()]
    assert [found.rle(row) for row in range(len(kept))] == expected
    assert [found.image_path(k) for k in range(2)] == [scenes.image_path(k).resolve() for k in range(2)]


def test_supervision_has_ids_and_no_masks_if_none_is_known(scenes: Annotations) -> None:
    one = to_supervision(scenes.without_masks()).annotations[str(scenes.image_path(0))]
    assert one.mask is None and one.data["id"].tolist()[:2] == ["1", "2"]


def test_hugging_face_and_back(scenes: Annotations, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    found = from_huggingface(to_huggingface(scenes), tmp_path / "images")
    for name in ("boxes", "labels", "iscrowd", "trusted", "quality"):
        np.testing.assert_array_equal(getattr(found, name), getattr(scenes, name), err_msg=name)
    assert found.segmentations.tolist() == scenes.segmentations.tolist()
    assert found.source.tolist() == scenes.source.tolist()
    assert (found.ids, found.image_ids, found.paths) == (scenes.ids, scenes.image_ids, scenes.paths)
    np.testing.assert_array_equal(read_image(found.image_path(1)), read_image(scenes.image_path(1)))


def test_hugging_face_survives_its_own_files(scenes: Annotations, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    to_huggingface(scenes).to_parquet(tmp_path / "data.parquet")
    loaded = datasets.Dataset.from_parquet(str(tmp_path / "data.parquet"), cache_dir=str(tmp_path / "cache"))
    found = from_huggingface(loaded, tmp_path / "images")
    np.testing.assert_array_equal(found.boxes, scenes.boxes)
    assert [category.name for category in found.categories] == [
        category.name for category in scenes.categories
    ]


def test_an_image_that_is_not_one_costs_its_row(
    scenes: Annotations, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    datasets = pytest.importorskip("datasets")
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    files = [str(tmp_path / "broken.jpg"), str(tmp_path / "missing.jpg"), str(scenes.image_path(0))]
    rows = {"image": files, "objects": [{"bbox": [[1.0, 2, 3, 4]], "category": [0]}] * 3}
    dataset = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    found = from_huggingface(dataset, tmp_path / "images")
    assert found.paths == [scenes.image_path(0).name] and found.boxes.tolist() == [[1, 2, 4, 6]]
    assert "2 rows left out, without a readable image: row 0 (" in caplog.text and "row 1 (" in caplog.text


def test_columns_of_others(scenes: Annotations, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"image": [str(scenes.image_path(0))], "objects": [{"bbox": [[1.0, 2, 3, 4]], "category": [2]}]}
    dataset = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    found = from_huggingface(dataset, tmp_path)
    assert found.boxes.tolist() == [[1, 2, 4, 6]] and found.categories[found.labels[0]].name == "2"
    with pytest.raises(BoxelError, match="has no column objects; rename its columns"):
        from_huggingface(dataset.remove_columns("objects"), tmp_path)
