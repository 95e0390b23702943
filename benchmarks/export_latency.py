r"""What exported files cost and lose: float32, float16 and int8 by onnxruntime, and float32 by OpenVINO, against torch.

Runs of `retention.py` on images of pigs, and the bundled `boxcaseg`; what is missing is trained first. Each file is
written once, and all numbers of a row are of that file:

* MB: its size; of torch, that of the weights;
* accuracy: mask AP of detectors, IoU of the objects of segmenters, mean mask IoU of `boxcaseg` in true boxes, on the
  test images; lost: what torch has more;
* agreement with torch on a quarter of the test images, in the words of `boxel export`;
* ms: median and quartiles of the network's calls with one test image, or 16 of its crops, all ways taking turns.

int8 is calibrated on training images. The latencies of all methods are measured last, after the line "latencies", so
that other work can be paused for them.

    pip install 'boxel[onnx]' openvino
    python benchmarks/retention.py --sets pigs \
        --kinds "BoxInst, masks" "Mask R-CNN, masks" "FCRN, masks" "BoxSup, masks"
    python benchmarks/export_latency.py
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import openvino
import torch
from _record import Table
from _runs import take_turns
from pycocotools import mask as coco_mask
from retention import RUNS, arguments_of_runs, read_set, trained_runs

from boxel.data import Annotations
from boxel.data.images import read_image
from boxel.evaluation import coco_ap
from boxel.evaluation.semantic import measure_segmenter
from boxel.exporting import export
from boxel.exporting.onnx import make_graph
from boxel.models.box_masks import box_masks
from boxel.models.inference import inference_config, predict_batch, resize, to_tensor
from boxel.models.io import find_folder, load
from boxel.models.onnx import OnnxSegmenter
from boxel.models.semantic.inference import cells_to_pixels, predict_label_map, semantic_inference_config
from boxel.utils.onnx import Precision

KINDS = ("BoxInst, masks", "Mask R-CNN, masks", "FCRN, masks", "BoxSup, masks")
COLUMNS = ["way", "MB", "accuracy", "lost", "agreement with torch", "ms", "quartiles", "times as fast"]
NOTE = (
    "Runs that learned from masks of pigs, and the bundled `boxcaseg`. Every number of a row is of one "
    "file, written by `boxel export`; int8 is calibrated on training images. Accuracy on the test images: "
    "mask AP of detectors, IoU of the objects of FCRN and BoxSup, mean mask IoU of `boxcaseg`; lost is "
    "what torch has more. Agreement on a quarter of these images, of detectors down to a score of 0.05. "
    "Milliseconds: median and quartiles of calls with one test image, or 16 of its crops, all ways of a "
    "model taking turns while other work shared the cores."
)
CROPS = 16


@dataclass
class Subject:
    """A model, and the ways to run it with what was measured of each.

    Attributes:
        name: First column of its rows.
        folder: Of the model.
        accuracy: Returns the accuracy of a model or of what runs its file.
        call: Returns a call of a network to be timed.
        ways: The runners.
        rows: The cells before the latency.
    """

    name: str
    folder: Path
    accuracy: Callable[[Any], float]
    call: Callable[[Any], Callable[[], Any]]
    ways: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, list[Any]] = field(default_factory=dict)


class OpenVINO:
    """A file that OpenVINO runs as onnxruntime would; with the precision that it chooses for the CPU, or in float32."""

    def __init__(self, path: Path, threads: int, exact: bool) -> None:
        options: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads}
        options |= {"INFERENCE_PRECISION_HINT": "f32"} if exact else {}
        core = openvino.Core()
        self._model = core.compile_model(core.read_model(path), "CPU", options)
        self.precision = self._model.get_property("INFERENCE_PRECISION_HINT").get_type_name()

    def get_inputs(self) -> list[Any]:
        """Return the inputs, which have names."""
        return [type("Input", (), {"name": value.any_name}) for value in self._model.inputs]

    def run(self, _: None, given: dict[str, Any]) -> list[Any]:
        """Return all outputs."""
        found = self._model(given)
        return [found[value] for value in self._model.outputs]


def main() -> None:
    """Write files, measure accuracy, then the latencies, and record them."""
    parser = arguments_of_runs(__doc__)
    parser.set_defaults(sets=["pigs"])
    parser.add_argument("--calibrate", type=int, default=24, help="number of training images for int8")
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.semantic_steps, args.again = 200, False
    torch.set_num_threads(args.threads)
    training, truth = read_set(args.data, args.sets[0])
    truth = truth.class_agnostic()
    calibration = [training.image_path(index) for index in range(min(args.calibrate, len(training)))]
    with TemporaryDirectory() as folder, torch.inference_mode():
        subjects = list(find_subjects(args, truth))
        for subject in subjects:
            add_ways(subject, truth, calibration, Path(folder), args.threads)
        table = Table(
            "export", "precision", COLUMNS, first="model", title="Files, and what they lose", note=NOTE
        )
        print("latencies", flush=True)
        for subject in subjects:
            calls = {way: subject.call(runner) for way, runner in subject.ways.items()}
            times = take_turns(calls, args.repeats, warmup=2)
            for way, spent in times.items():
                low, middle, high = statistics.quantiles(spent, n=4)
                faster = statistics.median(times["torch"]) / middle
                table.add(subject.name, way, *subject.rows[way], middle, f"{low:.0f} to {high:.0f}", faster)
    table.write(seeds=[args.seed])


def find_subjects(args: Any, truth: Annotations) -> Iterator[Subject]:
    """Yield the models, with how each is measured."""
    image = read_image(truth.image_path(0))
    for kind in KINDS:
        ((_, folder, _, _),) = trained_runs(args, kind)
        semantic = RUNS[kind].semantic
        accuracy, call = (object_iou, segmenter_call) if semantic else (mask_ap, detector_call)
        yield Subject(
            kind.partition(",")[0],
            folder,
            lambda model, accuracy=accuracy: accuracy(model, truth),
            lambda model, call=call: call(model, image),
        )
    folder = find_folder("boxcaseg")
    yield Subject(
        "`boxcaseg`", folder, lambda model: mean_iou(model, truth), lambda model: crops_call(model, image)
    )


def add_ways(
    subject: Subject, truth: Annotations, calibration: list[Path], folder: Path, threads: int
) -> None:
    """Write the files of a model; add the ways to run it with size, accuracy and agreement."""
    model = load(subject.folder).eval()
    graph = make_graph(model)
    assert graph is not None
    images = [read_image(truth.image_path(index)) for index in range(0, len(truth), 4)]
    base = subject.accuracy(model)
    weights = (subject.folder / "model.safetensors").stat().st_size / 1e6
    subject.ways["torch"], subject.rows["torch"] = model, [weights, base, None, None]

    def add(way: str, session: Any, file: Path, precision: Precision) -> None:
        runner = graph.runtime(model, session, threads)
        accuracy, check = subject.accuracy(runner), graph.check(model, runner, images, precision)
        subject.ways[way] = runner
        subject.rows[way] = [
            file.stat().st_size / 1e6,
            accuracy,
            round(base - accuracy, 4) + 0.0,
            str(check),
        ]  # no -0.0
        print(subject.name, way, *subject.rows[way], flush=True)

    for precision in get_args(Precision):
        file = folder / f"{subject.name}-{precision}.onnx".replace("`", "")
        export(subject.folder, file, calibration, precision)
        add(f"onnxruntime, {precision}", file, file, precision)
    file = folder / f"{subject.name}-float32.onnx".replace("`", "")
    exact, chosen = (OpenVINO(file, threads, exact) for exact in (True, False))
    add("OpenVINO, float32", exact, file, "float32")
    if chosen.precision != exact.precision:
        add(f"OpenVINO, {chosen.precision} (its choice)", chosen, file, "float16")


def detector_call(model: Any, image: Any) -> Callable[[], Any]:
    """Return a call that detects all instances of an image, without pasting masks."""
    config = inference_config(model)
    assert config.short_side is not None
    factor = min(config.short_side / min(image.shape[:2]), config.max_size / max(image.shape[:2]))
    resized = resize(to_tensor(image, torch.device("cpu")), factor)
    return lambda: model.detect([resized])


def segmenter_call(model: Any, image: Any) -> Callable[[], Any]:
    """Return a call that finds the class of each pixel of a resized image."""
    long_side = semantic_inference_config(model).long_side or max(image.shape[:2])
    batch = resize(to_tensor(image, torch.device("cpu")), long_side / max(image.shape[:2]))[None]
    if isinstance(model, OnnxSegmenter):
        return lambda: model.network.predict_labels(batch)
    return lambda: cells_to_pixels(model.network(batch), batch.shape[-2:], model.network.stride).argmax(1)


def crops_call(model: Any, image: Any) -> Callable[[], Any]:
    """Return a call that segments crops of an image."""
    boxes = (
        np.tile([0.0, 0.0, image.shape[1], image.shape[0]], (CROPS, 1)) * np.linspace(0.1, 1, CROPS)[:, None]
    )
    *crops, _ = model.extract_crops(image, boxes, boxes)
    return lambda: model.predict_logits(*crops)


def mask_ap(model: Any, truth: Annotations) -> float:
    """Return the mask AP of a detector, image by image."""
    results: list[Any] = []
    for index in range(len(truth)):
        (found,) = predict_batch(model, [read_image(truth.image_path(index))])
        rows = found.to_coco(truth.image_ids[index])
        results += [{**row, "category_id": truth.categories[0].id} for row in rows]
    return coco_ap(truth, results, "segm")["AP"]


def object_iou(model: Any, truth: Annotations) -> float:
    """Return the IoU of the objects of a segmenter."""

    def predict_batch(images: Any, config: Any) -> Any:
        return [predict_label_map(model, image, config) for image in images]

    segmenter: Any = SimpleNamespace(categories=model.categories, predict_batch=predict_batch)
    return measure_segmenter(truth, segmenter, semantic_inference_config(model))["per_class"]["object"]


def mean_iou(model: Any, truth: Annotations) -> float:
    """Return the mean IoU of the masks in the true boxes of a dataset."""
    ious: list[float] = []
    for index in range(len(truth)):
        rows = np.flatnonzero((truth.image_index == index) & truth.has_mask & ~truth.iscrowd)
        if len(rows):
            found, _ = box_masks(model, read_image(truth.image_path(index)), truth.boxes[rows])
            ious += [
                float(coco_mask.iou([one], [truth.rle(row)], [0])[0, 0])
                for one, row in zip(found, rows.tolist(), strict=True)
            ]
    return float(np.mean(ious))


if __name__ == "__main__":
    main()
