"""Candidate segments of an image, as sets of superpixels."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boxel.errors import BoxelError


@dataclass(frozen=True)
class Candidates:
    """Candidate segments, best first.

    Thousands of full masks of an image would take hundreds of megabytes; as sets of superpixels they take one.

    Attributes:
        superpixels: (H, W) uint16, the superpixel of each pixel, in [0, S).
        members: (N, ceil(S / 8)) uint8, a bit for each superpixel, as of :func:`numpy.packbits`.
    """

    superpixels: NDArray[np.uint16]
    members: NDArray[np.uint8]

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
        np.savez_compressed(file, superpixels=self.superpixels, members=self.members)


def from_sets(superpixels: NDArray[np.integer], sets: NDArray[np.bool_]) -> Candidates:
    """Candidates from (N, S) sets of the superpixels of an (H, W) map."""
    return Candidates(superpixels.astype(np.uint16), np.packbits(sets, axis=1))


def load(file: str | Path) -> Candidates:
    """Read what :meth:`Candidates.save` wrote.

    Raises:
        BoxelError: it can't be read, or isn't what was written.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = Candidates(arrays["superpixels"], arrays["members"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BoxelError(
            f"{file}: the candidate segments can't be read ({error}); delete the file."
        ) from None
    sound = found.superpixels.ndim == found.members.ndim == 2 and found.superpixels.size > 0
    if not sound or found.members.shape[1] != int(found.superpixels.max()) // 8 + 1:
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
