"""BoxInst's pairwise loss: neighbors of similar color should get the same label (Eq. 4-8).

Each pixel of a grid is linked to the other pixels of a ``size`` x ``size`` patch around it, ``dilation`` pixels apart.
Edges have no direction, so half of the patch is enough: edge e of pixel (y, x) leads to (y + dy, x + dx), where
(dy, dx) is ``edge_offsets(size, dilation)[e]``. Tensors of edges are (B, E, h, w) with E = (size^2 - 1) / 2; the last
two dimensions are the pixel where an edge starts. Edges that lead off the grid are included and never used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isqrt
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from boxel.losses.dice import full_precision
from boxel.losses.lab import rgb_to_lab
from boxel.losses.processes import mean_over_processes
from boxel.losses.types import Inside, Normalizer
from boxel.masks.spans import span_ends

MAX_CROP_CELLS = 32_767
"""Maximum number of cells processed at once on a CPU. Above it torch would split each of the hundred small operations
over its threads, which mostly wait for each other if the cores are busy."""

LOGIT_BOUND = 80.0
"""Logits are clamped to it: sigmoid(-80) = 2e-35 is close to the smallest float32 with full precision."""


def edge_offsets(size: int = 3, dilation: int = 2) -> list[tuple[int, int]]:
    """List the offsets (dy, dx) of the edges of a pixel, each edge once: dy > 0, or dy = 0 and dx > 0.

    Raises:
        ValueError: The size of the patch is even or below 3, or the dilation is below 1.

    Examples:
        >>> edge_offsets(size=3, dilation=1)
        [(0, 1), (1, -1), (1, 0), (1, 1)]
    """
    if size < 3 or size % 2 == 0 or dilation < 1:
        raise ValueError(
            f"size is {size} and dilation {dilation}; give an odd size of at least 3 and a dilation of at least 1"
        )
    reach = range(-(size // 2), size // 2 + 1)
    return [(y * dilation, x * dilation) for y in reach for x in reach if (y, x) > (0, 0)]


def edge_ends(dy: int, dx: int, height: int) -> tuple[Any, Any]:
    """Return indices of the last two dimensions that select the starts and the ends of an offset's edges.

    Edges start in the first ``height`` rows of a map that has at least ``height + dy``. ``map[start]`` and ``map[end]``
    have the same shape and are one edge apart.
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
    """Compute the color similarity of neighbors, ``exp(-|LAB distance| / theta)``.

    Args:
        images: (B, 3, H, W) float, RGB in [0, 1].
        valid: (B, H, W) bool, False for padding and other pixels to ignore; see :func:`valid_pixels`. A cell is valid
            if all its pixels are. None: all pixels are valid.
        stride: The images are average-pooled by it first.
        size: Side of the patch, odd.
        dilation: Step between the patch's pixels.
        theta: Scale of the distance.

    Returns:
        (B, (size^2 - 1) / 2, H // stride, W // stride) float in [0, 1]; -1, below every threshold, if either end is
        invalid or off the grid.

    Examples:
        >>> color_similarity(torch.full((1, 3, 8, 12), 0.5), stride=4, dilation=1)[0, 0]  # to the right
        tensor([[ 1.,  1., -1.],
                [ 1.,  1., -1.]])

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
        same = torch.exp((lab[a] - lab[b]).square().sum(1).sqrt() / -theta)
        similarity[:, e][a] = same if cells is None else same.where(cells[a] & cells[b], -1.0)
    return similarity


def valid_pixels(
    sizes: Sequence[tuple[int, int]],
    height: int,
    width: int,
    bottom_rows: int | Sequence[int] = 0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Mark the pixels of a padded batch that belong to an image.

    Args:
        sizes: (height, width) of each of the B images before padding.
        height: Height of the batch in pixels.
        width: Width of the batch in pixels.
        bottom_rows: Number of rows to exclude at the bottom of each image, one number or one per image. The public
            BoxInst excludes 10 rows of the original image, before resizing.
        device: Device of the result.

    Returns:
        (B, height, width) bool.

    Examples:
        >>> valid_pixels([(1, 2)], height=2, width=3)
        tensor([[[ True,  True, False],
                 [False, False, False]]])
    """
    rows = [bottom_rows] * len(sizes) if isinstance(bottom_rows, int) else bottom_rows
    bottom = torch.tensor([h - r for (h, _), r in zip(sizes, rows, strict=True)], device=device)
    right = torch.tensor([w for _, w in sizes], device=device)
    y = torch.arange(height, device=device) < bottom[:, None]
    x = torch.arange(width, device=device) < right[:, None]
    return y[:, :, None] & x[:, None, :]


def warmup_weight(progress: float, fraction: float = 1 / 9) -> float:
    """Return the weight of the affinity loss, which rises linearly from 0 to 1 at the start of training.

    Args:
        progress: Share of the training that is done, in [0, 1].
        fraction: Share of the training during which the weight rises; 0 disables the warm-up. The public BoxInst uses
            10,000 of 90,000 steps; the paper has no warm-up.

    Returns:
        ``min(progress / fraction, 1)``.

    Examples:
        >>> warmup_weight(0.05, fraction=0.2)
        0.25
    """
    return 1.0 if progress >= fraction else progress / fraction


def affinity_loss(
    logits: Tensor,
    edges: Tensor,
    image_index: Tensor,
    rows: Tensor,
    columns: Tensor,
    *,
    dilation: int = 2,
    normalizer: Normalizer = "supervised",
    inside: Inside = "center",
    existing: Tensor | None = None,
) -> Tensor:
    """Negative log-probability that both ends of each supervised edge get the same label.

    Only edges at the box count. The paper takes those with at least one end in the box, each once (``"either"``). The
    public BoxInst takes the patches that are centered in the box (``"center"``), so an edge inside the box counts twice
    and an edge across its border once.

    Args:
        logits: (N, h, w) mask logits.
        edges: (B, E, h, w) bool, the supervised edges: ``color_similarity(...) >= threshold``.
        image_index: (N,) int64, the image of each instance in ``edges``.
        rows: (N, h) bool, rows of the grid in each box; :func:`~boxel.masks.box_spans` returns them.
        columns: (N, w) bool, columns of the grid in each box.
        dilation: Step of the patch that ``edges`` was computed with.
        normalizer: ``"edges"``: divide the sum of each instance by the number of all its edges (the paper's N) and take
            the mean over instances. ``"supervised"``: divide the sum over all instances by the number of their
            supervised edges (public BoxInst).
        inside: ``"center"`` or ``"either"``.
        existing: (B, E, h, w) bool, the edges with both ends in the image, which the paper's N counts:
            ``color_similarity(...) >= 0``. None: all edges of the grid.

    Returns:
        () float32 or float64, the loss; 0 if there are no instances. In a distributed training, instances and edges are
        counted over all processes (:func:`~boxel.losses.mean_over_processes`).

    Examples:
        >>> logits = torch.tensor([[[2.0, 2.0, -2.0]]])
        >>> edges = torch.tensor([True, False, False, False]).view(1, 4, 1, 1).expand(1, 4, 1, 3)  # to the right
        >>> one = torch.tensor([0]), torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool)
        >>> affinity_loss(logits, edges, *one, dilation=1)
        tensor(0.8982)

    References:
        Tian et al., BoxInst, 2021, Eq. 4 and 8.
    """
    logits = full_precision(logits)
    sums, counts = logits.flatten(1).sum(1) * 0, logits.new_zeros(len(logits))
    offsets = edge_offsets(isqrt(2 * edges.shape[1] + 1), dilation)
    if len(logits):
        sums, counts = _EdgeSums.apply(logits, edges, image_index, rows, columns, offsets, inside)
    if normalizer == "supervised":
        return sums.sum() / mean_over_processes(counts.sum())
    if len(logits):
        existing = torch.ones_like(edges) if existing is None else existing
        sums = sums / _count_edges(existing, image_index, rows, columns, offsets, inside).clamp(min=1)
    return sums.sum() / mean_over_processes(counts.new_tensor(len(counts)))


def supervised_affinity_loss(
    logits: Tensor,
    masks: Tensor,
    rows: Tensor,
    columns: Tensor,
    *,
    size: int = 3,
    dilation: int = 2,
    normalizer: Normalizer = "edges",
    inside: Inside = "either",
    existing: Tensor | None = None,
    image_index: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of edge labels against those of true masks.

    Args:
        logits: (N, h, w) mask logits.
        masks: (N, h, w) bool, the true masks on the same grid.
        rows: (N, h) bool, rows of the grid in each box.
        columns: (N, w) bool, columns of the grid in each box.
        size: Side of the patch, odd.
        dilation: Step between the patch's pixels.
        normalizer: As in :func:`affinity_loss`; here every edge is supervised.
        inside: As in :func:`affinity_loss`.
        existing: As in :func:`affinity_loss`, e.g. to exclude padding.
        image_index: (N,) int64, the image of each instance in ``existing``. None: all are of one image.

    Returns:
        () float32 or float64, the loss; 0 if there are no instances.

    Examples:
        >>> mask = torch.tensor([[[True, True, False]]])
        >>> rows, columns = mask.any(2), mask.any(1)
        >>> logits = torch.tensor([[[9.0, 9.0, -9.0]]])
        >>> bool(supervised_affinity_loss(logits, mask, rows, columns) < 0.001)
        True

    References:
        Tian et al., BoxInst, 2021, Eq. 5.
    """
    # Negating a logit swaps its label. With the background negated, the ends of each edge should always agree:
    # P(same) of these logits is P(y_e) of the true ones, for either value of y_e.
    negated = torch.where(masks.bool(), logits, -logits)
    if existing is None:
        existing = masks.new_ones((1, len(edge_offsets(size, dilation)), *logits.shape[1:]), dtype=torch.bool)
    if image_index is None:
        image_index = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    return affinity_loss(
        negated, existing, image_index, rows, columns,
        dilation=dilation, normalizer=normalizer, inside=inside, existing=existing,
    )  # fmt: skip


class _EdgeSums(torch.autograd.Function):
    """The sum of ``-log P(same)`` over the supervised edges of each instance, and their number.

    One pass computes the sums and their gradient, and only the gradient is kept. With p and q the probabilities of an
    edge's ends, ``P(same) = p q + (1 - p) (1 - q)`` (Eq. 4), and the derivative of ``-log P(same)`` with respect to the
    logit of p is ``-p (1 - p) (2 q - 1) / P(same)``.
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
            # Within these bounds P(same) does not underflow, and 1 - p keeps its precision.
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
    """A part of the grid to process at once: its instances, their images, and the number of rows where edges start."""

    instances: slice
    images: slice | Tensor
    rows: slice
    columns: slice
    starts: int


def _crops(image_index: Tensor, rows: Tensor, columns: Tensor, margin: int) -> Iterator[_Crop]:
    """Split the work: each box with its margin, in bands of rows if it is large.

    Bands overlap by a margin where no edge starts. On an accelerator the whole grid is one crop, which is cheaper than
    waiting until the boxes reach the host.
    """
    (count, height), width = rows.shape, columns.shape[1]
    if rows.device.type != "cpu":
        yield _Crop(slice(0, count), image_index, slice(0, height), slice(0, width), height)
        return
    spans = torch.stack([image_index, *span_ends(rows), *span_ends(columns)], 1).tolist()
    for n, (image, y0, y1, x0, x1) in enumerate(spans):
        x = slice(max(x0 - margin, 0), min(x1 + margin, width))
        band = max(MAX_CROP_CELLS // (x.stop - x.start) - margin, 1)
        for y in range(max(y0 - margin, 0), y1, band):
            starts = min(band, y1 - y)
            crop_rows = slice(y, min(y + starts + margin, height))
            yield _Crop(slice(n, n + 1), slice(image, image + 1), crop_rows, x, starts)


def _weight(a: Tensor, b: Tensor, inside: Inside) -> Tensor:
    """Count how often an edge is used, given which of its ends are in the box."""
    return torch.maximum(a, b) if inside == "either" else a + b


def _count_edges(
    existing: Tensor,
    image_index: Tensor,
    rows: Tensor,
    columns: Tensor,
    offsets: list[tuple[int, int]],
    inside: Inside,
) -> Tensor:
    """Count the existing edges of each box, supervised or not; (N,).

    Whether an end is in a box is a product of a row and a column, so sums over boxes are matrix products.
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
            by_column = (row.float() @ here)[image_index, instance]  # (B, N, w) to (N, w)
            count += sign * (by_column * column).sum(1)
    return count
