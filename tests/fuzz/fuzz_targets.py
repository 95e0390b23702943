"""What is fuzzed: each reader with a valid input made by boxel, and what a reader may do with a hostile one.

A case is an input with one changed file. It passes if the reader returns, or raises boxel's own error, whose sentence
can be printed; and if it neither writes a file outside of its target nor starts a program, asks the network or
unpickles anything.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import cv2
import numpy as np
from fuzz_mutations import mutate
from PIL import Image

import boxel
from boxel.crf.config import CRFConfig
from boxel.data import Annotations, Category, collect_statistics
from boxel.data.checks.masks import drop_bad_masks
from boxel.data.formats.box_table import BoxTable, make_header, write_table
from boxel.data.images import read_image
from boxel.evaluation.drawing import draw
from boxel.evaluation.reading import read_results
from boxel.labeling import choose_next, merge_tasks, write_tasks
from boxel.labeling.quality import find_calibration, load_calibration, save_calibration
from boxel.models.io import read_categories, read_config_file, read_crf, write_crf
from boxel.models.thresholds import read_thresholds, write_thresholds
from boxel.proposals.candidates import Candidates
from boxel.review import DecisionStore, Review
from boxel.review.decisions import Decision
from boxel.training.recipe import fit_length, read_config, read_init
from boxel.utils.errors import BoxelError
from boxel.utils.frames import name_frame
from boxel.utils.printable import printable_line
from boxel.viz.report import write_check_report, write_report, write_training_report

SEED = "data.json"
CORPUS = Path(__file__).with_name("corpus.zip")
PLACE = "place"
"""The folder that a case may write to."""

RUN = {
    "training": {"images": 3, "instances": 1200},
    "inputs": {"data": {"path": "data.json", "digest": "00"}, "images": "images"},
    "versions": {"torch": "2.4"},
    "seed": 0,
    "command": "boxel train boxcaseg data.json",
}


class Forbidden(BaseException):
    """What no file may make boxel do; not an `Exception`, so that nothing takes it for damage."""


class Target(NamedTuple):
    """A reader and its input.

    Attributes:
        make: Writes a valid input into a folder that has the dataset `data.json` with its `images`.
        run: Reads it from the folder; what it writes must be in the folder `place` there.
        files: Pattern of the names of the files that are changed.
    """

    make: Callable[[Path], object]
    run: Callable[[Path], object]
    files: str = r"data\.json"


# ---------------------------------------------------------------- inputs


def make_dataset(folder: Path) -> None:
    """Write two images of 16 x 12 pixels and three objects with masks, as COCO."""
    (folder / "images").mkdir(parents=True)
    for k in (1, 2):
        pixels = np.random.default_rng(k).integers(0, 255, (12, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{k}.png")
    rows = [
        {
            "id": k,
            "image_id": 1 + k % 2,
            "category_id": 1 + k % 2,
            "bbox": [1 + k, 3, 6, 5],
            "area": 30,
            "iscrowd": k // 3,
            "segmentation": [[1 + k, 3, 7 + k, 3, 7 + k, 8, 1 + k, 8]]
            if k < 3
            else {"size": [12, 16], "counts": [51, 5, 7, 5, 124]},
            "attributes": {"occluded": True},
        }
        for k in (1, 2, 3)
    ]
    content = {
        "info": {"year": 2026},
        "images": [{"id": k, "file_name": f"{k}.png", "width": 16, "height": 12} for k in (1, 2)],
        "annotations": rows,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog", "supercategory": "animal"}],
    }
    (folder / SEED).write_text(json.dumps(content))


def _convert(name: str, out: str) -> Callable[[Path], object]:
    return lambda folder: boxel.convert(folder / SEED, folder / out, name, images=folder / "images")


def make_nothing(folder: Path) -> None:
    """The dataset is the input."""


def make_track(folder: Path) -> None:
    """Write a CVAT file of a video, whose frames are images."""
    shape = 'keyframe="1" outside="0" occluded="0" frame="{}" xtl="2" ytl="3" xbr="8" ybr="9"'
    boxes = "".join(f"<box {shape.format(k)}><attribute name='a'>b</attribute></box>" for k in (0, 1))
    labels = "<labels><label><name>cat</name></label></labels><mode>interpolation</mode>"
    frames = "<size>2</size><start_frame>0</start_frame><stop_frame>1</stop_frame>"
    size = "<original_size><width>16</width><height>12</height></original_size>"
    task = f"<task><name>v</name>{frames}{labels}{size}</task>"
    tracks = f'<track id="0" label="cat">{boxes}</track>'
    text = f"<annotations><version>1.1</version><meta>{task}</meta>{tracks}</annotations>"
    (folder / "annotations.xml").write_text(text)


def make_labels(folder: Path) -> None:
    """Write the detections that FiftyOne exports without masks."""
    (folder / "data").mkdir()
    shutil.copy(folder / "images/1.png", folder / "data")
    row = {"label": "cat", "bounding_box": [0.1, 0.2, 0.3, 0.4], "confidence": 0.5}
    (folder / "labels.json").write_text(json.dumps({"classes": ["cat"], "labels": {"1": [row, row]}}))


def make_results(folder: Path) -> None:
    """Write detections as COCO results."""
    box = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [1, 3, 6, 5]}
    mask = {"segmentation": {"size": [12, 16], "counts": [51, 5, 7, 5, 124]}}
    (folder / "results.json").write_text(
        json.dumps([box, box | mask, box | {"segmentation": [[1, 2, 8, 2, 8, 9]]}])
    )


def make_yolo_results(folder: Path) -> None:
    """Write detections as texts of a YOLO."""
    (folder / "predictions").mkdir()
    (folder / "predictions/1.txt").write_text("0 0.5 0.5 0.2 0.3 0.9\n1 0.1 0.1 0.9 0.1 0.9 0.9 0.8\n")
    (folder / "predictions/classes.txt").write_text("cat\ndog\n")


def make_images(folder: Path) -> None:
    """Write one image per format that is read, and one in a tar file."""
    (folder / "all").mkdir()
    image = Image.open(folder / "images/1.png")
    for suffix in ("png", "jpg", "gif", "tif", "bmp", "webp", "ppm", "jp2"):
        image.save(folder / f"all/1.{suffix}")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "all/turned.jpg", exif=exif)
    image.convert("I;16").save(folder / "all/deep.png")
    image.convert("CMYK").save(folder / "all/cmyk.tif", compression="tiff_lzw")
    with tarfile.open(folder / "all/shard.tar", "w") as tar:
        tar.add(folder / "images/1.png", "1.png")


def make_video(folder: Path) -> None:
    """Write a video of four frames."""
    video = cv2.VideoWriter(str(folder / "a.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (32, 32))
    for level in (0, 60, 120, 180):
        video.write(np.full((32, 32, 3), level, np.uint8))
    video.release()


def make_recipe(folder: Path) -> None:
    """Write a recipe that builds on another."""
    text = "method: boxinst\nbase: below.yaml\nsteps: 20\nassumed_images: 10\nmodel:\n  tau: 0.2\n"
    (folder / "recipe.yaml").write_text(text)
    (folder / "below.yaml").write_text(
        "base: coco-small\noptim:\n  lr: 0.01\naugment:\n  short_sides: [64, 96]\n"
    )


def make_model(folder: Path) -> None:
    """Write a model folder with all that may lie in one, and the weights as a checkpoint and as a file of PyTorch."""
    import torch

    from boxel.models import build, save

    settings = {
        "backbone": "resnet10t",
        "weights": "none",
        "neck": "top_down",
        "neck_channels": 16,
        "heads": ["shared"],
    }
    settings |= {"side": 64}
    model = build("boxcaseg", 1, settings)
    save(
        model,
        folder / "model",
        {"method": "boxcaseg", "model": settings},
        [Category(1, "cat"), Category(2, "dog")],
    )
    write_crf(CRFConfig(), folder / "model")
    write_thresholds({"all": 0.5, "by_class": {"cat": 0.25}}, folder / "model")
    calibration = find_calibration("boxcaseg")
    assert calibration is not None
    save_calibration(calibration, folder / "model/quality.json")
    (folder / "model/run.json").write_text(json.dumps(RUN))
    (folder / "model/metrics.json").write_text(json.dumps({"step": 4, "mask_iou": 0.5}))
    (folder / "model/metrics.csv").write_text("step,train/loss,val/mask_iou\n1,0.5,\n2,0.4,0.6\n")
    torch.save({"a.weight": torch.ones(2, 3)}, folder / "weights.pth")
    keys = ("optimizer_states", "lr_schedulers", "loops", "callbacks", "metrics")
    torch.save(
        {"state_dict": {"a": torch.ones(2)}, "global_step": 4} | {key: {} for key in keys},
        folder / "last.ckpt",
    )


def make_onnx(folder: Path) -> None:
    """Write a small file with the metadata of an exported box-to-mask model."""
    from onnx import TensorProto, helper, save

    crops = helper.make_tensor_value_info("crops", TensorProto.FLOAT, ["n", 3, 32, 32])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 32, 32])
    node = helper.make_node("ReduceMax", ["crops"], ["logits"], axes=[1], keepdims=0)
    graph = helper.make_graph([node], "boxel", [crops], [logits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    about = {
        "method": "boxcaseg",
        "boxel": "0.1",
        "side": "32",
        "margin": "0.1",
        "threshold": "0.5",
        "mean": "[0,0,0]",
    }
    helper.set_model_props(model, about)
    save(model, folder / "model.onnx")


def make_table(folder: Path) -> None:
    """Write a table of boxes."""
    data = boxel.read(folder / SEED, folder / "images")
    write_table(data, folder / "t.parquet", make_header(data))


def make_tasks(folder: Path) -> None:
    """Write tasks of LabelMe from masks of a teacher."""
    data = boxel.read(folder / SEED, folder / "images").without_masks()
    labeled = boxel.label(data, teacher="ellipse", out=folder / "labeled.json")
    write_tasks(labeled, choose_next(labeled, 2), folder / "tasks", "labelme")


def make_stores(folder: Path) -> None:
    """Write decisions of a review, and the store of a job that labels."""
    store = DecisionStore(folder / "decisions.sqlite")
    store.add(("1.png", 2), 0, b"", Decision(state="accepted", category="cat", box=(1, 2, 3, 4)))
    store.close()
    boxel.label(folder / SEED, images=folder / "images", teacher="ellipse", out=folder / "masks.json")
    (folder / "masks.json").unlink()


def make_candidates(folder: Path) -> None:
    """Write candidate segments."""
    superpixels = np.arange(12 * 16).reshape(12, 16) // 24
    Candidates.from_sets(superpixels, np.eye(8, dtype=bool)).save(folder / "1.npz")


# ---------------------------------------------------------------- readers


def use(data: Annotations) -> None:
    """Look at all that a dataset holds: each mask, and what was wrong."""
    sound, sentences = drop_bad_masks(data)
    for sentence in [*sentences, *(issue.message for issue in data.issues)]:
        check_sentence(sentence)
    for instance in range(min(len(sound.ids), 100)):
        sound.mask(instance)


def _read(name: str, **options: Any) -> Callable[[Path], object]:
    return lambda folder: use(boxel.read(folder / name, **options))


def _evaluate(name: str) -> Callable[[Path], object]:
    return lambda folder: boxel.evaluate(folder / name, folder / SEED, images=folder / "images")


def read_images(folder: Path) -> None:
    """Read all images; an error is that of the first which cannot be read."""
    for path in [*(folder / "all").iterdir(), folder / "all/shard.tar/1.png"]:
        if path.name != "shard.tar":
            read_image(path)


def read_video(folder: Path) -> None:
    """Read the first and the last frame of a video."""
    for frame in (0, 3):
        read_image(name_frame(str(folder / "a.mp4"), frame))


def read_recipe(folder: Path) -> None:
    """Read a recipe as a training does."""
    read_init(folder / "recipe.yaml")
    fit_length(folder / "recipe.yaml", 40, read_config(folder / "recipe.yaml"))


def read_beside(folder: Path) -> None:
    """Read all of a model folder but its weights."""
    read_config_file(folder / "model"), read_categories(folder / "model"), read_crf(folder / "model")
    read_thresholds(folder / "model"), load_calibration(folder / "model/quality.json")


def read_exported(folder: Path) -> None:
    """Load an exported file, and run it."""
    boxel.load(folder / "model.onnx").predict(folder / "images/1.png", [[1, 3, 7, 8]])


def read_pth(folder: Path) -> None:
    """Read weights of PyTorch."""
    from boxel.layers.weights import read_weights

    read_weights(folder / "weights.pth")


def read_ckpt(folder: Path) -> None:
    """Read the checkpoint of a training."""
    from boxel.training.run_folder import read_checkpoint

    read_checkpoint(folder / "last.ckpt")


def read_stores(folder: Path) -> None:
    """Open a review, and a job that labels."""
    data = boxel.read(folder / SEED, folder / "images")
    Review(data, DecisionStore(folder / "decisions.sqlite"))
    boxel.label(data, teacher="ellipse", out=folder / PLACE / "masks.json")


def read_tasks(folder: Path) -> None:
    """Merge tasks."""
    use(merge_tasks(boxel.read(folder / "labeled.json", folder / "images"), folder / "tasks").data)


# ---------------------------------------------------------------- writers


def _write(name: str, **options: Any) -> Callable[[Path], object]:
    return lambda folder: boxel.convert(
        folder / SEED, folder / PLACE / "out", name, images=folder / "images", **options
    )


def repair(folder: Path) -> None:
    """Check a dataset, and write a repaired copy."""
    data, issues = boxel.data.repair(boxel.read(folder / SEED, folder / "images"))
    for issue in issues:
        check_sentence(issue.message)
    boxel.write(data, folder / PLACE / "out.json")


def write_pages(folder: Path) -> None:
    """Write the pages of `boxel check` and `boxel label`, in which all names are text."""
    data = boxel.read(folder / SEED, folder / "images")
    write_check_report(collect_statistics(data), boxel.check(data), folder / PLACE / "check.html", data=data)
    write_report(drop_bad_masks(data)[0], folder / PLACE / "label.html")


def write_run_page(folder: Path) -> None:
    """Write the page of a training."""
    write_training_report(folder / "model", folder / PLACE / "run.html")


def draw_all(folder: Path) -> None:
    """Draw all images."""
    draw(folder / SEED, folder / PLACE / "out", images=folder / "images")


_FORMATS = (
    *("semantic", "darknet", "yolo", "yolo-obb", "cvat", "label-studio", "fiftyone", "voc", "sbd", "labelme"),
    "salient",
)
TARGETS = {
    "coco": Target(make_nothing, _read(SEED)),
    **{name: Target(_convert(name, "in"), _read("in"), r"in/.*(?<!\.png)") for name in _FORMATS[:-1]},
    **{
        f"{name} masks": Target(_convert(name, "in"), _read("in"), r"in/.*\.png")
        for name in ("semantic", "voc", "salient")
    },
    "parquet": Target(_convert("parquet", "in.parquet"), _read("in.parquet"), "in.parquet"),
    "cvat tracks": Target(make_track, _read("annotations.xml"), "annotations.xml"),
    "fiftyone labels": Target(make_labels, _read("labels.json"), "labels.json"),
    "table of boxes": Target(
        make_table, lambda folder: use(BoxTable(folder / "t.parquet").read()), "t.parquet"
    ),
    "results": Target(make_results, lambda folder: read_results(folder / "results.json"), "results.json"),
    "yolo results": Target(make_yolo_results, _evaluate("predictions"), "predictions/.*"),
    "images": Target(make_images, read_images, "all/.*"),
    "video": Target(make_video, read_video, "a.mp4"),
    "recipe": Target(make_recipe, read_recipe, ".*yaml"),
    "model folder": Target(make_model, read_beside, r"model/.*(yaml|json)"),
    "model": Target(
        make_model, lambda folder: boxel.load(folder / "model"), r"model/.*(yaml|categories.json|tensors)"
    ),
    "weights": Target(make_model, read_pth, "weights.pth"),
    "checkpoint": Target(make_model, read_ckpt, "last.ckpt"),
    "onnx": Target(make_onnx, read_exported, "model.onnx"),
    "tasks": Target(make_tasks, read_tasks, r"tasks/.*(?<!png)"),
    "stores": Target(make_stores, read_stores, r".*sqlite"),
    "segments": Target(make_candidates, lambda folder: Candidates.load(folder / "1.npz"), "1.npz"),
    "evaluate": Target(make_results, _evaluate("results.json"), r"(results|data)\.json"),
    "check --repair": Target(make_nothing, repair),
    "pages": Target(make_nothing, write_pages),
    "page of a run": Target(make_model, write_run_page, r"model/.*(yaml|json|csv)"),
    "draw": Target(make_nothing, draw_all),
    **{f"convert to {name}": Target(make_nothing, _write(name)) for name in _FORMATS},
}
"""By name."""

# ---------------------------------------------------------------- cases


class Bench:
    """A folder in which the cases of a target run, one after the other.

    Args:
        target: The target.
        folder: An empty folder.
    """

    def __init__(self, target: Target, folder: Path) -> None:
        self.target, self.folder = target, folder
        make_dataset(folder)
        with _quiet():
            target.make(folder)
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        self.seeds = {
            name: (folder / name).read_bytes() for name in files if re.fullmatch(target.files, name)
        }
        (folder / PLACE).mkdir()
        with _quiet():  # unwatched, since it imports what the target needs
            target.run(folder)
        self._clear()

    def draw(self, rng: Random) -> tuple[str, bytes]:
        """Return the name of a file and its changed content."""
        name = rng.choice(list(self.seeds))
        return name, mutate(self.seeds[name], Path(name).suffix, rng)

    def run(self, name: str, content: bytes) -> bool:
        """Run a case; return whether the input was read. If it was not, `sentence` is the error of boxel.

        Raises:
            Exception: The case fails.
        """
        self.sentence = ""
        file = self.folder / name
        file.write_bytes(content)
        try:
            with _quiet(), _watched(self.folder / PLACE):
                self.target.run(self.folder)
            read = True
        except BoxelError as error:
            self.sentence = str(error)
            check_sentence(self.sentence)
            read = False
        finally:
            file.write_bytes(self.seeds[name])
            self._clear()
        return read

    def _clear(self) -> None:
        """Remove what a case wrote, and look for markup in its pages and for what is not complete."""
        for path in (self.folder / PLACE).iterdir():
            if path.suffix == ".html" and "<xss" in path.read_text(encoding="utf-8"):
                raise AssertionError(f"{path.name} has markup from a name")
            if path.name.startswith((".", "tmp")):
                raise AssertionError(f"{path.name} is left")
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def read_corpus(target: str, file: str) -> list[bytes]:
    """Return the inputs of a file that reached code which no other did."""
    with zipfile.ZipFile(CORPUS) as kept:
        start = f"{target}/{file.replace('/', '_')}/"
        return [kept.read(name) for name in kept.namelist() if name.startswith(start)]


def check_sentence(text: str) -> None:
    """Raise an error unless a message can be printed."""
    printable_line(text).encode()


class _Log(logging.Handler):
    """Checks what is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        check_sentence(record.getMessage())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep logs and warnings from the terminal."""
    logger, handler = logging.getLogger("boxel"), _Log()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.propagate = True
        logger.removeHandler(handler)


# ---------------------------------------------------------------- what a case does

_NEVER = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.startfile", "pickle.find_class")
_NEVER += ("socket.connect", "socket.getaddrinfo", "urllib.Request")
_PATHS = {
    "os.mkdir": 0,
    "os.rename": 1,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.link": 1,
    "os.symlink": 1,
    "os.chmod": 0,
}
_PATHS |= {"os.truncate": 0, "shutil.rmtree": 0}
_place: Path | None = None


@contextmanager
def _watched(place: Path) -> Iterator[None]:
    """Refuse all that a case may not do, and each file that it would write outside of a folder."""
    global _place
    _place, tempfile.tempdir = place, str(place)
    try:
        yield
    finally:
        _place = tempfile.tempdir = None


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _place is None:
        return
    if event in _NEVER:
        raise Forbidden(f"{event} {args}")
    if event == "open":
        writes = set("wax+") & set(args[1] or "") or (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        path = args[0] if writes else None
    else:
        path = args[_PATHS[event]] if event in _PATHS else None
    if not isinstance(path, str | bytes | os.PathLike) or path == os.devnull:
        return
    if event in ("os.remove", "os.rmdir", "os.mkdir") and args[-1] not in (-1, None):
        return  # relative to an open folder, e.g. by `shutil.rmtree`, which was asked itself
    if not Path(os.path.abspath(os.fsdecode(path))).is_relative_to(_place):
        raise Forbidden(f"{event} {os.fsdecode(path)}")


sys.addaudithook(_audit)
