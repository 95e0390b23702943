"""How well color predicts that two pixels belong to the same object, on a dataset with masks (BoxInst, Figure 4)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import resize

from boxel.data.annotations import Annotations
from boxel.data.images import read_image
from boxel.evaluation.config import AffinityConfig
from boxel.evaluation.tables import format_table
from boxel.losses.affinity import color_similarity, edge_ends, edge_offsets
from boxel.masks.spans import box_masks, box_spans
from boxel.utils.errors import BoxelError

logger = logging.getLogger(__name__)

TAUS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class EdgeCounts:
    """The edges of E_in over a whole dataset, at each of T thresholds.

    Attributes:
        tau: (T,) thresholds of color similarity.
        above: (T,) number of edges with a similarity of at least tau.
        positive: (T,) number of these whose ends have the same true label.
        all_positive: Number of truly positive edges, whatever their similarity.

    Examples:
        >>> counts = EdgeCounts(np.array([0.0, 0.5]), np.array([10, 4]), np.array([6, 4]), 6)
        >>> counts.precision.tolist(), counts.recall.round(2).tolist()
        ([0.6, 1.0], [1.0, 0.67])
    """

    tau: NDArray[np.float64]
    above: NDArray[np.int64]
    positive: NDArray[np.int64]
    all_positive: int

    @property
    def precision(self) -> NDArray[np.float64]:
        """(T,) share of the edges above tau that are positive, NaN if there are none; Figure 4's blue curve."""
        return np.where(self.above > 0, self.positive / np.maximum(self.above, 1), np.nan)

    @property
    def recall(self) -> NDArray[np.float64]:
        """(T,) share of the positive edges that are above tau; Figure 4's red curve."""
        return self.positive / max(self.all_positive, 1)


def count_edges(data: Annotations, config: AffinityConfig | None = None) -> EdgeCounts:
    """Count edges with at least one end in the box of an instance that has a true mask.

    An image or mask that cannot be read is logged and skipped. The counts are those of all instances with a mask, at
    twelve thresholds from 0 to 0.9.

    Raises:
        BoxelError: The dataset has no masks, or there is no such neighborhood or scale.

    Examples:
        >>> from boxel.data import example_scenes
        >>> counts = count_edges(example_scenes())
        >>> counts.tau[7].item(), bool(counts.precision[7] > counts.precision[0])
        (0.5, True)
    """
    config = config or AffinityConfig()
    try:
        offsets = edge_offsets(config.size, config.dilation)
    except ValueError as error:
        raise BoxelError(f"{error}.") from error
    if not data.has_mask.any():
        raise BoxelError(f"{data.file} has no masks, from which true edges are known; add some.")
    levels = torch.tensor(TAUS)
    above, positive = torch.zeros((2, len(TAUS)), dtype=torch.int64)
    all_positive = 0
    for similarity, box, mask in _instances(data, config):
        for edge, (dy, dx) in enumerate(offsets):
            start, end = edge_ends(dy, dx, len(mask) - dy)
            inside = box[start] | box[end]
            same = (mask[start] == mask[end])[inside]
            reached = similarity[edge][start][inside][:, None] >= levels
            above += reached.sum(0)
            positive += (reached & same[:, None]).sum(0)
            all_positive += int(same.sum())
    return EdgeCounts(np.array(TAUS), above.numpy(), positive.numpy(), all_positive)


def _instances(data: Annotations, config: AffinityConfig) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the color similarity (E, h, w), the box (h, w) and the mask (h, w) of each instance, on the grid."""
    stride = config.stride
    for image in range(len(data)):
        own = [i for i in data.instances_in(image) if data.has_mask[i] and not data.iscrowd[i]]
        if not own:
            continue
        try:
            pixels = read_image(data.image_path(image))
            masks = [data.mask(int(instance), pixels.shape[:2]) for instance in own]
        except BoxelError as error:
            logger.warning("skipped: %s", error)
            continue
        tensor = torch.from_numpy(pixels).permute(2, 0, 1)
        factor = config.short_side / min(pixels.shape[:2]) if config.short_side else 1.0
        size = [round(side * factor) for side in pixels.shape[:2]]
        resized = resize(tensor, size, antialias=True)[None].float() / 255
        similarity = color_similarity(resized, None, stride, config.size, config.dilation, config.theta)[0]
        height, width = similarity.shape[-2:]
        rows, columns = box_spans(torch.from_numpy(data.boxes[own] * factor).float(), height, width, stride)
        for box, pixel_mask in zip(box_masks(rows, columns), masks, strict=True):
            mask = resize(torch.from_numpy(pixel_mask)[None], size, InterpolationMode.NEAREST)[0]
            yield similarity, box, mask[stride // 2 :: stride, stride // 2 :: stride][:height, :width].bool()


def format_edges(counts: EdgeCounts) -> str:
    """Format the counts as a table."""
    rows = zip(counts.tau, counts.precision, counts.recall, strict=True)
    table = format_table([["tau", "positive among edges kept", "positives kept"], *rows])
    return f"{table}\nSet model.tau to the lowest tau at which nearly all edges kept are positive."
