"""The digest of a dataset."""

from dataclasses import replace

import numpy as np
import pytest

from boxel.data import example_scenes, read
from boxel.data.digest import digest_data, digest_path
from boxel.data.provenance import describe_input

CHANGES = {
    "boxes": lambda data: data.boxes + 0.25,
    "labels": lambda data: data.labels[::-1].copy(),
    "segmentations": lambda data: np.array([None, *data.segmentations[1:]], dtype=object),
    "trusted": lambda data: ~data.trusted,
    "ids": lambda data: [id + 1 for id in data.ids],
    "paths": lambda data: ["other.png", *data.paths[1:]],
    "splits": lambda data: ["val", *data.splits[1:]],
    "label_maps": lambda data: ["map.png", *data.label_maps[1:]],
    "map_labels": lambda data: np.array([-2, 0], dtype=np.int16),
    "image_extras": lambda data: [b'{"note": 1}', *data.image_extras[1:]],
}


@pytest.mark.parametrize("name", CHANGES)
def test_any_change_gives_another_digest(name):
    data = example_scenes(2)
    assert digest_data(replace(data, **{name: CHANGES[name](data)})) != digest_data(data)


def test_the_same_file_read_twice_has_one_digest():
    data = example_scenes(2)
    one, other = (digest_data(read(data.file, images=data.root)) for _ in range(2))
    assert one == other and len(one) == 64


def test_a_folder_changes_with_names_contents_and_sizes_of_its_files(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 1 1")
    (tmp_path / "labels" / "a.png").write_text("mask")
    (tmp_path / "a.jpg").write_text("pixels")
    first = digest_path(tmp_path)
    (tmp_path / "a.jpg").write_text("others")  # of the same size
    (tmp_path / ".lock").touch()
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    assert digest_path(tmp_path) == first
    digests = {first}
    for change in (
        lambda: (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.5 1 1"),
        lambda: (tmp_path / "labels" / "a.png").write_text("kasm"),
        lambda: (tmp_path / "a.jpg").write_text("more pixels"),
        lambda: (tmp_path / "a.jpg").rename(tmp_path / "b.jpg"),
    ):
        change()
        digests.add(digest_path(tmp_path))
    assert len(digests) == 5


def test_a_dataset_in_memory_has_no_file_name():
    assert describe_input(data := replace(example_scenes(), file=""), data)["file"] == ""
