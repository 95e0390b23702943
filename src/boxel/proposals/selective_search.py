"""Selective search: hierarchical grouping of regions by similarity, in several color spaces and from several starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import higra as hg
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb

from boxel.proposals.hierarchies import hierarchy, pool_groups
from boxel.proposals.selection import Pool
from boxel.proposals.superpixels import Pixels, Regions, build_regions

SCALES = (50, 100)  # k of Felzenszwalb's segmentation, and its minimum size in pixels
COLOR_BINS, TEXTURE_BINS = 25, 10  # per channel, and per channel and orientation
ORIENTATIONS = 8  # of derivatives
LAB_LOW, LAB_RANGE = np.array([0, -128, -128]), np.array([100, 255, 255])  # of 8 bits
MAX_DERIVATIVE = 0.43  # that a bin holds, of channels in [0, 1], as in the authors' code


def selective_search(image: NDArray[np.uint8], lab: Pixels, regions: Regions) -> Pool:
    """Pool the regions of hierarchical grouping, from every start and in every color space: the "fast" version.

    It is Lab and HSV, k = 50 and 100, and the similarities of color, texture, size and fill, or of the last three. The
    starts are Felzenszwalb's regions, as unions of superpixels, which is ours.

    References:
        Uijlings, van de Sande, Gevers, Smeulders, Selective Search for Object Recognition, 2013, Sections 3.1 and 3.2,
        and Table 5.
    """
    hsv = (cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL) / 255).astype(np.float32)
    spaces: tuple[Pixels, ...] = (((lab - LAB_LOW) / LAB_RANGE).astype(np.float32), hsv)
    bins = [(_bins(space, 1, COLOR_BINS), _texture_bins(space)) for space in spaces]
    trees = []
    for scale in SCALES:
        for space, (color_bins, texture_bins) in zip(spaces, bins, strict=True):
            start = felzenszwalb(space, scale=scale, sigma=0.8, min_size=scale, channel_axis=-1)
            own = build_regions(_majority(regions, start)[regions.labels])
            member = np.zeros(len(regions.sizes), dtype=np.int64)
            member[regions.labels.ravel()] = own.labels.ravel()
            colors = _histograms(own, color_bins, COLOR_BINS)
            textures = _histograms(own, texture_bins, TEXTURE_BINS)
            for features in ([colors, textures], [textures]):
                tree = hierarchy(_group(own, features), own)
                trees.append(tree._replace(places=tree.places[member]))  # of superpixels instead of regions
    groups = [np.arange(len(tree.parents))[:, None] for tree in trees]
    depths = np.concatenate([nodes[::-1, 0] for nodes in groups])
    # The authors rank by depth times chance (Section 4.3).
    return pool_groups(trees, groups, depths * np.random.default_rng(0).random(len(depths)))


def _group(own: Regions, features: list[NDArray[np.float64]]) -> Any:
    """Build the tree of repeatedly merging the two most similar adjacent regions (Algorithm 1, Eqs. 2-6)."""
    total = own.labels.size
    # Merged regions get the second half of each table.
    sizes = np.concatenate([own.sizes, np.zeros_like(own.sizes)])
    boxes = np.concatenate([own.boxes, np.zeros_like(own.boxes)]).astype(np.float64)
    tables = [np.concatenate([feature, np.zeros_like(feature)]) for feature in features]

    def unlike(a: NDArray[np.integer], b: NDArray[np.integer]) -> NDArray[np.float64]:
        alike = 1 - (sizes[a] + sizes[b]) / total
        around = np.maximum(boxes[a, 2:], boxes[b, 2:]) - np.minimum(boxes[a, :2], boxes[b, :2])
        alike += 1 - (around.prod(-1) - sizes[a] - sizes[b]) / total
        for table in tables:
            alike += np.minimum(table[a], table[b]).sum(-1)
        return -alike

    def join(_graph: Any, _edge: int, new: int, first: int, second: int, around: Iterable[Any]) -> None:
        sizes[new] = sizes[first] + sizes[second]
        boxes[new, :2] = np.minimum(boxes[first, :2], boxes[second, :2])
        boxes[new, 2:] = np.maximum(boxes[first, 2:], boxes[second, 2:])
        for table in tables:
            table[new] = (sizes[first] * table[first] + sizes[second] * table[second]) / sizes[new]
        neighbors = list(around)
        others = np.array([n.neighbour_vertex() for n in neighbors], dtype=np.int64)
        for neighbor, weight in zip(neighbors, unlike(others, np.full_like(others, new)), strict=True):
            neighbor.set_new_edge_weight(weight)

    return hg.binary_partition_tree(own.graph, join, unlike(*own.edges.T))[0]


def _majority(regions: Regions, labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return (S,) the most frequent label of each superpixel."""
    base = int(labels.max()) + 1
    pairs, counts = np.unique(regions.labels.ravel() * base + labels.ravel(), return_counts=True)
    owner, label = np.divmod(pairs[np.argsort(counts, kind="stable")], base)
    found = np.zeros(len(regions.sizes), dtype=np.int64)
    found[owner] = label  # the last assignment is the most frequent label
    return found


def _bins(values: NDArray[np.floating], high: float, count: int) -> NDArray[np.int64]:
    """Return the bin of each value between 0 and a highest one."""
    return (values * (count / high)).clip(0, count - 1).astype(np.int64)


def _texture_bins(space: Pixels) -> NDArray[np.int64]:
    """Return (H, W, 8 C) the bin of the Gaussian derivative of each of (H, W, C) channels in eight directions."""
    smooth = cv2.GaussianBlur(space, (0, 0), 1.0)
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    angles = np.arange(ORIENTATIONS) * (2 * np.pi / ORIENTATIONS)
    derivatives = [np.cos(angle) * across + np.sin(angle) * down for angle in angles]
    return _bins(np.concatenate(derivatives, axis=-1), MAX_DERIVATIVE, TEXTURE_BINS)


def _histograms(own: Regions, bins: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Return (S, C * count) the share of each region's values in each bin; rows sum to 1."""
    channels = bins.shape[-1]
    places = own.labels[..., None] * (channels * count) + np.arange(channels) * count + bins
    counts = np.bincount(places.ravel(), minlength=len(own.sizes) * channels * count)
    return counts.reshape(len(own.sizes), -1) / (channels * own.sizes[:, None])
