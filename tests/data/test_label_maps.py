"""Classes of pixels, from label maps and from masks."""

import re
import struct
import zlib
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from boxel.data.annotations import BACKGROUND, VOID, Annotations, Category, values_to_labels
from boxel.data.formats.builder import Builder
from boxel.data.label_maps import (
    IGNORE_INDEX,
    NO_INSTANCE,
    UNKNOWN,
    build_class_lookup,
    has_pixel_labels,
    label_map_size,
    label_map_values,
    make_instance_map,
    make_label_map,
    pixel_classes,
    read_label_map,
)
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError

CATS = [Category(7, "cat"), Category(3, "dog")]


def rectangle(x0, y0, x1, y1):
    mask = np.zeros((6, 8), dtype=np.uint8)
    mask[y0:y1, x0:x1] = 1
    return msgspec.json.encode(encode(mask))


@pytest.fixture
def painted(tmp_path) -> Annotations:
    """An image of 8 x 6 with a large dog, a small cat on it, and a box without a mask."""
    rows = Builder()
    rows.add_image(1, "a.png", 8, 6)
    rows.add(1, 0, 0, (2, 2, 4, 4), rectangle(2, 2, 4, 4))
    rows.add(2, 0, 1, (0, 0, 6, 5), rectangle(0, 0, 6, 5))
    rows.add(3, 0, 0, (4.5, 1, 8, 3))
    return rows.build(tmp_path, CATS, tmp_path / "x.json")


def test_smaller_masks_lie_on_top_and_boxes_below(painted) -> None:
    expected = np.full((6, 8), NO_INSTANCE)
    expected[1:3, 4:8] = UNKNOWN
    expected[:5, :6] = 1
    expected[2:4, 2:4] = 0
    np.testing.assert_array_equal(make_instance_map(painted, 0, (6, 8)), expected)
    labels = np.select([expected == 0, expected == 1, expected == UNKNOWN], [1, 2, IGNORE_INDEX], 0)
    np.testing.assert_array_equal(make_label_map(painted, 0), labels)
    assert [c.name for c in pixel_classes(painted)] == ["background", "cat", "dog"]


def test_an_untrusted_mask_is_unknown(painted) -> None:
    doubtful = replace(painted, trusted=np.array([True, False, True]))
    labels = make_label_map(doubtful, 0)
    assert labels[0, 0] == IGNORE_INDEX and labels[2, 2] == 1 and labels[5, 7] == 0


@pytest.mark.parametrize(
    ("segmentations", "maps", "expected"),
    [
        (["mask", None], None, True),
        ([None, None], None, False),
        ([None, None], "m.png", True),
        ([], None, True),  # nothing is there: all of it is background
    ],
)
def test_images_with_boxes_only_have_no_pixel_labels(tmp_path, segmentations, maps, expected) -> None:
    rows = Builder()
    rows.add_image(1, "a.png", 8, 6, maps)
    rows.add_image(2, "b.png", 8, 6)
    rows.add(9, 1, 0, (0, 0, 2, 2), rectangle(0, 0, 2, 2))
    for k, mask in enumerate(segmentations):
        rows.add(k, 0, 0, (0, 0, 2, 2), rectangle(0, 0, 2, 2) if mask else None)
    assert has_pixel_labels(rows.build(tmp_path, CATS, tmp_path)).tolist() == [expected, True]


def mapped(tmp_path, values, labels) -> Annotations:
    Image.fromarray(values).save(tmp_path / "m.png")
    rows = Builder()
    rows.add_image(1, "a.png", values.shape[1], values.shape[0], "m.png")
    return replace(rows.build(tmp_path, CATS, tmp_path), map_labels=values_to_labels(labels))


def test_values_stand_for_classes(tmp_path) -> None:
    values = np.array([[7, 3, 4], [0, 255, 7]], dtype=np.uint8)
    data = mapped(tmp_path, values, {7: 0, 3: 1, 4: 1})  # two values of one class
    assert pixel_classes(data) == tuple(CATS)
    assert make_label_map(data, 0).tolist() == [[0, 1, 1], [IGNORE_INDEX, IGNORE_INDEX, 0]]
    on_ground = mapped(tmp_path, values, {7: 0, 3: 1, 0: BACKGROUND, 4: VOID})
    assert make_label_map(on_ground, 0).tolist() == [[1, 2, IGNORE_INDEX], [0, IGNORE_INDEX, 1]]
    assert [c.name for c in pixel_classes(on_ground)] == ["background", "cat", "dog"]


def test_a_label_map_of_another_size_is_an_error(tmp_path) -> None:
    data = mapped(tmp_path, np.zeros((2, 3), dtype=np.uint8), {0: 0})
    with pytest.raises(BoxelError, match=r"m.png: the label map is 3 x 2 pixels and its image 3 x 4"):
        make_label_map(data, 0, (4, 3))


def test_classes_are_matched_by_name(painted) -> None:
    def among(*names):
        return build_class_lookup(painted, [Category(k, name) for k, name in enumerate(names)])[:3].tolist()

    assert among("background", "dog", "cat") == [0, 2, 1]
    assert among("background", "dog") == [0, 0, 1]  # a cat is nothing to them
    assert among("dog", "cow") == [IGNORE_INDEX, IGNORE_INDEX, 0]
    assert build_class_lookup(painted, CATS)[IGNORE_INDEX] == IGNORE_INDEX
    with pytest.raises(
        BoxelError, match=r"none of its classes \(background, cat, dog\) is among the expected ones"
    ):
        among("background", "cow")


def test_the_background_gets_a_free_id(painted) -> None:
    assert [c.id for c in pixel_classes(painted)] == [0, 7, 3]
    yolo = replace(painted, categories=(Category(0, "cat"), Category(1, "dog")))
    assert [c.id for c in pixel_classes(yolo)] == [2, 0, 1]
    assert label_map_values(pixel_classes(yolo)).tolist() == [2, 0, 1]


@pytest.mark.parametrize("ids", [(1, 1), (-1, 2), (1, 65536)])
def test_ids_that_cannot_be_values_are_refused(ids) -> None:
    with pytest.raises(BoxelError, match=f"the ids of the classes, {ids[0]}, {ids[1]}, cannot be"):
        label_map_values([Category(id, str(k)) for k, id in enumerate(ids)])


def test_images_without_instances_are_background(painted) -> None:
    empty = replace(painted.select_instances(np.zeros(3, dtype=bool)))
    assert (make_label_map(empty, 0) == 0).all() and pixel_classes(empty) == pixel_classes(painted)


def test_an_unreadable_mask_costs_only_itself(painted, caplog) -> None:
    segmentations = painted.segmentations.copy()
    segmentations[0] = b'{"size": [6, 8], "counts": "nonsense"}'
    labels = make_label_map(replace(painted, segmentations=segmentations), 0)
    assert re.search("annotation 1 .* cannot be read", caplog.text)
    assert labels[0, 0] == 2 and labels[5, 7] == 0 and labels[2, 2] == 2


def test_too_many_classes_and_two_backgrounds_are_refused(painted) -> None:
    many = replace(painted, categories=tuple(Category(k, str(k)) for k in range(255)))
    with pytest.raises(BoxelError, match="256 classes are more than the 255"):
        pixel_classes(many)
    twice = replace(painted, categories=(Category(1, "background"), Category(2, "dog")))
    with pytest.raises(BoxelError, match="two classes are called background"):
        pixel_classes(twice)


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_all_kinds_of_label_maps_are_read(tmp_path, mode) -> None:
    values = np.array([[0, 1, 15], [200, 255, 3]], dtype=np.uint16)
    image = Image.fromarray(values if mode == "I;16" else values.astype(np.uint8))
    if mode == "P":
        image = image.convert("L")
        image.putpalette([0, 0, 0] * 256)
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "m.png"), values)
    assert label_map_size(tmp_path / "m.png") == (3, 2)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_values_of_few_bits_are_not_stretched(tmp_path, bits) -> None:
    values = (np.arange(32, dtype=np.uint8) % 2**bits).reshape(4, 8)
    content = b"".join(b"\0" + np.packbits(_bits(row, bits)).tobytes() for row in values)
    (tmp_path / "m.png").write_bytes(_png(8, 4, bits, content))
    np.testing.assert_array_equal(read_label_map(tmp_path / "m.png"), values)


def _bits(row, bits):
    return ((row[:, None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8).ravel()


def _png(width, height, bits, rows) -> bytes:
    """A gray PNG (RFC 2083)."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def test_matlab_label_maps_are_read(tmp_path) -> None:
    values = np.array([[459, 0, 2]], dtype=np.uint16)
    savemat(tmp_path / "m.mat", {"LabelMap": values})
    np.testing.assert_array_equal(read_label_map(tmp_path / "m.mat"), values)
    assert label_map_size(tmp_path / "m.mat") == (3, 1)
    savemat(tmp_path / "other.mat", {"x": values})
    for read in (read_label_map, label_map_size):
        with pytest.raises(BoxelError, match=r"other.mat: cannot be read as a label map"):
            read(tmp_path / "other.mat")


def test_color_label_maps_are_refused(tmp_path) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "m.png")
    with pytest.raises(BoxelError, match=r"m.png: cannot be read as a label map \(it is in color \(RGB\)"):
        read_label_map(tmp_path / "m.png")


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_a_tiff_has_the_values_that_are_stored_in_it(write_tiff, bits, white_is_zero) -> None:
    values = [[0, 1, 0], [1, 2**bits - 1, 2 ** (bits - 1)]]
    file = write_tiff(values, bits, white_is_zero)
    assert read_label_map(file).tolist() == values and label_map_size(file) == (3, 2)


def test_a_tiff_of_16_bits_may_have_the_high_byte_first(write_tiff) -> None:
    assert read_label_map(write_tiff([[0, 258]], 16, order=">")).tolist() == [[0, 258]]


def test_values_of_32_bits_do_not_wrap_around(tmp_path) -> None:
    Image.fromarray(np.array([[1, 65537, -1, 65534]], dtype=np.int32)).save(tmp_path / "m.tif")
    assert read_label_map(tmp_path / "m.tif").tolist() == [[1, 65535, 65535, 65534]]


def test_fractions_are_refused(tmp_path) -> None:
    Image.fromarray(np.ones((2, 2), dtype=np.float32)).save(tmp_path / "m.tif")
    with pytest.raises(BoxelError, match=r"m.tif: cannot be read as a label map \(its values are fractions"):
        read_label_map(tmp_path / "m.tif")
