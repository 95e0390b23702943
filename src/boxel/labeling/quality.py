"""How good is a mask that nobody has checked? An estimate of its IoU with the truth, from what can be seen of it.

No cue says it alone: a mask that agrees with its box may be a cross, one that a network is sure of may be of the wrong
object. A small regression weighs them, and is calibrated on masks whose truth is known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from boxel.labeling.fusion import Labeled, vote_weights
from boxel.labeling.fusion import fuse as fuse_votes
from boxel.masks.boxes import Region
from boxel.utils.errors import BoxelError

CUES = (
    "agreement",
    "expected_iou",
    "votes_iou",
    "certainty",
    "inside",
    "contrast",
    "fill",
    "size",
    "elongation",
    "crowding",
    "contested",
    "roughness",
    "at_border",
)
"""What :func:`cues` gives, in this order."""

_SIDE = 64
"""Cells along each side of a box's region that cues are taken from; so that their cost hardly depends on its size."""


def cues(labeled: Labeled) -> NDArray[np.float64]:
    """What can be seen of each mask of an image.

    `agreement`: proxy box agreement. `expected_iou`: IoU with the truth if the fused probabilities were right.
    `votes_iou`: mean IoU of the votes' masks (teachers, mirrored looks) with each other; 1 where there is one vote.
    `certainty`: mean distance of the probabilities from a half. `inside`: mean probability within the mask. `contrast`:
    difference of color across its outline. `fill`: share of the box. `size`: log2 of the box's side in pixels.
    `elongation`: log2 of the longer to the shorter side. `crowding`: share of the box that other boxes cover.
    `contested`: share of the mask that smaller objects took. `roughness`: its outline's length to that of a disc of
    its area. `at_border`: share of the box's sides at the image's border.

    Args:
        labeled: an image with its masks.

    Returns:
        (N, len(CUES)) float64; a row of NaN for a box without a mask.
    """
    height, width = labeled.image.shape[:2]
    found = np.full((len(labeled.boxes), len(CUES)), np.nan)
    boxes = labeled.boxes.clip(0, [width, height] * 2)
    for index, mask in enumerate(labeled.masks):
        if mask is None:
            continue
        box, region = boxes[index], labeled.regions[index]
        grid = _grid(region)
        logits = labeled.logits(index, region.top + grid[0], region.left + grid[1])
        probability = np.nan_to_num(fuse_votes(logits, vote_weights(labeled.votes, index)))
        small = mask[grid[0][:, None], grid[1]]
        before = labeled.settled[index]
        whole = small if before is None else before[grid[0][:, None], grid[1]]
        across, down = box[2:] - box[:2]
        others = np.delete(boxes, index, axis=0)
        found[index] = (
            labeled.agreement[index],
            _expected_iou(probability, small),
            _votes_iou(logits > 0),
            np.abs(2 * probability - 1).mean(),
            probability[small].mean() if small.any() else 0.0,
            _contrast(labeled.image, region, small, grid),
            mask.sum() / max(across * down, 1.0),
            np.log2(max(np.sqrt(across * down), 1.0)),
            np.log2(max(across, down, 1.0) / max(min(across, down), 1.0)),
            _covered(box, others),
            1 - small.sum() / max(whole.sum(), 1),
            _roughness(small),
            np.mean([box[0] <= 1, box[1] <= 1, box[2] >= width - 1, box[3] >= height - 1]),
        )
    return found


@dataclass(frozen=True)
class Calibration:
    """A regression from cues to the IoU with the truth, and a curve that makes its values mean what they say.

    Attributes:
        mean: (C,) of the cues it was fitted on.
        scale: (C,) their standard deviations.
        weights: of 1, the standardized cues, their squares and products, in the order of :func:`_terms`.
        curve: (2, P) values of the regression and the IoU each stands for, both rising.
        identity: a digest of all this.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weights: NDArray[np.float64]
    curve: NDArray[np.float64]
    identity: str = ""

    def __call__(self, labeled: Labeled) -> NDArray[np.float64]:
        """(N,) quality in [0, 1] of an image's masks; NaN for a box without one."""
        return self.of_cues(cues(labeled))

    def signed(self) -> Calibration:
        """The same with its identity brought up to date."""
        columns = (self.mean, self.scale, self.weights, self.curve)
        content = b"".join(column.astype(np.float64).tobytes() for column in columns)
        return replace(self, identity=blake2b(content, digest_size=8).hexdigest())

    def of_cues(self, found: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) quality in [0, 1] of (N, C) cues."""
        known = np.isfinite(found).all(axis=1)
        quality = np.full(len(found), np.nan)
        raw = _terms((found[known] - self.mean) / self.scale) @ self.weights
        quality[known] = np.interp(raw, *self.curve).clip(0, 1)
        return quality


def fit(found: ArrayLike, ious: ArrayLike) -> Calibration:
    """A calibration from masks whose truth is known.

    The regression is a ridge on the cues, their squares and products, its strength chosen by leaving each mask out in
    turn; the curve is isotonic, of the values that each mask gets when it is left out.

    Args:
        found: (N, C) cues, N at least 20.
        ious: (N,) IoU with the truth.

    Raises:
        BoxelError: there are too few masks.
    """
    features, truth = np.asarray(found, dtype=np.float64), np.asarray(ious, dtype=np.float64)
    known = np.isfinite(features).all(axis=1)
    features, truth = features[known], truth[known]
    if len(truth) < LEAST_MASKS:
        raise BoxelError(
            f"quality can't be calibrated on {len(truth)} masks; give true masks of {LEAST_MASKS} instances or more."
        )
    mean, scale = features.mean(axis=0), features.std(axis=0).clip(min=1e-3)
    terms = _terms((features - mean) / scale)
    weights, left_out = min(
        (_ridge(terms, truth, strength) for strength in len(truth) * np.logspace(-3, 1, 13)),
        key=lambda one: float(np.square(one[1] - truth).mean()),
    )
    return Calibration(mean, scale, weights, _curve(left_out, truth)).signed()


LEAST_MASKS = 20
"""Fewest true masks that a calibration is fitted on."""


def read(path: Path) -> Calibration:
    """A calibration that :func:`write` has written.

    Raises:
        BoxelError: it is not there, or of other cues.
    """
    try:
        said = json.loads(path.read_text())
        if said["cues"] != list(CUES):
            raise ValueError("it is of other cues")
        mean, scale, weights, curve = (np.array(said[name]) for name in _COLUMNS)
        return Calibration(mean, scale, weights, curve).signed()
    except (OSError, ValueError, KeyError) as error:
        raise BoxelError(f"{path}: no calibration of quality can be read ({error}).") from error


def write(calibration: Calibration, path: Path) -> None:
    """Write a calibration as JSON."""
    columns = {name: getattr(calibration, name).tolist() for name in _COLUMNS}
    path.write_text(json.dumps({"cues": CUES, **columns}, indent=1))


_COLUMNS = ("mean", "scale", "weights", "curve")


def shipped_calibration(teacher: str) -> Calibration | None:
    """The calibration that comes with boxel for a teacher's masks, or None.

    Args:
        teacher: its name.
    """
    path = Path(str(files("boxel"))) / "weights" / "quality" / f"{teacher}.json"
    named = Path(teacher).name == teacher  # not a path, which would lead elsewhere
    return read(path) if named and path.is_file() else None


def unknown(labeled: Labeled) -> NDArray[np.float64]:
    """(N,) NaN: no quality is claimed for masks of a teacher that no calibration is of."""
    return np.full(len(labeled.boxes), np.nan)


def _terms(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """1, the cues, their squares and products; cues far from all that were seen count as if nearer."""
    z = z.clip(-3, 3)
    rows, columns = np.triu_indices(z.shape[1])
    return np.concatenate([np.ones((len(z), 1)), z, z[:, rows] * z[:, columns] / 2], axis=1)


def _ridge(
    terms: NDArray[np.float64], truth: NDArray[np.float64], strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights of a ridge regression, and what it says of each row when fitted without it."""
    penalty = strength * np.eye(terms.shape[1])
    penalty[0, 0] = 0
    solved = np.linalg.solve(terms.T @ terms + penalty, terms.T)
    weights = solved @ truth
    leverage = np.einsum("nt,tn->n", terms, solved)
    return weights, truth - (truth - terms @ weights) / (1 - leverage).clip(min=1e-3)


def _curve(values: NDArray[np.float64], truth: NDArray[np.float64], points: int = 12) -> NDArray[np.float64]:
    """A rising curve from values to the truth: isotonic, told by its means over so many parts of equal count."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(values, kind="stable")
    rising = isotonic_regression(truth[order]).x
    parts = np.array_split(np.arange(len(values)), min(points, len(values) // 10 or 1))
    x = np.array([values[order][part].mean() for part in parts])
    y = np.array([rising[part].mean() for part in parts])
    if len(x) > 1:  # go on beyond the outermost means as between the last two
        low, high = 2 * y[0] - y[1], 2 * y[-1] - y[-2]
        x, y = np.r_[2 * x[0] - x[1], x, 2 * x[-1] - x[-2]], np.r_[low, y, high]
    return np.stack([x, y])


def _grid(region: Region) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of a region that stand for it, `_SIDE` of each at most."""
    rows, columns = (
        np.unique(((np.arange(min(size, _SIDE)) + 0.5) * size / min(size, _SIDE)).astype(int))
        for size in region.shape
    )
    return rows, columns


def _expected_iou(probability: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Expected overlap to expected union, pixels being object with their probability."""
    both = probability[mask].sum()
    return float(both / max(mask.sum() + probability[~mask].sum(), 1e-6))


def _votes_iou(masks: NDArray[np.bool_]) -> float:
    pairs = [(a, b) for k, a in enumerate(masks) for b in masks[:k]]
    ious = [(a & b).sum() / max((a | b).sum(), 1) for a, b in pairs]
    return float(np.mean(ious)) if ious else 1.0


def _contrast(
    image: NDArray[np.uint8],
    region: Region,
    mask: NDArray[np.bool_],
    grid: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> float:
    """Distance in LAB between the mean colors just inside and just outside the outline."""
    pixels = image[(region.top + grid[0])[:, None], region.left + grid[1]]
    lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    kernel, whole = np.ones((5, 5), np.uint8), mask.astype(np.uint8)
    inner = mask & (cv2.erode(whole, kernel, borderValue=1) == 0)
    outer = ~mask & (cv2.dilate(whole, kernel) > 0)
    if not inner.any() or not outer.any():
        return 0.0
    return float(np.linalg.norm(lab[inner].mean(axis=0) - lab[outer].mean(axis=0)) / 100)


def _covered(box: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Share of a box that other boxes cover, those that overlap each other counted again, up to 2."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = (high - low).clip(min=0).prod(axis=1).sum()
    return float(min(shared / max((box[2:] - box[:2]).prod(), 1e-6), 2.0))


def _roughness(mask: NDArray[np.bool_]) -> float:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    length = sum(cv2.arcLength(contour, True) for contour in contours)
    return float(np.log2(max(length, 1.0) / np.sqrt(4 * np.pi * max(mask.sum(), 1))))
