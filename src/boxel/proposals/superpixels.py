"""Superpixels of an image, and the graph of those that touch."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import higra as hg
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from boxel.proposals.candidates import superpixel_boxes

Pixels = NDArray[np.float32]
"""(H, W, 3) CIE LAB, or (H, W)."""


class Regions(NamedTuple):
    """The superpixels of an image."""

    labels: NDArray[np.int64]  # (H, W) in [0, S), the superpixel of each pixel
    sizes: NDArray[np.float64]  # (S,), the number of pixels of each
    boxes: NDArray[np.int32]  # (S, 4) xyxy, the tight box of each
    edges: NDArray[np.int64]  # (E, 2), pairs of adjacent superpixels
    lengths: NDArray[np.float64]  # (E,), the number of pixel sides along which they touch
    graph: Any  # higra's region adjacency graph, with the same vertices and edges

    def mean(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Average (H, W, C) values of pixels over each superpixel; (S, C)."""
        flat = values.reshape(self.labels.size, -1)
        sums = [np.bincount(self.labels.ravel(), channel, len(self.sizes)) for channel in flat.T]
        return np.stack(sums, 1) / self.sizes[:, None]

    def between(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Average (H, W) values of pixels along the border of each pair of adjacent superpixels; (E,)."""
        if not len(self.edges):  # which higra does not take of an image of one pixel
            return np.zeros(0)
        pixels = hg.get_4_adjacency_graph(self.labels.shape)
        along = hg.weight_graph(pixels, values.ravel(), hg.WeightFunction.mean)
        return hg.rag_accumulate_on_edges(self.graph, hg.Accumulators.mean, edge_weights=along)

    def adjacency(self, weights: NDArray[np.floating]) -> csr_array:
        """Return (S, S) the weights of adjacent pairs, given in the order of the edges."""
        first, second = np.concatenate([self.edges, self.edges[:, ::-1]]).T
        return csr_array((np.tile(weights, 2), (first, second)), (len(self.sizes), len(self.sizes)))


def edge_strength(lab: Pixels, found: Regions, sigma: float) -> NDArray[np.float64]:
    """Return (E,) the color gradient at the borders of superpixels after a Gaussian of `sigma` pixels; of mean 1."""
    strength = found.between(gradient(lab, sigma))
    return strength * (len(strength) / max(strength.sum(), 1e-6))


def superpixels(lab: Pixels, count: int = 1500) -> Regions:
    """Compute at most `count` superpixels that respect the edges of an image: watershed basins, merged by color."""
    shape = lab.shape[:2]
    graph = hg.get_4_adjacency_graph(shape)
    heights = hg.weight_graph(graph, gradient(lab, 1.0).ravel(), hg.WeightFunction.mean)
    fine = build_regions(hg.labelisation_watershed(graph, heights).reshape(shape))
    if len(fine.sizes) <= count:
        return fine
    tree, altitudes = hg.binary_partition_tree_ward_linkage(fine.graph, fine.mean(lab), fine.sizes)
    cut = hg.HorizontalCutExplorer(tree, altitudes).horizontal_cut_from_num_regions(count)
    return build_regions(cut.labelisation_leaves(tree).reshape(shape))


def build_regions(label_map: NDArray[np.integer]) -> Regions:
    """Describe the superpixels of an (H, W) label map; its labels are renumbered."""
    shape = label_map.shape
    pixels = hg.get_4_adjacency_graph(shape)
    graph = hg.make_region_adjacency_graph_from_labelisation(pixels, label_map.ravel())
    own = hg.CptRegionAdjacencyGraph.construct(graph)
    flat = own["vertex_map"].astype(np.int64)
    labels = flat.reshape(shape)
    sizes = np.bincount(flat, minlength=graph.num_vertices()).astype(np.float64)
    edges = np.stack(graph.edge_list()[:2], 1).astype(np.int64)
    borders = own["edge_map"][own["edge_map"] >= 0]
    lengths = np.bincount(borders, minlength=graph.num_edges()).astype(np.float64)
    return Regions(labels, sizes, superpixel_boxes(labels), edges, lengths, graph)


def gradient(lab: Pixels, sigma: float) -> Pixels:
    """Return (H, W) the magnitude of the color gradient after a Gaussian of `sigma` pixels."""
    smooth = cv2.GaussianBlur(lab, (0, 0), sigma)
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    return np.sqrt((across**2 + down**2).sum(2))
