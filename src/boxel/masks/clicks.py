"""Correct a mask by clicks: each adds the missing part that a pixel lies in, or removes the wrong part."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from boxel.masks.click_cues import DISC, Scene, compute_cues, make_scene

_MIN_LOGIT = 0.5  # of pixels that change
_MAX_REMOVED = 0.8  # share of a mask that a click removes at most
_CRUMB = 0.01  # area of the largest leftover that changes too, relative to that of the box
_FLAT = 1.0  # standard deviation of the pixels below which only a disc changes


class Network(NamedTuple):
    """A small fully connected network.

    Attributes:
        mean: (C,) means of the cues that it was fitted on.
        scale: (C,) their standard deviations.
        layers: Weights (inputs, outputs) and biases (outputs,).
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    layers: list[tuple[NDArray[np.float32], NDArray[np.float32]]]

    def rate(self, cues: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute (...) logits of (..., C) cues."""
        values = ((cues - self.mean) / self.scale).clip(-4, 4)
        for weights, bias in self.layers[:-1]:
            values = np.maximum(values @ weights + bias, 0)
        weights, bias = self.layers[-1]
        return (values @ weights + bias)[..., 0]


def correct_by_click(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    box: ArrayLike,
    click: tuple[int, int],
    add: bool,
    fixed: Sequence[tuple[int, int, bool]] = (),
) -> NDArray[np.bool_]:
    """Add the missing part of an object to its mask, or remove a wrong part, that a person clicked on.

    A small network rates each pixel around by its distances from the click, from the mask and from the background, in
    the image and along its colors, and by the colors themselves. Parts are added only inside the box, which is enlarged
    to hold all clicks on the object; a click removes at most 80 % of a mask, except for small rests. The result is
    deterministic.

    Args:
        image: (H, W, 3) uint8 RGB. A crop with a margin of a fifth of the longer side around box and clicks will do.
        mask: (H, W) bool.
        box: (4,) xyxy pixels.
        click: Column and row of a pixel.
        add: Whether the pixel belongs to the object.
        fixed: Earlier clicks on the same object, which hold: column, row, and whether the pixel belongs to it.

    Returns:
        (H, W) bool, the mask with a change in one connected region, which holds the click; a copy of the mask if the
        pixel is right already.

    References:
        Bai and Sapiro, "A Geodesic Framework for Fast Interactive Image and Video Segmentation", ICCV 2007, for
        distances along colors.

    Examples:
        >>> image, mask = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), bool)
        >>> image[10:30, 8:32], mask[10:30, 8:20] = 200, True
        >>> corrected = correct_by_click(image, mask, [6, 8, 34, 32], (26, 20), add=True)
        >>> bool(corrected[20, 30]), bool(corrected[20, 33])
        (True, False)
    """
    result, (x, y) = mask.copy(), click
    if mask[y, x] == add:
        return result
    scene = make_scene(image, mask, box, click, add, fixed)
    left, top, part = scene.window.left, scene.window.top, result[scene.window.slices]
    change = cv2.resize(find_change(scene).astype(np.uint8) * 255, part.shape[::-1]) > 127
    for column, row, on_object in fixed:
        if on_object != add and 0 <= row - top < len(change) and 0 <= column - left < change.shape[1]:
            change[row - top, column - left] = False
    part[_component(change & (part != add), x - left, y - top)] = add
    return result


def find_change(scene: Scene) -> NDArray[np.bool_]:
    """Find the pixels that change with a click: (h, w) bool, connected, and without leaving small rests."""
    cues, candidates = compute_cues(scene)
    change = candidates & (cues[..., 0] <= max(DISC, 1 / scene.size))
    if scene.pixels.std(axis=(0, 1)).max() > _FLAT:
        logits = load_networks()[scene.add].rate(cues)
        highest = float(np.quantile(logits[candidates], 1 - _MAX_REMOVED))
        change |= candidates & (logits > (_MIN_LOGIT if scene.add else max(_MIN_LOGIT, highest)))
    change = _component(change, *scene.click)
    rest = _component(scene.mask != scene.add, *scene.click) & ~change
    _, labels, stats, _ = cv2.connectedComponentsWithStats(rest.astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] <= _CRUMB * scene.size**2
    return change | (candidates & rest & small[labels])


@lru_cache(maxsize=1)
def load_networks() -> dict[bool, Network]:
    """Load the networks that rate which pixels are added with a click (True) or removed (False)."""
    file = files("boxel") / "weights" / "clicks" / "networks.json"
    networks = {}
    for kind, numbers in json.loads(file.read_text(encoding="utf-8")).items():
        mean, scale = (np.array(numbers[name], dtype=np.float32) for name in ("mean", "scale"))
        layers = [(np.array(w, np.float32), np.array(b, np.float32)) for w, b in numbers["layers"]]
        networks[kind == "add"] = Network(mean, scale, layers)
    return networks


def _component(pixels: NDArray[np.bool_], x: int, y: int) -> NDArray[np.bool_]:
    """Keep the 8-connected component of a pixel, which is included in any case."""
    included = pixels.astype(np.uint8)
    included[y, x] = 1
    cv2.floodFill(included, None, (x, y), 2, flags=8)
    return included == 2
