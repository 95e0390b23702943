"""Put a trained model into the package: weights in half precision, and of a BoxCaseg an ONNX file that uses the same.

    python benchmarks/ship.py runs/boxcaseg2 boxcaseg
    python benchmarks/ship.py runs/stage1 runs/stage2 boxcaseg     # the mean of both, as stage 2 continues stage 1
    python benchmarks/ship.py --onnx boxcaseg             # write the ONNX file of bundled weights again
    python benchmarks/ship.py runs/objects2 boxinst

The card, README.md beside the weights, is written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from _record import arguments
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from boxel.exporting.boxcaseg import BoxCasegGraph
from boxel.exporting.onnx import describe, trace
from boxel.models import io
from boxel.models.pretrained import read_method
from boxel.training.recipe import read_config
from boxel.utils.files import atomic_path

LOSS_WEIGHTS = ("hint_weight", "projection_weight", "affinity_weight")
WEIGHTS = Path(__file__).resolve().parents[1] / "src" / "boxel" / "weights"


def main() -> None:
    """Copy a model folder with its weights in half precision, and write the ONNX file beside them."""
    parser = arguments(__doc__)
    parser.add_argument("runs", nargs="*", type=Path, help="finished runs to average; none with --onnx")
    parser.add_argument("name", help="the name for `boxel label --teacher`")
    parser.add_argument("--onnx", action="store_true", help="write the ONNX file of bundled weights only")
    args = parser.parse_args()
    target = WEIGHTS / args.name
    if not args.onnx:
        model = average(args.runs)
        io.save(model.half(), target, shipped_settings(model.settings), model.categories)
    if read_method(target) == "boxcaseg":
        write_onnx(target)
    for file in sorted([*target.glob("*.safetensors"), *target.glob("*.onnx")]):
        print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


def shipped_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run; of a detector those that predict, with the losses of who starts from it.

    It has learned from masks of `boxcaseg`; others learn from boxes, by the small recipe.
    """
    if settings["method"] != "boxinst":
        return settings
    small = asdict(read_config("boxinst-small").model)
    model = settings["model"] | {name: small[name] for name in LOSS_WEIGHTS}
    return {"method": "boxinst", "model": model, "augment": settings["augment"]}


def average(runs: Sequence[Path]) -> Any:
    """Return the model of the last run with the mean of the weights of all.

    References:
        Wortsman et al., "Model soups", ICML 2022: the mean of fine-tuned models is often better than each.
    """
    models = [io.load(run) for run in runs]
    states = [model.state_dict() for model in models]
    means = {
        name: torch.stack([state[name] for state in states]).mean(dim=0) if last.is_floating_point() else last
        for name, last in states[-1].items()
    }
    models[-1].load_state_dict(means)
    return models[-1]


def write_onnx(folder: Path) -> None:
    """Write ``model.onnx`` of a BoxCaseg folder, with all that is needed to run it in its metadata.

    Its weights are those in the safetensors file, in half precision and cast to single precision by the graph; it
    names where in that file each lies. Batch norms stay nodes of their own: onnxruntime folds them into the
    convolutions, and the casts into the weights, when it opens the file. Folding them before rounding would change
    logits by up to 0.04; so they differ from those of PyTorch by 1e-5.
    """
    graph = BoxCasegGraph(io.load(folder)).eval()
    with atomic_path(folder / "model.onnx") as path:
        trace(graph, path, fold_norms=False)
        model = onnx.load(path)
        _store_in_half_precision(model.graph)
        _share_weights(model.graph, folder / "model.safetensors")
        helper.set_model_props(model, describe(graph, folder))
        onnx.save(model, path)


def _store_in_half_precision(graph: onnx.GraphProto) -> None:
    """Replace each tensor that half precision holds exactly by its half and a cast."""
    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        halves = values.astype(np.float16)
        if tensor.data_type == TensorProto.FLOAT and values.size > 8 and np.array_equal(values, halves):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(halves, f"{name}_half"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _share_weights(graph: onnx.GraphProto, file: Path) -> None:
    """Replace each tensor in half precision by a reference to the same tensor in a safetensors file."""
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")  # a length and a JSON header come first
    header = json.loads(content[8:start])
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT16:
            continue
        # The exporter wraps some convolutions, and the graph the model.
        name = tensor.name.removesuffix("_half").removeprefix("model.").replace(".conv.weight", ".weight")
        begin, end = (start + offset for offset in header[name]["data_offsets"])
        if content[begin:end] != tensor.raw_data:
            raise ValueError(f"{file}: {name} differs from the model's")
        set_external_data(tensor, file.name, offset=begin, length=end - begin)
        tensor.ClearField("raw_data")


if __name__ == "__main__":
    main()
