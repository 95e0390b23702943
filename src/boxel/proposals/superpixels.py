"""Superpixels of an image, and the graph of those that touch."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import higra as hg
import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2lab

from boxel.proposals.candidates import superpixel_boxes

Pixels = NDArray[np.float32]


class Regions(NamedTuple):
    """The superpixels of an image.

    Attributes:
        labels: (H, W) int64 in [0, S), the superpixel of each pixel.
        sizes: (S,) float, the number of pixels of each.
        boxes: (S, 4) int32 xyxy, the tight box of each.
        edges: (E, 2) int64, pairs of adjacent superpixels.
        lengths: (E,) float, the number of pixel sides along which they touch.
        graph: higra's region adjacency graph, with the same vertices and edges.
    """

    labels: NDArray[np.int64]
    sizes: NDArray[np.float64]
    boxes: NDArray[np.int32]
    edges: NDArray[np.int64]
    lengths: NDArray[np.float64]
    graph: Any

    def mean(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Average (H, W, C) values of pixels over each superpixel; (S, C)."""
        flat = values.reshape(self.labels.size, -1)
        sums = [np.bincount(self.labels.ravel(), channel, len(self.sizes)) for channel in flat.T]
        return np.stack(sums, 1) / self.sizes[:, None]

    def between(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Average (H, W) values of pixels along the border of each pair of adjacent superpixels; (E,)."""
        along = hg.weight_graph(_pixel_graph(self.labels.shape), values.ravel(), hg.WeightFunction.mean)
        return hg.rag_accumulate_on_edges(self.graph, hg.Accumulators.mean, edge_weights=along)


def edge_strength(lab: Pixels, found: Regions, sigma: float) -> NDArray[np.float64]:
    """Return (E,) the color gradient at the borders of superpixels after a Gaussian of `sigma` pixels; of mean 1."""
    strength = found.between(gradient(lab, sigma))
    return strength * (len(strength) / max(strength.sum(), 1e-6))


def superpixels(lab: Pixels, count: int = 1500) -> Regions:
    """Compute superpixels that respect the edges of an image: watershed basins, merged by color.

    Args:
        lab: (H, W, 3) float, CIE LAB.
        count: Number of superpixels; fewer if there are fewer basins.
    """
    shape = lab.shape[:2]
    graph = _pixel_graph(shape)
    basins = hg.labelisation_watershed(
        graph, hg.weight_graph(graph, gradient(lab, 1.0).ravel(), hg.WeightFunction.mean)
    )
    fine = build_regions(basins.reshape(shape))
    if len(fine.sizes) <= count:
        return fine
    tree, altitudes = hg.binary_partition_tree_ward_linkage(fine.graph, fine.mean(lab), fine.sizes)
    cut = hg.HorizontalCutExplorer(tree, altitudes).horizontal_cut_from_num_regions(count)
    return build_regions(cut.labelisation_leaves(tree).reshape(shape))


def build_regions(label_map: NDArray[np.integer]) -> Regions:
    """Describe the superpixels of an (H, W) label map; its labels are renumbered."""
    shape = label_map.shape
    graph = hg.make_region_adjacency_graph_from_labelisation(_pixel_graph(shape), label_map.ravel())
    own = hg.CptRegionAdjacencyGraph.construct(graph)
    flat = own["vertex_map"].astype(np.int64)
    lengths = np.bincount(own["edge_map"][own["edge_map"] >= 0], minlength=graph.num_edges()).astype(
        np.float64
    )
    count = graph.num_vertices()
    labels = flat.reshape(shape)
    first, second = graph.edge_list()[:2]
    return Regions(
        labels,
        np.bincount(flat, minlength=count).astype(np.float64),
        superpixel_boxes(labels),
        np.stack([first, second], 1).astype(np.int64),
        lengths,
        graph,
    )


def to_lab(image: NDArray[np.uint8]) -> Pixels:
    """Convert (H, W, 3) uint8 RGB to float32 CIE LAB."""
    return rgb2lab(image).astype(np.float32)


def gradient(lab: Pixels, sigma: float) -> Pixels:
    """Return (H, W) the magnitude of the color gradient after a Gaussian of `sigma` pixels."""
    smooth = cv2.GaussianBlur(lab, (0, 0), sigma)
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    return np.sqrt((across**2 + down**2).sum(2))


def _pixel_graph(shape: tuple[int, ...]) -> Any:
    return hg.get_4_adjacency_graph(shape)
