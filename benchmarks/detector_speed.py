"""BoxInst against torchvision's Mask R-CNN: time, FLOPs and peak memory of inference and of a training step.

Both have one ResNet-50 of random weights with frozen batch norm, the stem and first stage frozen too, a feature
pyramid of 256 channels and 80 classes. Inference is made to give 100 detections (all score thresholds 0) and
ends with masks of the image's size: floats from torchvision, run-length codes from BoxInst. A training step is
forward, backward and SGD with momentum; its rate is 0, so that every repetition does the same work. Mask R-CNN
learns from masks, BoxInst from boxes. FLOPs count all convolutions as if they were direct.

All models and settings take turns in one run; times are medians. Memory on a CPU is the growth of the
resident set's high-water mark over one call, in a process of its own, read from /proc (Linux); on a GPU it is
the allocator's peak.

    python benchmarks/detector_speed.py
    python benchmarks/detector_speed.py --device cuda --settings float32 bfloat16 channels_last compiled --profile
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from _record import Table, arguments
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count
from torchvision.models import resnet50
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from boxel.models.boxinst import BoxInst, BoxInstConfig

CLASSES = 80
PARTS = ("inference", "training")
Scene = tuple[list[Tensor], list[dict[str, Tensor]]]


class Setting(NamedTuple):
    """How a model is run; each of `SETTINGS` adds to the one before."""

    dtype: torch.dtype
    memory_format: torch.memory_format
    compiled: bool


SETTINGS = {
    "float32": Setting(torch.float32, torch.contiguous_format, False),
    "bfloat16": Setting(torch.bfloat16, torch.contiguous_format, False),
    "channels_last": Setting(torch.bfloat16, torch.channels_last, False),
    "compiled": Setting(torch.bfloat16, torch.channels_last, True),
    "float32_channels_last": Setting(torch.float32, torch.channels_last, False),
}


def mask_rcnn() -> nn.Module:
    """torchvision's `maskrcnn_resnet50_fpn` as it trains from ImageNet weights, but for these."""
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    backbone.body.load_state_dict(resnet_weights(), strict=False)
    # Images come in their final size to both.
    return MaskRCNN(backbone, CLASSES + 1, box_score_thresh=0.0, _skip_resize=True)


def boxinst() -> nn.Module:
    """BoxInst as it comes, with random weights."""
    model = BoxInst(CLASSES, BoxInstConfig(weights="none", score_threshold=0.0, mask_margin=0.0))
    model.backbone.body.load_state_dict(resnet_weights(), strict=False)
    # Trained, a level's boxes reach 4 to 8 strides to their farther side. Untrained, masks are foreground all over the
    # image, so they are cut to these boxes, as Mask R-CNN's are.
    nn.init.constant_(model.head.regress.bias, 4.0)
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {"mask_rcnn": mask_rcnn, "boxinst": boxinst}
PARTS_TO_COMPILE = {
    "mask_rcnn": ("backbone", "rpn.head", "roi_heads.box_head", "roi_heads.mask_head"),
    "boxinst": ("backbone", "neck", "head", "mask_branch"),
}


def resnet_weights() -> dict[str, Tensor]:
    """Random weights of a ResNet-50 whose features keep their size though its batch norms are frozen."""
    torch.manual_seed(0)
    state = resnet50(weights=None).state_dict()
    for name, value in state.items():
        if name.endswith("bn3.weight"):  # the branch that each block adds to what it was given
            value.fill_(0.25)
    return state


def draw_scene(args: argparse.Namespace, batch: int, objects: int) -> Scene:
    """Smooth random images with elliptic objects of 16 to 400 pixels."""
    torch.manual_seed(1)
    images, targets = [], []
    for _ in range(batch):
        small = torch.rand(1, 3, args.height // 32, args.width // 32)
        images.append(F.interpolate(small, (args.height, args.width), mode="bilinear")[0].to(args.device))
        limits = torch.tensor([args.width, args.height])
        sides = torch.minimum(16 * 25 ** torch.rand(objects, 2), limits - 2)
        corners = torch.rand(objects, 2) * (limits - sides)
        boxes = torch.cat([corners, corners + sides], dim=1)
        masks = torch.stack([ellipse(box, args.height, args.width) for box in boxes])
        target = {"boxes": boxes, "labels": torch.randint(1, CLASSES, (objects,)), "masks": masks}
        targets.append({name: value.to(args.device) for name, value in target.items()})
    return images, targets


def ellipse(box: Tensor, height: int, width: int) -> Tensor:
    """(H, W) uint8 mask of the ellipse in a box."""
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    center, radius = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    across, down = ((x - center[0]) / radius[0]).square(), ((y - center[1]) / radius[1]).square()
    return (down[:, None] + across <= 1).byte()


class Runner:
    """One model in one setting, ready to be timed.

    Args:
        name: of `MODELS`.
        setting: of `SETTINGS`.
        device: where it runs.
    """

    def __init__(self, name: str, setting: str, device: str):
        self.name, self.setting, self.device = name, SETTINGS[setting], device
        torch.manual_seed(2)
        self.model: Any = MODELS[name]().to(device).to(memory_format=self.setting.memory_format)
        if self.setting.compiled:
            for part in PARTS_TO_COMPILE[name]:
                self.model.get_submodule(part).compile()
        learned = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(learned, lr=0.0, momentum=0.9)

    def run(self, part: str, scene: Scene) -> Any:
        """Inference or a training step; waits for the device."""
        result = self.infer(scene[0]) if part == "inference" else self.train(*scene)
        if self.device == "cuda":
            torch.cuda.synchronize()
        return result

    def infer(self, images: list[Tensor]) -> list[dict[str, Any]]:
        """Detections with their masks."""
        self.model.eval()
        with torch.inference_mode(), self.autocast():
            return self.model(images)

    def train(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> float:
        """One step; the sum of the losses."""
        self.model.train()
        if self.name == "boxinst":
            targets = [{"boxes": target["boxes"], "labels": target["labels"]} for target in targets]
        self.optimizer.zero_grad()
        with self.autocast():
            losses = self.model(images, targets)
        weights = self.model.loss_weights(1.0) if self.name == "boxinst" else dict.fromkeys(losses, 1.0)
        total = sum(weights[name] * loss for name, loss in losses.items())
        total.backward()
        self.optimizer.step()
        return float(total.detach())

    def autocast(self) -> torch.autocast:
        """The setting's precision."""
        half = self.setting.dtype != torch.float32
        return torch.autocast(self.device, dtype=self.setting.dtype if half else None, enabled=half)


def count_winograd(x: list[int], weight: list[int], *_: Any, out_shape: list[int], **__: Any) -> int:
    """FLOP of a convolution by NNPACK as if it were computed directly."""
    return conv_flop_count(x, weight, out_shape)


def count(runner: Runner, part: str, scene: Scene) -> float:
    """GFLOP of convolutions, as if direct, and of matrix products; prints what random weights make of the scene."""
    regions: list[int] = []
    hooks = []
    if runner.name == "mask_rcnn":
        head = runner.model.roi_heads.mask_head
        hooks.append(head.register_forward_pre_hook(lambda _, inputs: regions.append(len(inputs[0]))))
    formulas = {torch.ops.aten._nnpack_spatial_convolution: count_winograd}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        result = runner.run(part, scene)
    for hook in hooks:
        hook.remove()
    print(f"{runner.name}, {part}:", end=" ")
    if part == "inference":
        boxes = result[0]["boxes"]
        sides = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
        print(f"{len(boxes)} detections, mean of sqrt(area) {sides.mean():.0f} pixels", flush=True)
    else:
        print(f"loss {result:.4f}" + "".join(f", {n} regions in the mask head" for n in regions), flush=True)
    return counter.get_total_flops() / 1e9


def peak_memory(name: str, setting: str, part: str, objects: int, args: argparse.Namespace) -> float:
    """MB by which a call raises memory at its highest, with weights, momentum and the scene there already."""
    torch.set_num_threads(args.threads)
    runner = Runner(name, setting, args.device)
    small = argparse.Namespace(**vars(args) | {"height": 256, "width": 256})
    for _ in range(2):
        runner.run(part, draw_scene(small, 1, 2))  # what the first use creates
    scene = draw_scene(args, args.batch if part == "training" else 1, objects)
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = runner.run(part, scene)
        peak = torch.cuda.max_memory_allocated() - before
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts afresh
        before = resident("VmRSS")
        result = runner.run(part, scene)
        peak = resident("VmHWM") - before
    del result
    return peak / 1e6


def resident(name: str) -> int:
    """A value of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measure_memory(args: argparse.Namespace, table: Table) -> None:
    """Peaks of inference and of training steps with few and with many objects."""
    # Each in a fresh process that gives freed blocks back to the system at once.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    context = multiprocessing.get_context("spawn")
    for setting in args.settings:
        jobs = [("inference", args.objects)] + [("training", objects) for objects in args.memory_objects]
        for part, objects in jobs:
            peaks = []
            for name in MODELS:
                with context.Pool(1) as pool:
                    peaks.append(pool.apply(peak_memory, (name, setting, part, objects, args)))
            label = f"{setting}, {part}" + (f", {objects} objects" if part == "training" else "")
            table.add(f"{label}, MB", *(round(peak) for peak in peaks), peaks[0] / peaks[1])
    del os.environ["MALLOC_MMAP_THRESHOLD_"]


def measure_times(
    args: argparse.Namespace, scenes: dict[str, Scene], table: Table
) -> dict[tuple[str, str], Runner]:
    """Medians of all models, settings and parts, which take turns."""
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    runners = {key: Runner(*key, args.device) for key in itertools.product(MODELS, args.settings)}
    gflops = {
        (name, part): count(runners[name, args.settings[0]], part, scenes[part])
        for part, name in itertools.product(PARTS, MODELS)
    }
    times: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(args.warmup + args.repeats):
        for part, setting, name in itertools.product(PARTS, args.settings, MODELS):
            start = clock()
            runners[name, setting].run(part, scenes[part])
            times.setdefault((part, setting, name), []).append(clock() - start)

    for part in PARTS:
        for setting in args.settings:
            medians = [1000 * statistics.median(times[part, setting, name][args.warmup :]) for name in MODELS]
            table.add(f"{setting}, {part}, ms", *(round(ms) for ms in medians), medians[0] / medians[1])
    for part in PARTS:
        theirs, ours = (gflops[name, part] for name in MODELS)
        table.add(f"{part}, GFLOP", round(theirs), round(ours), theirs / ours)
    return runners


def print_profile(args: argparse.Namespace, runner: Runner, scenes: dict[str, Scene]) -> None:
    """Where BoxInst's time goes, operation by operation."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (args.device == "cuda")
    for part in PARTS:
        runner.run(part, scenes[part])
        with profile(activities=activities) as profiler:
            runner.run(part, scenes[part])
        table = profiler.key_averages().table(
            sort_by=f"self_{args.device}_time_total", row_limit=15, max_name_column_width=45
        )
        print(f"\nboxinst, {part}\n{table}")


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=["float32"])
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1333)
    parser.add_argument("--batch", type=int, default=1, help="images of a training step; inference takes one")
    parser.add_argument("--objects", type=int, default=16, help="of each image")
    parser.add_argument("--memory-objects", type=int, nargs="+", default=[16, 500])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=1, help="more for the GPU's clocks to settle")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu where other work shares the machine"
    )
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--no-times", action="store_true")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"{args.threads} threads"
    print(
        f"{args.height}x{args.width}, {args.batch} image(s) a training step, {args.objects} objects each, ",
        end="",
    )
    print(f"{where}, torch {torch.__version__}, median of {args.repeats}; ratio: mask_rcnn / boxinst")

    table = Table(
        "boxinst", f"speed-{args.device}", ["Mask R-CNN", "BoxInst", "ratio"], title=f"Speed, {where}"
    )
    if not args.no_memory:
        measure_memory(args, table)
    scenes = {part: draw_scene(args, args.batch if part == "training" else 1, args.objects) for part in PARTS}
    runners = {} if args.no_times else measure_times(args, scenes, table)
    table.write()
    if args.profile:
        key = "boxinst", args.settings[-1]
        print_profile(args, runners.get(key) or Runner(*key, args.device), scenes)


if __name__ == "__main__":
    main()
