"""Drawings of datasets: which images, where, beside what, and what bad ones cost."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from PIL import Image

from boxel.data import Annotations, Category
from boxel.data.formats.builder import Builder
from boxel.data.label_maps import make_label_map
from boxel.data.pairing import pair_images
from boxel.data.synthetic import write_scenes
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError, UsageError
from boxel.viz import DrawConfig, draw_dataset
from boxel.viz.drawing import draw_thumbnail, number_colors
from boxel.viz.output import mirror_names
from boxel.viz.overlays import Objects, draw_objects
from boxel.viz.pairing import match_objects, pair_with_truth


def make(folder, boxes_by_path, size=(120, 100), names=("cat", "dog"), quality=None):
    """A dataset of gray images; a box is (label, x0, y0, x1, y1), its mask fills it."""
    rows, count = Builder(), 0
    for number, (path, boxes) in enumerate(boxes_by_path.items()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90, 90, 90)).save(folder / path)
        image = rows.add_image(number, path, *size)
        for label, *box in boxes:
            mask = np.zeros(size[::-1], dtype=bool)
            mask[box[1] : box[3], box[0] : box[2]] = True
            value = None if quality is None else quality[count]
            rows.add(count, image, label, box, msgspec.json.encode(encode(mask)), quality=value)
            count += 1
    return rows.build(folder, [Category(k, name) for k, name in enumerate(names)], folder / "masks.json")


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_bad_images_and_masks_cost_only_themselves(tmp_path, caplog):
    data = write_scenes(tmp_path, 3, height=64, width=96)
    (tmp_path / "images" / "000001.png").write_bytes(b"no image")
    data.segmentations[0] = b"[[1, 2, 3, 4, 5, 6, 7]]"  # is drawn as a box
    summary = draw_dataset(data, tmp_path / "drawn")
    (error,) = summary.errors
    assert "000001.png" in error and len(caplog.records) == 2
    assert files_in(tmp_path / "drawn") == ["000000.jpg", "000002.jpg"]
    assert str(summary) == f"2 of 3 images drawn: {tmp_path / 'drawn'}"


def test_a_label_map_is_drawn_with_a_legend(tmp_path):
    data = write_scenes(tmp_path, 1, height=64, width=96)
    Image.fromarray(make_label_map(data, 0)).save(data.root / "map.png")
    semantic = replace(data.select_instances([]), label_maps=["map.png"], map_labels=None)
    assert draw_dataset(semantic, tmp_path / "drawn").errors == []
    assert Image.open(tmp_path / "drawn" / "000000.jpg").height > 64


def test_small_images_are_enlarged_and_large_ones_are_not():
    for side, scale in ((20, 20), (100, 4), (450, 1), (1500, 1)):
        pixels = np.zeros((side, side, 3), dtype=np.uint8)
        objects = Objects(np.array([[2, 2, side / 2, side / 2]]), [None], [0], ["cat"])
        drawn = draw_objects(pixels, objects, DrawConfig(), scale=None)
        assert drawn.shape == (side * scale, side * scale, 3)


def test_folders_are_mirrored_without_collisions(tmp_path):
    paths = ["a/1.png", "b/1.png", "a/1.tif", "a/1.jpg", "A/1.png", "c.v2/x.y.png"]
    data = make(tmp_path, dict.fromkeys(paths, ()))
    draw_dataset(data, tmp_path / "drawn")
    drawn = files_in(tmp_path / "drawn")
    assert {"a/1.jpg", "b/1.jpg", "a/1.tif.jpg", "a/1.jpg.jpg", "c.v2/x.y.jpg"} < set(drawn)
    assert len({name.lower() for name in drawn}) == 6


@pytest.mark.parametrize(
    "path", ["../../x.png", "/etc/x.png", "..\\x.png", "C:\\a\\x.png", "a\x00b\n.png", ".x.png"]
)
def test_no_name_leads_out_of_the_folder(path):
    (name,) = mirror_names([path])
    assert name.endswith(".jpg") and ".." not in name.split("/") and not name.startswith(("/", "."))
    assert "\x00" not in name and "\n" not in name and "\\" not in name


def test_images_are_never_drawn_over(tmp_path):
    data = make(tmp_path / "photos", {"a/1.jpg": (), "2.jpg": ()})
    before = [data.image_path(image).read_bytes() for image in range(2)]
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    for out in (tmp_path / "photos", tmp_path, tmp_path / "photos" / "a", tmp_path / "link"):
        with pytest.raises(UsageError, match="holds the images"):
            draw_dataset(data, out)
    with pytest.raises(UsageError, match="is one of the images"):
        draw_dataset(data, tmp_path / "drawn", sheet=str(tmp_path / "link" / "2.jpg"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "2.jpg").symlink_to(tmp_path / "photos" / "2.jpg")
    (error,) = draw_dataset(data, tmp_path / "out").errors
    assert "by a link" in error
    assert [data.image_path(image).read_bytes() for image in range(2)] == before


def test_the_worst_images_come_first(tmp_path):
    box = (0, 10, 10, 60, 60)
    data = make(
        tmp_path, {f"{k}.png": [box, box] for k in range(4)}, quality=[0.9, 0.8, 0.9, 0.2, 0.5, 0.5, 0.9, 0.4]
    )
    assert draw_dataset(data, tmp_path / "drawn", worst=2).requested == 2
    assert files_in(tmp_path / "drawn") == ["1.jpg", "3.jpg"]
    assert draw_dataset(data, tmp_path / "one", worst=3, count=1).requested == 1
    assert files_in(tmp_path / "one") == ["1.jpg"]
    with pytest.raises(UsageError, match=r"no object of .* has a quality or a score"):
        draw_dataset(replace(data, quality=np.full(8, np.nan)), tmp_path / "no", worst=2)


def test_the_worst_beside_the_truth_have_the_lowest_mask_iou(tmp_path):
    truth = make(tmp_path, {f"{k}.png": [(0, 0, 0, 40, 40)] for k in range(3)})
    shifted = [(0, 0, 0, 40, 40), (0, 0, 0, 40, 20), (1, 0, 0, 40, 40)]  # IoU 1, 0.5, and another class
    data = make(tmp_path, {f"{k}.png": [box] for k, box in enumerate(shifted)})
    ious = [match_objects(truth, np.array([k]), data, np.array([k]))[0] for k in range(3)]
    assert ious == [1, 0.5, 0]
    draw_dataset(data, tmp_path / "drawn", truth=truth, worst=2)
    assert files_in(tmp_path / "drawn") == ["1.jpg", "2.jpg"]


def test_each_object_is_matched_once(tmp_path):
    truth = make(tmp_path, {"a.png": [(0, 0, 0, 40, 40), (0, 0, 0, 40, 30)]})
    data = make(tmp_path, {"a.png": [(0, 0, 0, 40, 40)]})
    assert match_objects(truth, np.arange(2), data, np.arange(1)).tolist() == [1, 0]


def test_the_truth_is_on_the_left(tmp_path):
    truth = make(tmp_path, {"a.png": [(0, 0, 0, 120, 100)]}, size=(480, 400))
    data = make(tmp_path, {"a.png": []}, size=(480, 400))
    draw_dataset(data, tmp_path / "drawn", truth=truth, style="fill", labels=False, boxes=False)
    drawn = np.asarray(Image.open(tmp_path / "drawn" / "a.jpg")).astype(int)
    assert drawn.shape[1] > 960 and drawn.shape[0] > 400
    top = drawn.shape[0] - 400
    assert np.ptp(drawn[top + 50, 60]) > 40  # tinted
    assert np.ptp(drawn[top + 50, -420]) < 10  # gray
    assert (drawn[:top] < 60).any()  # captions


def test_images_meet_by_path_and_then_by_name(tmp_path):
    names = ["a/1.png", "b/1.png", "2.png", "3.png"]
    truth = make(tmp_path / "t", dict.fromkeys(names, ()))
    assert pair_images(truth, truth) == [0, 1, 2, 3]
    assert pair_images(replace(truth, root=tmp_path / "u"), truth) == [0, 1, 2, 3]
    other = make(tmp_path / "o", dict.fromkeys(["x/2.jpg", "x/1.png", "9.png"], ()))
    assert pair_images(other, truth) == [2, None, None]  # 1.png is two images
    with pytest.raises(BoxelError, match="has none of the images"):
        pair_with_truth(make(tmp_path / "p", {"7.png": ()}), truth)


def test_only_objects_with_a_score_that_is_high_enough_are_drawn(tmp_path):
    boxes = [(0, 10, 10, 50, 90), (0, 70, 10, 110, 90)]
    data = make(tmp_path, {"a.png": boxes}, quality=[0.2, 0.8])
    draw_dataset(data, tmp_path / "drawn", min_score=0.5, labels=False)
    drawn = np.asarray(Image.open(tmp_path / "drawn" / "a.jpg")).astype(int)
    assert np.ptp(drawn[200, 120]) < 10 < 40 < np.ptp(drawn[200, 360])


def test_a_contact_sheet_has_pages(tmp_path):
    data = make(tmp_path / "photos", {f"{k:02}.png": [(0, 10, 10, 60, 60)] for k in range(45)})
    summary = draw_dataset(data, None, sheet=str(tmp_path / "sheet.png"))
    assert [path.name for path in summary.sheets] == ["sheet.png", "sheet-2.png"]
    assert files_in(tmp_path) == [*data_files(data), "sheet-2.png", "sheet.png"]
    assert Image.open(tmp_path / "sheet.png").width <= 2000
    assert "contact sheet" in str(summary) and "sheet-2.png" in str(summary)
    for name, message in (("sheet.what", "end the name"), ("sheet", "end the name")):
        with pytest.raises(UsageError, match=message):
            draw_dataset(data, None, sheet=str(tmp_path / name))
    with pytest.raises(UsageError, match="nothing to write"):
        draw_dataset(data, None)


def data_files(data):
    return [f"photos/{path}" for path in data.paths]


def test_a_class_has_the_same_color_in_every_dataset():
    def with_classes(*categories):
        return Annotations(".", [], [], [], [], categories, [], [], [], np.zeros((0, 4)), [], [])

    coco = with_classes(Category(1, "person"), Category(18, "dog"))
    assert number_colors(coco) == [1, 18]
    assert number_colors(with_classes(Category(18, "dog"))) == [18]
    assert number_colors(with_classes(Category(5000, "a"), Category(2, "b"))) == [0, 1]
    assert number_colors(with_classes(Category(0, "dog"), Category(1, "cow")), coco) == [18, 0]


def test_a_thumbnail_shows_box_and_mask(tmp_path):
    data = make(tmp_path, {"a.png": [(0, 40, 20, 200, 100), (1, 300, 100, 400, 200)]}, size=(400, 200))
    pixels = np.full((200, 400, 3), 255, dtype=np.uint8)
    drawn = draw_thumbnail(data, 0, pixels, side=200)
    assert drawn.shape == (100, 200, 3)  # half the size
    assert (drawn[10, 20] != 255).any() and (drawn[90, 195] != 255).any()  # corner of the box, and the mask
    assert (drawn[30, 110] == 255).all() and (drawn[95, 5] == 255).all()
