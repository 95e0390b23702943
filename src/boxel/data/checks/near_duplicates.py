"""Find images that look the same, by a hash of their thumbnails (dHash).

References:
    Krawetz, "Kind of Like That", 2013, http://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

MAX_BITS = 12
"""Maximum number of the 128 bits in which the hashes of two images that look the same differ..."""

MAX_DIFFERENCE = 8.0
"""...and maximum mean difference of their thumbnails, in levels of 255."""

MIN_CONTRAST = 3.0
"""Thumbnails with a smaller standard deviation show nothing to compare."""

_BANDS = 8  # of two hashes that differ in few bits, one band is the same
_REACH = 64  # of the images with the same band, each is compared with this many following ones
_POPULATION = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


def group_near_duplicates(thumbnails: Sequence[NDArray[np.uint8]]) -> list[list[int]]:
    """Group images that look the same.

    Args:
        thumbnails: n luminance images (9, 9).

    Returns:
        Groups of two or more positions, each in order.

    Examples:
        >>> one = np.arange(81, dtype=np.uint8).reshape(9, 9)
        >>> group_near_duplicates([one, one.T, one + 1])
        [[0, 2]]
    """
    if len(thumbnails) < 2:
        return []
    images = np.stack(thumbnails).astype(np.int16)
    contrasty = np.flatnonzero(images.reshape(len(images), -1).std(axis=1) >= MIN_CONTRAST)
    images = images[contrasty]
    right = images[:, :8, 1:] > images[:, :8, :-1]
    down = images[:, 1:, :8] > images[:, :-1, :8]
    bits = np.concatenate([right.reshape(len(images), 64), down.reshape(len(images), 64)], axis=1)
    hashes = np.packbits(bits, axis=1)  # (n, 16) bytes
    parents = list(range(len(images)))
    for pairs in _candidates(hashes):
        one, other = pairs.T
        apart = _POPULATION[hashes[one] ^ hashes[other]].sum(axis=1)
        near = pairs[apart <= MAX_BITS]
        for first, second in near[_mean_differences(images, near) <= MAX_DIFFERENCE].tolist():
            low, high = sorted((_root(parents, first), _root(parents, second)))
            parents[high] = low
    groups: dict[int, list[int]] = {}
    for k in range(len(images)):
        groups.setdefault(_root(parents, k), []).append(int(contrasty[k]))
    return [group for group in groups.values() if len(group) > 1]


def _mean_differences(images: NDArray[np.int16], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.abs(images[pairs[:, 0]] - images[pairs[:, 1]]).mean(axis=(1, 2))


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
