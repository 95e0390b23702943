"""Input images from paths, folders, globs, list files, Pillow images and arrays."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boxel.data.sources import find_images, to_image
from boxel.utils.errors import BoxelError

GRADIENT = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


def test_files_of_a_folder_are_found_by_suffix(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.JPG", "a.png", "sub/c.tif", "notes.txt", "odd.dat"):
        (tmp_path / name).touch()
    a, b, c, odd = (tmp_path / name for name in ("a.png", "b.JPG", "sub/c.tif", "odd.dat"))
    assert find_images(tmp_path) == [a, b, c]
    assert find_images([str(tmp_path / "*.png"), b, tmp_path, odd]) == [a, b, odd, c]
    assert find_images(str(tmp_path / "**" / "*")) == [a, b, c]
    assert find_images([a, tmp_path / "sub" / ".." / "a.png"]) == [a]


def test_a_file_with_glob_characters_is_itself(tmp_path: Path) -> None:
    (tmp_path / "photo[1].jpg").touch()
    assert find_images(tmp_path / "photo[1].jpg") == [tmp_path / "photo[1].jpg"]


def test_a_list_file_names_one_image_per_line(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text(f"# two images\nimages/b.jpg\n\n{tmp_path / 'a.png'}\n")
    assert find_images(tmp_path / "val.txt") == [tmp_path / "a.png", tmp_path / "images" / "b.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_file_of_another_machine_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "größe.png").touch()
    (tmp_path / "list.txt").write_text("sub\\größe.png\r\n", encoding=encoding)
    assert find_images(tmp_path / "list.txt") == [tmp_path / "sub" / "größe.png"]
    (tmp_path / "list.txt").write_text("größe.png", encoding="latin-1")
    with pytest.raises(BoxelError, match=r"list\.txt: the text cannot be decoded"):
        find_images(tmp_path / "list.txt")


def test_hidden_files_and_links_in_a_circle_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / ".cache").mkdir()
    for name in ("sub/a.png", "sub/._a.png", ".cache/a.png", "other/b.png"):
        (tmp_path / name).touch()
    for name in ("one", "two"):  # as many paths as 2^40
        (tmp_path / "sub" / name).symlink_to(tmp_path)
    for source in (tmp_path, f"{tmp_path}/**", f"{tmp_path}/**/*.png", f"{tmp_path}/*/**/*.png"):
        assert [path.resolve() for path in find_images(source)] == [
            tmp_path / "other/b.png",
            tmp_path / "sub/a.png",
        ]


def test_a_missing_source_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "empty").mkdir()
    skipped: list[str] = []
    sources = [tmp_path / "gone.jpg", tmp_path / "a.png", tmp_path / "empty"]
    assert find_images(sources, skipped.append) == [tmp_path / "a.png"]
    assert len(skipped) == 2
    assert "gone.jpg does not exist" in skipped[0] and "empty contains no image" in skipped[1]
    with pytest.raises(BoxelError, match=r"gone\.jpg"):
        find_images(sources[::2], skipped.append)
    assert find_images([]) == []


def test_sources_without_any_image_are_an_error(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "gone.jpg", tmp_path / "*.jpg"):
        with pytest.raises(BoxelError, match="name an image file"):
            find_images(source)


@pytest.mark.parametrize("image", [GRADIENT, Image.fromarray(GRADIENT), torch.from_numpy(GRADIENT)])
def test_an_image_in_memory_or_in_a_file_becomes_pixels(tmp_path: Path, image: Any) -> None:
    np.testing.assert_array_equal(to_image(image), GRADIENT)
    Image.fromarray(GRADIENT).save(tmp_path / "a.png")
    np.testing.assert_array_equal(to_image(tmp_path / "a.png"), GRADIENT)


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not an image")
    with pytest.raises(BoxelError, match="not a known image format"):
        to_image(tmp_path / "a.png")


def test_pixels_of_every_type_become_rgb() -> None:
    gray = GRADIENT[..., 0]
    as_rgb = gray[..., None].repeat(3, axis=2)
    assert to_image(GRADIENT) is GRADIENT
    np.testing.assert_array_equal(to_image(gray), as_rgb)
    np.testing.assert_array_equal(to_image(gray[..., None]), as_rgb)
    np.testing.assert_array_equal(to_image(np.dstack([GRADIENT, gray])), GRADIENT)
    np.testing.assert_array_equal(to_image(GRADIENT / 255), GRADIENT)
    np.testing.assert_array_equal(to_image((GRADIENT / 255).astype(np.float32)), GRADIENT)
    np.testing.assert_array_equal(to_image(GRADIENT.astype(np.uint16) * 257), GRADIENT)
    np.testing.assert_array_equal(to_image(gray > 9), np.where(as_rgb > 9, 255, 0))
    assert to_image(GRADIENT[:, ::-1]).flags.c_contiguous


def test_a_pillow_image_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GRADIENT).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(to_image(image), np.rot90(GRADIENT, -1))


@pytest.mark.parametrize(
    "image, message",
    [
        (GRADIENT.astype(float), "float images must be in [0, 1]: divide by 255"),
        (np.full((2, 2), np.nan), "float images must be in [0, 1]"),
        (GRADIENT / 255 - 1, "float images must be in [0, 1]"),
        (GRADIENT.astype(np.int64), "pixels of type int64; give uint8"),
        (np.zeros((3, 8, 9), np.uint8), "channels come last"),
        (np.zeros((2, 2, 2), np.uint8), "has shape (2, 2, 2)"),
        (np.zeros((0, 2, 3), np.uint8), "has shape (0, 2, 3)"),
        (7, "cannot be of type int"),
        (None, "cannot be of type NoneType"),
        (Image.new("F", (2, 2)), "unknown range"),
    ],
)
def test_images_of_unclear_meaning_are_refused(image: object, message: str) -> None:
    with pytest.raises(BoxelError, match=re.escape(message)):
        to_image(image)
