"""Geodesic object proposals, with seeds that are not learned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from boxel.proposals.selection import Indices, Pool
from boxel.proposals.superpixels import Pixels, Regions, edge_strength

MAX_SEEDS = 150  # superpixels from which regions grow
MAX_LEVELS = 20  # maximum number of level sets per distance


def gop(image: NDArray[np.uint8], lab: Pixels, regions: Regions) -> Pool:
    """Pool the level sets of geodesic distances from seeds, over superpixels.

    The distance from a seed is large across edges and small within an object. Each distance is used as it is, and minus
    that from the image's border. The level sets with the largest gap to the next superpixel are kept: there the region
    has filled what edges enclose. The best one of each seed comes first, then all second best.

    References:
        Krähenbühl, Koltun, Geodesic Object Proposals, 2014: Sections 3 to 6, without learning.
    """
    lengths = (edge_strength(lab, regions, 1.0) + edge_strength(lab, regions, 2.0)) ** 2 / 4 + 1e-3
    graph = regions.adjacency(lengths)
    ahead = _from_seeds(graph)
    behind = dijkstra(graph, indices=_border(regions), min_only=True)
    distances = np.concatenate([ahead, ahead - behind])
    rows = np.argsort(distances, axis=1, kind="stable")
    ranks = np.argsort(rows, axis=1, kind="stable")
    reached = np.take_along_axis(distances, rows, 1)
    waits = np.diff(reached, axis=1) / (reached[:, 1:] - reached[:, :1] + 1e-9)
    waits[:, :1] = 0  # a seed alone has filled nothing
    levels = np.argsort(-waits, axis=1, kind="stable")[:, :MAX_LEVELS]
    source = np.repeat(np.arange(len(distances)), levels.shape[1])
    stops = levels.ravel()  # the rank of the last superpixel in the set
    ordered = regions.boxes[rows]
    corners = np.minimum.accumulate(ordered[..., :2], 1), np.maximum.accumulate(ordered[..., 2:], 1)
    growing = np.concatenate(corners, -1)
    sizes = np.cumsum(regions.sizes[rows], axis=1)

    def sets(indices: Indices) -> NDArray[np.bool_]:
        return ranks[source[indices]] <= stops[indices, None]

    turns = np.tile(np.arange(levels.shape[1]), len(distances))
    order = turns * len(distances) + source % len(ahead)
    return Pool(growing[source, stops], sizes[source, stops], order, sets)


def _from_seeds(graph: csr_array) -> NDArray[np.float64]:
    """Return (N, S) distances from seeds, each of which is the farthest from those before it."""
    found = [dijkstra(graph, indices=0)]
    found = [dijkstra(graph, indices=int(found[0].argmax()))]
    nearest = found[0].copy()
    while len(found) < min(MAX_SEEDS, len(nearest)):
        found.append(dijkstra(graph, indices=int(nearest.argmax())))
        nearest = np.minimum(nearest, found[-1])
    return np.stack(found)


def _border(regions: Regions) -> NDArray[np.int64]:
    """Return the superpixels at the image's border."""
    labels = regions.labels
    return np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
