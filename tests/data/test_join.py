"""Several sets as one."""

import numpy as np
import pytest

from boxel.data.annotations import Category
from boxel.data.join import join
from boxel.data.scenes import write_scenes


@pytest.fixture
def sets(tmp_path):
    """Two sets of the same names and ids, in folders of their own."""
    return [
        write_scenes(tmp_path / name, 2, seed=seed, height=48, width=64) for seed, name in enumerate("ab")
    ]


def test_one_set_is_itself(sets):
    assert join(sets[:1]) is sets[0]


def test_images_are_found_and_instances_stay_theirs(sets):
    both = join(sets)
    assert len(both) == 4 and len(both.labels) == sum(len(data.labels) for data in sets)
    assert all(both.image_path(image).is_file() for image in range(4))
    assert both.image_path(2).resolve() == sets[1].image_path(0).resolve()
    first = len(sets[0].labels)
    assert np.array_equal(both.boxes[first:], sets[1].boxes)
    assert np.array_equal(both.image_index[first:], sets[1].image_index + 2)
    assert np.array_equal(both.mask(first), sets[1].mask(0))


def test_ids_that_are_taken_get_the_name_of_their_set(sets):
    both = join(sets)
    assert both.image_ids[:2] == sets[0].image_ids
    assert len(set(both.image_ids)) == 4 and len(set(both.ids)) == len(both.ids)
    assert both.ids[len(sets[0].ids)] == f"masks:{sets[1].ids[0]}"


def test_categories_are_one_by_name(sets):
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
