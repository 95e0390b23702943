"""Salient datasets: folders of images and black-and-white masks, and which images show a single object."""

import re
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from PIL import Image

import boxel
from boxel.data.formats import ConversionWarning, recognize, salient
from boxel.data.formats.salient import select_single_objects
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError

HEIGHT, WIDTH = 20, 30


def make_mask(*boxes):
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = 1
    return mask


def put(folder, stem, mask, suffix=".jpg", value=255):
    """An image and its mask."""
    for sub in ("images", "masks"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 30)).save(folder / f"images/{stem}{suffix}")
    Image.fromarray(mask * np.uint8(value)).save(folder / f"masks/{stem}.png")


@pytest.fixture
def folder(tmp_path):
    put(tmp_path / "set", "cup", make_mask((3, 4, 20, 18)))
    put(tmp_path / "set", "bird", make_mask((10, 0, 30, 9), (12, 9, 14, 12)), ".png", value=200)
    return tmp_path / "set"


def test_a_dataset_is_read(folder):
    assert recognize(folder) == "salient"
    data = boxel.read(folder)
    assert data.image_ids == ["bird", "cup"] and data.ids == ["bird:1", "cup:1"] and not data.issues
    assert [data.image_path(i) for i in range(2)] == [folder / "images/bird.png", folder / "images/cup.jpg"]
    assert data.widths.tolist() == [30, 30] and data.heights.tolist() == [20, 20]
    assert data.boxes.tolist() == [[10, 0, 30, 12], [3, 4, 20, 18]]
    assert [category.name for category in data.categories] == ["salient"] and data.labels.tolist() == [0, 0]
    assert data.has_mask.all() and not data.iscrowd.any()
    np.testing.assert_array_equal(data.mask(0), make_mask((10, 0, 30, 9), (12, 9, 14, 12)))
    assert data.areas.tolist() == [186, 238]


def test_bright_pixels_are_the_object(folder):
    shades = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    shades[:, 10:] = 127
    shades[:, 20:] = 128
    Image.fromarray(shades).save(folder / "masks/cup.png")
    assert boxel.read(folder).boxes[1].tolist() == [20, 0, 30, 20]


def test_images_may_be_in_another_folder(folder):
    (folder / "images").rename(folder / "photos")
    data = boxel.read(folder, images=folder / "photos", format="salient")
    assert data.image_path(1) == folder / "photos/cup.jpg" and len(data) == 2


@pytest.mark.parametrize(
    ("spoil", "file", "message"),
    [
        (
            lambda f: (f / "masks/cup.png").unlink(),
            "images/cup.jpg",
            r"has no mask in .*masks and is left out",
        ),
        (lambda f: (f / "images/cup.jpg").unlink(), "masks/cup.png", r"cup.jpg.*The image is left out"),
        (
            lambda f: Image.new("L", (30, 21), 255).save(f / "masks/cup.png"),
            "masks/cup.png",
            "30 x 21 pixels and its image 30 x 20; make them the same size",
        ),
        (lambda f: Image.new("L", (30, 20)).save(f / "masks/cup.png"), "masks/cup.png", "all black"),
        (lambda f: (f / "masks/cup.png").write_bytes(b"?"), "masks/cup.png", "cup.png"),
        (lambda f: (f / "images/cup.jpg").write_bytes(b"?"), "masks/cup.png", "cup.jpg"),
    ],
    ids=["no mask", "no image", "wrong size", "black", "broken mask", "broken image"],
)
def test_an_invalid_pair_costs_only_its_image(folder, spoil, file, message):
    spoil(folder)
    data = boxel.read(folder)
    assert data.image_ids == ["bird"] and data.ids == ["bird:1"]
    (issue,) = data.issues
    assert issue.file == str(folder / file)
    assert re.search(message, issue.message)


def test_hidden_files_suffixes_and_folders(folder):
    put(folder, "cup", make_mask((3, 4, 20, 18)))
    for name in ("images/._cup.jpg", "masks/._cup.png"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    (folder / "masks/cup.png").rename(folder / "masks/cup.PNG")
    Image.fromarray(make_mask((3, 4, 20, 18)) * np.uint8(255)).save(folder / "masks/bird.bmp")
    (folder / "masks/bird.png").unlink()
    for sub in ("images", "masks"):
        (folder / sub / "train").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images/train/cup.png")
    Image.fromarray(make_mask((0, 0, 9, 9)) * np.uint8(255)).save(folder / "masks/train/cup.png")
    data = boxel.read(folder)
    assert data.paths == ["bird.png", "cup.jpg", "train/cup.png"] and data.issues == []
    assert data.boxes.tolist() == [[3, 4, 20, 18], [3, 4, 20, 18], [0, 0, 9, 9]]


@pytest.mark.parametrize("name", ["images/cup.png", "masks/cup.jpg"])
def test_two_files_of_one_name_are_refused(folder, name):
    Image.new("L", (WIDTH, HEIGHT), 255).save(folder / name)
    data = boxel.read(folder)
    assert data.image_ids == ["bird"] and "of one name" in data.issues[0].message


def palette_mask(mask, colors):
    image = Image.fromarray(mask, mode="P")
    image.putpalette([0, 0, 0, *colors])
    return image


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(make_mask((3, 4, 20, 18))),
        Image.fromarray(make_mask((3, 4, 20, 18)) * np.uint8(38)),
        Image.fromarray(make_mask((3, 4, 20, 18)).astype(bool)),
        palette_mask(make_mask((3, 4, 20, 18)), [0, 128, 0]),
        Image.fromarray(make_mask((3, 4, 20, 18)) * np.uint8(255)).convert("RGBA"),
    ],
    ids=["0 and 1", "0 and 38", "one bit", "palette", "opaque"],
)
def test_other_values_are_the_object_if_there_is_one_beside_black(folder, image):
    image.save(folder / "masks/cup.png")
    data = boxel.read(folder)
    assert data.boxes[1].tolist() == [3, 4, 20, 18] and data.issues == []


ALPHA = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))
ALPHA.paste((0, 0, 0, 255), (3, 4, 20, 18))
THREE = make_mask((0, 0, 20, 18)) + make_mask((3, 4, 9, 9))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (ALPHA, "transparent pixels; save the object white on black"),
        (Image.new("RGB", (WIDTH, HEIGHT), (0, 255, 0)), "in color"),
        (palette_mask(THREE, [128, 0, 0, 0, 128, 0]), "in color"),
        (Image.fromarray(THREE), "the brightest pixel of the mask is 2"),
    ],
)
def test_a_mask_that_is_not_black_and_white_is_refused(folder, image, message):
    image.save(folder / "masks/cup.png")
    data = boxel.read(folder)
    assert data.image_ids == ["bird"]
    assert str(folder / "masks/cup.png") in data.issues[0].message and message in data.issues[0].message


def test_a_folder_without_masks_is_an_error(folder):
    for file in (folder / "masks").iterdir():
        file.unlink()
    with pytest.raises(
        BoxelError, match="there are not masks; put one black-and-white image per image into it"
    ):
        boxel.read(folder)
    (folder / "masks").rmdir()
    with pytest.raises(BoxelError, match="no dataset of a known format"):
        boxel.read(folder)
    with pytest.raises(BoxelError, match="there are not masks"):
        boxel.read(folder, format="salient")


def test_round_trip(folder, tmp_path):
    data = boxel.read(folder)
    boxel.write(data, tmp_path / "out", format="salient")
    again = boxel.read(tmp_path / "out")
    assert again.image_ids == data.image_ids and again.boxes.tolist() == data.boxes.tolist()
    assert again.segmentations.tolist() == data.segmentations.tolist()
    with pytest.raises(BoxelError, match="a dataset in this format already"):
        boxel.write(data, tmp_path / "out", format="salient")


def with_masks(data, *masks):
    codes = np.full(len(masks), None, dtype=object)
    codes[:] = [None if mask is None else msgspec.json.encode(encode(mask)) for mask in masks]
    return replace(data, segmentations=codes)


def test_what_the_layout_cannot_hold_is_reported(folder, tmp_path):
    data = boxel.read(folder)
    two = replace(data.select_instances([0, 1, 0]), image_index=np.array([0, 1, 0], np.int32), ids=[1, 2, 3])
    two = with_masks(two, make_mask((10, 0, 30, 9)), None, make_mask((0, 15, 5, 20)))
    with pytest.warns(ConversionWarning) as caught:
        boxel.write(two, tmp_path / "out", format="salient")
    said = " ".join(str(warning.message) for warning in caught)
    assert "a salient dataset has masks only: 1 instances without a trusted one are left out" in said
    assert "has neither categories nor instances" in said
    again = boxel.read(tmp_path / "out")
    np.testing.assert_array_equal(again.mask(0), make_mask((10, 0, 30, 9), (0, 15, 5, 20)))
    assert again.image_ids == ["bird"] and [issue.kind for issue in again.issues] == ["no-mask"]


def test_masks_that_cannot_be_written_are_reported(folder, tmp_path):
    data = with_masks(boxel.read(folder), make_mask((0, 0, 5, 5))[:10], make_mask((3, 4, 20, 18)))
    untrusted = replace(data, trusted=np.array([True, False]))
    losses = salient.write(data, tmp_path / "broken")
    assert len(losses) == 1 and "1 of 2 masks cannot be read" in losses[0]
    assert boxel.read(tmp_path / "broken").image_ids == ["cup"]
    salient.write(untrusted, tmp_path / "untrusted")
    assert list((tmp_path / "untrusted/masks").iterdir()) == []


# single objects ------------------------------------------------------------------------------------------------------


def make_dataset(folder, *masks):
    """A dataset of one image per mask."""
    for i, mask in enumerate(masks):
        put(folder, str(i), mask)
    return boxel.read(folder)


def test_a_single_object_is_connected_and_large_enough(tmp_path):
    data = make_dataset(
        tmp_path,
        make_mask((3, 4, 20, 18)),
        make_mask((0, 0, 10, 10), (15, 0, 25, 10)),  # two pieces of 100 pixels
        make_mask((0, 0, 9, 10), (20, 0, 21, 10)),  # 90 and 10
        make_mask((0, 0, 8, 10), (20, 0, 22, 5)),  # 80 and 10
        make_mask((0, 0, 12, 1)),  # 12 of 600 pixels
        make_mask((0, 0, 11, 1)),
        make_mask((0, 0, 5, 5), (5, 5, 10, 10)),  # corners touch
    )
    assert select_single_objects(data).image_ids == ["0", "2", "4", "6"]
    single = select_single_objects(data)
    assert single.ids == ["0:1", "2:1", "4:1", "6:1"] and single.image_index.tolist() == [0, 1, 2, 3]


def test_only_images_with_one_trusted_mask_are_selected(tmp_path):
    data = make_dataset(tmp_path, *[make_mask((3, 4, 20, 18))] * 6)
    data = replace(
        data,
        # Images 0 and 1 are of one instance each, 2 of two, 3 of an untrusted mask, 4 of a crowd; 5 has none.
        image_index=np.array([0, 1, 2, 2, 3, 4], np.int32),
        trusted=np.array([True, True, True, True, False, True]),
        iscrowd=np.array([False] * 5 + [True]),
    )
    assert select_single_objects(data).image_ids == ["0", "1"]
    one_box = with_masks(data, None, *[make_mask((3, 4, 20, 18))] * 5)
    assert select_single_objects(one_box).image_ids == ["1"]


def test_an_unreadable_mask_costs_only_its_image(tmp_path, caplog):
    data = make_dataset(tmp_path, make_mask((3, 4, 20, 18)), make_mask((3, 4, 20, 18)))
    broken = with_masks(data, make_mask((0, 0, 9, 9))[:7], make_mask((3, 4, 20, 18)))
    assert select_single_objects(broken).image_ids == ["1"]
    assert re.search(r"annotation 0:1 .*Its image is left out", caplog.text)


def test_most_real_salient_images_show_a_single_object(shared_data, tmp_path):
    """Most of DUTS-TR's images show a single object."""
    for sub in ("images", "masks"):
        (tmp_path / sub).mkdir()
        for file in sorted((shared_data / "salient" / sub).iterdir())[:12]:
            (tmp_path / sub / file.name).symlink_to(file)
    data = boxel.read(tmp_path)
    assert len(data) == 12 and not data.issues
    assert 6 <= len(select_single_objects(data)) <= 12


def test_folders_may_be_in_capitals(folder):
    for name in ("images", "masks"):
        (folder / name).rename(folder / name.capitalize())
    assert recognize(folder) == "salient" and len(boxel.read(folder).labels) == 2
