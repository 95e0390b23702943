"""Train the bundled BoxCaseg on photos with masks, on small datasets of many kinds, and on drawn images.

    python benchmarks/teach.py runs/boxcaseg2
    python benchmarks/teach.py runs/boxcaseg2 --steps 500         # shorter, e.g. to see what a change brings
    python benchmarks/teach.py runs/part0 --steps 1000 --part 0    # without half of the sets, to calibrate its quality
    python benchmarks/teach.py runs/more --init runs/boxcaseg2 --seed 1    # on from there

    python benchmarks/teach.py runs/boxes --boxes                 # `boxcaseg-boxes`, again and without true masks

A stopped training resumes. The result is a model folder; `benchmarks/ship.py` puts it into the package.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from _record import arguments
from drawn import KINDS, Source, tight_box
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

import boxel
from boxel.data import Annotations
from boxel.data.formats.salient import select_single_objects
from boxel.data.images import read_image
from boxel.layers.decoder import upsample
from boxel.losses import dice_loss
from boxel.masks.crops import crop, crop_spans, crop_window, draw_neighbors
from boxel.models import io
from boxel.models.boxcaseg import BoxCaseg
from boxel.training.own_masks import predict_own_masks

PHOTOS = {"coco": 14.0, "coco_new": 5.0, "salient": 1.0}
"""Weights of the sets of everyday photos: how often each is drawn from."""

BOXES = {"coco": 9.0, "voc": 7.0, "salient": 4.0}
"""The same with --boxes: the objects of COCO and Pascal VOC have boxes only."""

DOMAINS = {
    "plant_roots": 1.5,
    "crack_pothole": 1.2,
    "car_damage": 0.8,
    "potholes": 0.8,
    "bn_flakes": 0.6,
    "dsb2018": 0.6,
    "granular": 0.6,
    "trash_bags": 0.6,
    "brain_tumor_brisc": 0.5,
    "food_indonesia": 0.5,
    "potholes2": 0.5,
    "hand_doll": 0.4,
    "mandarins": 0.4,
    "mushrooms": 0.4,
    "waste_items": 0.4,
    "blister_packs": 0.3,
    "carotid_us": 0.3,
    "desk_items": 0.2,
}
"""The same of the small datasets: more for the kinds that are hard, less for the few images that would be learned by
heart."""

DRAWN = {"thin": 2.4, "pasted": 1.4, "clear": 1.4, "stain": 1.2, "crowd": 0.6}
"""The same of the kinds of drawn images. Without the clear ones, a network that has seen cracks takes the rims of
droplets for thin objects."""

OBJECTS = ("coco", "coco", "coco_new", "salient", "waste_items", "food_indonesia", "mandarins")
"""The sets whose objects are pasted."""
MIN_BOX = 10.0
"""Boxes with a shorter side in pixels are left out."""

PARTS = 2
"""A network learns from all parts but one, and its quality is calibrated on that one, with kinds of images that it has
not seen."""

LEFT_OUT_MASKS = {"coco": 800, "coco_new": 400}
"""Number of masks that quality is calibrated on, of each part; 100 of each other set."""
MASKS_PER_IMAGE = 12

BATCH = 16
SAVE_EVERY = 100


@dataclass(frozen=True)
class Recipe:
    """What a network is and learns from; `levers.py` measures what each part brings.

    Attributes:
        side: Side of the crops in pixels.
        fine_channels: Channels of the finest level, of stride 2; 0 for none.
        neighbors: Whether the network sees the boxes of other objects.
        weights: How often each set is drawn from; sets without a weight are not.
        drawn: Whether it learns from drawn images.
        loose: Whether boxes are as people draw them, or exact.
        outline: Whether pixels near the outline count more.
    """

    side: int = 192
    fine_channels: int = 32
    neighbors: bool = True
    weights: Mapping[str, float] = field(default_factory=lambda: PHOTOS | DOMAINS)
    drawn: bool = True
    loose: bool = True
    outline: bool = True


class Sampler:
    """Random crops of the mix, with targets, batch by batch."""

    def __init__(self, sets: dict[str, Annotations], model: BoxCaseg, recipe: Recipe, seed: int) -> None:
        self.sets, self.recipe = sets, recipe
        self.seed, self.side = seed, model.config.side
        self.rng = np.random.default_rng(seed)
        self.margin, self.fill = model.config.margin, model.padding_color
        weights = {name: weight for name, weight in recipe.weights.items() if name in sets}
        weights |= DRAWN if recipe.drawn else {}
        self.names, self.shares = list(weights), np.array(list(weights.values())) / sum(weights.values())
        self.source = Source(self.photo, self.cutout)
        self.read = lru_cache(3000)(lambda name, index: read_image(self.sets[name].image_path(index)))

    def batches(self) -> Iterator[list[Tensor]]:
        """Yield crops (B, 3, S, S), masks (B, S, S), rows and columns (B, S), and neighbors (B, S, S) without end."""
        while True:
            samples = zip(*(self.sample() for _ in range(BATCH)), strict=True)
            yield [torch.from_numpy(np.stack(column)) for column in samples]

    def sample(self) -> tuple[NDArray[Any], ...]:
        """Return one crop, its mask, the rows and columns of it that lie in the box, and its neighbors."""
        rng, name = self.rng, str(self.rng.choice(self.names, p=self.shares))
        if name in DRAWN:
            drawing = KINDS[name](rng, self.source)
            image, mask, box, others = drawing.image, drawing.mask, drawing.box, drawing.others
        else:
            image, mask, box, others = self.instance(name)
        given = loosen(rng, box, image.shape[:2]) if self.recipe.loose else box
        window = crop_window(given, self.margin)
        center, half = (window[:2] + window[2:]) / 2, (window[2:] - window[:2]) / 2
        center, half = center + rng.uniform(-0.03, 0.03, 2) * half, half * rng.uniform(0.95, 1.06, 2)
        window = np.concatenate([center - half, center + half])
        rows, columns = crop_spans(given, window, self.side)
        neighbors = np.zeros((self.side, self.side), np.float32)
        if rng.random() < 0.7:
            loose = others + rng.normal(0, 0.015, others.shape) * np.tile(others[:, 2:] - others[:, :2], 2)
            neighbors = draw_neighbors(loose, given, window, self.side)
        pixels = crop(image, window, self.side, self.fill)
        target = crop(mask.astype(np.float32), window, self.side)
        if rng.random() < 0.5:
            pixels, target, neighbors = pixels[:, ::-1], target[:, ::-1], neighbors[:, ::-1]
            columns = columns[::-1]
        if rng.random() < 0.25:
            pixels, target, neighbors, rows = pixels[::-1], target[::-1], neighbors[::-1], rows[::-1]
        if rng.random() < 0.25:
            pixels, target, neighbors = pixels.transpose(1, 0, 2), target.T, neighbors.T
            rows, columns = columns, rows
        crops = disturb(rng, pixels.astype(np.float32) / 255).astype(np.float32).transpose(2, 0, 1)
        return tuple(map(np.ascontiguousarray, (crops, target, rows, columns, neighbors)))

    def instance(self, name: str) -> tuple[NDArray[Any], ...]:
        """Return the image, the mask, the box and the other boxes of an instance: any, or any of an image, by turns.

        The latter keeps images of many instances from dominating.
        """
        data = self.sets[name]
        index = int(self.rng.integers(len(data.labels)))
        if self.rng.random() < 0.5:
            image_index = int(self.rng.choice(np.unique(data.image_index)))
            index = int(self.rng.choice(np.flatnonzero(data.image_index == image_index)))
        image = self.read(name, int(data.image_index[index]))
        mask = data.mask(index, image.shape[:2])
        assert mask is not None
        own = data.instances_in(int(data.image_index[index]))
        others = data.boxes[own[own != index]].astype(float)
        return image, mask.astype(np.uint8), data.boxes[index].astype(float), others

    def photo(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return an image to draw on: of COCO, or of any set."""
        name = "coco" if rng.random() < 0.6 else str(rng.choice(list(self.sets)))
        return self.read(name, int(rng.integers(len(self.sets[name]))))

    def cutout(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the pixels and the mask of an object to paste."""
        while True:
            name = str(rng.choice(OBJECTS))
            image, mask, *_ = self.instance(name if name in self.sets else "coco")
            if mask.sum() > 900:
                left, top, right, bottom = tight_box(mask).astype(int)
                return image[top:bottom, left:right], mask[top:bottom, left:right]


@cache
def read_set(data: Path, name: str) -> Annotations:
    """Read the instances of a set that have a box and a mask."""
    if name == "salient":
        return select_single_objects(boxel.read(data / "salient"))
    folder = data / "domains" / "learn" / name
    file, images = folder / "all.json", folder / "images"
    if name == "coco":
        file, images = data / "coco" / "train_masks.json", data / "coco" / "images"
    found = boxel.read(file, images=images)
    large = (found.boxes[:, 2:] - found.boxes[:, :2]).min(axis=1) >= MIN_BOX
    return found.select_instances(found.has_box & ~found.iscrowd & found.has_mask & large)


def read_sets(data: Path, part: int | None = None) -> dict[str, Annotations]:
    """Read the sets with true masks, without the images of a part."""
    sets = {name: read_set(data, name) for name in (*PHOTOS, *DOMAINS)}
    left_out = {} if part is None else read_part(sets, part)
    return {
        name: found.select_images(np.setdiff1d(np.arange(len(found)), left_out.get(name, [])))
        for name, found in sets.items()
        if name in PHOTOS or name not in left_out
    }


def read_own_masks(data: Path, model: str, out: Path) -> dict[str, Annotations]:
    """Read the sets with boxes only, with the masks that a model makes of them in several passes, and `salient`."""
    sets = {"salient": read_set(data, "salient")}
    coco = boxel.read(data / "coco" / "train_boxes.json", images=data / "coco" / "images")
    for name, given in {"coco": coco, "voc": boxel.read(data / "voc2007")}.items():
        file, boxes = out / f"{name}.json", given.without_masks()
        if not file.exists():
            large = (boxes.boxes[:, 2:] - boxes.boxes[:, :2]).min(axis=1) >= MIN_BOX
            boxes = boxes.select_instances(boxes.has_box & ~boxes.iscrowd & large)
            out.mkdir(parents=True, exist_ok=True)
            boxel.write(predict_own_masks(boxel.load(model), boxes, seed=0), file)
        found = boxel.read(file, images=boxes.root)
        sets[name] = found.select_instances(found.has_mask & found.trusted)
    return sets


def read_part(sets: dict[str, Annotations], part: int) -> dict[str, NDArray[np.int64]]:
    """Return the images of each set in one of `PARTS`: all of every second small set, and half of the photos."""
    images = {name: np.arange(len(sets[name])) for name in sorted(DOMAINS)[part::PARTS]}
    return images | {name: np.arange(part, len(sets[name]), PARTS) for name in PHOTOS}


def read_left_out(data: Path, part: int, loose: float = 0.0) -> dict[str, Annotations]:
    """Read some of what a network has not seen that was trained without a part.

    Args:
        data: Folder of the datasets.
        part: The part.
        loose: Share of the boxes that are loosened as in the training.

    Returns:
        Sets of images drawn at random, with all their boxes and the masks of at most `MASKS_PER_IMAGE` of each image.
    """
    sets, rng = {name: read_set(data, name) for name in (*PHOTOS, *DOMAINS)}, np.random.default_rng(part)
    return {
        name: draw_left_out(sets[name], images, LEFT_OUT_MASKS.get(name, 100), loose, rng)
        for name, images in read_part(sets, part).items()
    }


def draw_left_out(
    data: Annotations, images: NDArray[np.int64], masks: int, loose: float, rng: np.random.Generator
) -> Annotations:
    """Draw images until they have so many masks together."""
    chosen: list[int] = []
    rows: list[int] = []
    for image in rng.permutation(images).tolist():
        if len(rows) < masks:
            chosen.append(image)
            rows += rng.permutation(data.instances_in(image))[:MASKS_PER_IMAGE].tolist()
    boxes = data.boxes.copy()
    for image in chosen:
        own, size = data.instances_in(image), data.image_size(image)[::-1]
        for row in own[rng.random(len(own)) < loose].tolist():
            boxes[row] = loosen(rng, boxes[row], size)
    return replace(data, boxes=boxes).keep_masks(np.sort(rows)).select_images(chosen)


def loosen(rng: np.random.Generator, box: NDArray[np.float64], size: tuple[int, ...]) -> NDArray[np.float64]:
    """Return a box as people draw it: nearly right, a bit off, shifted or far too large; cut at the image's border."""
    kind = rng.random()
    if kind < 0.5:
        noise = rng.normal(0, 0.015, 4)
    elif kind < 0.8:
        noise = rng.normal(0, 0.05, 4)
    elif kind < 0.92:
        noise = rng.uniform(-0.2, 0.2, 4)
    else:
        noise = np.array([-1, -1, 1, 1]) * rng.uniform(0, 0.25, 4)
    given = box + noise * np.tile(box[2:] - box[:2], 2)
    height, width = size
    given = given if (given[2:] - given[:2]).min() >= 4 else box
    return given.clip(0, [width, height, width, height])


def disturb(rng: np.random.Generator, pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Change contrast, brightness, colors, sharpness and grain of (S, S, 3) pixels in [0, 1].

    A few become gray, negatives, or speckled as in ultrasound and radar.
    """
    x = (pixels - pixels.mean()) * rng.uniform(0.6, 1.4) + pixels.mean() + rng.uniform(-0.2, 0.2)
    gray = x.mean(axis=2, keepdims=True)
    x = gray + (x - gray) * (0 if rng.random() < 0.15 else rng.uniform(0.5, 1.5))
    if rng.random() < 0.15:
        x = x * rng.uniform(0.7, 1.3, 3)
    if rng.random() < 0.05:
        x = 1 - x
    if rng.random() < 0.15:
        x = cv2.GaussianBlur(np.ascontiguousarray(x), (0, 0), rng.uniform(0.5, 2))
    if rng.random() < 0.2:
        x = x + rng.normal(0, rng.uniform(0.01, 0.08), x.shape)
    if rng.random() < 0.05:
        x = x * rng.normal(1, rng.uniform(0.05, 0.25), (*x.shape[:2], 1))
    return x.clip(0, 1)


def outline_loss(logits: Tensor, masks: Tensor, outline: float = 2.0) -> Tensor:
    """Cross-entropy and Dice loss of (B, S, S) logits; pixels within 2 of the outline count `outline` more."""
    hard = (masks > 0.5).float()[:, None]
    edge = F.max_pool2d(hard, 5, 1, 2) + F.max_pool2d(-hard, 5, 1, 2)
    weight = 1 + outline * edge[:, 0]
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    entropy = (entropy * weight).sum((1, 2)) / weight.sum((1, 2))
    return (entropy + dice_loss(logits.sigmoid(), masks)).mean()


def main() -> None:
    """Train, and write a model folder."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--init", default="boxcaseg-boxes", help="the BoxCaseg to start from: a name or a folder"
    )
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--rate", type=float, default=7e-4, help="learning rate")
    parser.add_argument("--part", type=int, choices=range(PARTS), help="leave this part of the images out")
    parser.add_argument(
        "--seed", type=int, default=0, help="another one shows other crops: give it with --init"
    )
    parser.add_argument(
        "--boxes", action="store_true", help="learn from boxes and images of single objects only"
    )
    args = parser.parse_args()
    if args.boxes:
        sets, recipe = read_own_masks(args.data, args.init, args.out), Recipe(weights=BOXES)
    else:
        sets, recipe = read_sets(args.data, args.part), Recipe()
    teach(sets, args.out, recipe, args.init, args.steps, args.rate, args.seed)


def teach(
    sets: dict[str, Annotations],
    out: Path,
    recipe: Recipe,
    init: str,
    steps: int,
    rate: float,
    seed: int = 0,
) -> None:
    """Train a model, and write its folder."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = build(init, recipe)
    train(model, Sampler(sets, model, recipe, seed), out, steps, rate)
    io.save(model.eval(), out, model.settings, model.categories)


def build(init: str, recipe: Recipe) -> BoxCaseg:
    """Return a model with the weights of another, which may lack the fine level and the channel of neighbors."""
    start: Any = boxel.load(init)
    changes: dict[str, Any] = {
        "side": recipe.side,
        "fine_channels": recipe.fine_channels,
        "neighbor_channel": recipe.neighbors,
        "threshold": None,
    }
    model = BoxCaseg(replace(start.config, weights="none", **changes))
    weights = start.float().state_dict()
    for name, value in model.state_dict().items():
        if name in weights and weights[name].shape != value.shape:  # the stem: ignore the neighbors
            weights[name] = torch.cat([weights[name], torch.zeros_like(value[:, :1])], dim=1)
    missing = model.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys and all(key.startswith("fine.") for key in missing.missing_keys)
    model.settings = {"method": "boxcaseg", "model": start.settings["model"] | changes}
    return model


def train(model: BoxCaseg, sampler: Sampler, out: Path, steps: int, rate: float) -> None:
    """Train from the last saved state, or from the start; the model ends with the averaged weights."""
    fresh, body, rest = [], [], []
    for name, parameter in model.named_parameters():
        (fresh if name.startswith("fine.") else body if name.startswith("backbone.") else rest).append(
            parameter
        )
    groups = [{"params": p, "lr": rate * scale} for p, scale in ((body, 0.3), (rest, 1), (fresh, 2)) if p]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / 60) * (0.51 + 0.49 * math.cos(math.pi * min(1, step / steps))),
    )
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=decay_average, use_buffers=True)
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "schedule": schedule, "average": average}
    last, first = out / "last.pt", 0
    if last.exists():
        saved = torch.load(last, weights_only=True)
        first = saved.pop("step")
        for name, state in saved.items():
            parts[name].load_state_dict(state)
        sampler.rng = np.random.default_rng([sampler.seed, first])
    model.train()
    losses: list[float] = []
    start = time.process_time()
    for step, (crops, masks, *given) in enumerate(islice(sampler.batches(), steps - first), first):
        logits = model.head_logits(crops, *given)["shared"]
        logits = upsample(logits[:, None], crops.shape[-2:])[:, 0]
        loss = outline_loss(logits, masks, outline=2.0 if sampler.recipe.outline else 0.0)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        losses.append(loss.item())
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            print(
                f"step {step + 1}: loss {np.mean(losses[-200:]):.4f}, {time.process_time() - start:.0f} CPU s",
                flush=True,
            )
            state = {name: part.state_dict() for name, part in parts.items()}
            torch.save({**state, "step": step + 1}, out / "new.pt")
            (out / "new.pt").rename(last)
    model.load_state_dict(average.module.state_dict())


def decay_average(averages: list[Tensor], values: list[Tensor], count: Tensor) -> None:
    """Move averages toward values by 1 / 500, in the first steps faster."""
    if averages[0].is_floating_point():
        torch._foreach_lerp_(averages, values, 1 - min(0.998, (int(count) + 1) / (int(count) + 20)))
    else:
        torch._foreach_copy_(averages, values)


if __name__ == "__main__":
    main()
