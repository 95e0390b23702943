"""Hierarchies of regions over superpixels: trees whose leaves are superpixels and whose nodes join two regions each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import higra as hg
import numpy as np
from numpy.typing import NDArray

from boxel.proposals.superpixels import Pixels, Regions, edge_strength, gradient

SCALES = (1.0, 2.0, 4.0)
"""Standard deviations, in pixels, at which edges are looked for: MCG's image at twice its size, once and half."""


class Hierarchy(NamedTuple):
    """A binary tree over S superpixels: nodes 0 to S - 1 are these, later ones join two that touch; the last is all.

    Attributes:
        parents: (2 S - 1,) int64, of the root itself.
        places: (S,) int64, a row in which the superpixels of each node stand side by side: where each stands.
        starts: (2 S - 1,) int64, the first place of each node's superpixels.
        counts: (2 S - 1,) int64, how many superpixels each node has.
        boxes: (2 S - 1, 4) int64 xyxy, the tight box of each node.
        sizes: (2 S - 1,) float, pixels of each node.
    """

    parents: NDArray[np.int64]
    places: NDArray[np.int64]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    boxes: NDArray[np.int64]
    sizes: NDArray[np.float64]

    def sets(self, nodes: NDArray[np.integer]) -> NDArray[np.bool_]:
        """(N, S) bool, which superpixels each node has."""
        starts = self.starts[nodes, None]
        return (self.places >= starts) & (self.places < starts + self.counts[nodes, None])


def hierarchy(tree: Any, regions: Regions) -> Hierarchy:
    """What is needed of one of higra's binary partition trees."""
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
    """Trees that differ in what makes two regions alike: color in several spaces, texture, the edge between them.

    Args:
        image: (H, W, 3) uint8 RGB.
        lab: the same in CIE LAB.
        regions: its superpixels.

    References:
        Arbelaez, Pont-Tuset, Barron, Marques, Malik, Multiscale Combinatorial Grouping, 2014, has hierarchies of edges
        at three scales, of a detector that was trained; that of colors is Ward's.
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
    """(S, C) of each superpixel; those that differ little are joined first."""
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
