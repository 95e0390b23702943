"""Gaussian filtering of many points in few dimensions by a permutohedral lattice.

A sum over all points, weighted by a Gaussian of their distances, costs n^2 operations if computed directly. On the
lattice it costs n: each point distributes its values to the d + 1 vertices of the simplex around it (splat), the
vertices mix with their neighbors along each of d + 1 directions (blur), and the points gather from the same vertices
(slice). All three are weighted sums of rows, i.e. one operation.

References:
    Adams, Baek, Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice, 2010.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from boxel.utils.errors import BoxelError


class WeightedSums(NamedTuple):
    """A sparse matrix: row r of the result is the sum of `weights[k] * values[rows[k]]` for k from `starts[r]` on."""

    rows: Tensor  # (E,) int64
    weights: Tensor  # (E,) float
    starts: Tensor  # (R,) int64

    def __call__(self, values: Tensor) -> Tensor:
        """Sum the rows of (N, C) values to (R, C)."""
        return F.embedding_bag(self.rows, values, self.starts, mode="sum", per_sample_weights=self.weights)


class Lattice(NamedTuple):
    """A filter of values at n points; :func:`build_lattice` makes one."""

    splat: WeightedSums  # from points to vertices
    blurs: tuple[WeightedSums, ...]  # from vertices to vertices, one after the other
    slice: WeightedSums  # from vertices to points

    def filter(self, values: Tensor) -> Tensor:
        """Sum (n, C) values of all points, weighted by a Gaussian of their distance, up to a common factor: (n, C)."""
        values = self.splat(values)
        for blur in self.blurs:
            values = blur(values)
        return self.slice(values)

    def normalized(self, weight: float = 1.0) -> Lattice:
        """Scale the kernel K to ``weight D^-1/2 K D^-1/2``, where D are the sums of the rows of K."""
        ones = self.slice.weights.new_ones(len(self.slice.starts), 1)
        norm = self.filter(ones).clamp(min=1e-20).rsqrt().squeeze(1)
        around = len(self.slice.rows) // len(norm)
        splat = self.splat._replace(weights=self.splat.weights * norm[self.splat.rows])
        sliced = self.slice._replace(weights=self.slice.weights * (weight * norm).repeat_interleave(around))
        return Lattice(splat, self.blurs, sliced)


def build_lattice(features: Tensor, groups: Tensor | None = None) -> Lattice:
    """Build the lattice of some points.

    Args:
        features: (n, d) float, the position of each point in standard deviations of the Gaussian.
        groups: (n,) int64, from 0. Points of different groups, e.g. of the images of a batch, do not mix.

    Returns:
        The lattice; about ``6 (d + 1) n`` numbers.

    Raises:
        BoxelError: The features span so many standard deviations that 64 bits cannot number the vertices.

    Examples:
        >>> points = build_lattice(torch.tensor([[0.0], [0.1], [50.0]]))
        >>> a, b, far = points.filter(torch.tensor([[1.0], [0.0], [0.0]])).flatten().tolist()
        >>> a > b > far == 0
        True
    """
    n, d = features.shape
    corner, ranks, weights = _simplices(features.float())
    lowest = corner[:d].amin(1) - 2 * d  # space for the neighbors of a vertex on all sides
    spans = (corner[:d].amax(1) + 2 * d + 1 - lowest).tolist()
    radix, size = [], 1
    for span in spans:
        radix.append(size)
        size *= int(span)
    count = 1 if groups is None else int(groups.max()) + 1
    if size * count >= 2**63:
        extent = " x ".join(str(int(span)) for span in spans)
        raise BoxelError(f"the lattice of the CRF, {extent} cells, is too fine; raise its sigmas.")
    radices = torch.tensor([*radix, 0], device=features.device)  # the last coordinate follows from the others

    # Vertex k of a simplex adds k to each coordinate, minus d + 1 for those of the k highest ranks.
    base = (radices[:d, None] * (corner[:d] - lowest[:, None])).sum(0)
    if groups is not None:
        base += size * groups
    ranked = torch.empty(d + 1, n, dtype=torch.int64, device=features.device)
    ranked.scatter_(0, (d - ranks).long(), radices[:, None].expand_as(ranked))
    lowered = F.pad(ranked.cumsum(0)[:d], (0, 0, 1, 0))
    step = torch.arange(d + 1, device=features.device)[:, None] * radices.sum()
    keys = base + step - (d + 1) * lowered  # (d + 1, n)

    keys, order = keys.t().flatten().sort()
    vertices, inverse, counts = torch.unique_consecutive(keys, return_inverse=True, return_counts=True)
    weights = weights.t().flatten()
    splat = WeightedSums(
        order.div(d + 1, rounding_mode="floor"), weights[order], F.pad(counts.cumsum(0)[:-1], (1, 0))
    )
    own = torch.empty_like(inverse).scatter_(0, order, inverse)
    sliced = WeightedSums(own, weights, torch.arange(0, (d + 1) * n, d + 1, device=features.device))
    return Lattice(splat, tuple(_blur(vertices, (radices.sum() - (d + 1) * r)) for r in radices), sliced)


def _simplices(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the simplex around each point: its corner, the order of the coordinates in it, and the point's weights.

    Returns:
        (d + 1, n) int64 coordinates of the vertex of remainder 0; (d + 1, n) int64 rank of each coordinate's distance
        from it, 0 for the largest; (d + 1, n) float barycentric weights of the simplex's vertices of remainder 0 to d.
    """
    d = features.shape[1]
    elevated = _elevation(d, features) @ features.t()
    rounded = (elevated / (d + 1)).round()
    excess = rounded.sum(0)
    distance = elevated - (d + 1) * rounded
    ranks = torch.zeros_like(distance, dtype=torch.int8)
    for i in range(d):
        for j in range(i + 1, d + 1):
            after = distance[i] < distance[j]
            ranks[i] += after
            ranks[j] += ~after
    # Rounding each coordinate may leave the plane of sum 0; its nearest points have ranks rotated by the excess.
    ranks += excess.to(torch.int8)
    turn = (ranks < 0).to(torch.int8) - (ranks > d).to(torch.int8)
    ranks += (d + 1) * turn
    rounded += turn
    distance = elevated / (d + 1) - rounded
    ordered = torch.empty_like(distance).scatter_(0, ranks.long(), distance)  # the largest first
    # Weight k is the gap between the ranks d - k and d + 1 - k; that of 0 is the rest.
    gaps = (ordered[:-1] - ordered[1:]).flip(0)
    return (d + 1) * rounded.long(), ranks, torch.cat([1 - gaps.sum(0, keepdim=True), gaps])


def _elevation(d: int, like: Tensor) -> Tensor:
    """Return the (d + 1, d) map from features to the plane of sum 0, where splat, blur and slice have variance 1."""
    i = torch.arange(d, dtype=like.dtype, device=like.device)
    scale = (d + 1) * (2 / 3) ** 0.5 / ((i + 1) * (i + 2)).sqrt()
    rows = torch.arange(d + 1, dtype=like.dtype, device=like.device)[:, None]
    return scale * ((rows <= i).to(like.dtype) - rows * (rows == i + 1))


def _blur(vertices: Tensor, step: Tensor) -> WeightedSums:
    """Add half of each neighbor along a direction to every vertex; unused vertices are empty."""
    own = torch.arange(len(vertices), device=vertices.device)
    after = torch.searchsorted(vertices, vertices + step).clamp_(max=len(vertices) - 1)
    found = vertices[after] == vertices + step
    rows, weights = own[:, None].repeat(1, 3), torch.zeros(len(vertices), 3, device=vertices.device)
    weights[:, 0] = 1
    rows[found, 1], weights[found, 1] = after[found], 0.5
    rows[after[found], 2], weights[after[found], 2] = own[found], 0.5
    return WeightedSums(rows.flatten(), weights.flatten(), 3 * own)
