"""Geodesic object proposals, with seeds that nothing has taught."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from boxel.proposals.selection import Indices, Pool
from boxel.proposals.superpixels import Pixels, Regions, edge_strength

SEEDS = 150
"""Superpixels that regions grow from."""

LEVELS = 20
"""Most level sets that are kept of one distance."""


def gop(image: NDArray[np.uint8], lab: Pixels, regions: Regions) -> Pool:
    """Level sets of geodesic distances from seeds, over superpixels.

    From a seed it is far across edges and near within an object. Each distance is taken as it is, and less that
    from the image's border. Of its level sets those are kept at which the region
    would have to wait longest for its next superpixel: there it has filled what edges enclose.

    Args:
        image: (H, W, 3) uint8 RGB.
        lab: the same in CIE LAB.
        regions: its superpixels.

    References:
        Krähenbühl, Koltun, Geodesic Object Proposals, 2014: Sections 3 to 6 but for what is learned there.
    """
    graph = _graph(lab, regions)
    ahead = _from_seeds(graph)
    behind = dijkstra(graph, indices=_border(regions), min_only=True)
    distances = np.concatenate([ahead, ahead - behind])
    rows = np.argsort(distances, axis=1, kind="stable")
    ranks = np.argsort(rows, axis=1, kind="stable")
    gaps = np.diff(np.take_along_axis(distances, rows, 1), axis=1)
    waits = gaps / (np.take_along_axis(distances, rows, 1)[:, 1:] - distances.min(1, keepdims=True) + 1e-9)
    levels = np.argsort(-waits, axis=1, kind="stable")[:, :LEVELS]
    source = np.repeat(np.arange(len(distances)), levels.shape[1])
    stops = levels.ravel()  # the last superpixel that is in the set, by its rank
    ordered = regions.boxes[rows]
    growing = np.concatenate(
        [np.minimum.accumulate(ordered[..., :2], 1), np.maximum.accumulate(ordered[..., 2:], 1)], -1
    )
    sizes = np.cumsum(regions.sizes[rows], axis=1)

    def sets(indices: Indices) -> NDArray[np.bool_]:
        return ranks[source[indices]] <= stops[indices, None]

    order = np.argsort(np.argsort(-waits[source, stops], kind="stable"), kind="stable")
    return Pool(growing[source, stops], sizes[source, stops], order, sets)


def _graph(lab: Pixels, regions: Regions) -> csr_array:
    """(S, S) lengths of the ways between superpixels that touch."""
    length = (edge_strength(lab, regions, 1.0) + edge_strength(lab, regions, 2.0)) ** 2 / 4 + 1e-3
    first, second = regions.edges.T
    count = len(regions.sizes)
    return csr_array(
        (np.tile(length, 2), (np.concatenate([first, second]), np.concatenate([second, first]))),
        (count, count),
    )


def _from_seeds(graph: csr_array) -> NDArray[np.float64]:
    """(N, S) distances from each of some superpixels, every one the farthest from those before it."""
    found = [dijkstra(graph, indices=0)]
    found = [dijkstra(graph, indices=int(found[0].argmax()))]
    nearest = found[0].copy()
    while len(found) < min(SEEDS, len(nearest)):
        found.append(dijkstra(graph, indices=int(nearest.argmax())))
        nearest = np.minimum(nearest, found[-1])
    return np.stack(found)


def _border(regions: Regions) -> NDArray[np.int64]:
    """Superpixels at the image's border."""
    labels = regions.labels
    return np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
