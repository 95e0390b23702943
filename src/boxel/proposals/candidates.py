"""Candidate segments of an image, as sets of superpixels."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from boxel.utils.errors import BoxelError


@dataclass(frozen=True)
class Candidates:
    """Candidate segments, best first.

    Thousands of full masks of an image would take hundreds of megabytes; as sets of superpixels they take one.

    Attributes:
        superpixels: (H, W) uint16, the superpixel of each pixel, in [0, S).
        members: (N, ceil(S / 8)) uint8, a bit for each superpixel, as of :func:`numpy.packbits`.
        boxes: (N, 4) int32 xyxy, the tight box of each segment.
    """

    superpixels: NDArray[np.uint16]
    members: NDArray[np.uint8]
    boxes: NDArray[np.int32]

    def __len__(self) -> int:
        """How many segments there are."""
        return len(self.members)

    def sets(self) -> NDArray[np.bool_]:
        """(N, S) bool, which superpixels each segment is of."""
        count = int(self.superpixels.max()) + 1
        return np.unpackbits(self.members, axis=1, count=count).view(bool)

    def mask(self, segment: int) -> NDArray[np.bool_]:
        """(H, W) bool."""
        return np.unpackbits(self.members[segment]).view(bool)[self.superpixels]

    def save(self, file: str | Path) -> None:
        """Write them as a compressed `.npz` file."""
        np.savez_compressed(file, **vars(self))


def from_sets(superpixels: NDArray[np.integer], sets: NDArray[np.bool_]) -> Candidates:
    """Candidates from (N, S) sets of the superpixels of an (H, W) map, none of which is empty."""
    boxes = tight_boxes(superpixel_boxes(superpixels), sets)
    return Candidates(superpixels.astype(np.uint16), np.packbits(sets, axis=1), boxes)


def superpixel_boxes(superpixels: NDArray[np.integer]) -> NDArray[np.int32]:
    """(S, 4) xyxy, the tight boxes of the superpixels of an (H, W) map."""
    found = find_objects(superpixels.astype(np.int32) + 1)
    return np.array([(x.start, y.start, x.stop, y.stop) for y, x in found], dtype=np.int32)


def tight_boxes(boxes: NDArray[np.int32], sets: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(N, 4) xyxy, the tight boxes of (N, S) sets of superpixels that have the (S, 4) boxes; no set is empty."""
    used = np.flatnonzero(sets.any(0))  # sets of one box have few superpixels between them
    least, most = int(boxes.max(initial=0)), 0
    sides = [
        extreme(np.where(sets[:, used], boxes[used, side], other), axis=1, initial=other)
        for side, extreme, other in (
            (0, np.min, least),
            (1, np.min, least),
            (2, np.max, most),
            (3, np.max, most),
        )
    ]
    return np.stack(sides, axis=1).astype(np.int32)


def load(file: str | Path) -> Candidates:
    """Read what :meth:`Candidates.save` wrote.

    Raises:
        BoxelError: it can't be read, or isn't what was written.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = Candidates(arrays["superpixels"], arrays["members"], arrays["boxes"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BoxelError(
            f"{file}: the candidate segments can't be read ({error}); delete the file."
        ) from None
    sound = found.superpixels.ndim == found.members.ndim == 2 and found.superpixels.size > 0
    if (
        not sound
        or found.members.shape[1] != int(found.superpixels.max()) // 8 + 1
        or found.boxes.shape != (len(found), 4)
    ):
        raise BoxelError(f"{file}: this isn't a file of candidate segments; delete it.")
    return found


def with_masks(candidates: Candidates, masks: NDArray[np.bool_]) -> Candidates:
    """Candidates, and some masks before them; superpixels that a mask cuts become two.

    Args:
        candidates: of the same image.
        masks: (M, H, W) bool.
    """
    superpixels = candidates.superpixels.astype(np.int64)
    for mask in masks:
        superpixels = np.unique(2 * superpixels + mask, return_inverse=True)[1].reshape(superpixels.shape)
    flat = superpixels.ravel()
    one = np.zeros(flat.max() + 1, dtype=np.int64)
    one[flat] = np.arange(flat.size)  # a pixel of each superpixel, which tells for all of it
    own = masks.reshape(len(masks), -1)[:, one]
    return from_sets(
        superpixels, np.concatenate([own, candidates.sets()[:, candidates.superpixels.ravel()[one]]])
    )
