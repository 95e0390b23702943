"""boxel and its peers at the same work: CPU seconds and memory of whole processes.

    python benchmarks/peers.py
    python benchmarks/peers.py --peers .peers --sam weights/sam-vit-base

Each row runs a process of boxel and one of a peer in turns, starts and imports included. The work is the same, except
that boxel does more in some rows: `boxel label` estimates the quality of each mask, `boxel evaluate` breaks masks down
by class and by size, `boxel check` searches for other issues too. A peer that is not installed is skipped; `make bench`
installs all that can be into `.peers`.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _processes import EVALUATORS, READERS, Usage, boxel_command, python, run_process
from _record import Table, arguments
from million import SCENES, generate, write_repeated

import boxel
from boxel.data.samples import write_sample_images
from boxel.data.synthetic import write_scenes

POLYGONS, DETECTIONS = 100_000, 10_000

GRABCUT = """
import json, cv2, numpy
data = json.load(open("photos/boxes.json"))
photos = {row["id"]: cv2.imread("photos/" + row["file_name"]) for row in data["images"]}
for row in data["annotations"]:
    photo = photos[row["image_id"]]
    mask, models = numpy.zeros(photo.shape[:2], numpy.uint8), numpy.zeros((2, 1, 65))
    try:
        cv2.grabCut(photo, mask, [round(side) for side in row["bbox"]], *models, 5, cv2.GC_INIT_WITH_RECT)
    except cv2.error:  # no pixel is background
        pass
"""

DETECTOR = """
import argparse
from detector_speed import Runner, draw_scene
scene = draw_scene(argparse.Namespace(height=480, width=640, device="cpu"), 1, 16)
runner = Runner({name!r}, "float32", "cpu")
for _ in range(2):
    runner.run({part!r}, scene)
"""

DECODE = """
from pycocotools.coco import COCO
data = COCO({file!r})
for row in data.anns.values():
    data.annToMask(row)
"""

SUPERVISION = """
from supervision import DetectionDataset
data = DetectionDataset.from_coco("scenes/images", "scenes/polygons.json", force_masks=True)
"""

CRF = """
import numpy, torch
from boxel.crf import CRFConfig, mean_field
data = numpy.load("crf.npz")
photo, probabilities = torch.from_numpy(data["photo"]), torch.from_numpy(data["probabilities"])
for _ in range(4):
    mean_field(photo.permute(2, 0, 1)[None] / 255, probabilities[None], CRFConfig())
"""

DENSECRF = """
import numpy
from _densecrf import mean_field
data = numpy.load("crf.npz")
for _ in range(4):
    mean_field(data["photo"], data["probabilities"], *{settings!r})
"""


class Row(NamedTuple):
    """The same work by two commands."""

    what: str
    ours: list[str]
    peer: str
    theirs: list[str]
    module: str
    codes: tuple[int, ...] = (0,)  # exit codes of success


def main() -> None:
    """Run all pairs in turns, and record the medians and their ratios."""
    parser = arguments(__doc__)
    parser.add_argument("--peers", type=Path, help="folder of `pip install --target` with more packages")
    parser.add_argument("--sam", type=Path, help="folder of weights of a SAM for transformers")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    # Last of all, so that none of its packages replaces one that is installed.
    peers = [str(args.peers.resolve())] if args.peers else []
    sys.path += peers
    folders = [*filter(None, [os.environ.get("PYTHONPATH")]), str(Path(__file__).parent.resolve()), *peers]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    load = os.getloadavg()[0]
    table = Table(
        "peers",
        "peers",
        ["peer", "boxel, CPU s", "peer, CPU s", "ratio", "boxel, MB", "peer, MB", "ratio"],
        title="boxel and its peers",
        note=f"Median of {args.repeats} whole processes each, in turns; the ratio is boxel / peer, below 1 if boxel "
        "takes less, with the lowest and the highest of the turns. Other processes kept the machine busy with a load "
        f"of {load:.1f} when it began. Imports of PyTorch are in the rows of BoxInst and of the CRF.",
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for row in write_inputs(folder, args.sam):
            if importlib.util.find_spec(row.module) is None:
                print(f"{row.what}: {row.peer} is not installed, so the row is skipped.", flush=True)
                continue
            pairs = [
                [run_process(words, folder, environment, row.codes) for words in (row.ours, row.theirs)]
                for _ in range(args.repeats)
            ]
            if any(usage is None for pair in pairs for usage in pair):
                table.add(row.what, row.peer, "fails", *[None] * 5)
                continue
            table.add(row.what, row.peer, *compare(pairs, "cpu", 2), *compare(pairs, "peak", 0))
    table.write()


def compare(pairs: list[list[Usage]], name: str, digits: int) -> tuple[float, float, str]:
    """Return the medians of both sides, and the ratio with its range."""
    ours, theirs = (
        round(statistics.median(getattr(usage, name) for usage in side), digits or None)
        for side in zip(*pairs, strict=True)
    )
    ratios = [getattr(own, name) / getattr(other, name) for own, other in pairs]
    return ours, theirs, f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def write_inputs(folder: Path, sam: Path | None) -> Iterator[Row]:
    """Write what the commands read, and yield them."""
    write_sample_images(folder / "photos")
    label = boxel_command("label", "photos/boxes.json", "--images", "photos", "--out", "RUN/masks.json")
    yield Row("label 7 photographs", label, "OpenCV's GrabCut", python(GRABCUT), "cv2")
    if sam:
        teacher = ["--teacher", f"sam:{sam.resolve()}"]
        yield Row("label 7 photographs", label, "SAM by transformers", [*label, *teacher], "transformers")
    for part in ("inference", "training"):
        ours, theirs = (python(DETECTOR.format(name=name, part=part)) for name in ("boxinst", "mask_rcnn"))
        yield Row(f"BoxInst, {part}", ours, "torchvision's Mask R-CNN", theirs, "torchvision")

    file = str(folder / "polygons.json")
    generate(Path(file), POLYGONS)
    readers = {name: python(code.format(file=file)) for name, code in READERS.items()}
    for name in list(readers)[1:]:
        yield Row(f"read {POLYGONS:,} polygons", readers["boxel"], name, readers[name], name)
    check, decode = boxel_command("check", file), python(DECODE.format(file=file))
    yield Row(f"check {POLYGONS:,} polygons", check, "pycocotools", decode, "pycocotools", codes=(0, 1))

    masks = write_scenes(folder / "scenes", SCENES, height=480, width=640, seed=0)
    boxel.write(masks, folder / "scenes/polygons.json", polygons=True)
    read = python("import boxel; boxel.read('scenes/polygons.json')")
    scenes = f"{len(masks.labels):,} masks of {len(masks)} images"
    yield Row(f"read {scenes}", read, "supervision", python(SUPERVISION), "supervision")
    convert = boxel_command("convert", "scenes/polygons.json", "RUN/yolo", "--to", "yolo")
    theirs = python(SUPERVISION + 'data.as_yolo("RUN/images", "RUN/labels", "RUN/data.yaml")')
    yield Row(f"convert {scenes} to YOLO", convert, "supervision", theirs, "supervision")

    truth, found = str(folder / "truth.json"), str(folder / "found.json")
    write_repeated(masks, DETECTIONS, truth, found)
    evaluate = boxel_command("evaluate", found, truth, "--no-boundary")
    for name, code in EVALUATORS.items():
        theirs = python(code.format(truth=truth, found=found))
        yield Row(f"evaluate {DETECTIONS:,} masks", evaluate, name, theirs, name.replace("-", "_"))
    yield from write_crf(folder)


def write_crf(folder: Path) -> Iterator[Row]:
    """Write the input of the CRF, and yield its row."""
    from crf import make_input, peer_settings

    from boxel.crf import CRFConfig

    photo, probabilities = make_input()
    np.savez(folder / "crf.npz", photo=photo, probabilities=probabilities)
    theirs = python(DENSECRF.format(settings=peer_settings(CRFConfig())))
    yield Row("CRF of 500 x 375 pixels, 21 classes", python(CRF), "pydensecrf2", theirs, "pydensecrf")


if __name__ == "__main__":
    main()
