"""Estimate the quality of masks: their IoU with a ground truth that is not known.

No cue is enough alone: a mask that agrees with its box may be a cross, and a confident one may be of the wrong object.
A small regression combines the cues, and is calibrated on masks with a known ground truth.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from boxel.labeling.fusion import LabeledImage, collect_votes, spread, vote_logits
from boxel.labeling.probabilities import mean_probability
from boxel.labeling.teachers.base import Teacher
from boxel.masks.boxes import box_iou, pixel_region, tight_boxes
from boxel.models.pretrained import model_folder
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
    "leakage",
    "uncut_agreement",
)
"""The columns of :func:`compute_cues`."""

_COLUMNS = ("mean", "scale", "weights", "curve", "precision")

MIN_MASKS = 20
"""Minimum number of ground-truth masks that a calibration is fitted on."""

_SIDE = 64  # maximum cells per side of a region that cues are computed from; it bounds their cost per box
_REACH = 0.15  # how far beyond a box its votes are looked at, as a share of its sides
_FINE_SIDE = 96  # maximum cells per side there, where a tight box is measured
_MAX_LEAKAGE = 2.0


def compute_cues(labeled: LabeledImage, reference: Teacher | None = None) -> NDArray[np.float64]:
    """Compute the features of each mask of an image that its quality is estimated from.

    - `agreement`: proxy box agreement.
    - `expected_iou`: IoU with the ground truth if the fused probabilities were right.
    - `votes_iou`: mean IoU of the masks of the votes (teachers, flipped passes) with each other; 1 for a single vote.
    - `certainty`: mean distance of the probabilities from one half.
    - `inside`: mean probability within the mask.
    - `contrast`: difference of color across the outline.
    - `fill`: share of the box that is filled.
    - `size`: log2 of the box's side in pixels.
    - `elongation`: log2 of the longer to the shorter side.
    - `crowding`: share of the box that other boxes cover.
    - `contested`: share of the mask that smaller objects took.
    - `roughness`: length of the outline relative to that of a disc with the same area.
    - `at_border`: share of the box's sides that lie at the border of the image.
    - `leakage`: expected area of the object around the box, as a share of that in the box, up to 2.
    - `uncut_agreement`: IoU of the box with the tight box that the mask would have if it were not cut to the box.

    Args:
        labeled: An image with its masks.
        reference: A teacher whose votes count instead of those that the masks are made from.

    Returns:
        (N, len(CUES)) float64; a row of NaN for a box without a mask.
    """
    if reference is not None:
        same = [vote for vote in labeled.votes if vote.teacher == reference.name]
        labels = np.zeros(len(labeled.boxes), dtype=np.int32)
        votes = same or collect_votes([reference], labeled.image, labeled.boxes, labels)
        labeled = replace(labeled, votes=votes)
    height, width = labeled.image.shape[:2]
    cues = np.full((len(labeled.boxes), len(CUES)), np.nan)
    boxes = labeled.boxes.clip(0, [width, height] * 2)
    for index, (mask, unmerged) in enumerate(zip(labeled.masks, labeled.unmerged, strict=True)):
        if mask is None or unmerged is None:
            continue
        box, region = boxes[index], labeled.regions[index]
        rows, columns = (spread(side, _SIDE) for side in region.shape)
        small = mask[np.ix_(rows, columns)]
        pixels = labeled.image[region.slices][np.ix_(rows, columns)]
        logits = vote_logits(labeled.votes, index, region.top + rows, region.left + columns)
        probability = np.nan_to_num(mean_probability(logits))
        width_height = box[2:] - box[:2]
        area = max(width_height.prod(), 1.0)
        others = np.delete(boxes, index, axis=0)
        cues[index] = (
            labeled.agreement[index],
            _expected_iou(probability, small),
            _votes_iou(logits > 0),
            np.abs(2 * probability - 1).mean(),
            probability[small].mean() if small.any() else 0.0,
            _contrast(pixels, small),
            np.count_nonzero(mask) / area,
            np.log2(np.sqrt(area)),
            np.log2(max(*width_height, 1.0) / max(min(width_height), 1.0)),
            _covered(box, others),
            1 - small.sum() / max(unmerged[np.ix_(rows, columns)].sum(), 1),
            _roughness(small),
            np.mean([box[0] <= 1, box[1] <= 1, box[2] >= width - 1, box[3] >= height - 1]),
            *_look_beyond(labeled, index, box),
        )
    return cues


@dataclass(frozen=True)
class Calibration:
    """A regression from cues to the IoU with the ground truth, and a curve that calibrates its values.

    Attributes:
        mean: (C,) means of the cues that it was fitted on.
        scale: (C,) their standard deviations.
        weights: Weights of a constant, the standardized cues, their squares and products, in the order of `_terms`.
        curve: (2, P) values of the regression and the IoU that each stands for, both rising.
        precision: (C, C) inverse covariance of the standardized cues, zero for cues that did not vary.
        reference: The teacher from whose votes the cues are computed; None for the votes that make the masks.
        is_fitted: Whether it was fitted on masks of its teachers.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weights: NDArray[np.float64]
    curve: NDArray[np.float64]
    precision: NDArray[np.float64]
    reference: Teacher | None = field(default=None, kw_only=True)
    is_fitted: bool = field(default=True, kw_only=True)

    @property
    def is_sound(self) -> bool:
        """Whether all arrays are finite and of the shapes that belong together."""
        count = len(CUES)
        terms = _terms(np.zeros((1, count))).shape[1]
        shapes = [(count,), (count,), (terms,), (2, *self.curve.shape[1:2]), (count, count)]
        arrays = [getattr(self, name) for name in _COLUMNS]
        return self.curve.size > 0 and all(
            array.shape == shape and np.isfinite(array).all()
            for array, shape in zip(arrays, shapes, strict=True)
        )

    @cached_property
    def identity(self) -> str:
        """Digest of all this."""
        content = b"".join(getattr(self, name).tobytes() for name in _COLUMNS)
        network = getattr(self.reference, "identity", "")
        return blake2b(content + network.encode(), digest_size=8).hexdigest()

    def estimate(self, cues: NDArray[np.float64]) -> NDArray[np.float64]:
        """Estimate the (N,) quality in [0, 1] from (N, C) cues."""
        known = np.isfinite(cues).all(axis=1)
        quality = np.full(len(cues), np.nan)
        raw = _terms((cues[known] - self.mean) / self.scale) @ self.weights
        quality[known] = np.interp(raw, *self.curve).clip(0, 1)
        return quality

    def distance(self, cues: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the (N,) squared Mahalanobis distance of (N, C) cues per cue: 1 on average for similar images."""
        z = (cues - self.mean) / self.scale
        count = max(np.count_nonzero(self.precision.diagonal()), 1)
        return np.einsum("nc,cd,nd->n", z, self.precision, z) / count


def fit_calibration(cues: ArrayLike, ious: ArrayLike) -> Calibration:
    """Fit a calibration to masks with a known ground truth.

    The regression is a ridge on the cues, their squares and products, its strength chosen by leave-one-out error; the
    curve is an isotonic regression on the leave-one-out estimates.

    Args:
        cues: (N, C) cues, N at least `MIN_MASKS`.
        ious: (N,) IoU with the ground truth.

    Raises:
        BoxelError: There are too few masks.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> cues, ious = rng.normal(size=(40, len(CUES))), rng.random(40)
        >>> calibration = fit_calibration(cues, ious)
        >>> calibration.estimate(cues).shape
        (40,)
    """
    features, targets = np.asarray(cues, dtype=np.float64), np.asarray(ious, dtype=np.float64)
    known = np.isfinite(features).all(axis=1)
    features, targets = features[known], targets[known]
    if len(targets) < MIN_MASKS:
        raise BoxelError(
            f"quality cannot be calibrated on {len(targets)} masks; give ground-truth masks of at least {MIN_MASKS} "
            "instances."
        )
    mean, scale = features.mean(axis=0), features.std(axis=0).clip(min=1e-3)
    terms = _terms((features - mean) / scale)
    weights, left_out = min(
        (_fit_ridge(terms, targets, strength) for strength in len(targets) * np.logspace(-3, 1, 13)),
        key=lambda fit: float(np.square(fit[1] - targets).mean()),
    )
    return Calibration(mean, scale, weights, _fit_curve(left_out, targets), _fit_precision(features))


def trust_reference(reference: Teacher) -> Calibration:
    """Make a calibration for any teacher: the IoU to expect if the probabilities of a reference are right.

    Examples:
        >>> from boxel.labeling.teachers import make_teacher
        >>> trust_reference(make_teacher("boxcaseg")).is_fitted
        False
    """
    count = len(CUES)
    weights = np.zeros(_terms(np.zeros((1, count))).shape[1])
    weights[1 + CUES.index("expected_iou")] = 1
    unit, nothing = np.array([[0.0, 1.0], [0.0, 1.0]]), np.zeros((count, count))
    columns = np.zeros(count), np.ones(count), weights, unit, nothing
    return Calibration(*columns, reference=reference, is_fitted=False)


def load_calibration(path: Path) -> Calibration:
    """Load a calibration that :func:`save_calibration` has written.

    Raises:
        BoxelError: The file cannot be read, or is of other cues.

    Examples:
        >>> from importlib.resources import files
        >>> load_calibration(Path(str(files("boxel")), "weights/quality/boxcaseg.json")).mean.shape
        (15,)
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["cues"] != list(CUES):
            raise ValueError("it is of other cues")
        found = Calibration(*(np.array(content[name], dtype=np.float64) for name in _COLUMNS))
        if not found.is_sound:
            raise ValueError("its arrays are damaged")
        return found
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise BoxelError(f"{path}: not readable as a calibration of quality ({error}).") from error


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration as JSON.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_calibration(find_calibration("boxcaseg"), Path(folder, "quality.json"))
        ...     load_calibration(Path(folder, "quality.json")).mean.shape
        (15,)
    """
    columns = {name: getattr(calibration, name).tolist() for name in _COLUMNS}
    path.write_text(json.dumps({"cues": CUES, **columns}, indent=1), encoding="utf-8")


def find_calibration(source: str) -> Calibration | None:
    """Find the calibration of a bundled teacher, or the ``quality.json`` of a model folder; None if there is none.

    Examples:
        >>> find_calibration("boxcaseg") is not None
        True
    """
    own = model_folder(source) / "quality.json"
    path = own if own.is_file() else find_bundled("quality", source)
    return load_calibration(path) if path else None


def find_bundled(folder: str, teacher: str) -> Path | None:
    """Find the JSON file of a bundled teacher in a folder of `boxel/weights`; None if there is none."""
    path = Path(str(files("boxel"))) / "weights" / folder / f"{teacher}.json"
    is_name = Path(teacher).name == teacher  # a path must not lead elsewhere
    return path if is_name and path.is_file() else None


def _terms(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Expand standardized cues by a constant, squares and products; outliers are clipped."""
    z = z.clip(-3, 3)
    rows, columns = np.triu_indices(z.shape[1])
    return np.concatenate([np.ones((len(z), 1)), z, z[:, rows] * z[:, columns] / 2], axis=1)


def _fit_precision(cues: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit the inverse covariance of the cues that vary, once they are standardized."""
    varies = cues.std(axis=0) > 1e-3
    covariance = np.atleast_2d(np.corrcoef(cues[:, varies], rowvar=False))
    precision = np.zeros((cues.shape[1], cues.shape[1]))
    precision[np.ix_(varies, varies)] = np.linalg.inv(covariance + 0.01 * np.eye(len(covariance)))
    return precision


def _fit_ridge(
    terms: NDArray[np.float64], targets: NDArray[np.float64], strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit a ridge regression; return its weights and the leave-one-out estimates."""
    penalty = strength * np.eye(terms.shape[1])
    penalty[0, 0] = 0
    solved = np.linalg.solve(terms.T @ terms + penalty, terms.T)
    weights = solved @ targets
    leverage = np.einsum("nt,tn->n", terms, solved)
    return weights, targets - (targets - terms @ weights) / (1 - leverage).clip(min=1e-3)


def _fit_curve(values: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit a rising curve to estimates and targets: isotonic, given by its means over 12 parts of equal count."""
    order = np.argsort(values, kind="stable")
    rising = _fit_isotonic(targets[order])
    parts = np.array_split(np.arange(len(values)), min(12, len(values) // 10 or 1))
    x = np.array([values[order][part].mean() for part in parts])
    y = np.array([rising[part].mean() for part in parts])
    if len(x) > 1:  # extrapolate linearly by one point on either side
        low, high = 2 * y[0] - y[1], 2 * y[-1] - y[-2]
        x, y = np.r_[2 * x[0] - x[1], x, 2 * x[-1] - x[-2]], np.r_[low, y, high]
    return np.stack([x, y])


def _fit_isotonic(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit the nearest rising sequence by least squares: adjacent values that fall are pooled into their mean."""
    means: list[float] = []
    counts: list[int] = []
    for value in values.tolist():
        means.append(value)
        counts.append(1)
        while len(means) > 1 and means[-2] >= means[-1]:
            count = counts[-2] + counts[-1]
            means[-2:] = [(means[-2] * counts[-2] + means[-1] * counts[-1]) / count]
            counts[-2:] = [count]
    return np.repeat(means, counts)


def _expected_iou(probability: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Divide the expected intersection by the expected union."""
    both = probability[mask].sum()
    return float(both / max(mask.sum() + probability[~mask].sum(), 1e-6))


def _votes_iou(masks: NDArray[np.bool_]) -> float:
    pairs = [(a, b) for k, a in enumerate(masks) for b in masks[:k]]
    ious = [(a & b).sum() / max((a | b).sum(), 1) for a, b in pairs]
    return float(np.mean(ious)) if ious else 1.0


def _look_beyond(labeled: LabeledImage, index: int, box: NDArray[np.float64]) -> tuple[float, float]:
    """Compute the leakage and the uncut agreement from the votes in a box and around it."""
    height, width = labeled.image.shape[:2]
    region = pixel_region(box, height, width, _REACH)
    rows, columns = (spread(side, _FINE_SIDE) for side in region.shape)
    rows, columns = rows + region.top, columns + region.left
    probability = np.nan_to_num(mean_probability(vote_logits(labeled.votes, index, rows, columns)))
    y, x = rows + 0.5, columns + 0.5
    inside = ((y > box[1]) & (y < box[3]))[:, None] & ((x > box[0]) & (x < box[2]))
    within, around = probability[inside].sum(), probability[~inside].sum()
    leakage = min(float(around / max(within, 1e-6)), _MAX_LEAKAGE)
    step = np.array([region.shape[1] / len(columns), region.shape[0] / len(rows)])
    tight = tight_boxes([probability > 0.5]) * np.tile(step, 2) + np.tile([region.left, region.top], 2)
    return leakage, float(box_iou(box[None], tight)[0, 0])


def _contrast(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float:
    """Compute the distance in LAB between the mean colors just inside and just outside the outline."""
    lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    kernel, binary = np.ones((5, 5), np.uint8), mask.astype(np.uint8)
    inner = mask & (cv2.erode(binary, kernel, borderValue=1) == 0)
    outer = ~mask & (cv2.dilate(binary, kernel) > 0)
    if not inner.any() or not outer.any():
        return 0.0
    return float(np.linalg.norm(lab[inner].mean(axis=0) - lab[outer].mean(axis=0)) / 100)


def _covered(box: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Compute the share of a box that other boxes cover, up to 2; their own overlaps count repeatedly."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = (high - low).clip(min=0).prod(axis=1).sum()
    return float(min(shared / max((box[2:] - box[:2]).prod(), 1e-6), 2.0))


def _roughness(mask: NDArray[np.bool_]) -> float:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    length = sum(cv2.arcLength(contour, True) for contour in contours)
    return float(np.log2(max(length, 1.0) / np.sqrt(4 * np.pi * max(mask.sum(), 1))))
