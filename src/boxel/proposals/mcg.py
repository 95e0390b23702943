"""Multiscale combinatorial grouping, without learning."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boxel.proposals.grouping import group_regions
from boxel.proposals.hierarchies import hierarchies
from boxel.proposals.selection import Indices, Pool
from boxel.proposals.superpixels import Pixels, Regions


def mcg(image: NDArray[np.uint8], lab: Pixels, regions: Regions) -> Pool:
    """Pool the regions of several hierarchies, and unions of up to four of them.

    The published method learns edges and the ranking of segments. Here edges are color gradients, and the most
    promising segments are the high ones of a hierarchy, single regions first.

    Args:
        image: (H, W, 3) uint8, RGB.
        lab: The same in CIE LAB.
        regions: Its superpixels.

    References:
        Arbelaez, Pont-Tuset, Barron, Marques, Malik, Multiscale Combinatorial Grouping, 2014.
    """
    trees = list(hierarchies(image, lab, regions))
    found = [group_regions(tree, regions) for tree in trees]
    nodes, boxes, sizes, depths = (np.concatenate(part) for part in zip(*found, strict=True))
    source = np.repeat(np.arange(len(trees)), [len(own.sizes) for own in found])
    several = nodes[:, 0] != nodes[:, -1]

    def sets(indices: Indices) -> NDArray[np.bool_]:
        made = np.zeros((len(indices), len(regions.sizes)), dtype=bool)
        for number, tree in enumerate(trees):
            own = source[indices] == number
            parts = tree.sets(nodes[indices[own]].ravel())
            made[own] = parts.reshape(-1, nodes.shape[1], len(regions.sizes)).any(1)
        return made

    return Pool(boxes, sizes, depths + several * depths.max(), sets)
