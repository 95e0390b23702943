"""Hierarchies of regions: binary trees whose leaves are superpixels and whose nodes merge two regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import higra as hg
import numpy as np
from numpy.typing import NDArray

from boxel.proposals.selection import Indices, Pool
from boxel.proposals.superpixels import Pixels, Regions, edge_strength, gradient

SCALES = (1.0, 2.0, 4.0)
"""Standard deviations in pixels at which edges are detected: MCG's image at twice, once and half its size."""


class Hierarchy(NamedTuple):
    """A binary tree over S superpixels: these are nodes 0 to S - 1, later nodes merge two adjacent ones."""

    parents: NDArray[np.int64]  # (2 S - 1,), the parent of each node; the root is its own
    places: NDArray[np.int64]  # (S,), the rank of each superpixel; those of a node have consecutive ranks
    starts: NDArray[np.int64]  # (2 S - 1,), the lowest rank of each node's superpixels
    counts: NDArray[np.int64]  # (2 S - 1,), the number of superpixels of each node
    boxes: NDArray[np.int64]  # (2 S - 1, 4) xyxy, the tight box of each node
    sizes: NDArray[np.float64]  # (2 S - 1,), the number of pixels of each node

    def sets(self, nodes: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Return (N, S) bool, the superpixels of each node."""
        starts = self.starts[nodes, None]
        return (self.places >= starts) & (self.places < starts + self.counts[nodes, None])


def hierarchy(tree: Any, regions: Regions) -> Hierarchy:
    """Extract the needed parts of a binary partition tree of higra."""
    leaves = tree.num_leaves()
    parents = tree.parents().astype(np.int64)
    counts = hg.accumulate_sequential(tree, np.ones(leaves), hg.Accumulators.sum).astype(np.int64)
    low, high = (side.astype(np.float64) for side in np.split(regions.boxes, 2, axis=1))
    lowest = hg.accumulate_sequential(tree, low, hg.Accumulators.min)
    highest = hg.accumulate_sequential(tree, high, hg.Accumulators.max)
    starts = np.zeros(len(parents), dtype=np.int64)
    taken = np.zeros(len(parents), dtype=np.int64)
    for node in range(len(parents) - 2, -1, -1):  # parents come after their children
        parent = parents[node]
        starts[node] = starts[parent] + taken[parent]
        taken[parent] += counts[node]
    boxes = np.concatenate([lowest, highest], 1).astype(np.int64)
    sizes = hg.accumulate_sequential(tree, regions.sizes, hg.Accumulators.sum)
    return Hierarchy(parents, starts[:leaves], starts, counts, boxes, sizes)


def pool_groups(
    trees: Sequence[Hierarchy],
    groups: Sequence[NDArray[np.integer]],
    order: NDArray[np.floating | np.integer],
) -> Pool:
    """Pool unions of disjoint regions of hierarchies over the same superpixels.

    A group is one of (n, K) nodes per hierarchy, ascending; a repeated node counts once. `order` (N,) is that of all
    groups, the lowest the most promising.
    """
    boxes, sizes = [], []
    for tree, nodes in zip(trees, groups, strict=True):
        sides = tree.boxes[nodes]
        boxes.append(np.concatenate([sides[..., :2].min(1), sides[..., 2:].max(1)], 1))
        sizes.append((tree.sizes[nodes] * (np.diff(nodes, prepend=-1) > 0)).sum(1))
    source = np.repeat(np.arange(len(trees)), [len(nodes) for nodes in groups])
    nodes = np.concatenate(groups)

    def sets(indices: Indices) -> NDArray[np.bool_]:
        made = np.zeros((len(indices), len(trees[0].places)), dtype=bool)
        for number, tree in enumerate(trees):
            own = source[indices] == number
            parts = tree.sets(nodes[indices[own]].ravel())
            made[own] = parts.reshape(-1, nodes.shape[1], made.shape[1]).any(1)
        return made

    return Pool(np.concatenate(boxes), np.concatenate(sizes), order, sets)


def hierarchies(image: NDArray[np.uint8], lab: Pixels, regions: Regions) -> Iterator[Hierarchy]:
    """Build trees by different similarities of regions: color in several spaces, texture, the edge between them.

    References:
        Arbelaez, Pont-Tuset, Barron, Marques, Malik, Multiscale Combinatorial Grouping, 2014, uses hierarchies of edges
        at three scales, of a trained detector; those of colors use Ward's linkage.
    """
    colors = regions.mean(lab)
    for features in _features(image, lab, colors, regions):
        tree, _ = hg.binary_partition_tree_ward_linkage(regions.graph, features, regions.sizes)
        yield hierarchy(tree, regions)
    edges = [edge_strength(lab, regions, sigma) for sigma in SCALES]
    first, second = regions.edges.T
    contrast = np.linalg.norm(colors[first] - colors[second], axis=1)
    for weights in (*edges, sum(edges) * contrast):
        tree, _ = hg.binary_partition_tree_average_linkage(regions.graph, weights, regions.lengths)
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
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL).astype(np.float32)
    hue, saturation, value = np.moveaxis(hsv, -1, 0)
    angle = hue * (2 * np.pi / 255)
    cone = np.stack([saturation * np.cos(angle), saturation * np.sin(angle), value / 2], -1)
    yield np.hstack([0.4 * regions.mean(cone), 0.1 * places])
    spread = np.sqrt(np.maximum(regions.mean(lab**2) - colors**2, 0))
    texture = [regions.mean(gradient(lab, sigma)) for sigma in SCALES]
    yield np.hstack([colors, spread, *texture, 0.1 * places])
