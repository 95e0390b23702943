"""BoxInst's mask loss compared with its textbook form: time, peak memory and value.

    python benchmarks/mask_loss.py

The textbook form follows Eq. 1-8 of the paper literally: full-size box masks that are then strided, all 8 neighbors by
`unfold`, LAB by scikit-image. Both forms get the same images, boxes and logits, take turns in one run, and are timed
separately for targets (box masks, color similarity) and loss (forward and backward). Memory is the growth of the peak
resident set over one call in a process of its own, read from /proc (Linux).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _record import Table, arguments
from PIL import Image
from skimage.color import rgb2lab
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from boxel.losses.affinity import affinity_loss, color_similarity, valid_pixels
from boxel.losses.projection import projection_loss
from boxel.losses.types import Inside, Normalizer
from boxel.masks.spans import box_spans

HEIGHT, WIDTH, STRIDE = 800, 1344, 4
THETA, TAU, DILATION = 2.0, 0.3, 2


@dataclass
class Scene:
    """Photos padded to one size, their boxes, and logits for these."""

    images: Tensor  # (B, 3, 800, 1344) in [0, 1]
    sizes: list[tuple[int, int]]  # of the photos before padding
    boxes: Tensor  # (N, 4)
    image_index: Tensor  # (N,)
    logits: Tensor  # (N, 200, 336), needs a gradient


def draw_scene(coco: Path, instances: int, seed: int) -> Scene:
    """Photos in random order until they hold enough boxes, scaled to fit 800x1344."""
    data = json.loads((coco / "train_boxes.json").read_text())
    by_image: dict[int, list[list[float]]] = {}
    for annotation in data["annotations"]:
        if not annotation["iscrowd"]:
            by_image.setdefault(annotation["image_id"], []).append(annotation["bbox"])
    photos = [photo for photo in data["images"] if photo["id"] in by_image]
    random.Random(seed).shuffle(photos)
    images, sizes, boxes, index = [], [], [], []
    for photo in photos:
        scale = min(HEIGHT / photo["height"], WIDTH / photo["width"])
        size = round(photo["height"] * scale), round(photo["width"] * scale)
        with Image.open(coco / "images" / photo["file_name"]) as file:
            pixels = pil_to_tensor(file.convert("RGB").resize(size[::-1])) / 255
        images.append(F.pad(pixels, (0, WIDTH - size[1], 0, HEIGHT - size[0])))
        for x, y, w, h in by_image[photo["id"]]:
            boxes.append([x * scale, y * scale, (x + w) * scale, (y + h) * scale])
            index.append(len(images) - 1)
        sizes.append(size)
        if len(boxes) >= instances:
            break
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(instances, HEIGHT // STRIDE, WIDTH // STRIDE, generator=generator)
    return Scene(
        torch.stack(images),
        sizes,
        torch.tensor(boxes[:instances]),
        torch.tensor(index[:instances]),
        logits.requires_grad_(),
    )


def textbook_targets(scene: Scene) -> tuple[Tensor, Tensor]:
    """Box masks (N, h, w) and supervised edges (B, 8, h, w)."""
    masks = torch.zeros(len(scene.boxes), HEIGHT, WIDTH)
    for mask, (x0, y0, x1, y1) in zip(masks, scene.boxes.tolist(), strict=True):
        # Pixel p is inside when x0 <= p < x1.
        mask[int(np.ceil(y0)) : int(np.ceil(y1)), int(np.ceil(x0)) : int(np.ceil(x1))] = 1
    masks = masks[:, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    pooled = F.avg_pool2d(scene.images, STRIDE)
    lab = torch.stack([torch.from_numpy(rgb2lab(image.permute(1, 2, 0).numpy())) for image in pooled])
    lab = lab.permute(0, 3, 1, 2)
    valid = torch.zeros(len(pooled), 1, *pooled.shape[2:])
    for image, (height, width) in zip(valid, scene.sizes, strict=True):
        image[:, : height // STRIDE, : width // STRIDE] = 1
    distance = torch.linalg.vector_norm(lab[:, :, None] - neighbors(lab), dim=1)  # Eq. 7
    similarity = torch.exp(-distance / THETA) * neighbors(valid)[:, 0] * valid
    return masks, (similarity >= TAU).float()


def textbook_loss(scene: Scene, masks: Tensor, edges: Tensor, inside: str, normalizer: str) -> Tensor:
    """Eq. 6: the sum of Eq. 3 and Eq. 8."""
    p = scene.logits.sigmoid()
    loss = dice(p.amax(1), masks.amax(1)) + dice(p.amax(2), masks.amax(2))  # Eq. 2, 3
    q = neighbors(p[:, None])[:, 0]
    p = p[:, None]
    same = p * q + (1 - p) * (1 - q)  # Eq. 4
    masks = masks[:, None]
    in_box = masks.expand_as(same) if inside == "center" else torch.maximum(masks, neighbors(masks)[:, 0])
    in_box = in_box * neighbors(torch.ones_like(masks))[:, 0]  # no edges off the grid
    supervised = in_box * edges[scene.image_index]
    terms = -same.log() * supervised
    if normalizer == "supervised":
        return loss.mean() + terms.sum() / supervised.sum()
    return loss.mean() + (terms.sum((1, 2, 3)) / in_box.sum((1, 2, 3))).mean()


def neighbors(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, 8, h, w): the 8 neighbors of each pixel, zero off the grid."""
    patches = F.unfold(x, 3, dilation=DILATION, padding=DILATION).unflatten(1, (x.shape[1], 9))
    return torch.cat([patches[:, :, :4], patches[:, :, 5:]], 2).unflatten(3, x.shape[2:])


def dice(p: Tensor, t: Tensor) -> Tensor:
    """Dice loss of (N, n) projections."""
    return 1 - 2 * (p * t).sum(1) / (p.square().sum(1) + t.square().sum(1) + 1e-5)


def our_targets(scene: Scene) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Rows and columns of the boxes, and supervised edges (B, 4, h, w)."""
    valid = valid_pixels(scene.sizes, HEIGHT, WIDTH)
    edges = color_similarity(scene.images, valid, STRIDE, dilation=DILATION, theta=THETA) >= TAU
    return box_spans(scene.boxes, HEIGHT // STRIDE, WIDTH // STRIDE, STRIDE), edges


def our_loss(
    scene: Scene, spans: tuple[Tensor, Tensor], edges: Tensor, inside: Inside, normalizer: Normalizer
) -> Tensor:
    """Eq. 6 by the package."""
    pairwise = affinity_loss(
        scene.logits,
        edges,
        scene.image_index,
        *spans,
        dilation=DILATION,
        normalizer=normalizer,
        inside=inside,
    )
    return projection_loss(scene.logits, *spans).mean() + pairwise


def forward_backward(loss: Callable[..., Tensor], scene: Scene, *arguments: object) -> float:
    """Value of the loss; its gradient is left in the logits."""
    scene.logits.grad = None
    value = loss(scene, *arguments)
    value.backward()
    return value.item()


Form = tuple[Callable[[Scene], Any], Callable[..., Tensor]]
FORMS: dict[str, Form] = {"textbook": (textbook_targets, textbook_loss), "boxel": (our_targets, our_loss)}


def peak_memory(job: tuple[str, str, argparse.Namespace]) -> float:
    """MB by which one call raises the process's resident set at its highest."""
    form, part, args = job
    torch.set_num_threads(args.threads)
    targets, loss = FORMS[form]
    options = (args.inside, args.normalizer)
    small = draw_scene(args.data / "coco", 1, args.seed + 1)
    forward_backward(loss, small, *targets(small), *options)  # what is loaded on first use
    del small
    scene = draw_scene(args.data / "coco", args.instances, args.seed)
    made: Any = targets(scene) if part == "loss" else ()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts afresh
    before = status("VmRSS")
    result = forward_backward(loss, scene, *made, *options) if part == "loss" else targets(scene)
    peak = status("VmHWM") - before
    del result
    return peak / 1024


def status(name: str) -> int:
    """A value of /proc/self/status, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--instances", type=int, default=64)
    parser.add_argument("--inside", choices=["center", "either"], default="center")
    parser.add_argument("--normalizer", choices=["supervised", "edges"], default="supervised")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    options = (args.inside, args.normalizer)

    # Memory goes first, each measurement in a fresh process that gives freed blocks back to the system at
    # once.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    memory = {}
    for form in FORMS:
        for part in ("targets", "loss"):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                memory[form, part] = pool.map(peak_memory, [(form, part, args)])[0]

    scene = draw_scene(args.data / "coco", args.instances, args.seed)
    made = {form: targets(scene) for form, (targets, _) in FORMS.items()}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in memory}
    values, gradients = {}, {}
    for _ in range(args.repeats + 1):
        for form, (targets, loss) in FORMS.items():
            start = time.perf_counter()
            targets(scene)
            times[form, "targets"].append(time.perf_counter() - start)
            start = time.perf_counter()
            values[form] = forward_backward(loss, scene, *made[form], *options)
            times[form, "loss"].append(time.perf_counter() - start)
            gradients[form] = scene.logits.grad
    share = (scene.boxes[:, 2:] - scene.boxes[:, :2]).prod(1).mean() / (HEIGHT * WIDTH)
    print(
        f"{args.instances} instances of {len(scene.images)} photos, logits {tuple(scene.logits.shape)}, ",
        end="",
    )
    print(f"boxes cover {share:.1%} on average; {options}, {args.threads} threads, median of {args.repeats}")
    table = Table("boxinst", f"mask-loss-{args.inside}", ["textbook", "boxel", "ratio"], first="part")
    for part in ("targets", "loss"):
        a, b = (1000 * statistics.median(times[form, part][1:]) for form in FORMS)
        table.add(f"{part}, ms", round(a, 1), round(b, 1), a / b)
        a, b = (memory[form, part] for form in FORMS)
        table.add(f"{part}, MB", round(a, 1), round(b, 1), a / b)
    a, b = (
        1000 * sum(statistics.median(times[form, part][1:]) for part in ("targets", "loss")) for form in FORMS
    )
    table.add("both, ms", round(a, 1), round(b, 1), a / b)
    table.write([args.seed])
    a, b = values.values()
    print(f"{'value':8} {a:12.7f} {b:12.7f} {abs(a - b) / abs(a):.1e} relative")
    c, d = gradients.values()
    assert c is not None and d is not None
    print(f"{'gradient':8} {c.norm():12.7f} {d.norm():12.7f} {(c - d).norm() / c.norm():.1e} relative")


if __name__ == "__main__":
    main()
