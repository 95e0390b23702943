"""Combinatorial grouping: unions of up to four neighboring regions of a hierarchy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

from boxel.proposals.hierarchies import Hierarchy
from boxel.proposals.superpixels import Regions

TOP_REGIONS = (300, 60, 30)
"""How many of the highest regions of a hierarchy form pairs, triplets and quadruplets: some thousands of each."""


class Groups(NamedTuple):
    """Unions of regions of a hierarchy.

    Attributes:
        nodes: (N, 4) int64, the regions of each; the last one is repeated if there are fewer.
        boxes: (N, 4) int64 xyxy, the tight box of each.
        sizes: (N,) float, the number of pixels of each.
        depths: (N,) int64, the number of regions of the hierarchy above the lowest one of the group.
    """

    nodes: NDArray[np.int64]
    boxes: NDArray[np.int64]
    sizes: NDArray[np.float64]
    depths: NDArray[np.int64]


def group_regions(tree: Hierarchy, regions: Regions, top: tuple[int, ...] = TOP_REGIONS) -> Groups:
    """List every region of a hierarchy, and pairs, triplets and quadruplets of adjacent ones among the highest.

    Args:
        tree: The hierarchy.
        regions: Its superpixels.
        top: How many of the highest regions form pairs, triplets and so on.

    References:
        Arbelaez, Pont-Tuset, Barron, Marques, Malik, Multiscale Combinatorial Grouping, 2014, Section 4.
    """
    count = len(tree.parents)
    found = [np.arange(count)[:, None]]
    high = np.arange(count - 1, max(count - 1 - max(top, default=0), -1), -1)
    touch, apart = _relations(tree, high, regions)
    for arity, kept in enumerate(top, start=2):
        own = found[-1][np.all(found[-1] >= count - kept, axis=1)] if arity > 2 else high[:kept, None]
        rows = count - 1 - own
        joins = touch[rows, :kept].any(1) & apart[rows, :kept].all(1)
        which, other = joins.nonzero()
        grown = np.sort(np.concatenate([own[which], high[other, None]], 1), axis=1)
        found.append(np.unique(grown, axis=0))
    nodes = np.concatenate([np.pad(own, ((0, 0), (0, 4 - own.shape[1])), mode="edge") for own in found])
    boxes = tree.boxes[nodes]
    sizes = np.concatenate([tree.sizes[own].sum(1) for own in found])
    return Groups(
        nodes,
        np.concatenate([boxes[..., :2].min(1), boxes[..., 2:].max(1)], 1),
        sizes,
        count - 1 - nodes.min(1),
    )


def _relations(
    tree: Hierarchy, nodes: NDArray[np.int64], regions: Regions
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (K, K) whether two regions are adjacent, and whether they are disjoint."""
    stops = tree.starts + tree.counts
    apart = (stops[nodes, None] <= tree.starts[nodes]) | (stops[nodes] <= tree.starts[nodes, None])
    first, second = regions.edges.T
    count = len(regions.sizes)
    ones = np.ones(2 * len(first), dtype=np.float32)
    near = coo_array(
        (ones, (np.concatenate([first, second]), np.concatenate([second, first]))), (count, count)
    ).tocsr()
    own = tree.sets(nodes).astype(np.float32)
    around = (near @ own.T > 0).astype(np.float32)  # superpixels adjacent to each region
    return own @ around > 0, apart
