"""Latency on the CPU of torch, torch.compile and onnxruntime for BoxInst and BoxCaseg.

For BoxCaseg also torch with batch norms folded into the convolutions, which `boxel label` uses without onnxruntime.

BoxInst: one image to boxes and mask logits, before masks are pasted; ResNet-50, 80 classes, random weights.
BoxCaseg: crops to logits; the small network of `boxcaseg-small`, random weights. `--run` takes trained models
instead. All ways take turns in one run, and times are medians; the first call, which may compile, is separate.

    pip install 'boxel[onnx]'
    python benchmarks/export_latency.py
    python benchmarks/export_latency.py --run runs/boxinst runs/boxcaseg --height 320 --width 432
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from _record import Table, arguments
from _runs import medians, take_turns
from torch import nn

from boxel.exporting.boxcaseg import BoxCasegGraph
from boxel.exporting.boxinst import BoxInstGraph
from boxel.exporting.onnx import trace
from boxel.models.boxcaseg import BoxCaseg, BoxCasegConfig
from boxel.models.boxinst import BoxInst, BoxInstConfig
from boxel.models.io import load
from boxel.models.onnx import OnnxBoxCaseg, OnnxBoxInst
from boxel.training.recipe import read_config

Way = Callable[[], Any]


def random_models() -> dict[str, nn.Module]:
    """BoxInst as it comes and the small BoxCaseg, untrained."""
    torch.manual_seed(0)
    small = asdict(read_config("boxcaseg-small").model) | {"weights": "none"}
    return {
        "BoxInst": BoxInst(80, BoxInstConfig(weights="none", backbone_norm="bn", score_threshold=0.0)),
        "BoxCaseg": BoxCaseg(BoxCasegConfig(**small)),
    }


def ways_of_boxinst(model: BoxInst, file: Path, args: argparse.Namespace) -> dict[str, Way]:
    """Ways to find what is in one image."""
    image = [torch.rand(3, args.height, args.width)]
    trace(BoxInstGraph(model).eval(), file)
    exported, compiled = OnnxBoxInst(model, file), deepcopy(model)
    for part in ("backbone", "neck", "head", "mask_branch"):
        compiled.get_submodule(part).compile()
    return {
        "torch": lambda: model.detect(image),
        "compiled": lambda: compiled.detect(image),
        "onnxruntime": lambda: exported.detect(image),
    }


def ways_of_boxcaseg(model: BoxCaseg, file: Path, args: argparse.Namespace) -> dict[str, Way]:
    """Ways to segment a batch of crops."""
    side = model.config.side
    inside = torch.ones(args.crops, side, dtype=torch.bool)
    given = torch.rand(args.crops, 3, side, side), inside, inside
    trace(BoxCasegGraph(model).eval(), file)
    exported, compiled = OnnxBoxCaseg(model, file), torch.compile(deepcopy(model).predict_logits)
    return {
        "torch": lambda: model.predict_logits(*given),
        "compiled": lambda: compiled(*given),
        "onnxruntime": lambda: exported.predict_logits(*given),
    }


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--run", nargs="+", help="trained models instead of random ones")
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1333)
    parser.add_argument("--crops", type=int, default=16, help="of a batch for BoxCaseg")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu where other work shares the machine"
    )
    parser.add_argument("--no-compile", action="store_true", help="compiling takes minutes on a CPU")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    models: dict[str, Any] = {name: load(name) for name in args.run} if args.run else random_models()
    print(f"{args.threads} threads, torch {torch.__version__}, median {args.clock} time of {args.repeats}\n")
    columns = ["way", "ms", "times as fast as torch", "first call, ms"]
    title = "Latency of " + ", ".join(args.run or ["random models"])
    table = Table("export", f"latency {title}", columns, first="model", title=title)
    with TemporaryDirectory() as folder, torch.inference_mode():
        for name, model in models.items():
            boxcaseg = isinstance(model, BoxCaseg)
            what = f"{args.crops} crops of {model.config.side}" if boxcaseg else f"{args.height}x{args.width}"
            make: Any = ways_of_boxcaseg if boxcaseg else ways_of_boxinst
            ways = make(model.eval(), Path(folder) / "model.onnx", args)
            if args.no_compile:
                del ways["compiled"]
            times = take_turns(ways, 1 + args.repeats, warmup=0, clock=clock)
            median = medians({way: spent[1:] for way, spent in times.items()})
            for way, spent in times.items():
                row = [way, round(median[way], 1), median["torch"] / median[way], round(spent[0], 1)]
                table.add(f"{name}, {what}", *row)
    table.write()


if __name__ == "__main__":
    main()
