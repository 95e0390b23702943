"""Find images that look the same: by a hash of their thumbnails (dHash), then by what differs anywhere in them.

Images of one fixed camera have the same hash, but other objects in it; only copies of an image, whatever their size,
compression and brightness, are the same everywhere.

References:
    Krawetz, "Kind of Like That", 2013, http://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

SIDE = 27
"""Side of the thumbnails; means of 3 x 3 pixels are hashed."""

MAX_BITS = 12
"""Maximum number of the 128 bits in which the hashes of two images that look the same differ..."""

MAX_SHIFT = 12.0
"""...and maximum mean difference of their thumbnails, in levels of 255..."""

MAX_DIFFERENCE = 12.0
"""...and, once brightness and contrast are equal, maximum difference of two pixels..."""

MAX_RELATIVE_DIFFERENCE = 0.17
"""...and maximum root mean square difference, as a share of the standard deviation."""

MAX_GAIN = 1.25
"""Maximum ratio of contrasts that is made equal."""

MIN_CONTRAST = 3.0
"""Thumbnails with a smaller standard deviation show nothing to compare."""

_BANDS = 8  # of two hashes that differ in few bits, one band is the same
_REACH = 64  # of the images with the same band, each is compared with this many following ones
_PAIRS = 4096  # that are compared at once
_POPULATION = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


def group_near_duplicates(thumbnails: Sequence[NDArray[np.uint8]]) -> list[list[int]]:
    """Group images that look the same.

    Args:
        thumbnails: n luminance images (27, 27).

    Returns:
        Groups of two or more positions, each in order.

    Examples:
        >>> one = np.arange(729, dtype=np.uint16).reshape(27, 27) // 3
        >>> group_near_duplicates([one.astype(np.uint8), one.T.astype(np.uint8), (one + 1).astype(np.uint8)])
        [[0, 2]]
    """
    if len(thumbnails) < 2:
        return []
    images = np.stack(thumbnails)
    blocks = images.reshape(-1, 9, 3, 9, 3).mean(axis=(2, 4), dtype=np.float32)
    contrasty = np.flatnonzero(blocks.std(axis=(1, 2)) >= MIN_CONTRAST)
    images, blocks = images[contrasty].reshape(-1, SIDE**2), blocks[contrasty]
    right = blocks[:, :8, 1:] > blocks[:, :8, :-1]
    down = blocks[:, 1:, :8] > blocks[:, :-1, :8]
    bits = np.concatenate([right.reshape(-1, 64), down.reshape(-1, 64)], axis=1)
    hashes = np.packbits(bits, axis=1)  # (n, 16) bytes
    parents = list(range(len(images)))
    for pairs in _candidates(hashes):
        one, other = pairs.T
        near = pairs[_POPULATION[hashes[one] ^ hashes[other]].sum(axis=1) <= MAX_BITS]
        for start in range(0, len(near), _PAIRS):
            some = near[start : start + _PAIRS]
            for first, second in some[_look_same(images[some[:, 0]], images[some[:, 1]])].tolist():
                low, high = sorted((_root(parents, first), _root(parents, second)))
                parents[high] = low
    groups: dict[int, list[int]] = {}
    for k in range(len(images)):
        groups.setdefault(_root(parents, k), []).append(int(contrasty[k]))
    return [group for group in groups.values() if len(group) > 1]


def _look_same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(m,) bool: pairs of thumbnails, (m, 729) each, are the same but for their brightness and contrast."""
    one, other = one.astype(np.float32), other.astype(np.float32)
    near = np.abs(one - other).mean(axis=1) <= MAX_SHIFT
    one -= one.mean(axis=1, keepdims=True)
    other -= other.mean(axis=1, keepdims=True)
    contrast, other_contrast = one.std(axis=1), other.std(axis=1)
    gain = np.clip(contrast / np.maximum(other_contrast, 1e-6), 1 / MAX_GAIN, MAX_GAIN)
    difference = one - gain[:, None] * other
    everywhere = np.abs(difference).max(axis=1) <= MAX_DIFFERENCE
    return near & everywhere & (difference.std(axis=1) <= MAX_RELATIVE_DIFFERENCE * contrast)


def _candidates(hashes: NDArray[np.uint8]) -> Iterator[NDArray[np.int64]]:
    """Yield (m, 2) pairs of hashes that have a band of bits in common; not all if very many have the same."""
    width = hashes.shape[1] // _BANDS
    for band in range(_BANDS):
        keys = np.ascontiguousarray(hashes[:, band * width : (band + 1) * width]).view(np.uint16)[:, 0]
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        for step in range(1, min(_REACH, len(ranked))):
            same = np.flatnonzero(ranked[step:] == ranked[:-step])
            if not len(same):
                break
            yield np.stack([order[same], order[same + step]], axis=1)


def _root(parents: list[int], k: int) -> int:
    while parents[k] != k:
        parents[k] = parents[parents[k]]
        k = parents[k]
    return k
