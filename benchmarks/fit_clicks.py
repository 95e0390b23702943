"""Fit the networks of `boxel.masks.clicks`, on masks of the bundled teachers that are partly wrong.

    python benchmarks/fit_clicks.py

Of each dataset that networks may learn from, masks with an IoU below 0.85 are corrected by clicks of a simulated user,
half of them not in the middle of the wrong region. In the first round each click corrects its region exactly; in the
others the networks of the round before do. One network learns which pixels are to be added with a click, another one
which are to be removed. A pixel counts by what it changes of the IoU.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from _record import REPO, arguments
from _runs import read_coco
from clicks import Case, find_cases, find_middle, largest_wrong
from numpy.typing import NDArray
from torch import nn

import boxel
from boxel.masks.click_cues import compute_cues, make_scene
from boxel.masks.clicks import correct_by_click, load_networks

NOT_RELEASED = ("bsdata_pitting",)
NETWORKS = REPO / "src" / "boxel" / "weights" / "clicks" / "networks.json"
PIXELS = 250
"""Pixels of each click that are learned from."""
HIDDEN = 32, 16
STEPS = 2000

Samples = dict[bool, list[tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]]]


def main() -> None:
    """Write the file of the networks."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    cases = read_cases(args.data)
    print(len(cases), "masks", flush=True)
    samples: Samples = {True: [], False: []}
    for number in range(args.rounds):
        rng = np.random.default_rng(number)
        for case in cases:
            collect(case, samples, rng, exact=number == 0)
        networks = {("add" if add else "remove"): fit(parts) for add, parts in samples.items()}
        NETWORKS.parent.mkdir(exist_ok=True)
        NETWORKS.write_text(json.dumps(networks, separators=(",", ":")) + "\n", encoding="utf-8")
        load_networks.cache_clear()


def read_cases(data: Path) -> list[Case]:
    """Read masks of two teachers: of COCO images, and of every other dataset that networks may learn from."""
    sets = {"coco": read_coco(data, "train_masks")}
    for folder in sorted((data / "domains" / "learn").iterdir()):
        if (folder / "all.json").exists() and folder.name not in NOT_RELEASED:
            sets[folder.name] = boxel.read(folder / "all.json", images=folder / "images")
    cases = []
    for teacher in ("boxcaseg", "boxcaseg-boxes"):
        segmenter = boxel.BoxSegmenter(teacher)
        for name, found in sets.items():
            some = found.select_images(list(range(min(len(found), 120))))
            cases += find_cases(some, segmenter, 0.85, 60 if name == "coco" else 30, seed=1)
    return cases


def collect(case: Case, samples: Samples, rng: np.random.Generator, exact: bool) -> None:
    """Append pixels of a few clicks on a mask: cues, whether they are wrong, and weights."""
    mask, fixed = case.mask, []
    extent = np.tile(case.box[2:] - case.box[:2], 2)
    box = case.box + extent * rng.uniform(-0.05, 0.05, 4) * (rng.random() < 0.3)
    for _ in range(3 if exact else 5):
        region, add = largest_wrong(mask, case.truth)
        if region.sum() < 0.01 * case.truth.sum() + 1:
            return
        x, y = find_middle(region) if rng.random() < 0.5 else find_inner(region, rng)
        scene = make_scene(case.image, mask, box, (x, y), add, fixed)
        cues, candidates = compute_cues(scene)
        wrong, truth = (
            cv2.resize(part[scene.window.slices].astype(np.float32), candidates.shape[::-1]) > 0.5
            for part in (mask ^ case.truth, case.truth)
        )
        chosen = rng.permutation(np.flatnonzero(candidates))[:PIXELS]
        weight = min(candidates.sum() / max(truth.sum(), 1), 5) / max(len(chosen), 1)
        samples[add].append(
            (
                cues.reshape(-1, cues.shape[-1])[chosen],
                wrong.ravel()[chosen],
                np.full(len(chosen), weight, np.float32),
            )
        )
        if exact or rng.random() < 0.3:
            mask = mask | region if add else mask & ~region
        else:
            mask = correct_by_click(case.image, mask, box, (x, y), add, fixed)
        fixed.append((x, y, add))


def find_inner(region: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int]:
    """Draw a pixel that is at least a fifth as far from the border of a region as its middle, often more."""
    depth = cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)[
        1:-1, 1:-1
    ]
    y, x = rng.permutation(np.argwhere(depth >= rng.uniform(0.2, 0.9) * depth.max()))[0].tolist()
    return x, y


def fit(
    parts: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]],
) -> dict[str, object]:
    """Fit a network and return its numbers."""
    torch.manual_seed(0)
    cues, wrong, weights = (torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True))
    mean, scale = cues.mean(dim=0), cues.std(dim=0) + 1e-3
    values, weights = ((cues - mean) / scale).clip(-4, 4), weights / weights.mean()
    sides = [cues.shape[1], *HIDDEN]
    layers = [layer for a, b in pairwise(sides) for layer in (nn.Linear(a, b), nn.ReLU())]
    network = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, STEPS)
    for _ in range(STEPS):
        some = torch.randint(len(values), (4096,))
        logits = network(values[some])[:, 0]
        loss = nn.functional.binary_cross_entropy_with_logits(logits, wrong[some].float(), weights[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"{len(values)} pixels, loss {loss.item():.3f}", flush=True)

    def numbers(tensor: torch.Tensor) -> list[object]:
        return (
            [numbers(row) for row in tensor]
            if tensor.ndim > 1
            else [float(f"{v:.4g}") for v in tensor.tolist()]
        )

    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    return {
        "mean": numbers(mean),
        "scale": numbers(scale),
        "layers": [[numbers(layer.weight.detach().T), numbers(layer.bias.detach())] for layer in linear],
    }


if __name__ == "__main__":
    main()
