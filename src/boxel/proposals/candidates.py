"""Candidate segments of an image, as sets of superpixels."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from boxel.utils.errors import BoxelError
from boxel.utils.files import atomic_path

MAX_BYTES = 1 << 29
"""Maximum size of the arrays of a file: a small one may expand to any size."""


@dataclass(frozen=True)
class Candidates:
    """Candidate segments, best first.

    Thousands of full masks of an image take hundreds of megabytes; as sets of superpixels they take one.

    Attributes:
        superpixels: (H, W) uint16, the superpixel of each pixel, in [0, S).
        members: (N, ceil(S / 8)) uint8, one bit per superpixel, packed by :func:`numpy.packbits`.
        boxes: (N, 4) int32 xyxy, the tight box of each segment.

    Examples:
        >>> halves = np.array([[0, 0, 1, 1]])
        >>> candidates = Candidates.from_sets(halves, np.array([[False, True]]))
        >>> candidates.mask(0)
        array([[False, False,  True,  True]])
        >>> candidates.boxes
        array([[2, 0, 4, 1]], dtype=int32)
    """

    superpixels: NDArray[np.uint16]
    members: NDArray[np.uint8]
    boxes: NDArray[np.int32]

    def __len__(self) -> int:
        """Return the number of segments."""
        return len(self.members)

    @classmethod
    def from_sets(cls, superpixels: NDArray[np.integer], sets: NDArray[np.bool_]) -> Candidates:
        """Make candidates from (N, S) sets of the superpixels of an (H, W) map; no set is empty."""
        boxes = enclosing_boxes(superpixel_boxes(superpixels), sets)
        return cls(superpixels.astype(np.uint16), np.packbits(sets, axis=1), boxes)

    @classmethod
    def load(cls, file: str | Path) -> Candidates:
        """Read a file that :meth:`save` wrote.

        Raises:
            BoxelError: The file cannot be read, or is of another kind.
        """
        try:
            with zipfile.ZipFile(file) as parts:
                size = sum(part.file_size for part in parts.infolist())
            if size > MAX_BYTES:
                raise ValueError(f"it expands to {size:,} bytes")
            with np.load(file, allow_pickle=False) as arrays:
                # What is not an array in the archive is bytes.
                loaded = cls(*(np.asarray(arrays[name]) for name in ("superpixels", "members", "boxes")))
        except (
            OSError,
            ValueError,
            KeyError,
            EOFError,
            RuntimeError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise BoxelError(
                f"{file}: the candidate segments cannot be read ({error}); delete the file."
            ) from None
        sound = loaded.superpixels.ndim == loaded.members.ndim == 2 and loaded.superpixels.size > 0
        if (
            not sound
            or loaded.members.shape[1] != int(loaded.superpixels.max()) // 8 + 1
            or loaded.boxes.shape != (len(loaded), 4)
        ):
            raise BoxelError(f"{file}: this is not a file of candidate segments; delete it.")
        return loaded

    def save(self, file: str | Path) -> None:
        """Write a compressed `.npz` file, completely or not at all."""
        with atomic_path(file) as part:
            np.savez_compressed(part, **vars(self))

    def sets(self) -> NDArray[np.bool_]:
        """Return (N, S) bool, the superpixels of each segment."""
        count = int(self.superpixels.max()) + 1
        return np.unpackbits(self.members, axis=1, count=count).view(bool)

    def mask(self, segment: int) -> NDArray[np.bool_]:
        """Return the (H, W) bool mask of a segment."""
        return np.unpackbits(self.members[segment]).view(bool)[self.superpixels]


def superpixel_boxes(superpixels: NDArray[np.integer]) -> NDArray[np.int32]:
    """Return (S, 4) xyxy, the tight boxes of the superpixels of an (H, W) map."""
    slices = find_objects(superpixels.astype(np.int32) + 1)
    return np.array([(x.start, y.start, x.stop, y.stop) for y, x in slices], dtype=np.int32)


def enclosing_boxes(boxes: NDArray[np.int32], sets: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return (N, 4) xyxy, the tight boxes of (N, S) sets of superpixels with (S, 4) boxes; no set is empty."""
    used = np.flatnonzero(sets.any(0))  # the sets of one box have few superpixels between them
    high = int(boxes.max(initial=0))
    sides = [
        extreme(np.where(sets[:, used], boxes[used, side], other), axis=1, initial=other)
        for side, (extreme, other) in enumerate(((np.min, high), (np.min, high), (np.max, 0), (np.max, 0)))
    ]
    return np.stack(sides, axis=1).astype(np.int32)


def add_masks(candidates: Candidates, masks: NDArray[np.bool_]) -> Candidates:
    """Put (M, H, W) masks before the candidates of an image; superpixels that a mask cuts are split."""
    superpixels = candidates.superpixels.astype(np.int64)
    for mask in masks:
        superpixels = np.unique(2 * superpixels + mask, return_inverse=True)[1].reshape(superpixels.shape)
    flat = superpixels.ravel()
    pixel = np.zeros(flat.max() + 1, dtype=np.int64)
    pixel[flat] = np.arange(flat.size)  # one pixel of each superpixel, which stands for all of it
    own = masks.reshape(len(masks), -1)[:, pixel]
    others = candidates.sets()[:, candidates.superpixels.ravel()[pixel]]
    return Candidates.from_sets(superpixels, np.concatenate([own, others]))
