"""Images read in parts, and TIFFs with a place on the earth; the TIFFs are made by rasterio."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

import boxel
from boxel.data import images as image_module
from boxel.data import windows as windows_module
from boxel.data.images import read_image
from boxel.data.windows import ArrayWindows, RasterWindows, open_windows
from boxel.masks.boxes import Region
from boxel.utils.errors import BoxelError

rasterio = pytest.importorskip("rasterio")

WHOLE, PART = Region(0, 0, 300, 200), Region(90, 17, 230, 151)
TILED = {"tiled": True, "blockxsize": 64, "blockysize": 64}


def write_tiff(path, count=3, dtype="uint8", **given):
    """Write 300 x 200 random pixels near Berlin, 0.5 m each; return them (count, H, W)."""
    from rasterio.transform import from_origin

    top = 256 if dtype == "uint8" else 65536
    pixels = np.random.default_rng(0).integers(0, top, (count, 200, 300)).astype(dtype)
    place = {"crs": "EPSG:32633", "transform": from_origin(389000, 5819000, 0.5, 0.5)} | given
    with rasterio.open(
        path, "w", driver="GTiff", width=300, height=200, count=count, dtype=dtype, **place
    ) as file:
        file.write(pixels)
    return pixels


@pytest.mark.parametrize(
    "given",
    [
        {"photometric": "rgb"} | TILED,
        {"photometric": "rgb", "compress": "deflate"} | TILED,
        {"photometric": "rgb", "compress": "lzw", "predictor": 2},
        {"photometric": "rgb", "interleave": "band"},
        {"count": 4, "photometric": "rgb"},
        {"count": 1},
        {"count": 1, "dtype": "uint16"},
        {"bigtiff": "yes"} | TILED,
    ],
)
def test_parts_of_a_tiff_are_those_of_the_decoded_image(tmp_path, given) -> None:
    write_tiff(tmp_path / "a.tif", **given)
    with open_windows(tmp_path / "a.tif") as image:
        assert isinstance(image, RasterWindows) and image.shape == (200, 300)
        part, whole = image.read(PART), image.read(WHOLE)
    expected = read_image(tmp_path / "a.tif")
    assert np.array_equal(whole, expected) and np.array_equal(part, expected[PART.slices])
    assert part.flags.c_contiguous and part.dtype == np.uint8


@pytest.mark.parametrize("mode", ["CMYK", "P", "1", "LAB", "turned", "white is zero"])
def test_tiffs_that_gdal_reads_otherwise_are_decoded_as_ever(tmp_path, mode) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    tags = {"turned": {274: 6}, "white is zero": {262: 0}}.get(mode, {})
    image = Image.fromarray(pixels).convert({"turned": "RGB", "white is zero": "L"}.get(mode, mode))
    image.save(tmp_path / "a.tif", tiffinfo=tags)
    with open_windows(tmp_path / "a.tif") as opened:
        assert isinstance(opened, ArrayWindows)
        height, width = opened.shape
        assert np.array_equal(opened.read(Region(0, 0, width, height)), read_image(tmp_path / "a.tif"))
    assert (height, width) == ((30, 20) if mode == "turned" else (20, 30))


@pytest.mark.parametrize(("count", "dtype"), [(5, "uint8"), (8, "uint16")])
def test_the_first_three_of_many_bands_are_read_and_announced_once(
    tmp_path, caplog, monkeypatch, count, dtype
) -> None:
    monkeypatch.setattr(image_module, "_announced", set())
    pixels = write_tiff(tmp_path / "a.tif", count, dtype)
    write_tiff(tmp_path / "b.tif", count, dtype)
    expected = (pixels[:3].astype(int) + 128) // 257 if dtype == "uint16" else pixels[:3]
    assert np.array_equal(read_image(tmp_path / "a.tif"), expected.transpose(1, 2, 0))
    with open_windows(tmp_path / "b.tif") as image:
        assert np.array_equal(image.read(PART), expected.transpose(1, 2, 0)[PART.slices])
    (message,) = (record.getMessage() for record in caplog.records if record.name.startswith("boxel"))
    assert message.startswith(f"{tmp_path / 'a.tif'}: of its {count} bands the first three are taken")


def test_without_rasterio_tiffs_are_decoded_and_many_bands_name_the_extra(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    windows_module.import_rasterio.cache_clear()
    try:
        pixels = write_tiff(tmp_path / "a.tif", photometric="rgb")
        write_tiff(tmp_path / "b.tif", 5, "uint16")
        with open_windows(tmp_path / "a.tif") as image:
            assert isinstance(image, ArrayWindows)
            assert np.array_equal(image.read(WHOLE), pixels.transpose(1, 2, 0))
        with pytest.raises(BoxelError, match=r"pip install 'boxel\[geo\]'"):
            read_image(tmp_path / "b.tif")
    finally:
        windows_module.import_rasterio.cache_clear()


def test_a_tiff_above_the_limit_is_read_in_parts_only(tmp_path, monkeypatch) -> None:
    write_tiff(tmp_path / "a.tif", photometric="rgb", **TILED)
    monkeypatch.setattr(image_module, "MAX_PIXELS", 50_000)
    with pytest.raises(BoxelError, match="more than 50000 pixels"):
        read_image(tmp_path / "a.tif")
    with open_windows(tmp_path / "a.tif") as image:
        assert image.read(PART).shape == (134, 140, 3)


def test_a_damaged_tiff_is_an_image_error(tmp_path) -> None:
    write_tiff(tmp_path / "a.tif", photometric="rgb", compress="deflate", **TILED)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = b"\0" * 4000
    (tmp_path / "a.tif").write_bytes(data)
    with (
        pytest.raises(BoxelError, match=r"a.tif: the image cannot be decoded"),
        open_windows(tmp_path / "a.tif") as image,
    ):
        image.read(WHOLE)


# ---------------------------------------------------------------- coordinates


@pytest.fixture
def dataset(tmp_path):
    """A ring with a hole, two parts in one mask, and a box without a mask."""
    from boxel.masks.rle import encode

    write_tiff(tmp_path / "a.tif", photometric="rgb")
    ring, parts = np.zeros((2, 200, 300), dtype=np.uint8)
    ring[20:80, 10:90], ring[40:60, 30:70] = 1, 0
    parts[100:110, 5:25], parts[120:140, 200:300] = 1, 1
    boxes = [[10, 20, 80, 60], [5, 100, 295, 40], [150, 50, 30, 20]]
    rows = [
        {"id": k + 1, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": 0, "area": box[2] * box[3]}
        for k, box in enumerate(boxes)
    ]
    rows[0]["segmentation"], rows[1]["segmentation"] = encode(ring), encode(parts)
    rows[0]["quality"] = 0.81
    image = {"id": 1, "file_name": "a.tif", "width": 300, "height": 200}
    content = {"images": [image], "annotations": rows, "categories": [{"id": 1, "name": "roof"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    return tmp_path / "a.json", ring, parts


def test_geojson_holds_each_pixel_where_it_is_on_the_earth(dataset, tmp_path) -> None:
    """Back in the image's coordinates, the polygons fill the pixels of the masks, all and alone."""
    from rasterio.features import rasterize
    from rasterio.warp import transform_geom

    file, ring, parts = dataset
    boxel.convert(file, tmp_path / "out.geojson")
    content = json.loads((tmp_path / "out.geojson").read_text())
    assert set(content) == {"type", "features"} and content["type"] == "FeatureCollection"
    box = np.zeros_like(ring)
    box[50:70, 150:180] = 1
    with rasterio.open(tmp_path / "a.tif") as raster:
        crs, transform = raster.crs, raster.transform
    for feature, mask in zip(content["features"], (ring, parts, box), strict=True):
        back = transform_geom("EPSG:4326", crs, feature["geometry"])
        assert np.array_equal(rasterize([back], mask.shape, transform=transform), mask)
    ring_feature = content["features"][0]
    assert ring_feature["properties"] == {"id": 1, "category": "roof", "quality": 0.81, "image": "a.tif"}
    assert [feature["geometry"]["type"] for feature in content["features"]] == [
        *("Polygon", "MultiPolygon", "Polygon")
    ]
    outer, hole = ring_feature["geometry"]["coordinates"]
    assert outer[0] == outer[-1] and signed_area(outer) > 0 > signed_area(hole)
    assert outer[0] == pytest.approx([13.364491, 52.509717], abs=1e-6)  # longitude first


def signed_area(ring):
    """Above 0 if the ring runs counterclockwise."""
    (x, y) = np.array(ring).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2


def test_geojson_of_an_image_without_coordinates_is_refused(tmp_path) -> None:
    scenes = boxel.data.example_scenes()
    with pytest.raises(
        BoxelError, match=r"000000.png: the image has no coordinate system, which GeoJSON needs"
    ):
        boxel.write(scenes, tmp_path / "out.geojson")
    assert not (tmp_path / "out.geojson").exists()


def test_label_maps_of_a_geotiff_have_its_place(tmp_path) -> None:
    from boxel.data.annotations import Category
    from boxel.models.semantic.inference import LabelMap

    write_tiff(tmp_path / "a.tif")
    labels = np.random.default_rng(0).integers(0, 2, (200, 300)).astype(np.uint8)
    classes = (Category(0, "background"), Category(700, "roof"))
    label_map = LabelMap(labels, np.ones(labels.shape, np.float32), classes, tmp_path / "a.tif")
    label_map.save(tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as found, rasterio.open(tmp_path / "a.tif") as source:
        assert found.crs == source.crs and found.transform == source.transform
        assert found.dtypes == ("uint16",) and np.array_equal(found.read(1), labels.astype(int) * 700)
