"""The sample images of installed packages, and their outlines."""

import importlib.util
import socket

import numpy as np
import pytest

from boxel.data import read
from boxel.data import samples as module
from boxel.data.images import read_image
from boxel.data.samples import sample_images, write_sample_images
from boxel.utils.errors import BoxelError

EXPECTED = {  # file: (width, height), categories
    "astronaut.png": ((512, 512), {"helmet": 1, "person": 1, "space shuttle": 1}),
    "camera.png": ((512, 512), {"person": 1}),
    "chelsea.png": ((451, 300), {"cat": 1}),
    "coffee.png": ((600, 400), {"cup": 1, "spoon": 1}),
    "coins.png": ((384, 303), {"coin": 24}),
    "motorcycle_left.png": ((741, 500), {"motorcycle": 1}),
    "rocket.jpg": ((640, 427), {"rocket": 1}),
    "china.jpg": ((640, 427), {"building": 1}),
    "flower.jpg": ((640, 427), {"flower": 2}),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    return folder, write_sample_images(folder)


def counts(data, image):
    names = [data.categories[label].name for label in data.labels[data.instances_in(image)]]
    return {name: names.count(name) for name in sorted(set(names))}


def test_sample_images_have_their_categories():
    data = sample_images()
    found = {
        data.image_path(i).name: ((int(data.widths[i]), int(data.heights[i])), counts(data, i))
        for i in range(len(data))
    }
    from_sklearn = {"china.jpg", "flower.jpg"}
    if importlib.util.find_spec("sklearn") is None:
        assert found == {name: what for name, what in EXPECTED.items() if name not in from_sklearn}
    else:
        assert found == EXPECTED
    assert data.has_mask.all()
    assert not data.issues


def test_every_image_can_be_read():
    data = sample_images()
    for i in range(len(data)):
        assert read_image(data.image_path(i)).shape == (data.heights[i], data.widths[i], 3)


def test_boxes_are_tight_around_the_masks():
    data = sample_images()
    for n in range(len(data.labels)):
        rows, columns = np.nonzero(data.mask(n))
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(data.boxes[n], tight, atol=1)


def test_outlines_enclose_their_objects():
    # An outline that lay beside its object would not tell the dark from the bright.
    data = sample_images()
    paths = [data.image_path(i).name for i in range(len(data))]
    for name, sign in {"camera.png": -1, "rocket.jpg": 1, "coins.png": 1, "flower.jpg": 1}.items():
        if name not in paths:
            continue
        image = paths.index(name)
        gray = read_image(data.image_path(image)).mean(axis=2)
        for n in data.instances_in(image):
            x0, y0, x1, y1 = data.boxes[n].astype(int)
            inside = data.mask(n)[y0:y1, x0:x1] > 0
            crop = gray[y0:y1, x0:x1]
            assert sign * (crop[inside].mean() - crop[~inside].mean()) > 30


def test_datasets_are_written_as_coco(written):
    folder, data = written
    boxes, masks = read(folder / "boxes.json"), read(folder / "masks.json")
    for read_back in (boxes, masks):
        assert read_back.paths == data.paths
        assert not read_back.issues
        np.testing.assert_array_equal(read_back.boxes, data.boxes)
        assert all(read_back.image_path(i).is_file() for i in range(len(read_back)))
    assert not boxes.has_mask.any()
    np.testing.assert_array_equal(masks.mask(0), data.mask(0))


def test_images_of_missing_packages_are_left_out(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        module.importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name)
    )
    data = sample_images()
    assert len(data) == 7
    assert "flower" not in {data.categories[label].name for label in data.labels}


def test_sample_images_need_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    assert len(sample_images()) >= 7


def test_without_the_images_nothing_is_written_and_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_find_installed", lambda resource: None)
    with pytest.raises(BoxelError, match=r"pip install 'boxel\[demo\]'"):
        write_sample_images(tmp_path / "photos")
    assert not (tmp_path / "photos").exists()
