"""The dataset in memory: selecting parts of it, and decoding masks on demand."""

import sys

import msgspec
import numpy as np
import pytest
from PIL import Image

from boxel.data.annotations import BACKGROUND, VOID, Annotations, Category, values_to_labels
from boxel.masks.rle import decode, encode
from boxel.utils.errors import BoxelError

SQUARE = [[2, 1, 6, 1, 6, 4, 2, 4]]
SQUARE_MASK = np.zeros((8, 10), dtype=np.uint8)
SQUARE_MASK[1:4, 2:6] = 1


def make(**columns):
    """Three images; instances 0 and 3 in the last, 1 and 2 in the first."""
    segmentations = np.empty(4, dtype=object)
    segmentations[0] = msgspec.json.encode(SQUARE)
    segmentations[2] = msgspec.json.encode(encode(SQUARE_MASK))
    segmentations[3] = msgspec.json.encode([[1, 1]])
    return Annotations(
        **{
            "root": "photos",
            "image_ids": [10, "twenty", 30],
            "paths": ["a.png", "b.png", "c.png"],
            "widths": np.array([10, 11, 10], np.int32),
            "heights": np.array([8, 9, 8], np.int32),
            "categories": (Category(7, "cat"), Category(2, "dog", "animal"), Category(4, "cart")),
            "ids": [101, 102, 103, 104],
            "image_index": np.array([2, 0, 0, 2], np.int32),
            "labels": np.array([0, 1, 2, 1], np.int32),
            "boxes": np.arange(16, dtype=np.float64).reshape(4, 4),
            "iscrowd": np.array([False, True, False, False]),
            "segmentations": segmentations,
            "label_maps": ["a_map.png", None, "c_map.png"],
            "file": "set.json",
        }
        | columns
    )


def test_missing_columns_get_defaults():
    data = make(label_maps=None)
    assert np.isnan(data.quality).all()
    assert np.isnan(data.areas).all()
    assert data.quality.shape == data.areas.shape == (4,)
    assert data.trusted.tolist() == [True] * 4
    assert data.source.tolist() == [None] * 4
    assert data.label_maps == [None] * 3
    assert len(data) == 3
    assert repr(data) == "Annotations(3 images, 4 instances, 3 with masks, 3 categories, from 'set.json')"
    assert str(data) == "3 images, 4 instances, 3 with masks, 3 categories"


def test_instances_in_an_image_keep_the_order_of_the_file():
    data = make()
    assert [data.instances_in(i).tolist() for i in range(3)] == [[1, 2], [], [0, 3]]


def test_masks_are_decoded_on_demand():
    data = make()
    assert data.segmentation(0) == SQUARE
    assert data.segmentation(1) is None
    np.testing.assert_array_equal(data.mask(0), SQUARE_MASK)
    np.testing.assert_array_equal(decode(data.rle(2)), SQUARE_MASK)
    assert data.rle(1) is None
    assert data.mask(1) is None


def test_a_size_may_be_given_if_the_file_has_none():
    data = make(widths=np.zeros(3, np.int32), heights=np.zeros(3, np.int32))
    np.testing.assert_array_equal(data.mask(0, (8, 10)), SQUARE_MASK)


def test_an_invalid_segmentation_is_named_with_a_remedy():
    with pytest.raises(BoxelError, match=r"set\.json.*annotation 104 \(image 30\).*--repair"):
        make().mask(3)
    with pytest.raises(BoxelError, match="annotation 103"):
        make().mask(2, (9, 9))  # a code of another size than the image


def test_has_mask_requires_trust():
    assert make().has_mask.tolist() == [True, False, True, True]
    assert make(trusted=np.array([False, True, True, True])).has_mask.tolist() == [False, False, True, True]
    bare = make().without_masks()
    assert not bare.has_mask.any()
    assert make().has_mask.any()


@pytest.mark.parametrize("keep", [np.array([True, False, False, True]), [0, 3]])
def test_select_instances(keep):
    part = make(quality=np.array([0.1, 0.2, 0.3, 0.4], np.float32)).select_instances(keep)
    assert part.ids == [101, 104]
    assert part.boxes.tolist() == [[0, 1, 2, 3], [12, 13, 14, 15]]
    assert part.quality.tolist() == pytest.approx([0.1, 0.4])
    assert part.segmentation(0) == SQUARE
    assert len(part) == 3
    assert [part.instances_in(i).tolist() for i in range(3)] == [[], [], [0, 1]]


def test_select_instances_in_another_order():
    assert make().select_instances([2, 0]).ids == [103, 101]


@pytest.mark.parametrize("keep", [np.array([False, True, True]), [1, 2]])
def test_select_images(keep):
    data = make()
    data.instances_in(0)  # what is remembered of the whole must not be taken for the part's
    part = data.select_images(keep)
    assert part.image_ids == ["twenty", 30]
    assert part.paths == ["b.png", "c.png"]
    assert part.label_maps == [None, "c_map.png"]
    assert part.widths.tolist() == [11, 10]
    assert part.heights.tolist() == [9, 8]
    assert part.ids == [101, 104]
    assert part.image_index.tolist() == [1, 1]
    assert [part.instances_in(i).tolist() for i in range(2)] == [[], [0, 1]]


def test_select_images_in_another_order():
    part = make().select_images([2, 0])
    assert part.image_ids == [30, 10]
    assert part.image_index.tolist() == [0, 1, 1, 0]
    assert len(make().select_images([])) == 0


def test_select_categories():
    part = make().select_categories(["cart", "dog"])
    assert [category.id for category in part.categories] == [4, 2]
    assert part.ids == [102, 103, 104]
    assert part.labels.tolist() == [1, 0, 1]
    assert len(part) == 3


def test_an_unknown_category_names_the_nearest():
    with pytest.raises(BoxelError, match=r"set\.json.*'card'.*Did you mean 'cart'"):
        make().select_categories(["cat", "card"])


def test_class_agnostic():
    one = make().class_agnostic()
    assert one.categories == (Category(1, "object"),)
    assert one.labels.tolist() == [0, 0, 0, 0]
    assert make().class_agnostic("thing").categories[0].name == "thing"


def test_rename_categories():
    """Categories renamed to one name are merged under the first one's id; others keep their name and place."""
    names = [category.name for category in make().categories]
    renamed = make().rename_categories({names[-1]: names[0]})
    assert [category.name for category in renamed.categories] == names[:-1]
    assert renamed.categories[0].id == make().categories[0].id
    last = len(names) - 1
    assert renamed.labels.tolist() == [0 if label == last else label for label in make().labels.tolist()]
    assert make().rename_categories({}).categories == make().categories
    with pytest.raises(BoxelError, match="no category 'unicorn'"):
        make().rename_categories({"unicorn": "horse"})


def test_image_path():
    from pathlib import Path

    assert make(root=Path("photos")).image_path(1) == Path("photos/b.png")


# label maps ----------------------------------------------------------------------------------------------------------


def test_values_to_labels():
    table = values_to_labels({3: 0, 1: BACKGROUND, 4: 0})
    assert table.tolist() == [VOID, BACKGROUND, VOID, 0, 0] and table.dtype == np.int16
    assert values_to_labels({}).tolist() == []
    assert values_to_labels({65535: 2})[65535] == 2
    assert values_to_labels({-1: 0, 65536: 1, 0: 2}).tolist() == [2]  # no pixel has these


def test_values_of_label_maps_default_to_category_ids():
    wanted = np.full(256, VOID)
    wanted[[0, 7, 2, 4]] = BACKGROUND, 0, 1, 2
    assert make().map_labels.tolist() == wanted.tolist()
    assert make(label_maps=None).map_labels.tolist() == []
    # A category may have the value of background, or of void.
    data = make(categories=(Category(0, "cat"), Category(9, "dog")), void=9)
    assert data.map_labels[[0, 9]].tolist() == [0, 1] and BACKGROUND not in data.map_labels


def mapped(*values):
    """A dataset whose values 0, 1, ... stand for these labels of three categories."""
    return make(map_labels=np.array(values, dtype=np.int16))


def test_selected_categories_leave_background():
    part = mapped(BACKGROUND, 0, 1, 2, VOID, 0).select_categories(["cart", "dog"])
    assert part.map_labels.tolist() == [BACKGROUND, BACKGROUND, 1, 0, VOID, BACKGROUND]
    assert part.map_labels.dtype == np.int16


def test_without_background_unselected_classes_become_void():
    assert mapped(0, 1, 2, VOID).select_categories(["dog"]).map_labels.tolist() == [VOID, 0, VOID, VOID]


def test_renaming_categories_merges_values_of_label_maps():
    names = [category.name for category in make().categories]
    renamed = mapped(2, BACKGROUND, 1, 0).rename_categories({names[2]: names[0], names[1]: "wolf"})
    assert [category.name for category in renamed.categories] == [names[0], "wolf"]
    assert renamed.map_labels.tolist() == [0, BACKGROUND, 1, 0]


def test_class_agnostic_label_maps_have_one_class():
    assert mapped(BACKGROUND, 0, 2, VOID, 1).class_agnostic().map_labels.tolist() == [
        BACKGROUND,
        0,
        0,
        VOID,
        0,
    ]


def test_relabel_does_not_change_the_original():
    data = mapped(0, 1, 2)
    other = data.relabel(np.array([1, -1, 0], np.int32), [Category(1, "a"), Category(2, "b")])
    assert other.map_labels.tolist() == [1, VOID, 0] and data.map_labels.tolist() == [0, 1, 2]
    assert other.label_maps == data.label_maps


def test_selections_keep_the_meaning_of_values():
    data = mapped(0, VOID, 2)
    for part in (data.select_images([1]), data.select_instances([0]), data.without_masks()):
        assert part.map_labels.tolist() == [0, VOID, 2]
    assert any(data.label_maps) and not any(data.without_masks().label_maps)


def test_arrays_are_contiguous_and_typed():
    data = make(boxes=np.asfortranarray(np.arange(16, dtype=np.float32).reshape(4, 4)), labels=[0, 1, 2, 1])
    assert data.boxes.dtype == np.float64 and data.labels.dtype == np.int32
    for part in (data, data.select_instances([3, 1]), data.select_images([2])):
        assert part.boxes.flags.c_contiguous and part.iscrowd.dtype == bool


def test_a_frame_has_one_row_per_instance():
    frame = make().to_frame()
    assert frame["category"].tolist() == ["cat", "dog", "cart", "dog"]
    assert frame["image_id"].tolist() == [30, 10, 10, 30]
    assert frame.loc[1, ["x0", "y0", "x1", "y1"]].tolist() == [4, 5, 6, 7]
    assert frame["has_mask"].tolist() == [True, False, True, True]


def test_a_frame_without_pandas_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(BoxelError, match="needs pandas"):
        make().to_frame()


def test_a_notebook_shows_counts_and_thumbnails(tmp_path):
    image = np.full((8, 10, 3), 200, np.uint8)
    Image.fromarray(image).save(tmp_path / "c.png")  # a.png is missing; one mask is malformed
    html = make(root=tmp_path, file="<set>.json")._repr_html_()
    assert html.count("data:image/jpeg;base64,") == 1 and 'title="c.png"' in html
    assert "<td>4</td>" in html and "cat, dog, cart" in html and "&lt;set&gt;.json" in html
    assert "<img" not in make()._repr_html_()
