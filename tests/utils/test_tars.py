"""Images in tar files, in every command."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import boxel
from boxel.cli import main
from boxel.data import example_scenes
from boxel.data.images import ImageError, read_image
from boxel.utils.tars import member_size, read_member, split_member


@pytest.fixture
def tarred(tmp_path):
    """A dataset whose images are in two tar files, and the same one with files."""
    data = example_scenes(4)
    rows = json.loads(Path(data.file).read_text())
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for image in rows["images"][number::2]:
                tar.add(data.root / image["file_name"], f"./{image['file_name']}")
                image["file_name"] = f"{number}.tar/{image['file_name']}"
    (tmp_path / "masks.json").write_text(json.dumps(rows))
    return tmp_path / "masks.json", data


def test_members(tarred):
    file, data = tarred
    tar = str(file.parent / "0.tar")
    content = (data.root / data.paths[0]).read_bytes()
    assert read_member(tar, data.paths[0]) == content and member_size(tar, data.paths[0]) == len(content)
    np.testing.assert_array_equal(read_image(f"{tar}/{data.paths[0]}"), read_image(data.root / data.paths[0]))
    with pytest.raises(ImageError, match="the image is missing"):
        read_image(f"{tar}/{data.paths[1]}")
    with pytest.raises(ImageError, match="not a tar file, or damaged"):
        (file.parent / "bad.tar").write_bytes(b"x" * 2000)
        read_image(file.parent / "bad.tar" / "a.jpg")
    (file.parent / "folder.tar").mkdir()
    assert split_member(file.parent / "folder.tar" / "a.jpg") is None


def test_a_tar_file_that_is_cut_keeps_its_whole_members(tarred):
    file, data = tarred
    tar = file.parent / "0.tar"
    content = tar.read_bytes()
    first, second = ((data.root / data.paths[k]).read_bytes() for k in (0, 2))
    tar.write_bytes(content[: content.index(second) + len(second) - 1])
    assert read_member(str(tar), data.paths[0]) == first
    with pytest.raises(ImageError, match=r"0.tar is not a tar file, or damaged: unexpected end of data"):
        read_image(tar / data.paths[2])


def test_a_tar_file_that_changes_is_read_again(tarred):
    file, data = tarred
    tar = file.parent / "0.tar"
    assert read_member(str(tar), data.paths[0])
    with tarfile.open(tar, "w") as new:
        new.add(file, "other.json")
    with pytest.raises(FileNotFoundError):
        read_member(str(tar), data.paths[0])


def test_what_is_no_file_is_missing(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    with pytest.raises(ImageError, match="the image is missing"):
        read_image(tmp_path / "a.tar" / "link.jpg")


def test_commands_take_them_as_files(tarred, tmp_path, capsys):
    file, data = tarred
    found = boxel.read(file)
    assert found.root == file.parent and not found.issues
    assert main(["check", str(file)]) == 0
    boxel.convert(file, tmp_path / "yolo", format="yolo")
    again = boxel.read(tmp_path / "yolo")
    assert len(again) == 4 and all(again.image_path(k).is_file() for k in range(4))
    masks = boxel.label(found.without_masks(), teacher="ellipse")
    expected = boxel.label(data.without_masks(), teacher="ellipse")
    assert masks.segmentations.tolist() == expected.segmentations.tolist()


def test_an_avif_in_a_tar_file_is_read(tmp_path):
    pytest.importorskip("PIL.AvifImagePlugin")
    data = example_scenes(1)
    file = tmp_path / "a.avif"
    Image.open(data.image_path(0)).save(file)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(file, "a.avif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tar/a.avif"), read_image(file))
