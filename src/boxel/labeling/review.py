"""Choose the masks that are worth a look next: doubtful ones that stand for many others, or a random sample."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.checks.near_duplicates import SIDE, group_near_duplicates
from boxel.data.images import describe_missing, read_image
from boxel.data.pairing import pair_images
from boxel.data.suspects import find_suspects
from boxel.labeling.guarantee import MIN_SIDE
from boxel.masks.boxes import pixel_region
from boxel.utils.errors import BoxelError
from boxel.utils.printable import count_noun
from boxel.utils.progress import progress

logger = logging.getLogger(__name__)

DOUBT = 0.75
"""Masks of a lower quality are in doubt..."""

LOW = 0.5
"""...and those below this have a low one."""

_POOL = 1000  # masks that are compared with each other; of more, a random sample that prefers doubtful ones
_CHECKED = 200  # masks of the user that the pool is compared with
_CHECKED_COLUMNS = ("boxes", "segmentations", "quality", "source", "trusted", "areas")
_SCALES = {"quality": 0.15, "size": 1.0, "elongation": 0.5, "fill": 0.15, "lightness": 30, "a": 20, "b": 20}
_OTHER_CLASS = 2.0  # distance of two classes, in the unit of the scaled features
_MIN_SIMILARITY = 0.5  # of masks that one stands for
_MIN_DOUBT = 0.05  # even a mask of the highest quality may be wrong


@dataclass(frozen=True)
class NextMask:
    """A mask to look at, by its index in the dataset, and why."""

    instance: int
    reason: str


def choose_next(data: Annotations, count: int = 20, *, random: bool = False, seed: int = 0) -> list[NextMask]:
    """Choose the masks whose correction is worth the most.

    Each choice has the largest product of its own doubt (1 - quality) and of the doubt of the masks that it stands for
    and that no earlier choice and no mask of the user stands for (greedy facility location). Masks are similar if
    class, quality, size, shape, share of the box and mean color are. Of objects that look the same, one is chosen.
    Masks of the user, which are trusted and have no source, and boxes without a mask are never chosen.

    Args:
        data: A labeled dataset; without its images, colors do not count and look-alikes are not found.
        count: Maximum number of masks; there are never more than 1,000, unless they are drawn at random.
        random: Draw them at random instead, as a guarantee assumes; their boxes have sides of at least 16 pixels.
        seed: Of the random draw.

    Returns:
        The masks, the most valuable one first.

    Raises:
        BoxelError: There is no mask to choose from, or all look like one of the user.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.labeling import label
        >>> masks = label(example_scenes().without_masks(), teacher="ellipse")
        >>> [len(choose_next(masks, 3)), choose_next(masks, 1, random=True)[0].reason]
        [3, 'drawn at random']

    References:
        Wei, Iyer, Bilmes, "Submodularity in Data Subset Selection and Active Learning", ICML 2015, Section 3.
    """
    name, generated = data.file or "the dataset", data.has_source
    candidates = np.flatnonzero(
        data.has_segmentation & (generated | ~data.trusted) & data.has_box & ~data.iscrowd
    )
    if not len(candidates):
        raise BoxelError(
            f"{name}: it has no masks by a teacher that you have not corrected; make some with `boxel label`."
        )
    rng = np.random.default_rng(seed)
    if random:
        sides = (data.boxes[candidates, 2:] - data.boxes[candidates, :2]).min(axis=1)
        large = candidates[sides >= MIN_SIDE]
        if not len(large):
            raise BoxelError(
                f"{name}: no mask that you have not corrected has a box with sides of at least {MIN_SIDE:g} pixels; "
                "choose without `random`."
            )
        return [NextMask(int(instance), "drawn at random") for instance in rng.permutation(large)[:count]]
    doubt = _measure_doubt(data)
    pool = _sample(candidates, doubt[candidates], _POOL, rng)
    checked = np.flatnonzero(data.has_mask & ~generated & data.has_box & ~data.iscrowd)
    checked = _sample(checked, np.ones(len(checked)), _CHECKED, rng)
    rows = np.concatenate([checked, pool])
    features, thumbnails = _describe(data, rows)
    weights = np.where(np.arange(len(rows)) < len(checked), 0.0, doubt[rows])
    hidden = _find_repeated(thumbnails, weights, len(checked))
    if hidden[len(checked) :].all():
        raise BoxelError(
            f"{name}: each mask that you have not corrected looks like one that you have; `random` draws them anyway."
        )
    similarity = _compare(features, data.labels[rows])
    chosen = _choose_greedily(similarity, weights, len(checked), hidden, count)
    return _explain(data, rows, chosen, similarity, len(checked))


def sort_by_quality(data: Annotations, chosen: Sequence[NextMask]) -> list[NextMask]:
    """Return masks with the lowest quality first; an unknown one counts as a half.

    Examples:
        >>> from boxel.data import example_scenes
        >>> data = example_scenes()
        >>> data.quality[:3] = 0.9, np.nan, 0.2
        >>> [one.instance for one in sort_by_quality(data, [NextMask(k, "") for k in range(3)])]
        [2, 1, 0]
    """
    quality = np.nan_to_num(data.quality, nan=0.5)
    return sorted(chosen, key=lambda one: float(quality[one.instance]))


def take_checked(
    data: Annotations, checked: Annotations, own: NDArray[np.bool_] | None = None
) -> tuple[Annotations, list[int]]:
    """Put masks that a user has corrected into the dataset that they were chosen from.

    Args:
        data: A labeled dataset.
        checked: The corrected masks, under the same ids in images of the same name.
        own: (N,) bool, instances that stay as they are.

    Returns:
        The dataset with these masks, which are trusted and have no source, and their indices.

    Raises:
        BoxelError: None of them is in the dataset.

    Examples:
        >>> from boxel.data import example_scenes
        >>> data = example_scenes()
        >>> bool(take_checked(data.without_masks(), data)[0].has_mask.all())
        True
    """
    rows, others = find_checked(data, checked)
    if not len(rows):
        raise BoxelError(
            f"{checked.file or 'the corrected dataset'}: no mask in it has the image and the id of one in "
            f"{data.file or 'the dataset'}; name the file of the masks that were corrected."
        )
    if own is not None:
        rows, others = rows[~own[rows]], others[~own[rows]]
    columns = {name: getattr(data, name).copy() for name in _CHECKED_COLUMNS}
    for name, column in columns.items():
        column[rows] = getattr(checked, name)[others]
    columns["source"][rows], columns["quality"][rows], columns["trusted"][rows] = None, np.nan, True
    return replace(data, **columns), rows.tolist()


def find_checked(data: Annotations, checked: Annotations) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the (P,) instances of a dataset that have a mask in another one, and their (P,) indices there."""
    image_of = {other: image for image, other in enumerate(pair_images(data, checked)) if other is not None}
    place = {
        (image, str(id)): row
        for row, (image, id) in enumerate(zip(data.image_index.tolist(), data.ids, strict=True))
    }
    found = {
        row: place.get((image_of.get(int(checked.image_index[row]), -1), str(checked.ids[row])))
        for row in np.flatnonzero(checked.has_mask).tolist()
    }
    pairs = [(own, row) for row, own in found.items() if own is not None]
    rows, others = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return rows, others


def select_next(data: Annotations, chosen: Sequence[NextMask], checked: Sequence[int] = ()) -> Annotations:
    """Return the images of the chosen masks, to correct these; other masks by teachers in these images become boxes.

    What was chosen has no source, so that it counts as checked once it comes back, whether it was changed or not.

    Args:
        data: The labeled dataset.
        chosen: The masks, by `choose_next`.
        checked: Indices of masks of the user whose images are kept too.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.labeling import label
        >>> masks = label(example_scenes().without_masks(), teacher="ellipse")
        >>> int(select_next(masks, choose_next(masks, 2)).has_mask.sum())
        2
    """
    instances = [*(one.instance for one in chosen), *checked]
    names = ("segmentations", "quality", "source", "trusted", "areas")
    columns = {name: getattr(data, name).copy() for name in names}
    dropped = data.has_segmentation & (data.has_source | ~data.trusted) & ~data.iscrowd
    dropped[instances] = False
    columns["segmentations"][dropped], columns["areas"][dropped] = None, np.nan
    columns["quality"][:], columns["source"][:], columns["trusted"][:] = np.nan, None, True
    return replace(data, **columns).select_images(np.unique(data.image_index[instances]))


def _measure_doubt(data: Annotations) -> NDArray[np.float64]:
    """Compute the (N,) doubt of each mask: 1 - quality, and no less than a half if anything else speaks against it."""
    doubt = np.clip(1 - data.quality.astype(np.float64), _MIN_DOUBT, 1)
    suspects = [row for rows in find_suspects(data).values() for row in rows]
    doubt[suspects] = np.maximum(doubt[suspects], 0.5)
    return np.where(np.isnan(doubt), 0.5, doubt)


def _sample(
    rows: NDArray[np.int64], weights: NDArray[np.float64], maximum: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Sample at most so many rows without replacement, in their order."""
    if len(rows) <= maximum:
        return rows
    return np.sort(rng.choice(rows, maximum, replace=False, p=weights / weights.sum()))


def _describe(
    data: Annotations, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], list[NDArray[np.uint8]]]:
    """Return (R, F) scaled features and the thumbnails of boxes; colors are zero for images that cannot be read."""
    boxes = data.boxes[rows]
    sides = (boxes[:, 2:] - boxes[:, :2]).clip(min=1)
    quality = np.nan_to_num(data.quality[rows].astype(np.float64), nan=0.5)
    fill = np.nan_to_num(data.areas[rows] / sides.prod(axis=1), nan=0.5)
    colors, thumbnails = np.zeros((len(rows), 3)), [np.zeros((SIDE, SIDE), np.uint8)] * len(rows)
    images, failed = np.unique(data.image_index[rows]), []
    with progress(len(images), "images to compare") as advance:
        for image in images.tolist():
            try:
                pixels = read_image(data.image_path(image))
            except (BoxelError, OSError):
                failed.append(image)
            else:
                for place in np.flatnonzero(data.image_index[rows] == image).tolist():
                    colors[place], thumbnails[place] = _look_at(pixels, boxes[place])
            advance(1)
    if failed:
        missing = describe_missing(map(data.image_path, failed))
        message = "%s cannot be read, so colors and look-alikes in them do not count; %s"
        logger.warning(message, count_noun(len(failed), "image"), missing or "`boxel check` states why")
    numbers = [quality, np.log2(sides.prod(axis=1)) / 2, np.log2(sides[:, 0] / sides[:, 1]), fill, *colors.T]
    return np.stack(numbers, axis=1) / list(_SCALES.values()), thumbnails


def _look_at(
    pixels: NDArray[np.uint8], box: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Return the mean color of a box in LAB and its luminance as a thumbnail."""
    crop = pixels[pixel_region(box, *pixels.shape[:2]).slices]
    small = cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return lab.mean(axis=(0, 1)), np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _find_repeated(
    thumbnails: list[NDArray[np.uint8]], weights: NDArray[np.float64], checked: int
) -> NDArray[np.bool_]:
    """Find the objects that look like another: all but the most doubtful one, or all if the user has checked one."""
    repeated = np.zeros(len(weights), dtype=bool)
    for group in map(np.array, group_near_duplicates(thumbnails)):
        keep = [] if (group < checked).any() else [group[weights[group].argmax()]]
        repeated[np.setdiff1d(group, keep)] = True
    return repeated


def _compare(features: NDArray[np.float64], labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Compute the (R, R) similarity in (0, 1] of objects."""
    squares = np.square(features).sum(axis=1)
    distance = squares[:, None] + squares - 2 * features @ features.T
    distance += _OTHER_CLASS**2 * (labels[:, None] != labels)
    return np.exp(-distance.clip(min=0) / 2).astype(np.float32)


def _choose_greedily(
    similarity: NDArray[np.float32],
    weights: NDArray[np.float64],
    checked: int,
    hidden: NDArray[np.bool_],
    count: int,
) -> list[int]:
    """Choose rows, each of which adds the most to the weighted similarity of all rows to the nearest chosen one."""
    covered = similarity[:checked].max(axis=0, initial=0.0)
    allowed = ~hidden & (np.arange(len(weights)) >= checked)
    chosen: list[int] = []
    while len(chosen) < count and allowed.any():
        gains = (similarity - covered).clip(min=0) @ weights
        best = int(np.where(allowed, gains * weights, -1).argmax())
        chosen.append(best)
        allowed[best] = False
        covered = np.maximum(covered, similarity[best])
    return chosen


def _explain(
    data: Annotations,
    rows: NDArray[np.int64],
    chosen: list[int],
    similarity: NDArray[np.float32],
    checked: int,
) -> list[NextMask]:
    """State why each mask was chosen, and how many others it stands for."""
    suspects = {row: kind for kind, found in find_suspects(data).items() for row in found}
    nearest = similarity[chosen].argmax(axis=0)
    near = similarity[chosen].max(axis=0, initial=0.0) >= _MIN_SIMILARITY
    near[:checked] = False
    reasons = []
    for place, row in enumerate(rows[chosen].tolist()):
        quality = data.quality[row]
        if row in suspects:
            reason = f"its box looks wrong: {suspects[row]}"
        elif np.isnan(quality):
            reason = "quality unknown"
        elif quality < LOW:
            reason = "low quality"
        else:
            reason = "in doubt" if quality < DOUBT else "good, as a sample"
        like = int((near & (nearest == place)).sum()) - 1
        reasons.append(NextMask(row, f"{reason}, {count_noun(like, 'mask')} like it" if like > 0 else reason))
    return reasons
