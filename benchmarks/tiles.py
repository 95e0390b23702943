"""What tiles find in large images, and what they cost: a mosaic of satellite images that a model was not trained on.

    python benchmarks/tiles.py --run RUN

RUN is a BoxInst that was trained on `domains/measure/sat_buildings/train.json`, e.g. by `benchmarks/retention.py`. The
mosaic repeats the 25 images of `val.json` (500 x 500 pixels), each time turned or flipped in another way. Each
prediction runs in a process of its own, whose peak memory is recorded.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _record import Table, arguments
from PIL import Image

from boxel.data import Annotations, read, write
from boxel.data.formats.builder import Builder
from boxel.data.images import read_image
from boxel.masks.rle import decode, encode, encode_in_box

SIDE = 500
ACCURACY_SIDE = 2500
SIZES = (10_000,)
LARGE_TILE = 1000


def turn(array: np.ndarray, way: int) -> np.ndarray:
    """Return one of the eight ways to lay a square."""
    return np.rot90(array if way < 4 else array[:, ::-1], way % 4)


def make_mosaic(data: Annotations, side: int, folder: Path) -> None:
    """Write `mosaic.jpg`, `mosaic.tif` and their `mosaic.json`, and the parts with `parts.json`."""
    import rasterio

    per_row = side // SIDE
    pixels = np.empty((side, side, 3), dtype=np.uint8)
    whole, parts = Builder(), Builder()
    image = whole.add_image(1, "mosaic.jpg", side, side)
    for place in range(per_row**2):
        index, way = place % len(data), place // len(data) % 8
        top, left = (SIDE * at for at in divmod(place, per_row))
        part = turn(read_image(data.image_path(index))[:SIDE, :SIDE], way)
        pixels[top : top + SIDE, left : left + SIDE] = part
        Image.fromarray(np.ascontiguousarray(part)).save(folder / f"{place}.png")
        own = parts.add_image(place + 1, f"{place}.png", SIDE, SIDE)
        for row in data.instances_in(index).tolist():
            mask = turn(decode(data.rle(row))[:SIDE, :SIDE], way)
            if not mask.any():
                continue
            y, x = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            box = np.array([x[0], y[0], x[-1] + 1, y[-1] + 1])
            code = json.dumps(encode(mask)).encode()
            parts.add(len(parts.ids) + 1, own, 0, box.tolist(), code)
            box += [left, top, left, top]
            code = json.dumps(encode_in_box(mask, left, top, side, side)).encode()
            whole.add(len(whole.ids) + 1, image, 0, box.tolist(), code)
    Image.fromarray(pixels).save(folder / "mosaic.jpg", quality=95)
    layout = {
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "deflate",
        "photometric": "rgb",
    }
    with rasterio.open(
        folder / "mosaic.tif", "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", **layout
    ) as file:
        file.write(pixels.transpose(2, 0, 1))
    for rows, name in ((whole, "mosaic.json"), (parts, "parts.json")):
        write(rows.build(folder, data.categories, folder / name), folder / name)


def predict(run: Path, sources: Sequence[Path], out: Path, tile: int | None) -> tuple[float, float]:
    """Predict in a process of its own; return its CPU seconds and its peak memory in GB."""
    words = [str(run), str(out), str(tile or 0), *map(str, sources)]
    done = subprocess.run(
        [sys.executable, __file__, "--predict", *words], check=True, capture_output=True, text=True
    )
    seconds, peak = done.stdout.split()[-2:]
    return float(seconds), float(peak)


def predict_here(run: str, out: str, tile: str, *sources: str) -> None:
    """Predict, and print CPU seconds and peak memory."""
    import boxel

    boxel.predict(run, sources, out, **({"tile": int(tile)} if int(tile) else {}))
    peak = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    )
    print(time.process_time(), peak)


def evaluate(results: Path, truth: Path) -> list[Any]:
    """Return AP, AP50, AR100 and the number of results, of masks."""
    import boxel

    metrics = boxel.evaluate(results, truth, class_agnostic=True, boundary=False).metrics
    return [metrics["mask"][name] for name in ("AP", "AP50", "AR100")] + [metrics["results"]]


def compare_tiles(data: Annotations, run: Path, side: int, tiles: Sequence[int]) -> None:
    """Record the detections in the mosaic: whole, in tiles, and in its parts on their own."""
    title = f"{side // SIDE} x {side // SIDE} images of {SIDE} pixels as one of {side} x {side}"
    columns = ["mask AP", "AP50", "AR", "instances", "CPU s", "peak GB"]
    table = Table("tiles", "accuracy", columns, "predicted", title)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_mosaic(data, side, folder)
        out = folder / "found.json"
        spent = predict(run, sorted(folder.glob("[0-9]*.png")), out, None)
        table.add("each image on its own", *evaluate(out, folder / "parts.json"), *spent)
        for tile in (None, *tiles):
            spent = predict(run, [folder / "mosaic.jpg"], out, tile)
            rows = [row | {"image_id": 1} for row in json.loads(out.read_text())]
            out.write_text(json.dumps(rows))
            label = "the mosaic" + (f", `--tile {tile}`" if tile else "")
            table.add(label, *evaluate(out, folder / "mosaic.json"), *spent)
    table.write()


def compare_sizes(data: Annotations, run: Path, sizes: Sequence[int]) -> None:
    """Record time and memory by size of the image."""
    columns = ["MB of pixels", "instances", "JPEG: CPU s", "peak GB", "tiled TIFF: CPU s", "peak GB"]
    table = Table("tiles", "memory", columns, "pixels", f"Time and memory of `--tile {LARGE_TILE}`")
    for side in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_mosaic(data, side, folder)
            out = folder / "found.json"
            spent = [predict(run, [folder / f"mosaic.{kind}"], out, LARGE_TILE) for kind in ("jpg", "tif")]
            table.add(
                f"{side} x {side}", 3 * side**2 / 1e6, len(json.loads(out.read_text())), *spent[0], *spent[1]
            )
    table.write()


def main() -> None:
    """Compare tiles, and sizes of images."""
    if sys.argv[1:2] == ["--predict"]:
        predict_here(*sys.argv[2:])
        return
    parser = arguments(__doc__, data=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--side", type=int, default=ACCURACY_SIDE)
    parser.add_argument("--tiles", type=int, nargs="*", default=[350, 500])
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    args = parser.parse_args()
    data = read(args.data / "domains/measure/sat_buildings/val.json")
    if args.tiles:
        compare_tiles(data, args.run, args.side, args.tiles)
    if args.sizes:
        compare_sizes(data, args.run, args.sizes)


if __name__ == "__main__":
    main()
