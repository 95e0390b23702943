"""BoxInst's pairwise loss: neighbors of like color should get the same label (Eq. 4-8).

Every pixel of a grid is linked with the others of a ``size`` x ``size`` patch round it, `dilation` apart.
Links have no direction, so half the patch is enough: edge e of pixel (y, x) leads to (y + dy, x + dx), where
(dy, dx) is ``edge_offsets(size, dilation)[e]``. A tensor of edges is (B, E, h, w), its last two dimensions
the pixel an edge starts from; edges that lead off the grid are there too, and never used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from boxel.losses.dice import full_precision
from boxel.losses.lab import rgb_to_lab
from boxel.losses.types import Inside, Normalizer
from boxel.masks.spans import span_ends

CROP_CELLS = 32_767
"""Most cells of a box worked on at once on a CPU. With more, torch would share each of the hundred small
operations out over its threads; where other work keeps the cores busy, they then mostly wait for each other."""

LOGIT_BOUND = 80.0
"""Logits beyond it count as it: sigmoid(-80) = 2e-35 is near the least float32 that keeps all its digits."""


def edge_offsets(size: int = 3, dilation: int = 2) -> list[tuple[int, int]]:
    """Offsets (dy, dx) of the edges of a pixel, each edge once.

    Args:
        size: side of the patch in pixels, odd.
        dilation: step between the patch's pixels.

    Returns:
        (size^2 - 1) / 2 pairs with dy > 0, or dy = 0 and dx > 0.

    Raises:
        ValueError: `size` is even or below 3, or `dilation` below 1.
    """
    if size < 3 or size % 2 == 0 or dilation < 1:
        raise ValueError(
            f"a patch has an odd size of at least 3 and a dilation of at least 1, not {size} and {dilation}"
        )
    reach = range(-(size // 2), size // 2 + 1)
    return [(y * dilation, x * dilation) for y in reach for x in reach if (y, x) > (0, 0)]


def edge_ends(dy: int, dx: int, height: int) -> tuple[Any, Any]:
    """Indices of the last two dimensions that pick the starts and the ends of an offset's edges.

    Args:
        dy: rows from start to end, at least 0.
        dx: columns from start to end.
        height: rows that edges start from, of ``height + dy`` or more that there are.

    Returns:
        Two indices, ``map[start]`` and ``map[end]`` being of one shape and an edge apart.
    """
    height, left, right = max(height, 0), max(-dx, 0), max(dx, 0)
    starts = (..., slice(0, height), slice(left, -right or None))
    ends = (..., slice(dy, dy + height), slice(right, -left or None))
    return starts, ends


@torch.no_grad()
def color_similarity(
    images: Tensor,
    valid: Tensor | None = None,
    stride: int = 4,
    size: int = 3,
    dilation: int = 2,
    theta: float = 2.0,
) -> Tensor:
    """Color similarity of neighbors: ``exp(-|LAB distance| / theta)`` (Eq. 7).

    Args:
        images: (B, 3, H, W) float, RGB in [0, 1].
        valid: (B, H, W) bool, False for padding and whatever else is to be left out; see `valid_pixels`.
            None: all pixels are valid. A cell is valid if all its pixels are.
        stride: the image is average-pooled by it first.
        size: side of the patch, odd.
        dilation: step between the patch's pixels.
        theta: scale of the distance.

    Returns:
        (B, (size^2 - 1) / 2, H // stride, W // stride) in [0, 1]; -1 where either end is invalid or off the
        grid, so that it is below every threshold.

    References:
        Tian et al., BoxInst, 2021, Eq. 7.
    """
    lab = rgb_to_lab(F.avg_pool2d(full_precision(images), stride))
    batch, _, height, width = lab.shape
    offsets = edge_offsets(size, dilation)
    similarity = lab.new_full((batch, len(offsets), height, width), -1.0)
    cells = None if valid is None else F.avg_pool2d(valid.to(lab.dtype)[:, None], stride)[:, 0] == 1
    for e, (dy, dx) in enumerate(offsets):
        a, b = edge_ends(dy, dx, height - dy)
        likeness = torch.exp((lab[a] - lab[b]).square().sum(1).sqrt() / -theta)
        similarity[:, e][a] = likeness if cells is None else likeness.where(cells[a] & cells[b], -1.0)
    return similarity


def valid_pixels(
    sizes: Sequence[tuple[int, int]],
    height: int,
    width: int,
    bottom_rows: int | Sequence[int] = 0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Where a batch of padded images has pixels that may be compared.

    Args:
        sizes: B pairs (height, width) of the images before padding.
        height: of the batch, in pixels.
        width: of the batch, in pixels.
        bottom_rows: rows to leave out at the bottom of each image, or of all; the public BoxInst leaves out
            10 rows of the original image, which a resized image has more or fewer of.
        device: of the result.

    Returns:
        (B, height, width) bool.
    """
    rows = [bottom_rows] * len(sizes) if isinstance(bottom_rows, int) else bottom_rows
    bottom = torch.tensor([h - r for (h, _), r in zip(sizes, rows, strict=True)], device=device)
    right = torch.tensor([w for _, w in sizes], device=device)
    y = torch.arange(height, device=device) < bottom[:, None]
    x = torch.arange(width, device=device) < right[:, None]
    return y[:, :, None] & x[:, None, :]


def warmup_weight(progress: float, fraction: float = 1 / 9) -> float:
    """Weight of the pairwise loss, rising from 0 to 1 over the first part of training.

    Args:
        progress: share of the training that is done, in [0, 1].
        fraction: share of the training over which the weight rises; 0 for none. The public BoxInst rises over
            10,000 of 90,000 steps, the paper does not.

    Returns:
        ``progress / fraction``, at most 1.
    """
    return 1.0 if progress >= fraction else progress / fraction


def affinity_loss(
    logits: Tensor,
    edges: Tensor,
    image_index: Tensor,
    rows: Tensor,
    columns: Tensor,
    size: int = 3,
    dilation: int = 2,
    normalizer: Normalizer = "supervised",
    inside: Inside = "center",
    existing: Tensor | None = None,
) -> Tensor:
    """Negative log-probability that both ends of each supervised edge get the same label (Eq. 8).

    Only edges about the box count. The paper's are those with at least one end in it, each once
    (``"either"``); the public BoxInst goes by the pixel at the patch's center (``"center"``), so that an edge
    inside the box counts twice and one across its border once.

    Args:
        logits: (N, h, w) mask logits.
        edges: (B, E, h, w) bool, the supervised edges: ``color_similarity(...) >= tau``.
        image_index: (N,) int64, each instance's image in `edges`.
        rows: (N, h) bool, rows of the grid in each box.
        columns: (N, w) bool, columns of the grid in each box.
        size: side of the patch, as `edges` was made with.
        dilation: step of the patch, as `edges` was made with.
        normalizer: ``"edges"``: each instance's sum is divided by all its edges about the box (the paper's
            N), and the mean taken over instances; ``"supervised"``: the sum over all instances is divided by
            their supervised edges, at least 1 (public BoxInst).
        inside: ``"center"`` or ``"either"``.
        existing: (B, E, h, w) bool, edges with both ends in the image, which the paper's N counts:
            ``color_similarity(...) >= 0``. None: all edges of the grid.

    Returns:
        The scalar loss; 0 where there are no instances.

    References:
        Tian et al., BoxInst, 2021, Eq. 4 and 8.
    """
    if not len(logits):
        return logits.sum() * 0
    offsets = edge_offsets(size, dilation)
    sums, counts = _EdgeSums.apply(full_precision(logits), edges, image_index, rows, columns, offsets, inside)
    if normalizer == "supervised":
        return sums.sum() / counts.sum().clamp(min=1)
    if existing is None:
        existing = torch.ones_like(edges)
    return (sums / _count_edges(existing, image_index, rows, columns, offsets, inside).clamp(min=1)).mean()


def supervised_affinity_loss(
    logits: Tensor,
    masks: Tensor,
    rows: Tensor,
    columns: Tensor,
    size: int = 3,
    dilation: int = 2,
    normalizer: Normalizer = "edges",
    inside: Inside = "either",
    existing: Tensor | None = None,
    image_index: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of edge labels taken from true masks (Eq. 5).

    Args:
        logits: (N, h, w) mask logits.
        masks: (N, h, w) bool, the true masks on the same grid.
        rows: (N, h) bool, rows of the grid in each box.
        columns: (N, w) bool, columns of the grid in each box.
        size: side of the patch, odd.
        dilation: step between the patch's pixels.
        normalizer: as in `affinity_loss`; here every edge is supervised.
        inside: as in `affinity_loss`.
        existing: as in `affinity_loss`; with padding, say, not every edge of the grid exists.
        image_index: (N,) int64, each instance's image in `existing`; not needed where there is only one.

    Returns:
        The scalar loss; 0 where there are no instances.

    References:
        Tian et al., BoxInst, 2021, Eq. 5.
    """
    # Turning the sign of a logit swaps its labels. With the background turned, the ends of an edge should
    # always agree: P(same) of the turned logits is P(y_e) of the true ones, for either value of y_e.
    turned = torch.where(masks.bool(), logits, -logits)
    if existing is None:
        existing = masks.new_ones((1, len(edge_offsets(size, dilation)), *logits.shape[1:]), dtype=torch.bool)
    if image_index is None:
        image_index = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    return affinity_loss(
        turned, existing, image_index, rows, columns, size, dilation, normalizer, inside, existing
    )


class _EdgeSums(torch.autograd.Function):
    """Each instance's sum of ``-log P(same)`` over its supervised edges, and their number.

    One sweep makes the sums and their gradient, and only the gradient is kept. With p and q the probabilities
    of an edge's ends, ``P(same) = p q + (1 - p) (1 - q)`` (Eq. 4), and the derivative of ``-log P(same)`` by
    the logit of p is ``-p (1 - p) (2 q - 1) / P(same)``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        edges: Tensor,
        image_index: Tensor,
        rows: Tensor,
        columns: Tensor,
        offsets: list[tuple[int, int]],
        inside: Inside,
    ) -> tuple[Tensor, Tensor]:
        sums, counts = logits.new_zeros(len(logits)), logits.new_zeros(len(logits))
        gradients = []
        ctx.crops = list(_crops(image_index, rows, columns, max(dy for dy, _ in offsets)))
        ctx.shape = logits.shape
        for crop in ctx.crops:
            n, image, y, x, height = crop
            within = (rows[n, y, None] & columns[n, None, x]).to(logits.dtype)
            # Within these bounds no P(same) underflows, and a probability's complement loses no digits.
            bounded = logits[n, y, x].clamp(-LOGIT_BOUND, LOGIT_BOUND)
            on, off = bounded.sigmoid(), bounded.neg().sigmoid()
            contrast = on - off
            gradient = torch.zeros_like(on)
            for e, (dy, dx) in enumerate(offsets):
                a, b = edge_ends(dy, dx, min(height, within.shape[1] - dy))
                weight = _weight(within[a], within[b], inside) * edges[image, e, y, x][a]
                same = torch.addcmul(off[a] * off[b], on[a], on[b])
                sums[n] -= torch.xlogy(weight, same).sum((1, 2))
                counts[n] += weight.sum((1, 2))
                weight /= same
                gradient[a].addcmul_(weight, contrast[b], value=-1)
                gradient[b].addcmul_(weight, contrast[a], value=-1)
            gradients.append(gradient.mul_(on).mul_(off))
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(counts)
        return sums, counts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sums: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradient = grad_sums.new_zeros(ctx.shape)
        for (n, _, y, x, _), part in zip(ctx.crops, ctx.saved_tensors, strict=True):
            gradient[n, y, x] += part * grad_sums[n, None, None]
        return gradient, None, None, None, None, None, None


class _Crop(NamedTuple):
    """Instances, their images, a part of the grid, and how many of its rows edges may start from."""

    instances: slice
    images: slice | Tensor
    rows: slice
    columns: slice
    starts: int


def _crops(image_index: Tensor, rows: Tensor, columns: Tensor, margin: int) -> Iterator[_Crop]:
    """What to work on at once: each box with its margin, in bands of rows if it is large.

    Bands overlap by a margin that no edge starts from. On an accelerator it is everything: that is
    cheaper than the wait for the boxes to reach the host.
    """
    (count, height), width = rows.shape, columns.shape[1]
    if rows.device.type != "cpu":
        yield _Crop(slice(0, count), image_index, slice(0, height), slice(0, width), height)
        return
    spans = torch.stack([image_index, *span_ends(rows), *span_ends(columns)], 1).tolist()
    for n, (image, y0, y1, x0, x1) in enumerate(spans):
        x = slice(max(x0 - margin, 0), min(x1 + margin, width))
        band = max(CROP_CELLS // (x.stop - x.start) - margin, 1)
        for y in range(max(y0 - margin, 0), y1, band):
            starts = min(band, y1 - y)
            crop_rows = slice(y, min(y + starts + margin, height))
            yield _Crop(slice(n, n + 1), slice(image, image + 1), crop_rows, x, starts)


def _weight(a: Tensor, b: Tensor, inside: Inside) -> Tensor:
    """How often an edge counts, given which of its ends are in the box."""
    return torch.maximum(a, b) if inside == "either" else a + b


def _count_edges(
    existing: Tensor,
    image_index: Tensor,
    rows: Tensor,
    columns: Tensor,
    offsets: list[tuple[int, int]],
    inside: Inside,
) -> Tensor:
    """(N,) number of existing edges about each box, supervised or not.

    Which of an edge's ends are in a box is a product of rows and columns, so that sums over boxes are matrix products.
    """
    count = rows.new_zeros(len(rows), dtype=torch.float32)
    instance = torch.arange(len(rows), device=rows.device)
    for e, (dy, dx) in enumerate(offsets):
        a, b = edge_ends(dy, dx, rows.shape[1] - dy)
        here = existing[:, e][a].float()
        row_a, row_b = rows[:, a[1]], rows[:, b[1]]
        column_a, column_b = columns[:, a[2]], columns[:, b[2]]
        terms = [(row_a, column_a, 1), (row_b, column_b, 1)]
        if inside == "either":
            terms.append((row_a & row_b, column_a & column_b, -1))
        for row, column, sign in terms:
            by_column = (row.float() @ here)[
                image_index, instance
            ]  # (B, N, w), each instance in its own image
            count += sign * (by_column * column).sum(1)
    return count
