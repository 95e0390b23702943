"""Does `boxel label` make better masks of videos by carrying doubtful ones over from neighboring frames?

    python benchmarks/carrying.py

Sequences of 8 frames are made from images with true masks, of which the labeler has not learned: a window slides and
zooms over the image, or the object, which bends and turns, moves over another image. Some frames are spoiled by motion
blur, low contrast, noise, or something that hides a part. Every box is the tight box of what is visible. The frames of
`davis2016` are real, but 8 of a whole video in no order.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from _record import Table, arguments
from numpy.typing import NDArray

import boxel
from boxel.data import Annotations, Category, read, write
from boxel.data.formats.builder import Builder
from boxel.data.images import read_image
from boxel.data.synthetic import write_scenes
from boxel.labeling import label_data
from boxel.labeling.carrying import carry_masks
from boxel.masks.boxes import tight_boxes

SEEDS = 0, 1, 2, 3
KINDS = "pigs", "tshirts", "butterflies", "surgical_tools", "screws_mvtec", "wood_debris", "cables"
COUNT, SIDE = 8, 288  # frames of a sequence, pixels of a frame
SPOILS = "motion blur", "low contrast", "noise", "hidden part"


class Frame(NamedTuple):
    """A frame: pixels, true mask, what spoils it, and the (2, 3) motion from the image that it is made of."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    spoil: str = ""
    motion: NDArray[np.float64] | None = None


def main() -> None:
    """Make the sequences, label them, and write the table."""
    data = arguments(__doc__, data=True).parse_args().data
    sequences = [("davis2016", frames) for frames in read_davis(data)]
    for seed in SEEDS:
        sequences += make_all(data, np.random.default_rng(seed), spoiled=0.4 if seed < 2 else 0.2)
    with tempfile.TemporaryDirectory() as folder:
        boxes = write_frames(Path(folder), [frames for _, frames in sequences])
        plain = label_data(boxes, carry=False)
        better, carried = carry_masks(plain.data, plain.made)
        report(sequences, plain.data, better, carried)


def report(
    sequences: list[tuple[str, list[Frame]]],
    plain: Annotations,
    better: Annotations,
    carried: NDArray[np.bool_],
) -> None:
    """Write the table of the masks without and with carrying, by kinds of frames."""
    frames = [frame for _, sequence in sequences for frame in sequence]
    names = np.array([name for name, sequence in sequences for _ in sequence])
    spoils = np.array([frame.spoil for frame in frames])
    ious = [
        np.array([overlap(mask(d, row), f.mask) for row, f in enumerate(frames)]) for d in (plain, better)
    ]
    quality = [np.nan_to_num(d.quality.astype(float)) for d in (plain, better)]
    steady = [consistency(d, frames) for d in (plain, better)]
    made = names != "davis2016"
    doubtful = quality[0] < 0.75
    groups = {
        "all made from images": made,
        "of these, clean frames": made & (spoils == ""),
        **{f"of these, {spoil}": made & (spoils == spoil) for spoil in SPOILS},
        "of these, quality below 0.75": made & doubtful,
        "masks that were carried": carried,
        **{name: names == name for name in ("coco", *KINDS, "generated scenes", "davis2016")},
    }
    columns = ["masks", "carried", "mask IoU", "with carrying", "calibration error", "with carrying"]
    columns += ["bad among good", "with carrying", "consistency", "with carrying"]
    note = (
        "`calibration error` is the mean difference of quality and IoU in tenths of the quality; `bad among good` the "
        "share of masks with a quality of at least 0.75 whose IoU is under 0.65; `consistency` the IoU of a mask with "
        "the next one of its sequence, moved as the image was."
    )
    table = Table("carrying", "sequences", columns, "frames", "Carrying masks along tracks", note)
    for name, rows in groups.items():
        pairs = [
            (i[rows].mean(), calibration_error(q[rows], i[rows]), bad_share(q[rows], i[rows]), mean(s[rows]))
            for i, q, s in zip(ious, quality, steady, strict=True)
        ]
        cells = [value for pair in zip(*pairs, strict=True) for value in pair]
        table.add(name, int(rows.sum()), f"{carried[rows].mean():.0%}", *cells)
    table.write(SEEDS)


def calibration_error(quality: NDArray[np.float64], ious: NDArray[np.float64]) -> float:
    """Return the mean difference of quality and IoU over tenths of the quality."""
    bins = (quality * 10).astype(int).clip(0, 9)
    gaps = [abs(quality[bins == k].sum() - ious[bins == k].sum()) for k in range(10)]
    return float(sum(gaps) / len(quality))


def bad_share(quality: NDArray[np.float64], ious: NDArray[np.float64]) -> float:
    """Return the share of masks of good quality that are bad."""
    return mean((ious[quality >= 0.75] < 0.65).astype(float))


def mean(values: NDArray[np.float64]) -> float:
    """Return the mean of the values that are known."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the IoU of two masks."""
    return float((one & other).sum() / max((one | other).sum(), 1))


def mask(data: Annotations, row: int) -> NDArray[np.bool_]:
    """Return the mask of an instance; an empty one if it has none."""
    found = data.mask(row)
    return np.zeros(data.image_size(row)[::-1], bool) if found is None else found > 0


def consistency(data: Annotations, frames: list[Frame]) -> NDArray[np.float64]:
    """Return the IoU of each mask with the next one; NaN for the last of a sequence."""
    found = np.full(len(frames), np.nan)
    for row, (frame, after) in enumerate(pairwise(frames)):
        if frame.motion is None or after.motion is None or (row + 1) % COUNT == 0:
            continue
        whole = [np.vstack([f.motion, [0, 0, 1]]) for f in (frame, after)]
        step = (whole[1] @ np.linalg.inv(whole[0]))[:2]
        moved = cv2.warpAffine(mask(data, row).astype(np.float32), step, (SIDE, SIDE)) > 0.5
        found[row] = overlap(moved, mask(data, row + 1))
    return found


def write_frames(folder: Path, sequences: list[list[Frame]]) -> Path:
    """Write the frames as images and their boxes as a COCO file with track ids; return the file."""
    rows = Builder()
    for number, frames in enumerate(sequences):
        (folder / str(number)).mkdir()
        for time, frame in enumerate(frames):
            path = f"{number}/{time}.png"
            cv2.imwrite(str(folder / path), frame.image[..., ::-1])
            image = rows.add_image(len(rows.paths) + 1, path, *frame.mask.shape[::-1])
            rows.add(image + 1, image, 0, tight_boxes([frame.mask])[0], extras=b'{"track_id":1}')
    write(rows.build(folder, [Category(1, "object")], folder), folder / "boxes.json")
    return folder / "boxes.json"


def read_davis(data: Path) -> Iterator[list[Frame]]:
    """Yield the 8 frames of each video."""
    folder = data / "domains" / "measure" / "davis2016"
    for split in ("train", "val"):
        part = read(folder / f"{split}.json", images=folder / "images")
        frames = [
            Frame(read_image(part.image_path(k)), part.mask(int(part.instances_in(k)[0])) > 0)
            for k in range(len(part))
        ]
        yield from (frames[start : start + COUNT] for start in range(0, len(frames), COUNT))


def make_all(data: Path, random: np.random.Generator, spoiled: float) -> Iterator[tuple[str, list[Frame]]]:
    """Yield the sequences of all kinds of images, with their names."""
    coco = read(data / "coco" / "val_masks.json", images=data / "coco" / "images")
    yield from (("coco", frames) for frames in make_some(coco, 18, random, spoiled))
    for kind in KINDS:
        folder = data / "domains" / "measure" / kind
        part = read(folder / "val.json", images=folder / "images")
        yield from ((kind, frames) for frames in make_some(part, 6, random, spoiled))
    with tempfile.TemporaryDirectory() as folder:
        scenes = write_scenes(folder, 12, height=240, width=320, seed=int(random.integers(1000)))
        yield from (("generated scenes", frames) for frames in make_some(scenes, 6, random, spoiled))


def make_some(
    data: boxel.Annotations, count: int, random: np.random.Generator, spoiled: float
) -> Iterator[list[Frame]]:
    """Make sequences of random objects of a dataset that have sides of at least 40 pixels."""
    rows = np.flatnonzero(data.has_mask & ~data.iscrowd)
    random.shuffle(rows)
    made = 0
    for row in rows.tolist():
        sides = data.boxes[row, 2:] - data.boxes[row, :2]
        true = data.mask(row)
        if made == count:
            return
        if sides.min() < 40 or true is None or true.sum() < 500:
            continue
        image = read_image(data.image_path(int(data.image_index[row])))
        other = read_image(data.image_path(int(random.integers(len(data)))))
        frames = make_sequence(image, true > 0, other, random, spoiled, composite=made % 2 == 1)
        if min(frame.mask.sum() for frame in frames) >= 150:
            made += 1
            yield frames


def make_sequence(
    image: NDArray[np.uint8],
    true: NDArray[np.bool_],
    other: NDArray[np.uint8],
    random: np.random.Generator,
    spoiled: float,
    composite: bool,
) -> list[Frame]:
    """Make a sequence of a window that moves over an image, or of its object over another image."""
    x0, y0, x1, y1 = tight_boxes([true])[0]
    center = np.array([x0 + x1, y0 + y1]) / 2
    scale = SIDE / (max(x1 - x0, y1 - y0) * random.uniform(1.7, 2.6))
    speed, zoom, turn = random.normal(0, 0.035, 2) * SIDE, random.uniform(0.97, 1.03), random.normal(0, 3)
    phase, backdrop = random.uniform(0, 2 * np.pi, 4), cv2.resize(other, (2 * SIDE, 2 * SIDE))
    frames = []
    for time in range(COUNT):
        angle = np.deg2rad(turn * (time - COUNT / 2)) if composite else 0.0
        size = scale * zoom**time
        matrix = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        place = SIDE / 2 + speed * (time - COUNT / 2) + random.normal(0, 0.006 * SIDE, 2)
        motion = np.c_[matrix, place - matrix @ center]
        pixels = cv2.warpAffine(image, motion, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)
        mask = cv2.warpAffine(true.astype(np.float32), motion, (SIDE, SIDE))
        if composite:
            pixels, mask = (bend(values, phase, time) for values in (pixels, mask))
            left, top = (0.4 * SIDE - 0.7 * speed * time).clip(0, SIDE).astype(int)
            share = cv2.GaussianBlur((mask > 0.5).astype(np.float32), (0, 0), 0.8)[..., None]
            behind = backdrop[top : top + SIDE, left : left + SIDE]
            pixels = (pixels * share + behind * (1 - share)).astype(np.uint8)
        spoil = str(random.choice(SPOILS)) if random.random() < spoiled else ""
        frames.append(Frame(*spoil_frame(pixels, mask > 0.5, spoil, other, random), spoil, motion))
    return frames


def bend(values: NDArray, phase: NDArray[np.float64], time: int) -> NDArray:
    """Bend an image or a mask by waves that travel slowly."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    dx = np.sin(6 * y + phase[0] + 0.5 * time) + np.sin(5 * x + phase[1] + 0.4 * time)
    dy = np.sin(6 * x + phase[2] + 0.5 * time) + np.sin(7 * y + phase[3] + 0.3 * time)
    at = [(SIDE * (base + 0.012 * d)).astype(np.float32) for base, d in ((x, dx), (y, dy))]
    return cv2.remap(values, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def spoil_frame(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    spoil: str,
    other: NDArray[np.uint8],
    random: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Spoil a frame; return it and what is visible of the object."""
    pixels = image.astype(np.float32)
    if spoil == "motion blur":
        length, angle = int(random.integers(9, 23)), random.uniform(0, np.pi)
        kernel, middle = np.zeros((length, length), np.float32), (length - 1) / 2
        ends = [middle + sign * middle * np.array([np.cos(angle), np.sin(angle)]) for sign in (-1, 1)]
        cv2.line(kernel, *(tuple(end.astype(int).tolist()) for end in ends), 1)
        pixels = cv2.GaussianBlur(
            cv2.filter2D(pixels, -1, kernel / kernel.sum()), (0, 0), random.uniform(0.5, 2.5)
        )
    elif spoil == "low contrast":
        share = random.uniform(0.06, 0.25)
        pixels = pixels * share + random.uniform(40, 160) * (1 - share) + random.normal(0, 4, image.shape)
    elif spoil == "noise":
        pixels = pixels * random.uniform(0.15, 0.4) + random.normal(0, 22, image.shape)
    elif spoil == "hidden part" and mask.any():
        x0, y0, x1, y1 = tight_boxes([mask])[0].astype(int).tolist()
        cut, upright = random.uniform(0.25, 0.45), random.random() < 0.5
        w, h = (int(cut * (x1 - x0)), y1 - y0) if upright else (x1 - x0, int(cut * (y1 - y0)))
        x, y = int(random.integers(x0, x1 - w + 1)), int(random.integers(y0, y1 - h + 1))
        pixels[y : y + h, x : x + w] = cv2.resize(other, (w, h))
        mask = mask.copy()
        mask[y : y + h, x : x + w] = False
    return pixels.clip(0, 255).astype(np.uint8), mask


if __name__ == "__main__":
    main()
