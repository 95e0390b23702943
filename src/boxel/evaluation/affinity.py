"""How well color tells that two pixels belong together, on a set with masks (BoxInst, Figure 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import resize

from boxel.data.annotations import Annotations
from boxel.data.images import read_image
from boxel.losses.affinity import color_similarity, edge_ends, edge_offsets
from boxel.masks.spans import box_masks, box_spans
from boxel.utils.errors import BoxelError

TAUS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class EdgeCounts:
    """Edges of E_in over a whole set, for each of T thresholds.

    Attributes:
        tau: (T,) thresholds of color similarity.
        above: (T,) edges with a similarity of at least tau.
        positive: (T,) of these, edges whose ends have the same true label.
        all_positive: truly positive edges, whatever their similarity.
    """

    tau: np.ndarray
    above: np.ndarray
    positive: np.ndarray
    all_positive: int

    @property
    def precision(self) -> np.ndarray:
        """(T,) share of the edges above tau that are positive, NaN where there are none; Figure 4's blue curve."""
        return np.where(self.above > 0, self.positive / np.maximum(self.above, 1), np.nan)

    @property
    def recall(self) -> np.ndarray:
        """(T,) share of the positive edges that are above tau; Figure 4's red curve."""
        return self.positive / max(self.all_positive, 1)


def count_edges(
    data: Annotations,
    taus: Sequence[float] = TAUS,
    stride: int = 4,
    size: int = 3,
    dilation: int = 2,
    theta: float = 2.0,
    short_side: int | None = None,
    report: Callable[[str], None] = print,
) -> EdgeCounts:
    """Count true and supervised edges with at least one end in each instance's box, where there is a true mask.

    Args:
        data: a set with masks.
        taus: thresholds to try.
        stride: the grid's, as in training.
        size: side of the neighborhood.
        dilation: of the neighborhood.
        theta: scale of the similarity (Eq. 7).
        short_side: pixels to bring each image's shorter side to, as in training; None leaves it.
        report: is told of each image or mask that can't be read; the rest is measured.

    Returns:
        The counts over all instances with a mask.

    Raises:
        BoxelError: the set has no masks, or there is no such neighborhood or scale.
    """
    if theta <= 0:
        raise BoxelError(f"theta is {theta}; give a number above 0.")
    try:
        offsets = edge_offsets(size, dilation)
    except ValueError as error:
        raise BoxelError(f"{error}.") from error
    if not data.has_mask.any():
        raise BoxelError(f"{data.file} has no masks, which `inspect affinity` needs to know the true edges.")
    levels = torch.tensor(taus)
    above = torch.zeros(len(taus), dtype=torch.int64)
    positive = torch.zeros(len(taus), dtype=torch.int64)
    all_positive = 0
    for image in range(len(data)):
        own = [i for i in data.instances_in(image) if data.has_mask[i] and not data.iscrowd[i]]
        if not own:
            continue
        try:
            pixels = read_image(data.image_path(image))
            masks = [data.mask(int(instance), pixels.shape[:2]) for instance in own]
        except BoxelError as error:
            report(f"skipped: {error}")
            continue
        photo = torch.from_numpy(pixels).permute(2, 0, 1)
        factor = short_side / min(photo.shape[-2:]) if short_side else 1.0
        shown = [round(side * factor) for side in photo.shape[-2:]]
        image_shown = resize(photo, shown, antialias=True)[None].float() / 255
        similarity = color_similarity(image_shown, None, stride, size, dilation, theta)[0]
        height, width = similarity.shape[-2:]
        rows, columns = box_spans(torch.from_numpy(data.boxes[own] * factor).float(), height, width, stride)
        for box, whole in zip(box_masks(rows, columns), masks, strict=True):
            mask = resize(torch.from_numpy(whole)[None], shown, InterpolationMode.NEAREST)[0]
            mask = mask[stride // 2 :: stride, stride // 2 :: stride][:height, :width].bool()
            for edge, (dy, dx) in enumerate(offsets):
                start, end = edge_ends(dy, dx, height - dy)
                inside = box[start] | box[end]
                same = (mask[start] == mask[end])[inside]
                reached = similarity[edge][start][inside][:, None] >= levels
                above += reached.sum(0)
                positive += (reached & same[:, None]).sum(0)
                all_positive += int(same.sum())
    return EdgeCounts(np.array(taus), above.numpy(), positive.numpy(), all_positive)
