"""What a dataset holds."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from boxel.data.annotations import Category
from boxel.data.checks import collect_statistics
from boxel.data.checks.image_facts import read_facts
from boxel.data.checks.near_duplicates import group_near_duplicates
from boxel.data.images import ImageError, read_image

L_SHAPE = [[10, 10, 50, 10, 50, 20, 30, 20, 30, 40, 10, 40]]


def picture(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """A smooth random picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def test_instances_masks_classes_and_boxes_are_counted(make) -> None:
    boxes = [(10, 10, 50, 40), (0, 0, 10, 10), (0, 0, 100, 80), (5, 5, 25, 35), (0, 0, 99, 79)]
    data = make(
        boxes,
        [L_SHAPE, None, [], L_SHAPE, None],
        labels=[1, 1, 0, 1, 1],
        image_index=[0, 0, 0, 0, 0],
        iscrowd=[False, False, False, False, True],
        trusted=np.array([True, True, True, False, True]),
        source=np.array(["sam", None, None, "sam", None], dtype=object),
        splits=["train", "val"],
    )
    found = collect_statistics(data)
    assert (found.images, found.images_without_objects, found.readable_images) == (2, 1, 2)
    assert (found.instances, found.crowds) == (5, 1)
    assert found.classes == {"dog": 4, "cat": 1}
    assert found.masks == {"trusted": 1, "made": 1, "untrusted": 1, "unusable": 1, "none": 2}
    assert found.box_sizes == {"small": 2, "medium": 2, "large": 0}  # 100, 600, 1200 and 8000 square pixels
    assert (found.smallest_box, found.median_box) == ((10, 10), (30, 30))
    assert found.splits == {"train": {"images": 1, "instances": 5}, "val": {"images": 1, "instances": 0}}
    assert found.image_sizes == [(100, 80)] * 3
    json.dumps(found.to_json(), allow_nan=False)


def test_an_empty_dataset_has_statistics(make) -> None:
    found = collect_statistics(make([], image_ids=[], paths=[], widths=[], heights=[]))
    assert found.images == found.instances == 0 and found.smallest_box is None
    assert found.lines()[0] == "format: unknown, images: 0"


def test_many_classes_are_cut(make) -> None:
    categories = tuple(Category(k, f"class {k}") for k in range(1, 75))
    n = 73
    labels = [72, *range(1, n)]
    boxes = [(10, 10, 50 + k / 10, 40) for k in range(n)]
    text = "\n".join(collect_statistics(make(boxes, labels=labels, categories=categories)).lines())
    assert "classes: 74 (class 73: 2, class 2: 1," in text and " and 60 more; 2 without instances: " in text


@pytest.mark.parametrize(
    ("unused", "words"), [(1, ": class 2)"), (3, ": class 2, class 3, class 4)"), (4, ")")]
)
def test_a_few_classes_without_instances_are_named(make, unused, words) -> None:
    categories = tuple(Category(k, f"class {k}") for k in range(1, 2 + unused))
    text = "\n".join(collect_statistics(make([(10, 10, 50, 40)], labels=[0], categories=categories)).lines())
    assert f"(class 1: 1; {unused} without instances{words}" in text


def test_the_classes_of_label_maps_are_named(make) -> None:
    data = make([], categories=(Category(1, "road"), Category(2, "sky")))
    data = replace(data, label_maps=["a.png"] * len(data))
    assert "classes: 2 (road, sky)" in collect_statistics(data).lines()


@pytest.fixture
def folder(tmp_path):
    """Pictures: a, its copy, one like it (smaller and compressed), another, gray, black, and one of 16 bits."""
    a = picture(0)
    a.save(tmp_path / "a.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "a.png").read_bytes())
    a.resize((120, 90)).filter(ImageFilter.GaussianBlur(1)).save(tmp_path / "like.jpg", quality=60)
    for k in range(1, 6):
        picture(k).save(tmp_path / f"other{k}.jpg")
    picture(9).convert("L").save(tmp_path / "gray.jpg")
    Image.new("RGB", (40, 30), (3, 0, 2)).save(tmp_path / "black.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 65535, (40, 50)).astype(np.uint16)).save(
        tmp_path / "deep.png"
    )
    return tmp_path


def test_duplicates_leaks_and_odd_images_are_found(make, folder) -> None:
    paths = sorted(path.name for path in folder.iterdir())
    splits = ["train" if name in ("a.png", "copy.png") else "val" for name in paths]
    data = make(root=folder, image_ids=list(range(len(paths))), paths=paths, splits=splits)
    found = collect_statistics(data)
    assert found.identical_images == [["a.png", "copy.png"]]
    assert found.similar_images == found.leaks == [["a.png", "copy.png", "like.jpg"]]
    assert found.oddities == {"16 bits": ["deep.png"], "almost black": ["black.png"]}
    text = "\n".join(found.lines())
    assert "images of the same content: 1 group, the first: a.png, copy.png" in text
    assert "almost black: black.png" in text


def test_a_gray_image_is_odd_among_many_colored_ones(make, folder) -> None:
    paths = ["a.png", *(f"other{k}.jpg" for k in range(1, 6)), "gray.jpg"]
    data = make(root=folder, image_ids=list(range(7)), paths=paths)
    assert collect_statistics(data).oddities == {"gray among color": ["gray.jpg"]}


def test_an_image_in_two_splits_leaks(make, folder) -> None:
    data = make(root=folder, image_ids=[1, 2], paths=["a.png", "a.png"], splits=["train", "val"])
    found = collect_statistics(data)
    assert found.leaks == [["a.png"]]
    assert any(line.startswith("train: 1 image, ") and "; val: 1 image, " in line for line in found.lines())


def test_pictures_of_nothing_are_not_alike() -> None:
    flat = [np.full((27, 27), level, dtype=np.uint8) for level in (100, 100, 101)]
    assert group_near_duplicates(flat) == []


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "gif"])
@pytest.mark.parametrize("damage", ["cut", "none", "zeros"])
def test_damage_is_found_as_by_a_full_decoding(tmp_path, suffix, damage) -> None:
    for seed in range(5):
        file = tmp_path / f"{seed}.{suffix}"
        picture(seed, 300, 200).save(file)
        content = file.read_bytes()
        if damage == "cut":
            file.write_bytes(content[: len(content) * (seed + 2) // 8])
        elif damage == "zeros":
            middle = len(content) // (seed + 2)
            file.write_bytes(content[:middle] + bytes(100) + content[middle + 100 :])
        outcomes = []
        for read in (read_image, read_facts):
            try:
                read(file)
                outcomes.append(None)
            except ImageError as error:
                outcomes.append((error.kind, str(error)))
        assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "CMYK", "I;16"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_thumbnails_are_upright_and_of_any_mode(tmp_path, mode, orientation) -> None:
    pixels = np.zeros((60, 90, 3), dtype=np.uint8)
    pixels[:20] = 255  # bright above
    if mode == "I;16":
        image = Image.fromarray((pixels[..., 0].astype(np.uint16)) * 257)
    else:
        image = Image.fromarray(pixels).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    suffix = "jpg" if mode == "CMYK" else "png"
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    facts = read_facts(tmp_path / f"a.{suffix}")
    assert facts.header.upright == ((90, 60) if orientation == 1 else (60, 90)) and facts.bits == (
        16 if mode == "I;16" else 8
    )
    bright = (
        facts.thumbnail[:7] if orientation == 1 else facts.thumbnail[:, -7:]
    )  # orientation 6 turns it clockwise
    assert bright.min() > 150 and facts.thumbnail.mean() < 120 and not facts.colored


def test_a_large_image_is_never_held_as_a_whole_in_color(tmp_path) -> None:
    Image.new("1", (4000, 4000)).save(tmp_path / "large.png")  # 48 MB in color
    tracemalloc.start()
    facts = read_facts(tmp_path / "large.png")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert facts.header.upright == (4000, 4000) and facts.brightness == 0
    assert peak < 12e6


def test_links_out_of_the_image_folder_are_listed(make, tmp_path) -> None:
    for name in ("photos", "photos/inner", "elsewhere"):
        (tmp_path / name).mkdir()
    for name in ("photos/a.png", "elsewhere/b.png"):
        picture(0).save(tmp_path / name)
    (tmp_path / "photos/link.png").symlink_to("../elsewhere/b.png")
    (tmp_path / "photos/inside.png").symlink_to("a.png")
    (tmp_path / "photos/folder").symlink_to("../elsewhere")
    paths = ["a.png", "link.png", "inside.png", "folder/b.png"]
    data = make(root=tmp_path / "photos", image_ids=[1, 2, 3, 4], paths=paths)
    odd = {"links out of the image folder": ["link.png", "folder/b.png"]}
    assert collect_statistics(data).oddities == odd


def test_images_of_one_camera_with_other_objects_are_not_alike() -> None:
    scene = np.asarray(picture(0).convert("L").resize((27, 27))).astype(np.uint8)
    frames = [scene.copy() for _ in range(3)]
    for k, frame in enumerate(frames):
        frame[12:15, 3 + 8 * k : 6 + 8 * k] = np.where(frame[12:15, 3 + 8 * k : 6 + 8 * k] > 128, 60, 200)
    assert group_near_duplicates(frames) == []
    brighter = np.clip(scene * 1.04 + 1, 0, 255).astype(np.uint8)
    assert group_near_duplicates([scene, *frames, brighter]) == [[0, 4]]
