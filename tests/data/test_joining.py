"""Joining several datasets."""

import numpy as np
import pytest
from PIL import Image

import boxel
from boxel.data.annotations import VOID, Category
from boxel.data.joining import join
from boxel.data.label_maps import make_label_map, pixel_classes
from boxel.data.synthetic import write_scenes
from boxel.utils.errors import BoxelError


@pytest.fixture
def sets(tmp_path):
    """Two datasets with the same names and ids, in separate folders."""
    return [
        write_scenes(tmp_path / name, 2, seed=seed, height=48, width=64) for seed, name in enumerate("ab")
    ]


def test_one_dataset_is_returned_as_it_is(sets):
    assert join(sets[:1]) is sets[0]


def test_images_are_found_and_keep_their_instances(sets):
    both = join(sets)
    assert len(both) == 4 and len(both.labels) == sum(len(data.labels) for data in sets)
    assert all(both.image_path(image).is_file() for image in range(4))
    assert both.image_path(2).resolve() == sets[1].image_path(0).resolve()
    first = len(sets[0].labels)
    assert np.array_equal(both.boxes[first:], sets[1].boxes)
    assert np.array_equal(both.image_index[first:], sets[1].image_index + 2)
    assert np.array_equal(both.mask(first), sets[1].mask(0))


def test_taken_ids_are_prefixed_with_the_dataset(sets):
    both = join(sets)
    assert both.image_ids[:2] == sets[0].image_ids
    assert len(set(both.image_ids)) == 4 and len(set(both.ids)) == len(both.ids)
    assert both.ids[len(sets[0].ids)] == f"masks:{sets[1].ids[0]}"


def test_ids_of_three_datasets_of_one_name_differ(sets):
    joined = join([*sets, sets[0]])
    assert len(set(joined.image_ids)) == 6 and len(set(joined.ids)) == len(joined.ids)
    assert joined.image_ids[4] == f"masks-2:{sets[0].image_ids[0]}"


def test_categories_are_merged_by_name(sets):
    from dataclasses import replace

    names = [category.name for category in sets[0].categories]
    other = replace(
        sets[1], categories=(Category(1, "lamp"), Category(2, names[0])), labels=sets[1].labels % 2
    )
    both = join([sets[0], other])
    assert [category.name for category in both.categories] == [*names, "lamp"]
    assert len({category.id for category in both.categories}) == len(names) + 1
    first = len(sets[0].labels)
    wanted = np.where(other.labels == 1, 0, len(names))
    assert np.array_equal(both.labels[first:], wanted)


def semantic(folder, table, values):
    """A dataset of one image with a label map."""
    for sub in ("images", "labels"):
        (folder / sub).mkdir(parents=True)
    Image.new("RGB", (len(values), 1)).save(folder / "images/a.png")
    Image.fromarray(np.array([values], dtype=np.uint8)).save(folder / "labels/a.png")
    (folder / "classes.txt").write_text(table)
    return boxel.read(folder)


def test_label_maps_with_the_same_values_join(tmp_path):
    """The order of a table does not matter."""
    first = semantic(tmp_path / "a", "0 sky\n1 road\n3 car\n", [0, 1, 2, 3])
    second = semantic(tmp_path / "b", "3 car\n1 road\n0 sky\n", [3, 9, 0, 1])
    both = join([first, second])
    assert [(c.id, c.name) for c in both.categories] == [(0, "sky"), (1, "road"), (3, "car")]
    assert both.map_labels.tolist() == [0, 1, VOID, 2]
    assert make_label_map(both, 0).tolist() == [[0, 1, 255, 2]]
    assert make_label_map(both, 1).tolist() == [[2, 255, 0, 1]]
    assert both.image_ids == ["a", "b:a"]


@pytest.mark.parametrize("table", ["0 road\n1 sky\n", "0 sky\n2 road\n", "0 sky\n", "0 sky\n1 road\n2 car\n"])
def test_label_maps_with_different_values_are_refused(tmp_path, table):
    first = semantic(tmp_path / "a", "0 sky\n1 road\n", [0, 1])
    with pytest.raises(BoxelError, match=r"b: the values .* other classes than those of .*a; convert one"):
        join([first, semantic(tmp_path / "b", table, [0, 1])])


def test_label_maps_join_with_instances(tmp_path, sets):
    """A dataset without label maps does not affect what their values stand for."""
    mapped = semantic(tmp_path / "m", "0 sky\n1 road\n", [0, 1])
    both = join([sets[0], mapped])
    first = len(sets[0].categories)
    assert both.map_labels.tolist() == [first, first + 1]
    assert [path is None for path in both.label_maps] == [True, True, False]


def test_the_background_of_label_maps_is_that_of_instances(tmp_path, sets):
    boxel.write(sets[1], tmp_path / "maps", format="semantic")
    both = join([sets[0], boxel.read(tmp_path / "maps")])
    names = [category.name for category in sets[0].categories]
    assert [category.name for category in both.categories] == names
    assert [category.name for category in pixel_classes(both)] == ["background", *names]
    for image in range(2):
        np.testing.assert_array_equal(make_label_map(both, 2 + image), make_label_map(sets[1], image))
