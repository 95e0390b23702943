"""Images of every mode, orientation and kind of damage, built pixel by pixel."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from boxel.data import images
from boxel.data.images import MAX_PIXELS, ImageError, image_size, read_header, read_image
from boxel.data.label_maps import read_label_map

# 2 rows x 3 columns of plainly different colors
COLORS = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 255], [0, 0, 0], [128, 64, 32]]], dtype=np.uint8
)


def with_orientation(orientation: int, path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLORS).save(path, exif=exif)
    return path


# What a viewer shows, worked by hand from the EXIF table (row 0 / column 0 are the sides named there).
UPRIGHT = {
    1: COLORS,
    2: COLORS[:, ::-1],
    3: COLORS[::-1, ::-1],
    4: COLORS[::-1],
    5: COLORS.transpose(1, 0, 2),
    6: np.rot90(COLORS, -1),
    7: np.rot90(COLORS, 2).transpose(1, 0, 2),
    8: np.rot90(COLORS, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_pixels_are_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    Image.fromarray(COLORS).save(path, exif=exif, **options)
    pixels = read_image(path)
    np.testing.assert_array_equal(pixels, UPRIGHT[orientation])
    assert pixels.flags.c_contiguous
    assert pixels.dtype == np.uint8
    assert image_size(path) == (pixels.shape[1], pixels.shape[0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_orientation_agrees_with_pillow(tmp_path: Path, orientation: int) -> None:
    path = with_orientation(orientation, tmp_path / "photo.jpg")
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(path), np.asarray(ImageOps.exif_transpose(image)))
    assert read_header(path) == ((3, 2), orientation)
    assert image_size(path) == ((3, 2) if orientation < 5 else (2, 3))


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_invalid_orientation_is_ignored(tmp_path: Path, orientation: int) -> None:
    path = with_orientation(orientation, tmp_path / "photo.png")
    np.testing.assert_array_equal(read_image(path), COLORS)


def test_damaged_exif_does_not_cost_the_image(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(COLORS).save(path, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    np.testing.assert_array_equal(read_image(path), COLORS)


def test_every_mode_becomes_rgb(tmp_path: Path) -> None:
    gray = np.array([[0, 100, 255]], dtype=np.uint8)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png"), gray[..., None].repeat(3, axis=2))

    Image.fromarray(COLORS).quantize(6).save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), COLORS)

    Image.fromarray(COLORS).quantize(6).save(tmp_path / "clear.png", transparency=bytes([0, 128]))
    np.testing.assert_array_equal(read_image(tmp_path / "clear.png"), COLORS)

    rgba = np.dstack([COLORS, np.array([[0, 128, 255], [0, 0, 7]], dtype=np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), COLORS)

    Image.fromarray(gray).convert("LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image(tmp_path / "la.png")[..., 0], gray)

    Image.fromarray(gray > 99).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png")[..., 1], [[0, 255, 255]])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "transparent"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_bands_make_the_whole_image(tmp_path: Path, monkeypatch, mode: str, orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (23, 17, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    image = image.quantize(8) if mode in ("P", "transparent") else image
    image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 201) if mode == "I;16" else image
    image = image.convert(mode) if mode not in ("P", "transparent", "I;16") else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(file, exif=exif, **({"transparency": 3} if mode == "transparent" else {}))
    whole = read_image(file)
    monkeypatch.setattr(images, "_BAND_PIXELS", 17 * 4)
    assert np.array_equal(read_image(file), whole)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    cmyk = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], dtype=np.uint8)
    Image.fromarray(cmyk, mode="CMYK").save(tmp_path / "print.tif")
    np.testing.assert_array_equal(
        read_image(tmp_path / "print.tif"), [[[255, 255, 255], [0, 255, 255], [0, 0, 0]]]
    )


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_sixteen_bits_become_eight(tmp_path: Path, name: str) -> None:
    Image.fromarray(np.array([[0, 257, 65535, 32768]], dtype=np.uint16)).save(tmp_path / name)
    np.testing.assert_array_equal(
        read_image(tmp_path / name)[0, :, 0], [0, 1, 255, 128]
    )  # 32768 / 257 = 127.5


def test_pixels_of_unknown_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.5]], dtype=np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.array([[-1, 70000]], dtype=np.int32)).save(tmp_path / "int.tif")
    for name in ("float.tif", "int.tif"):
        with pytest.raises(ImageError, match="unknown range") as caught:
            read_image(tmp_path / name)
        assert caught.value.kind == "image-unreadable"


def test_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "moving.gif") == [255, 0, 0]).all()


def noise(suffix: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, suffix)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", ["jpeg", "png", "tiff", "bmp", "ppm"])
def test_a_truncated_image_is_an_error(tmp_path: Path, suffix: str) -> None:
    data = noise(suffix)
    path = tmp_path / f"half.{suffix}"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert caught.value.kind == "image-truncated", caught.value
    assert caught.value.values["bytes"] == len(data) // 2
    assert str(path) in str(caught.value)


def test_files_that_are_not_images_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image")
    kinds = {
        "gone.jpg": "image-missing",
        "text.jpg/gone.jpg": "image-missing",
        "empty.jpg": "image-empty",
        "text.jpg": "image-unreadable",
        ".": "image-unreadable",
        "nul\0.jpg": "image-unreadable",
    }
    for name, kind in kinds.items():
        for read in (read_image, image_size):
            with pytest.raises(ImageError) as caught:
                read(tmp_path / name)
            assert caught.value.kind == kind, name


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="not a file"):
        read_image(tmp_path / "pipe.jpg")


def test_postscript_is_not_executed(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "page.eps")
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "page.eps")
    assert caught.value.kind == "image-unreadable"


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("limit", [None, 89_478_485])
def test_a_decompression_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # the limit holds even if Pillow's was lifted
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(60_000, 60_000))
    for read in (read_image, image_size):
        with pytest.raises(ImageError, match="tiles") as caught:
            read(path)
        assert caught.value.kind == "image-too-large"
        assert caught.value.values == {"max_pixels": MAX_PIXELS}


def test_size_comes_from_the_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "header.png"
    path.write_bytes(png_header(4000, 3000))  # no pixels follow
    assert image_size(path) == (4000, 3000)
    with pytest.raises(ImageError):
        read_image(path)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_whose_zero_is_white_is_no_negative(write_tiff, bits: int) -> None:
    values = [[0, 2**bits - 1, 2**bits // 4]]
    assert read_image(write_tiff(values, bits, white_is_zero=True))[..., 0].tolist() == [[255, 0, 191]]
    assert read_image(write_tiff(values, bits))[..., 0].tolist() == [[0, 255, 64]]


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
def test_a_tiff_that_is_not_compressed_is_turned_upright(tmp_path: Path, mode: str, orientation: int) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (7, 5)).astype(np.uint8)
    image = Image.fromarray(gray) if mode != "I;16" else Image.fromarray(gray.astype(np.uint16) * 257)
    image = image if mode in ("L", "I;16") else image.convert("RGB").convert(mode)
    image.save(tmp_path / "plain.tif")
    image.save(tmp_path / "turned.tif", tiffinfo={274: orientation})
    expected = Image.fromarray(read_image(tmp_path / "plain.tif")).transpose(images.UPRIGHT[orientation])
    np.testing.assert_array_equal(read_image(tmp_path / "turned.tif"), expected)
    assert image_size(tmp_path / "turned.tif") == expected.size
    if mode == "L":
        found = read_label_map(tmp_path / "turned.tif")
        np.testing.assert_array_equal(found, np.asarray(expected)[..., 0])
