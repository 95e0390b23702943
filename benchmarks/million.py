"""CPU seconds and memory of large datasets: read, check and convert COCO files, evaluate, and convert to every format.

    python benchmarks/million.py

Each command runs in a process of its own. The first table grows a COCO file of polygons (20 to 60 vertices each) to a
million annotations; pycocotools and, if it is installed, hotcoco read the same files. The second evaluates as many
masks of generated scenes, repeated. The third converts 1,000 of them to each format, and gives CPU milliseconds per
mask without the start of the command.
"""

from __future__ import annotations

import importlib.util
import json
import random
import sys
import tempfile
from pathlib import Path

from _processes import EVALUATORS, READERS, boxel_command, python, run_process
from _record import Table, arguments

import boxel
from boxel.data import Annotations
from boxel.data.synthetic import write_scenes
from boxel.evaluation import to_results

PER_IMAGE = 8
CATEGORY_IDS = range(1, 81)
SCENES = 280  # of about 3.6 objects each
FOLDERS = ("yolo", "labelme", "voc", "sbd", "cvat", "label-studio", "fiftyone", "semantic", "salient")


def generate(path: Path, count: int) -> None:
    """Write a COCO file of this many polygons."""
    draw = random.Random(0)
    images = -(-count // PER_IMAGE)
    with open(path, "w") as file:
        file.write('{"images": [')
        for i in range(images):
            comma = ", " if i else ""
            file.write(f'{comma}{{"id": {i}, "file_name": "{i:012}.jpg", "width": 640, "height": 480}}')
        file.write('], "annotations": [')
        for i in range(count):
            x, y, w, h = (round(draw.uniform(1, 240), 2) for _ in range(4))
            numbers = []
            for _ in range(draw.randint(20, 60)):
                numbers.append(f"{x + w * draw.random():.2f}")
                numbers.append(f"{y + h * draw.random():.2f}")
            comma = ", " if i else ""
            file.write(
                f'{comma}{{"segmentation": [[{", ".join(numbers)}]], "area": {w * h:.4f}, "iscrowd": 0, '
                f'"image_id": {i // PER_IMAGE}, "bbox": [{x}, {y}, {w}, {h}], '
                f'"category_id": {draw.choice(CATEGORY_IDS)}, "id": {i + 1}}}'
            )
        categories = ", ".join(f'{{"id": {k}, "name": "class {k}"}}' for k in CATEGORY_IDS)
        file.write(f'], "categories": [{categories}]}}')


def installed(codes: dict[str, str]) -> dict[str, str]:
    """Return the code of the packages that are there."""
    return {name: code for name, code in codes.items() if importlib.util.find_spec(name.replace("-", "_"))}


def measure(command: list[str]) -> tuple[float, float]:
    """Run a command and return its CPU seconds and peak MB."""
    usage = run_process(command, codes=(0, 1))  # `boxel check` finds boxes of two pixels
    if usage is None:
        sys.exit(1)
    return usage.cpu, usage.peak


def measure_growth(folder: Path, counts: list[int]) -> None:
    """Fill the table of reading, checking and converting."""
    table = Table(
        "scale",
        "million",
        [f"{count:,}: CPU s / MB" for count in counts],
        title="A COCO file of polygons",
        note="Whole processes. `check` without the images.",
    )
    cells: dict[str, list[str]] = {}
    for count in counts:
        file = folder / f"{count}.json"
        generate(file, count)
        readers = installed(READERS)
        commands = {
            **{f"read: {name}": python(code.format(file=str(file))) for name, code in readers.items()},
            "boxel check": boxel_command("check", file),
            "boxel convert to COCO": boxel_command("convert", file, folder / "copy.json"),
        }
        for name, command in commands.items():
            seconds, peak = measure(command)
            print(f"{count:,} {name}: {seconds:.2f} s, {peak:.0f} MB", flush=True)
            cells.setdefault(name, []).append(f"{seconds:.1f} / {peak:.0f}")
        file.unlink()
    for name, values in cells.items():
        table.add(name, *values)
    table.write()


def measure_evaluation(folder: Path, masks: Annotations, counts: list[int]) -> None:
    """Fill the table of evaluations: each mask is detected, with a random score and a box that is off."""
    table = Table(
        "scale",
        "evaluate",
        [f"{count:,}: CPU s / MB" for count in counts],
        title="Evaluating detections with masks",
        note="Whole processes: AP of boxes and masks, and by boxel mask IoU, matches and breakdowns too.",
    )
    cells: dict[str, list[str]] = {}
    for count in counts:
        truth, found = str(folder / "truth.json"), str(folder / "found.json")
        write_repeated(masks, count, truth, found)
        commands = {
            "boxel": boxel_command("evaluate", found, truth, "--no-boundary"),
            "boxel with Boundary AP": boxel_command("evaluate", found, truth),
            **{
                name: python(code.format(truth=truth, found=found))
                for name, code in installed(EVALUATORS).items()
            },
        }
        for name, command in commands.items():
            seconds, peak = measure(command)
            cells.setdefault(name, []).append(f"{seconds:.1f} / {peak:.0f}")
    for name, values in cells.items():
        table.add(name, *values)
    table.write(seeds=[0])


def write_repeated(masks: Annotations, count: int, truth: str, found: str) -> None:
    """Write a COCO file of so many masks, repeated with their images, and results that detect each of them."""
    draw = random.Random(0)
    rows = to_results(masks)
    annotations, results = [], []
    for k in range(count):
        turn, row = divmod(k, len(rows))
        image = turn * len(masks) + int(masks.image_index[row])
        own = {**rows[row], "image_id": image}
        del own["score"]
        annotations.append({**own, "id": k + 1, "area": own["bbox"][2] * own["bbox"][3], "iscrowd": 0})
        x, y, w, h = own["bbox"]
        box = [x + draw.uniform(-3, 3), y + draw.uniform(-3, 3), w, h]
        results.append({**own, "bbox": box, "score": draw.random()})
    used = sorted({row["image_id"] for row in annotations})
    images = [{"id": i, "file_name": f"{i}.png", "height": 480, "width": 640} for i in used]
    categories = [{"id": category.id, "name": category.name} for category in masks.categories]
    dataset = {"images": images, "annotations": annotations, "categories": categories}
    Path(truth).write_text(json.dumps(dataset))
    Path(found).write_text(json.dumps(results))


def measure_formats(folder: Path, masks: Annotations) -> None:
    """Fill the table of conversions."""
    few = masks.select_images(range(1))
    for name, data in (("few", few), ("masks", masks)):
        boxel.write(data, folder / f"scenes/{name}.json")
    table = Table(
        "scale",
        "formats",
        ["CPU ms per mask"],
        title=f"Converting {len(masks.labels):,} masks of 640 x 480 images",
        note="CPU time of the command less that of one image, per mask.",
    )
    ways = {
        "COCO": ["{}.json"],
        "COCO, polygons": ["{}_polygons.json", "--polygons"],
        **{name: [f"{{}}_{name}", "--to", name] for name in FOLDERS},
    }
    for name, (target, *flags) in ways.items():
        costs = [
            measure(
                boxel_command(
                    "convert", folder / f"scenes/{size}.json", folder / target.format(f"{size}_out"), *flags
                )
            )[0]
            for size in ("few", "masks")
        ]
        table.add(name, round(1000 * (costs[1] - costs[0]) / (len(masks.labels) - len(few.labels)), 2))
    table.write(seeds=[0])


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument(
        "--counts",
        type=int,
        nargs="*",
        default=[10_000, 100_000, 1_000_000],
        help="sizes of the first table; without a number, it is left out",
    )
    parser.add_argument(
        "--evaluate", type=int, nargs="*", default=[1_000, 10_000, 100_000], help="sizes of the second table"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if given.counts:
            measure_growth(Path(scratch), given.counts)
        masks = write_scenes(Path(scratch) / "scenes", SCENES, height=480, width=640, seed=0)
        measure_evaluation(Path(scratch), masks, given.evaluate)
        measure_formats(Path(scratch), masks)
