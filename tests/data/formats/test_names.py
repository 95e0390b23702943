"""Names of images from other machines."""

import unicodedata
from pathlib import Path

import pytest

from boxel.data.formats.builder import Builder
from boxel.data.formats.names import ImageFinder, resolve_images
from boxel.data.image_names import ImageNames, to_posix


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "train/b.JPG", "val/c.png", "train/same.png", "val/same.png", "x y.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "._a.jpg").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ("a.jpg", "a.jpg"),
        (r"images\a.jpg", "a.jpg"),
        (r"C:\Users\me\photos\train\b.jpg", "train/b.JPG"),
        ("/home/me/photos/val/c.png", "val/c.png"),
        ("https://host.example/data/x%20y.jpeg?width=3", "x y.jpeg"),
        ("s3://bucket/key/a.jpg", "a.jpg"),
        ("a.JPG", "a.jpg"),
        ("a.png", "a.jpg"),
        ("b", "train/b.JPG"),
        ("data/a.jpg", "a.jpg"),
        ("set/train/same.png", "train/same.png"),
        ("same.png", None),
        ("other/same.png", None),
        ("nowhere.jpg", None),
        ("", None),
        ("\0.jpg", None),
    ],
)
def test_names_of_other_machines(folder, stated, found):
    assert ImageFinder(folder).find(stated) == found


def test_the_stem_of_the_label_file_comes_last(folder):
    assert ImageFinder(folder).find("a.jpg", "c") == "a.jpg"
    assert ImageFinder(folder).find("gone.jpg", "c") == "val/c.png"


def test_an_image_stands_for_one_name(folder, caplog):
    caplog.set_level("INFO")
    found, contested = resolve_images(
        ImageFinder(folder), ["a.jpg", "old/a.jpg", "up/b.jpg", "down/b.jpg", "val\\c.png"]
    )
    assert found == ["a.jpg", "old/a.jpg", "up/b.jpg", "down/b.jpg", "val/c.png"] and list(contested) == [
        1,
        2,
        3,
    ]
    found, contested = resolve_images(ImageFinder(folder), ["old/a.jpg", "up/b.jpg"])
    assert found == ["a.jpg", "train/b.JPG"] and not contested
    assert "2 of 2 images are found in" in caplog.text and "old/a.jpg is a.jpg" in caplog.text


def test_backslashes_are_slashes():
    assert to_posix(r"a\b.jpg") == "a/b.jpg"


def named(*paths):
    """The images of a dataset, with these paths."""
    rows = Builder()
    for number, path in enumerate(paths):
        rows.add_image(100 + number, path)
    return ImageNames(rows.build(Path(), [], Path()))


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        (r"C:\Photos\TRAIN\b.jpg", "train/b.JPG"),
        ("https://host.example/data/x%20y.jpeg?width=3", "x y.jpeg"),
        ("file:///d:/photos/val%5Cc.png", "val/c.png"),
        ("data/a.jpg", "a.jpg"),
        ("Set/Train/same.png", "train/same.png"),
        ("a.txt", "a.jpg"),
        ("frame.001", "frame.001.jpg"),
        ("frame.002", None),  # not frame.jpg
        ("same.png", None),
        ("s3://bucket/%00.jpg", None),
        ("", None),
        ("..", None),
    ],
)
def test_names_mean_the_same_of_files_and_of_datasets(folder, stated, found):
    for name in ("frame.jpg", "frame.001.jpg"):
        (folder / name).touch()
    paths = [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("[!.]*.*"))]
    assert ImageFinder(folder).find(stated) == found
    data = named(*paths)
    image = data.find_name(stated)
    assert (None if image is None else paths[image]) == found


def test_the_case_of_folders_decides_only_between_two():
    data = named("Train/a.jpg", "train/a.jpg", "VAL/b.jpg", "test/b.jpg")
    assert [data.find_name(name) for name in ("x/Train/a.jpg", "x/train/a.jpg", "val/b.jpg")] == [0, 1, 2]
    assert data.find_name("TRAIN/a.jpg") is None and data.find_name("TRAIN/a.jpg", 101) == 1


def test_letters_with_accents_apart_and_spaces_do_not_matter(tmp_path):
    apart = unicodedata.normalize("NFD", "größe.jpg")  # as macOS packs them
    (tmp_path / apart).touch()
    for name in ("größe.jpg", "x/Größe.JPG", " größe.jpg "):
        assert ImageFinder(tmp_path).find(name) == apart and named(apart).find_name(name) == 0


def test_a_name_that_may_be_two_images_is_reported_with_both(folder):
    (folder / "a.png").touch()
    paths, problems = resolve_images(ImageFinder(folder), ["same.png", "a", "a.jpg"])
    assert paths == ["same.png", "a", "a.jpg"]
    assert problems == {
        0: "image same.png may be train/same.png or val/same.png; state its folder and suffix.",
        1: "image a may be a.jpg or a.png; state its folder and suffix.",
    }


def test_an_image_of_one_split_is_not_that_of_another(tmp_path):
    for name in ("train/images/a.jpg", "images/valid/b.jpg", "c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    wanted = {
        "val/a.jpg": None,
        "images/Train/a.jpg": "train/images/a.jpg",
        "val2017/b.jpg": "images/valid/b.jpg",
        "test/images/b.jpg": None,
        "photos/b.jpg": "images/valid/b.jpg",
        "val/c.jpg": "c.jpg",
    }
    data = named("train/images/a.jpg", "images/valid/b.jpg", "c.jpg")
    for name, found in wanted.items():
        assert ImageFinder(tmp_path).find(name) == found, name
        assert data.find_name(name) == (None if found is None else data.data.paths.index(found)), name
