"""Hierarchies of regions: binary trees whose leaves are superpixels and whose nodes merge two regions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import higra as hg
import numpy as np
from numpy.typing import NDArray

from boxel.proposals.superpixels import Pixels, Regions, edge_strength, gradient

SCALES = (1.0, 2.0, 4.0)
"""Standard deviations in pixels at which edges are detected: MCG's image at twice, once and half its size."""


class Hierarchy(NamedTuple):
    """A binary tree over S superpixels: these are nodes 0 to S - 1, later nodes merge two adjacent ones.

    Attributes:
        parents: (2 S - 1,) int64, the parent of each node; the root is its own.
        places: (S,) int64, the position of each superpixel in an order in which those of each node are contiguous.
        starts: (2 S - 1,) int64, the first position of each node's superpixels.
        counts: (2 S - 1,) int64, the number of superpixels of each node.
        boxes: (2 S - 1, 4) int64 xyxy, the tight box of each node.
        sizes: (2 S - 1,) float, the number of pixels of each node.
    """

    parents: NDArray[np.int64]
    places: NDArray[np.int64]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    boxes: NDArray[np.int64]
    sizes: NDArray[np.float64]

    def sets(self, nodes: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Return (N, S) bool, the superpixels of each node."""
        starts = self.starts[nodes, None]
        return (self.places >= starts) & (self.places < starts + self.counts[nodes, None])


def hierarchy(tree: Any, regions: Regions) -> Hierarchy:
    """Extract the needed parts of a binary partition tree of higra."""
    leaves = tree.num_leaves()
    parents = tree.parents().astype(np.int64)
    counts = hg.accumulate_sequential(tree, np.ones(leaves), hg.Accumulators.sum).astype(np.int64)
    lowest, highest = (
        hg.accumulate_sequential(tree, side.astype(np.float64), of)
        for side, of in (
            (regions.boxes[:, :2], hg.Accumulators.min),
            (regions.boxes[:, 2:], hg.Accumulators.max),
        )
    )
    starts = np.zeros(len(parents), dtype=np.int64)
    taken = np.zeros(len(parents), dtype=np.int64)
    for node in range(len(parents) - 2, -1, -1):  # parents come after their children
        parent = parents[node]
        starts[node] = starts[parent] + taken[parent]
        taken[parent] += counts[node]
    return Hierarchy(
        parents,
        starts[:leaves],
        starts,
        counts,
        np.concatenate([lowest, highest], 1).astype(np.int64),
        hg.accumulate_sequential(tree, regions.sizes, hg.Accumulators.sum),
    )


def hierarchies(image: NDArray[np.uint8], lab: Pixels, regions: Regions) -> Iterator[Hierarchy]:
    """Build trees by different similarities of regions: color in several spaces, texture, the edge between them.

    Args:
        image: (H, W, 3) uint8, RGB.
        lab: The same in CIE LAB.
        regions: Its superpixels.

    References:
        Arbelaez, Pont-Tuset, Barron, Marques, Malik, Multiscale Combinatorial Grouping, 2014, uses hierarchies of edges
        at three scales, of a trained detector; those of colors use Ward's linkage.
    """
    colors = regions.mean(lab)
    for features in _features(image, lab, colors, regions):
        yield hierarchy(
            hg.binary_partition_tree_ward_linkage(regions.graph, features, regions.sizes)[0], regions
        )
    edges = [edge_strength(lab, regions, sigma) for sigma in SCALES]
    first, second = regions.edges.T
    contrast = np.linalg.norm(colors[first] - colors[second], axis=1)
    for weights in (*edges, sum(edges) * contrast):
        tree = hg.binary_partition_tree_average_linkage(regions.graph, weights, regions.lengths)[0]
        yield hierarchy(tree, regions)


def _features(
    image: NDArray[np.uint8], lab: Pixels, colors: NDArray[np.float64], regions: Regions
) -> Iterator[NDArray[np.float64]]:
    """Yield (S, C) features of the superpixels; similar ones are merged first."""
    height, width = regions.labels.shape
    y, x = np.mgrid[:height, :width]
    places = regions.mean(np.stack([x, y], -1) * (500 / max(height, width)))
    yield np.hstack([colors, 0.1 * places])
    yield np.hstack([colors, 0.3 * places])
    yield np.hstack([0.3 * colors[:, :1], colors[:, 1:], 0.05 * places])
    hue, saturation, value = np.moveaxis(
        cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL).astype(np.float32), -1, 0
    )
    angle = hue * (2 * np.pi / 255)
    cone = np.stack([saturation * np.cos(angle), saturation * np.sin(angle), value / 2], -1)
    yield np.hstack([0.4 * regions.mean(cone), 0.1 * places])
    spread = np.sqrt(np.maximum(regions.mean(lab**2) - colors**2, 0))
    texture = [regions.mean(gradient(lab, sigma)) for sigma in SCALES]
    yield np.hstack([colors, spread, *texture, 0.1 * places])
