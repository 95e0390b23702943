"""Semantic datasets: the layouts of label maps and images, and writing them."""

import re
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image, ImageFile
from scipy.io import savemat

import boxel
from boxel.data.annotations import BACKGROUND, VOID, Annotations, Category, values_to_labels
from boxel.data.formats import ConversionWarning, recognize
from boxel.data.formats.semantic_classes import load_class_table
from boxel.data.label_maps import make_label_map
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError

HEIGHT, WIDTH = 6, 8


def photo(file, size=(WIDTH, HEIGHT)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 30)).save(file)


def labels(file, *values, dtype=np.uint8):
    """A label map of vertical stripes, one per value."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.repeat(np.array(values, dtype=dtype), WIDTH // len(values))[None].repeat(HEIGHT, 0)
    if file.suffix == ".mat":
        savemat(file, {"LabelMap": pixels}, do_compression=True)
    else:
        Image.fromarray(pixels).save(file)


def stripes(data, image=0):
    """The labels of a label map, from left to right."""
    return make_label_map(data, image)[0].tolist()


# layouts -------------------------------------------------------------------------------------------------------------


def make_root(folder):
    photo(folder / "images/a.jpg")
    photo(folder / "images/b.png")
    labels(folder / "labels/a.png", 0, 1)
    labels(folder / "labels/b.png", 1, 255)
    (folder / "classes.txt").write_text("sky\nroad\n")
    return folder


def make_camvid(folder):
    for split, stem in (("train", "t"), ("val", "v"), ("test", "s")):
        photo(folder / f"{split}/{stem}.jpg")
        labels(folder / f"{split}annot/{stem}.png", 10, 11)
    return folder


def make_cityscapes(folder):
    for split, stem in (("train", "aachen_0_1"), ("val", "bonn_0_2")):
        city = stem.split("_")[0]
        photo(folder / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png")
        labels(folder / f"gtFine/{split}/{city}/{stem}_gtFine_labelIds.png", 7, 33, 0, 4)
        labels(folder / f"gtFine/{split}/{city}/{stem}_gtFine_labelTrainIds.png", 0, 18, 255, 255)
        labels(folder / f"gtFine/{split}/{city}/{stem}_gtFine_instanceIds.png", 7, 33001, dtype=np.uint16)
        photo(folder / f"gtFine/{split}/{city}/{stem}_gtFine_color.png")
        (folder / f"gtFine/{split}/{city}/{stem}_gtFine_polygons.json").write_text('{"objects": []}')
    return folder


def make_voc(folder):
    for stem in ("2007_1", "2007_2"):
        photo(folder / f"JPEGImages/{stem}.jpg")
    labels(folder / "SegmentationClass/2007_1.png", 0, 20, 21, 255)
    labels(folder / "SegmentationObject/2007_1.png", 0, 1)
    return folder


def sound(data):
    """Return whether every image and label map is where the dataset states."""
    return all(
        data.image_path(i).is_file() and (data.root / data.label_maps[i]).is_file() for i in range(len(data))
    )


def test_images_beside_labels_are_found(tmp_path):
    folder = make_root(tmp_path)
    assert recognize(folder) == recognize(folder / "labels") == "semantic"
    data = boxel.read(folder)
    assert data.image_ids == ["a", "b"] and data.issues == [] and sound(data)
    assert (data.root, data.paths, data.label_maps) == (
        folder,
        ["images/a.jpg", "images/b.png"],
        ["labels/a.png", "labels/b.png"],
    )
    assert data.widths.tolist() == [WIDTH] * 2 and data.heights.tolist() == [HEIGHT] * 2
    assert data.categories == (Category(0, "sky"), Category(1, "road")) and len(data.labels) == 0
    assert data.map_labels.tolist() == [0, 1] and data.map_labels.dtype == np.int16 and data.void == 255
    assert stripes(data, 0) == [0] * 4 + [1] * 4 and stripes(data, 1) == [1] * 4 + [255] * 4
    assert boxel.read(folder / "labels").label_maps == data.label_maps


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".TIFF"])
def test_label_maps_may_be_tiffs(tmp_path, suffix):
    folder = make_root(tmp_path)
    for name in "ab":
        file = folder / f"labels/{name}.png"
        Image.open(file).save(file.with_suffix(suffix), "TIFF")
        file.unlink()
    data = boxel.read(folder)
    assert data.label_maps == [f"labels/a{suffix}", f"labels/b{suffix}"]
    assert stripes(data, 0) == [0] * 4 + [1] * 4


@pytest.mark.parametrize("names", [("Images", "Labels"), ("images", "Labels")])
def test_label_maps_in_folders_in_capitals_are_not_yolo(tmp_path, names):
    folder = make_root(tmp_path)
    for name in names:
        (folder / name.lower()).rename(folder / name)
    assert recognize(folder) == "semantic" and len(boxel.read(folder)) == 2


def test_a_class_list_may_lie_among_the_label_maps(tmp_path):
    folder = make_root(tmp_path)
    (folder / "labels/classes.txt").write_text("0 road\n")
    assert recognize(folder) == recognize(folder / "labels") == "semantic"
    assert [c.name for c in boxel.read(folder).categories] == ["road"]
    (folder / "mine.txt").write_text("0 tree\n1 tree\n")
    data = boxel.read(folder, class_list=folder / "mine.txt")
    assert data.categories == (Category(0, "tree"),) and data.map_labels.tolist() == [0, 0]


def test_two_values_may_mean_one_class(tmp_path):
    folder = make_root(tmp_path)
    (folder / "classes.txt").write_text("4 car\n2 road\n0 car\n3 void\n")
    data = boxel.read(folder)
    assert data.categories == (Category(4, "car"), Category(2, "road"))
    assert data.map_labels.tolist() == [0, VOID, 1, VOID, 0]


def test_splits_are_selected_by_folder(tmp_path):
    for split in ("train", "val"):
        photo(tmp_path / f"images/{split}/a.jpg")
        labels(tmp_path / f"labels/{split}/a.png", 0)
    (tmp_path / "classes.txt").write_text("sky")
    data = boxel.read(tmp_path)
    assert data.image_ids == ["images_train_a", "images_val_a"] and sound(data)
    assert data.label_maps == ["labels/train/a.png", "labels/val/a.png"]
    one = boxel.read(tmp_path, split="val")
    assert one.paths == ["images/val/a.jpg"] and one.label_maps == ["labels/val/a.png"]
    assert boxel.read(tmp_path / "labels/val").label_maps == ["labels/val/a.png"]
    with pytest.raises(BoxelError, match="it has no split 'test', but train, val"):
        boxel.read(tmp_path, split="test")


def test_a_text_selects_a_split(tmp_path):
    folder = make_root(tmp_path)
    (folder / "val.txt").write_text("/data/images/b.png /data/labels/b.png\n")
    data = boxel.read(folder, split="val")
    assert data.image_ids == ["b"] and data.issues == []
    assert boxel.read(folder, split="test").image_ids == ["a", "b"]  # there is none: all
    (folder / "val.txt").write_text("b\nc.d\n")
    data = boxel.read(folder, split="val")
    assert data.image_ids == ["b"]
    assert [issue.message for issue in data.issues] == [
        f"{folder}/val.txt: it lists c.d, which has no label map in {folder}/labels; add it."
    ]
    (folder / "val.txt").write_text("\n")
    with pytest.raises(BoxelError, match=r"val\.txt: it lists no image"):
        boxel.read(folder, split="val")


def test_camvid_is_recognized(tmp_path):
    folder = make_camvid(tmp_path)
    assert recognize(folder) == recognize(folder / "valannot") == "semantic"
    data = boxel.read(folder, class_list="camvid")
    assert data.image_ids == ["t", "v", "s"] and len(data.categories) == 11 and sound(data)
    assert data.map_labels.tolist() == list(range(11))
    assert stripes(data) == [10] * 4 + [255] * 4  # 11 is void
    assert boxel.read(folder, class_list="camvid", split="val").paths == ["val/v.jpg"]
    assert boxel.read(folder / "valannot", class_list="camvid", split="train").paths == ["val/v.jpg"]
    with pytest.raises(BoxelError, match=r"t\.png: the classes of the values .* camvid, .*`class_list`"):
        boxel.read(folder)


def test_cityscapes_is_recognized(tmp_path):
    folder = make_cityscapes(tmp_path)
    for part in (folder, folder / "gtFine", folder / "gtFine/val", folder / "gtFine/val/bonn"):
        assert recognize(part) == "semantic"
        assert boxel.read(part).image_ids[-1] == "bonn_0_2"
    data = boxel.read(folder)
    assert data.image_ids == ["aachen_0_1", "bonn_0_2"] and data.issues == [] and sound(data)
    assert [c.id for c in data.categories[:3]] == [7, 8, 11] and len(data.categories) == 19
    assert data.map_labels[[7, 33, 11, 30]].tolist() == [0, 18, 2, VOID]
    assert stripes(data) == [0, 0, 18, 18, 255, 255, 255, 255]
    train = boxel.read(folder, split="train", class_list="cityscapes-train-ids")
    assert train.label_maps == ["gtFine/train/aachen/aachen_0_1_gtFine_labelTrainIds.png"]
    assert [c.name for c in train.categories] == [c.name for c in data.categories]
    assert stripes(train) == stripes(data)
    for file in folder.rglob("*labelIds.png"):
        file.unlink()
    assert [c.id for c in boxel.read(folder, split="val").categories] == list(range(19))


def test_voc_segmentations_are_recognized(tmp_path):
    folder = make_voc(tmp_path)
    assert recognize(folder / "SegmentationClass") == "semantic"
    data = boxel.read(folder / "SegmentationClass")
    assert (
        data.paths == ["JPEGImages/2007_1.jpg"] and data.issues == []
    )  # most of VOC's images have boxes only
    assert data.categories[0] == Category(0, "background") and BACKGROUND not in data.map_labels
    assert stripes(data) == [0, 0, 20, 20, 255, 255, 255, 255]
    for other in ("SegmentationClassContext", "SegmentationObject"):  # other classes, or none
        (folder / "SegmentationClass").rename(folder / other) if "Context" in other else None
        with pytest.raises(BoxelError, match="the classes of the values in this label map are unknown"):
            boxel.read(folder / other)


def test_images_may_be_in_another_folder(tmp_path):
    folder = make_root(tmp_path / "set")
    (folder / "images").rename(tmp_path / "photos")
    (folder / "labels").rename(folder / "masks")
    assert recognize(folder / "masks") == "semantic"
    data = boxel.read(folder / "masks", images=tmp_path / "photos")
    assert data.root == tmp_path / "photos" and data.paths == ["a.jpg", "b.png"] and sound(data)
    assert data.label_maps == ["../set/masks/a.png", "../set/masks/b.png"]
    assert len(data.categories) == 2  # classes.txt lies beside the label maps' folder
    with pytest.raises(BoxelError, match="masks: there is no folder of images; name it with `images`"):
        boxel.read(folder / "masks")
    with pytest.raises(BoxelError, match="nowhere: there is no folder of images"):
        boxel.read(folder / "masks", images=tmp_path / "nowhere")


def test_images_of_a_split_may_be_in_another_folder(tmp_path):
    folder = make_cityscapes(tmp_path)
    (folder / "leftImg8bit").rename(tmp_path / "photos")
    data = boxel.read(folder / "gtFine", images=tmp_path / "photos")
    assert len(data) == 2 and data.issues == []
    data = boxel.read(folder / "gtFine/val", images=tmp_path / "photos", split="val")
    assert data.paths == ["val/bonn/bonn_0_2_leftImg8bit.png"] and data.issues == []


def test_relative_paths(tmp_path, monkeypatch):
    make_root(tmp_path / "set")
    for place, path in ((tmp_path, "set"), (tmp_path, "set/labels"), (tmp_path / "set/labels", ".")):
        monkeypatch.chdir(place)
        data = boxel.read(path)
        assert data.image_ids == ["a", "b"] and sound(data)


def test_images_and_label_maps_may_share_a_folder(tmp_path):
    photo(tmp_path / "a.jpg")
    labels(tmp_path / "a.png", 0)
    labels(tmp_path / "b_L.png", 0)
    photo(tmp_path / "b.jpg")
    (tmp_path / "classes.txt").write_text("sky")
    data = boxel.read(tmp_path, images=tmp_path, format="semantic")
    assert data.paths == ["a.jpg", "b.jpg"] and data.label_maps == ["a.png", "b_L.png"] and data.issues == []


def test_unrelated_stems_are_not_matched(tmp_path):
    for stem in ("a", "a_L", "b"):
        photo(tmp_path / f"images/{stem}.jpg")
    for stem in ("a", "a_L", "b_L"):
        labels(tmp_path / f"labels/{stem}.png", 0)
    data = boxel.read(tmp_path, class_list="camvid")
    assert data.paths == ["images/a.jpg", "images/a_L.jpg", "images/b.jpg"]
    assert data.label_maps == ["labels/a.png", "labels/a_L.png", "labels/b_L.png"]


@pytest.mark.parametrize("kind", ["palette", "16 bit", "1 bit"])
def test_all_kinds_of_png_are_read(tmp_path, kind):
    folder = make_root(tmp_path)
    pixels = np.repeat(np.array([[0, 1]], dtype=np.uint16 if kind == "16 bit" else np.uint8), 4, 1).repeat(
        HEIGHT, 0
    )
    if kind == "16 bit":
        pixels[:, 4:] = 300
    image = Image.fromarray(pixels)
    if kind == "palette":
        image.putpalette([9, 9, 9, 200, 0, 0])
    Image.fromarray(pixels > 0).save(folder / "labels/a.png") if kind == "1 bit" else image.save(
        folder / "labels/a.png"
    )
    (folder / "classes.txt").write_text("0 sky\n1 road\n300 road\n")
    data = boxel.read(folder)
    assert data.issues == [] and stripes(data) == [0] * 4 + [1] * 4
    assert data.map_labels[[0, 1, 2, 300]].tolist() == [0, 1, VOID, 1] and len(data.map_labels) == 301


# PASCAL-Context ------------------------------------------------------------------------------------------------------


def make_context(folder):
    """As published: values in alphabetical order, the 59 names among them."""
    names = sorted({*load_class_table("pascal-context").values()} - {"background"} | {"accordion", "unknown"})
    (folder / "context").mkdir(parents=True)
    (folder / "context/labels.txt").write_text("".join(f"{k}: {n}\n" for k, n in enumerate(names, 1)))
    for stem in ("2008_1", "2008_2"):
        photo(folder / f"VOC2010/JPEGImages/{stem}.jpg")
    value = {name: k for k, name in enumerate(names, 1)}
    found = [value["accordion"], value["aeroplane"], value["wood"], 0]
    labels(folder / "context/trainval/2008_1.mat", *found, dtype=np.uint16)
    labels(folder / "context/trainval/2008_2.mat", value["bag"], dtype=np.uint16)
    return folder


def test_pascal_context_is_read_as_published(tmp_path):
    folder = make_context(tmp_path)
    for path in (folder / "context", folder / "context/trainval"):
        assert recognize(path) == "semantic"
        data = boxel.read(path, images=folder / "VOC2010/JPEGImages")
        assert data.image_ids == ["2008_1", "2008_2"] and data.issues == [] and sound(data)
        assert {category.id: category.name for category in data.categories} == load_class_table(
            "pascal-context"
        )
        assert len(data.map_labels) == 62 and VOID not in data.map_labels
        assert stripes(data) == [0, 0, 1, 1, 59, 59, 0, 0]
        assert stripes(data, 1) == [21] * WIDTH
    by_name = boxel.read(path, images=folder / "VOC2010/JPEGImages", class_list="pascal-context")
    assert by_name.map_labels.tolist() == data.map_labels.tolist()


def test_pascal_context_beside_its_images_with_lists(tmp_path):
    folder = make_context(tmp_path)
    (folder / "context/trainval").rename(folder / "VOC2010/trainval")
    (folder / "context/labels.txt").rename(folder / "VOC2010/labels.txt")
    data = boxel.read(folder / "VOC2010/trainval")
    assert data.paths == ["JPEGImages/2008_1.jpg", "JPEGImages/2008_2.jpg"]
    (folder / "VOC2010/trainval/val.txt").write_text("2008_2\n")
    images = folder / "VOC2010/JPEGImages"
    assert boxel.read(folder / "VOC2010/trainval", images, "semantic", split="val").image_ids == ["2008_2"]


def test_pascal_context_with_other_classes(tmp_path):
    """The values of a named table are used."""
    folder = make_context(tmp_path)
    data = boxel.read(
        folder / "context/trainval",
        images=folder / "VOC2010/JPEGImages",
        class_list=folder / "context/labels.txt",
    )
    assert len(data.categories) == 61 and data.map_labels.tolist() == [VOID, *range(61)]


def test_pascal_context_without_its_names_is_an_error(tmp_path):
    folder = make_context(tmp_path)
    images = folder / "VOC2010/JPEGImages"
    (folder / "context/labels.txt").write_text("1: accordion\n")
    with pytest.raises(
        BoxelError, match=r"labels\.txt: it lacks 'aeroplane', which PASCAL-Context's labels\.txt has"
    ):
        boxel.read(folder / "context/trainval", images=images)
    (folder / "context/labels.txt").unlink()
    with pytest.raises(
        BoxelError, match=r"2008_1\.mat: PASCAL-Context's labels\.txt.* put it into .*context\.$"
    ):
        boxel.read(folder / "context/trainval", images=images)


@pytest.mark.parametrize(
    "content", [b"", b"MATLAB 5.0", {"Other": np.ones((2, 2))}, {"LabelMap": np.ones((2, 2, 2))}]
)
def test_an_invalid_matlab_file_costs_only_itself(tmp_path, content):
    folder = make_context(tmp_path)
    file = folder / "context/trainval/2008_1.mat"
    savemat(file, content) if isinstance(content, dict) else file.write_bytes(content)
    data = boxel.read(folder / "context", images=folder / "VOC2010/JPEGImages")
    assert data.image_ids == ["2008_2"]
    (issue,) = data.issues
    assert issue.kind == "bad-label-map" and "cannot be read as a label map" in issue.message
    assert issue.file == str(file) and "\n" not in issue.message


# issues --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "kind", "file", "message"),
    [
        (lambda f: (f / "labels/a.png").unlink(), "no-label-map", "images/a.jpg", "no label map in .*labels"),
        (
            lambda f: (f / "images/a.jpg").unlink(),
            "no-image",
            "labels/a.png",
            "no image in .*images and is left",
        ),
        (
            lambda f: photo(f / "images/a.jpg", (9, 6)),
            "bad-label-map",
            "labels/a.png",
            "is 8 x 6 pixels and its image 9 x 6; make them the same size. It is left out",
        ),
        (
            lambda f: photo(f / "labels/a.png"),
            "bad-label-map",
            "labels/a.png",
            r"cannot be read as a label map \(it is in color \(RGB\): write the value of its class into each pixel\)",
        ),
        (
            lambda f: (f / "labels/a.png").write_bytes(b"?"),
            "bad-label-map",
            "labels/a.png",
            "cannot be read as",
        ),
        (lambda f: (f / "images/a.jpg").write_bytes(b"?"), "image-unreadable", "labels/a.png", "a.jpg"),
        (lambda f: (f / "images/a.jpg").write_bytes(b""), "image-empty", "labels/a.png", "a.jpg"),
    ],
    ids=["no label map", "no image", "size", "color", "no PNG", "no JPEG", "empty"],
)
def test_an_invalid_pair_costs_only_its_image(tmp_path, spoil, kind, file, message):
    folder = make_root(tmp_path)
    spoil(folder)
    data = boxel.read(folder, format="semantic")
    assert data.image_ids == ["b"] and data.label_maps == ["labels/b.png"] and sound(data)
    (issue,) = data.issues
    assert (issue.kind, issue.file) == (kind, str(folder / file)) and re.search(message, issue.message)


def test_a_dataset_without_usable_pairs_is_an_error(tmp_path):
    folder = make_root(tmp_path)
    for stem in "ab":
        photo(folder / f"labels/{stem}.png")
    assert recognize(folder) == "semantic"
    with pytest.raises(
        BoxelError, match=r"none of its label maps can be used, the first: .*a\.png.*in color"
    ):
        boxel.read(folder)
    for stem in "ab":
        (folder / f"labels/{stem}.png").unlink()
    with pytest.raises(BoxelError, match="there are no label maps"):
        boxel.read(folder, format="semantic")
    with pytest.raises(BoxelError, match="there are no label maps"):
        boxel.read(folder / "classes.txt", format="semantic")


def test_reading_needs_only_headers(tmp_path, monkeypatch):
    folder = make_root(tmp_path)

    def load(image):
        raise AssertionError(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert len(boxel.read(folder)) == 2


# telling formats apart -----------------------------------------------------------------------------------------------


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".png"):
            labels(folder / name, 0, 1)
        elif name.endswith(".jpg"):
            photo(folder / name)
        else:
            (folder / name).write_text('{"shapes": []}' if name.endswith(".json") else "")


@pytest.mark.parametrize(
    ("names", "path", "format"),
    [
        (["images/a.jpg", "labels/a.txt"], ".", "yolo"),
        (["images/a.png", "labels/a.txt", "labels/a.png"], ".", "yolo"),  # texts, and drawings beside them
        (["images/a.png", "labels/train/a.txt", "labels/b.png"], ".", "yolo"),
        (["images/a.jpg", "labels/a.png", "data.yaml"], ".", "yolo"),
        (["images/a.jpg", "labels/classes.txt"], ".", "yolo"),
        (["train/images/a.png", "train/labels/a.txt"], ".", "yolo"),
        (["images/train/a.png", "labels/train/a.txt"], "images/train", "yolo"),
        (["a.png", "a.txt"], ".", "yolo"),
        (["a.png", "classes.txt"], ".", "yolo"),
        (["images/a.png", "masks/a.png"], ".", "salient"),
        (["Annotations/a.xml", "JPEGImages/a.jpg", "SegmentationClass/a.png"], ".", "voc"),
        (["VOC2012/Annotations/a.xml", "VOC2012/SegmentationClass/a.png"], ".", "voc"),
        (["a.xml", "a.png"], ".", "voc"),
        (["inst/a.mat", "cls/a.mat", "img/a.jpg"], ".", "sbd"),
        (["labels/a.json", "labels/a.png", "images/a.png"], "labels", "labelme"),
        (["a.json", "a.png"], ".", "labelme"),
        (["images/a.jpg", "labels/a.png"], ".", "semantic"),
        (["images/a.jpg", "labels/a.png", "train.txt", "README.md"], ".", "semantic"),
        (["trainannot/a.png", "trainannot/classes.txt", "train/a.jpg"], "trainannot", "semantic"),
        (["somewhere/a.png"], ".", "semantic"),
    ],
)  # fmt: skip
def test_semantic_datasets_are_recognized(tmp_path, names, path, format):
    touch(tmp_path, *names)
    assert recognize(tmp_path / path) == format


def test_a_folder_of_images_is_not_a_dataset(tmp_path):
    for name in ("a.png", "b.jpg"):
        photo(tmp_path / name)
    with pytest.raises(BoxelError, match="these are images, not a dataset"):
        recognize(tmp_path)


def test_class_lists_are_for_semantic_datasets(tmp_path):
    touch(tmp_path, "images/a.jpg", "labels/a.txt")
    with pytest.raises(
        BoxelError, match="this is a yolo dataset, which needs no class list; leave out camvid, or name"
    ):
        boxel.read(tmp_path, class_list="camvid")


# writing -------------------------------------------------------------------------------------------------------------


def test_round_trip(tmp_path):
    folder = make_root(tmp_path / "set")
    (folder / "classes.txt").write_text("1 traffic light\n0 sky\n9 tree\n")
    data = boxel.read(folder)
    boxel.write(data, tmp_path / "out", format="semantic")
    assert (tmp_path / "out/classes.txt").read_text() == "1 traffic light\n0 sky\n9 tree\n"
    assert sorted(p.name for p in (tmp_path / "out/labels").iterdir()) == ["a.png", "b.png"]
    again = boxel.read(tmp_path / "out")
    assert again.image_ids == data.image_ids and again.categories == data.categories and again.issues == []
    assert again.paths == data.paths and again.map_labels.tolist() == data.map_labels.tolist()
    for image in range(2):
        np.testing.assert_array_equal(make_label_map(again, image), make_label_map(data, image))
        np.testing.assert_array_equal(
            Image.open(data.root / data.label_maps[image]), Image.open(again.root / again.label_maps[image])
        )
    with pytest.raises(BoxelError, match="a dataset in this format already"):
        boxel.write(data, tmp_path / "out", format="semantic")


def test_cityscapes_round_trip(tmp_path):
    data = boxel.read(make_cityscapes(tmp_path / "set"))
    boxel.write(data, tmp_path / "out", format="semantic")
    again = boxel.read(tmp_path / "out")
    assert again.image_ids == data.image_ids and again.categories == data.categories
    assert stripes(again, 1) == stripes(data, 1)
    assert (
        Image.open(again.root / again.label_maps[0]).getpixel((WIDTH - 1, 0)) == 255
    )  # void, as is 0 in theirs


def with_instances(folder, *categories, boxes_only=()):
    """Image 0 has a large square under a small one, image 1 nothing, and image 2 a box if wanted."""
    for stem in "abc":
        photo(folder / f"{stem}.jpg")
    masks = np.zeros((2, HEIGHT, WIDTH), dtype=np.uint8)
    masks[0, 1:3, 1:3] = 1
    masks[1, :4, :4] = 1
    codes = np.full(2 + len(boxes_only), None, dtype=object)
    codes[:2] = [msgspec.json.encode(encode(mask)) for mask in masks]
    boxes = np.array([[1, 1, 3, 3], [0, 0, 4, 4], *boxes_only], dtype=np.float64)
    return Annotations(
        root=folder,
        image_ids=[1, 2, 3],
        paths=["a.jpg", "b.jpg", "c.jpg"],
        widths=np.full(3, WIDTH, np.int32),
        heights=np.full(3, HEIGHT, np.int32),
        categories=categories,
        ids=list(range(len(boxes))),
        image_index=np.array([0, 0] + [2] * len(boxes_only), np.int32),
        labels=np.array([0, 1] + [1] * len(boxes_only), np.int32),
        boxes=boxes,
        iscrowd=np.zeros(len(boxes), dtype=bool),
        segmentations=codes,
        file="boxes.json",
    )


def test_smaller_instances_are_painted_last(tmp_path):
    data = with_instances(tmp_path / "photos", Category(7, "cat"), Category(90, "hair brush"))
    with pytest.warns(ConversionWarning, match="no instances: 2 are painted as pixels of their classes"):
        boxel.write(data, tmp_path / "out", format="semantic")
    assert (tmp_path / "out/classes.txt").read_text() == "0 background\n7 cat\n90 hair brush\n"
    wanted = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    wanted[:4, :4] = 90
    wanted[1:3, 1:3] = 7
    np.testing.assert_array_equal(Image.open(tmp_path / "out/labels/a.png"), wanted)
    assert not np.any(Image.open(tmp_path / "out/labels/b.png"))  # nothing in it is known too
    again = boxel.read(tmp_path / "out")
    assert [c.name for c in again.categories] == ["background", "cat", "hair brush"] and len(again) == 3


def test_what_the_layout_cannot_hold_is_reported(tmp_path):
    data = with_instances(
        tmp_path / "photos", Category(0, "cat"), Category(900, "a\nb"), boxes_only=[[0, 0, 5, 5]]
    )
    with pytest.warns(ConversionWarning) as caught:
        boxel.write(data, tmp_path / "out", format="semantic")
    said = "\n".join(str(warning.message) for warning in caught)
    assert "values from 0 to 254, each once: its classes are renumbered" in said
    assert "1 images have boxes only, from which no label map can be made; they are left out" in said
    assert (tmp_path / "out/classes.txt").read_text() == "0 background\n1 cat\n2 a b\n"
    assert [p.name for p in sorted((tmp_path / "out/images").iterdir())] == ["a.jpg", "b.jpg"]
    assert boxel.read(tmp_path / "out").image_ids == ["a", "b"]


def test_an_unreadable_mask_costs_its_box(tmp_path, caplog):
    data = with_instances(tmp_path / "photos", Category(1, "cat"), Category(2, "dog"))
    broken = data.segmentations.copy()
    broken[1] = msgspec.json.encode({"counts": "?", "size": [3, 3]})
    with pytest.warns(ConversionWarning, match="no instances"):
        boxel.write(replace(data, segmentations=broken), tmp_path / "out", format="semantic")
    assert re.search(r"annotation \w+ .*cannot be read.*Its box is ignored", caplog.text)
    whole, left = make_label_map(data, 0), np.array(Image.open(tmp_path / "out/labels/a.png"))
    assert np.all((left == whole) | (left == 255)) and np.any(left == 255) and np.any(left != 255)


def test_unselected_classes_are_written_as_void(tmp_path):
    """Unselected classes of a semantic dataset are void, not background."""
    data = boxel.read(make_root(tmp_path / "set")).select_categories(["road"])
    boxel.write(data, tmp_path / "out", format="semantic")
    assert (tmp_path / "out/classes.txt").read_text() == "1 road\n"
    assert np.array(Image.open(tmp_path / "out/labels/a.png"))[0].tolist() == [255] * 4 + [1] * 4


def test_values_of_a_table_survive_background(tmp_path):
    """A dataset with a background gets it as a class of its own."""
    data = boxel.read(make_root(tmp_path / "set"))
    known = replace(data, map_labels=values_to_labels({0: BACKGROUND, 1: 1}), categories=data.categories)
    known = known.select_categories(["road"])
    boxel.write(known, tmp_path / "out", format="semantic")
    assert (tmp_path / "out/classes.txt").read_text() == "0 background\n1 road\n"
    assert stripes(boxel.read(tmp_path / "out")) == [0] * 4 + [1] * 4


# the real ones -------------------------------------------------------------------------------------------------------


def test_real_camvid_is_read(shared_data):
    data = boxel.read(shared_data / "camvid", class_list="camvid")
    assert len(data) == 468 and data.issues == [] and len(data.categories) == 11
    val = boxel.read(shared_data / "camvid", class_list="camvid", split="val")
    assert len(val) == 101 and len(boxel.read(shared_data / "camvid/trainannot", class_list="camvid")) == 367
    assert set(zip(val.widths.tolist(), val.heights.tolist(), strict=True)) == {(480, 360)}
    seen = make_label_map(val, 0)
    assert set(np.unique(seen).tolist()) == {*range(11), 255}
    middle = {c.name: np.nonzero(seen == k)[0].mean() for k, c in enumerate(val.categories)}
    assert middle["sky"] < middle["building"] < middle["car"] < middle["road"]


@pytest.mark.slow
def test_real_voc_segmentations_are_written(shared_data, tmp_path):
    data = boxel.read(shared_data / "voc2007/SegmentationClass")
    assert len(data) == 20 and data.issues == [] and len(data.categories) == 21
    whole = boxel.read(shared_data / "voc2007/ImageSets/Segmentation/train.txt")
    with pytest.warns(ConversionWarning, match="a semantic dataset has no instances"):
        boxel.write(whole, tmp_path / "out", format="semantic")
    again = boxel.read(tmp_path / "out")
    assert again.categories == data.categories
    for image, name in enumerate(
        data.label_maps
    ):  # both readers see the same classes, and the writer keeps them
        other = again.image_ids.index(data.image_ids[image])
        np.testing.assert_array_equal(make_label_map(again, other), make_label_map(data, image))
        written = Image.open(again.root / again.label_maps[other])
        np.testing.assert_array_equal(written, Image.open(data.root / name))


def test_the_list_of_a_split_may_lie_among_the_label_maps(tmp_path: Path) -> None:
    folder = tmp_path / "VOC2012" / "SegmentationClassAug"
    folder.mkdir(parents=True)
    (tmp_path / "VOC2012" / "JPEGImages").mkdir()
    for stem in ("a", "b"):
        Image.new("L", (4, 3)).save(folder / f"{stem}.png")
        Image.new("RGB", (4, 3)).save(tmp_path / "VOC2012" / "JPEGImages" / f"{stem}.jpg")
    (folder / "train.txt").write_text("b\n")
    assert recognize(folder) == "semantic"
    assert boxel.read(folder, split="train").image_ids == ["b"]
    assert boxel.read(folder).image_ids == ["a", "b"]


def test_ambiguous_pairs_are_refused(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.JPG", "._c.jpg", "d.jpg"):
        photo(tmp_path / "images" / name)
    for stem in ("a", "b", "._c", "d", "d_L"):
        labels(tmp_path / f"labels/{stem}.png", 0, 1)
    (tmp_path / "classes.txt").write_text("a\nb\nc\n", encoding="utf-16")
    data = boxel.read(tmp_path)
    assert data.paths == ["images/b.JPG", "images/d.jpg"]
    assert data.label_maps == ["labels/b.png", "labels/d.png"]
    messages = " ".join(issue.message for issue in data.issues)
    assert "several images are called a" in messages and "d_L.png: its image" in messages
    assert not any("._" in issue.message for issue in data.issues)


def test_splits_are_known_and_survive(tmp_path: Path) -> None:
    for split, stem in (("train", "a"), ("val", "b")):
        photo(tmp_path / f"in/images/{split}/{stem}.jpg")
        labels(tmp_path / f"in/labels/{split}/{stem}.png", 0, 1)
    (tmp_path / "in/classes.txt").write_text("a\nb\nc\n")
    data = boxel.read(tmp_path / "in")
    assert data.splits == ["train", "val"]
    boxel.write(data, tmp_path / "out", format="semantic")
    assert boxel.read(tmp_path / "out").splits == ["train", "val"]
    assert boxel.read(tmp_path / "out", split="val").splits == ["val"]


def test_label_maps_of_two_formats_are_one_dataset(tmp_path):
    folder = make_root(tmp_path)
    Image.open(folder / "labels/b.png").save(folder / "labels/b.tif")
    (folder / "labels/b.png").unlink()
    data = boxel.read(folder)
    assert data.label_maps == ["labels/a.png", "labels/b.tif"] and data.issues == []
    assert stripes(data, 1) == [1] * 4 + [255] * 4


def test_a_tiff_of_the_stem_of_a_label_map_is_its_image(tmp_path):
    labels(tmp_path / "a_L.png", 0, 1)
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.tif")
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    data = boxel.read(tmp_path, images=tmp_path, format="semantic")
    assert (data.paths, data.label_maps, data.issues) == (["a.tif"], ["a_L.png"], [])


def test_label_maps_in_another_folder_are_not_named_in_coco(tmp_path):
    folder = make_root(tmp_path / "set")
    with pytest.warns(ConversionWarning) as found:
        boxel.convert(
            folder / "labels",
            tmp_path / "a.json",
            images=folder / "images",
            class_list=folder / "classes.txt",
        )
    (sentence,) = [str(warning.message) for warning in found]
    assert sentence.startswith("COCO holds no label maps: 2 are left out")
