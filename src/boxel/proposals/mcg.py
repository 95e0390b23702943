"""Multiscale combinatorial grouping, without learning: unions of neighboring regions of several hierarchies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boxel.proposals.hierarchies import Hierarchy, hierarchies, pool_groups
from boxel.proposals.selection import Pool
from boxel.proposals.superpixels import Pixels, Regions

TOP_REGIONS = (300, 60, 30)  # how many of the highest regions form pairs, triplets and quadruplets


def mcg(image: NDArray[np.uint8], lab: Pixels, regions: Regions) -> Pool:
    """Pool the regions of several hierarchies, and unions of up to four of them.

    The published method learns edges and the ranking of segments. Here edges are color gradients, and the most
    promising segments are the high ones of a hierarchy, single regions first.

    References:
        Arbelaez, Pont-Tuset, Barron, Marques, Malik, Multiscale Combinatorial Grouping, 2014, Section 4.
    """
    trees = list(hierarchies(image, lab, regions))
    groups = [group_regions(tree, regions) for tree in trees]
    depths = np.concatenate([nodes.max() - nodes[:, 0] for nodes in groups])
    several = np.concatenate([nodes[:, 0] != nodes[:, -1] for nodes in groups])
    return pool_groups(trees, groups, depths + several * depths.max())


def group_regions(tree: Hierarchy, regions: Regions, top: tuple[int, ...] = TOP_REGIONS) -> NDArray[np.int64]:
    """List every region of a hierarchy, and pairs, triplets and quadruplets of adjacent ones among the `top` highest.

    They are (N, 4) nodes in ascending order; the last one is repeated if there are fewer.
    """
    count = len(tree.parents)
    found = [np.arange(count)[:, None]]
    high = np.arange(count - 1, max(count - 1 - max(top), -1), -1)
    touch, apart = _relations(tree, high, regions)
    for arity, kept in enumerate(top, start=2):
        own = found[-1][np.all(found[-1] >= count - kept, axis=1)] if arity > 2 else high[:kept, None]
        rows = count - 1 - own
        joins = touch[rows, :kept].any(1) & apart[rows, :kept].all(1)
        which, other = joins.nonzero()
        grown = np.sort(np.concatenate([own[which], high[other, None]], 1), axis=1)
        found.append(np.unique(grown, axis=0))
    return np.concatenate([np.pad(own, ((0, 0), (0, 4 - own.shape[1])), mode="edge") for own in found])


def _relations(
    tree: Hierarchy, nodes: NDArray[np.int64], regions: Regions
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (K, K) whether two regions are adjacent, and whether they are disjoint."""
    stops = tree.starts + tree.counts
    apart = (stops[nodes, None] <= tree.starts[nodes]) | (stops[nodes] <= tree.starts[nodes, None])
    near = regions.adjacency(np.ones(len(regions.edges), dtype=np.float32))
    own = tree.sets(nodes).astype(np.float32)
    around = (near @ own.T > 0).astype(np.float32)  # superpixels adjacent to each region
    return own @ around > 0, apart
