"""How CPU time and memory grow with the number of boxes, the size of images, boxes per image, and the batch.

    python benchmarks/growth.py
    python benchmarks/growth.py --only image per-image

Each command runs in a process of its own, whose CPU seconds and peak memory are measured. What the start costs is
measured too, by the same command with the first, tiny size; the exponent is the slope of log(cost - cost of the first)
against log(size - first size) over the upper half of the sizes. A size is left out if it would take more than --limit
CPU seconds, judged by the one before.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _processes import READERS, boxel_command, python
from _record import REPO, RESULTS, Table, arguments
from label_memory import generate as make_images
from million import generate, measure, write_repeated
from PIL import Image

from boxel.data import Category, read, write
from boxel.data.formats.builder import Builder
from boxel.data.synthetic import write_scenes

Command = list[str]
MIN_GROWTH = 20.0  # MB; less is flat
PICTURE = "docs/images/growth.png"


class Series(NamedTuple):
    """What grows: sizes, the first of which measures the start, and the commands by name at a size."""

    title: str
    unit: str
    sizes: list[int]
    make: Callable[[Path, int], dict[str, Command]]
    amount: Callable[[int], float] = float  # of work at a size, e.g. the pixels of a side
    axis: str = ""  # the unit of the amount, if it is another one


def of_files(folder: Path, count: int) -> dict[str, Command]:
    """Read, check and convert a file of so many polygons."""
    file = folder / "boxes.json"
    generate(file, count)
    return {
        "read": python(READERS["boxel"].format(file=str(file))),
        "check": boxel_command("check", file),
        "convert to COCO": boxel_command("convert", file, folder / "copy.json"),
    }


def of_masks(folder: Path, count: int) -> dict[str, Command]:
    """Convert so many masks, and evaluate a detection of each."""
    scenes, truth, found = folder / "scenes", folder / "truth.json", folder / "found.json"
    masks = (
        read(scenes / "masks.json") if scenes.exists() else write_scenes(scenes, 40, height=480, width=640)
    )
    write_repeated(masks, count, str(truth), str(found))
    return {
        "convert to polygons": boxel_command("convert", truth, folder / "copy.json", "--polygons"),
        "evaluate": boxel_command("evaluate", found, truth),
    }


def of_labeling(folder: Path, count: int) -> dict[str, Command]:
    """Label so many boxes, ten per image, by the cheapest teacher, whose network does not hide the rest."""
    own = folder / f"images-{count}"
    own.mkdir()
    make_images(own, -(-count // 10))
    names = {"id": "ann_id", "file_name": "image", "category": "label"}
    columns = ["image", "ann_id", "x0", "y0", "x1", "y1", "label"]
    read(own / "boxes.json").to_frame().rename(columns=names)[columns].to_parquet(own / "boxes.parquet")
    words = ["--teacher", "rectangle", "--workers", 1, "--images", own]
    shards = ["--engine", "local", "--out", folder / f"shards-{count}"]
    return {
        "label": boxel_command("label", own / "boxes.json", *words, "--out", folder / f"{count}.json"),
        "label in shards": boxel_command("label", own / "boxes.parquet", *words, *shards),
    }


def write_image(folder: Path, side: int, boxes: np.ndarray) -> Path:
    """Write one image of blurred noise and its boxes; return the file of the boxes."""
    import cv2

    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    folder.mkdir()
    pixels = cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(pixels).save(folder / "0.jpg")
    rows = Builder()
    image = rows.add_image(1, "0.jpg", side, side)
    for box in boxes.tolist():
        rows.add(len(rows.ids) + 1, image, 0, box)
    write(rows.build(folder, [Category(1, "thing")], folder / "boxes.json"), folder / "boxes.json")
    return folder / "boxes.json"


def of_images(folder: Path, side: int) -> dict[str, Command]:
    """Label four boxes that together cover most of an image."""
    quarters = np.array([[0.02, 0.02], [0.52, 0.02], [0.02, 0.52], [0.52, 0.52]])
    file = write_image(folder / str(side), side, side * np.hstack([quarters, quarters + 0.46]))
    return {"label": boxel_command("label", file, "--workers", 1, "--out", folder / f"{side}.json")}


def of_crowds(folder: Path, count: int) -> dict[str, Command]:
    """Label so many boxes of one image."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 880, (count, 2))
    file = write_image(
        folder / str(count), 1024, np.hstack([corners, corners + rng.uniform(24, 144, (count, 2))])
    )
    return {"label": boxel_command("label", file, "--workers", 1, "--out", folder / f"{count}.json")}


def of_batches(folder: Path, batch: int) -> dict[str, Command]:
    """Train 16 steps of such batches: boxel counts steps in batches of 16."""
    scenes = folder / "scenes"
    if not scenes.exists():
        write_scenes(scenes, 16, seed=0)
    words = (
        f"--steps {batch} --batch-size {batch} --crops.side 64 --device cpu --data.workers 0 --data.val-share 0 "
        "--model.backbone resnet10t --model.weights none --model.heads shared"
    ).split()
    return {
        "train boxcaseg": boxel_command(
            "train", "boxcaseg", scenes / "masks.json", *words, "--out", folder / str(batch)
        )
    }


def find_exponent(amounts: list[float], costs: list[float]) -> float | None:
    """Return the slope in log-log over the upper half, net of the first; None for less than two points."""
    points = [(x - amounts[0], y - costs[0]) for x, y in zip(amounts[1:], costs[1:], strict=True)]
    upper = [(log(x), log(y)) for x, y in points[len(points) // 2 if len(points) > 2 else 0 :] if y > 0]
    return statistics.linear_regression(*zip(*upper, strict=True)).slope if len(upper) > 1 else None


def fill_table(name: str, series: Series, limit: float, note: str) -> None:
    """Fill the table of a series."""
    found: dict[str, list[tuple[float, float]]] = {}
    skipped = set[str]()
    with tempfile.TemporaryDirectory() as scratch:
        for size in series.sizes:
            if found and not {*found} - skipped:
                break
            for what, command in series.make(Path(scratch), size).items():
                rows = found.setdefault(what, [])
                if what in skipped:
                    continue
                rows.append(measure(command))
                print(f"{name} {size:,} {what}: {rows[-1][0]:.2f} s, {rows[-1][1]:.0f} MB", flush=True)
                following = series.sizes[len(rows) :][:1]
                growth = series.amount(following[0]) / series.amount(size) if following else 0
                if (rows[-1][0] - rows[0][0]) * growth > limit:
                    skipped.add(what)
    sizes = [f"{size:,}" for size in series.sizes]
    columns = [*(f"{size}: CPU s / MB" for size in sizes), "exponent of CPU", "exponent of MB"]
    table = Table("growth", name, columns, first=series.unit, title=series.title, note=note)
    for what, rows in found.items():
        amounts = [series.amount(size) for size in series.sizes[: len(rows)]]
        seconds, memory = ([row[k] for row in rows] for k in (0, 1))
        cells = [f"{a:.2f} / {b:.0f}" for a, b in rows] + [""] * (len(sizes) - len(rows))
        grown = find_exponent(amounts, memory) if max(memory) - memory[0] > MIN_GROWTH else "flat"
        table.add(what, *cells, find_exponent(amounts, seconds), grown)
    table.write(seeds=[0])


def draw() -> None:
    """Plot the recorded CPU seconds net of the start, one panel per series, with lines of exponent 1."""
    from matplotlib.figure import Figure

    tables = json.loads((RESULTS / "growth.json").read_text(encoding="utf-8"))["tables"]
    names = [name for name in SERIES if name in tables]
    figure = Figure(figsize=(7.2, 2.9 * -(-len(names) // 2)), layout="constrained")
    for axes, name in zip(figure.subplots(-(-len(names) // 2), 2, squeeze=False).flat, names, strict=False):
        series = SERIES[name]
        for what, *cells in tables[name]["rows"]:
            seconds = [float(cell.partition(" / ")[0]) for cell in cells[:-2] if cell]
            amounts = [series.amount(size) - series.amount(series.sizes[0]) for size in series.sizes]
            points = [(x, y - seconds[0]) for x, y in zip(amounts, seconds, strict=False) if y > seconds[0]]
            axes.loglog(*zip(*points, strict=True), marker="o", ms=4, label=what)
            last = points[-1]
            axes.loglog(
                [x for x, _ in points], [last[1] * x / last[0] for x, _ in points], color="0.7", ls=":"
            )
        axes.set(title=series.title, xlabel=series.axis or series.unit, ylabel="CPU s")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(REPO / PICTURE, dpi=120)


COUNTS = [10, 1_000, 10_000, 100_000, 1_000_000]
SERIES = {
    "files": Series("Boxes in a file", "boxes", COUNTS, of_files),
    "masks": Series("Masks in a file", "masks", COUNTS[:-1], of_masks),
    "labeling": Series("Boxes that are labeled", "boxes", COUNTS[:-1], of_labeling),
    "image": Series(
        "Size of an image",
        "side in pixels",
        [64, 256, 512, 1024, 2048, 4096],
        of_images,
        lambda n: n * n,
        "pixels",
    ),
    "per-image": Series("Boxes per image", "boxes", [1, 3, 10, 30, 100, 300], of_crowds),
    "batch": Series("Batch of a training", "batch", [1, 2, 4, 8, 16, 32], of_batches),
}
NOTES = {
    "files": "COCO files of polygons, eight per image, without the images.",
    "masks": "Masks of generated scenes of 640 x 480 pixels; `evaluate` with Boundary AP.",
    "labeling": "Ten boxes per image of 320 x 240 pixels, by `rectangle`, with one thread.",
    "image": "Four boxes that cover most of one image, by the bundled network. The exponents are those in pixels.",
    "per-image": "One image of 1024 x 1024 pixels, by the bundled network.",
    "batch": "16 steps of `boxcaseg` with a small backbone, on crops of 64 pixels.",
}


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--only", nargs="+", choices=SERIES, default=[*SERIES])
    parser.add_argument("--limit", type=float, default=600.0, help="CPU seconds that a size may take")
    parser.add_argument("--largest", type=int, default=COUNTS[-1], help="number of boxes at most")
    given = parser.parse_args()
    for name in given.only:
        series = SERIES[name]._replace(sizes=[size for size in SERIES[name].sizes if size <= given.largest])
        fill_table(name, series, given.limit, NOTES[name])
    draw()
