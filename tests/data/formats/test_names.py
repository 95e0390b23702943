"""Names of images from other machines."""

import pytest

from boxel.data.formats.names import ImageFinder, resolve_images, to_posix


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
    found, contested = resolve_images(folder, ["a.jpg", "old/a.jpg", "up/b.jpg", "down/b.jpg", "val\\c.png"])
    assert found == ["a.jpg", "old/a.jpg", "up/b.jpg", "down/b.jpg", "val/c.png"] and contested == [1, 2, 3]
    found, contested = resolve_images(folder, ["old/a.jpg", "up/b.jpg"])
    assert found == ["a.jpg", "train/b.JPG"] and not contested
    assert "2 of 2 images are found in" in caplog.text and "old/a.jpg is a.jpg" in caplog.text


def test_backslashes_are_slashes():
    assert to_posix(r"a\b.jpg") == "a/b.jpg"
