"""Copy-paste: objects of one training image, cut out by their masks, are pasted into another."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes

from boxel.data.dataset import InstanceDataset, Sample
from boxel.data.samplers import SeededIndex

MIN_QUALITY = 0.7
"""Estimated IoU from which an object is cut out by a mask that a teacher made."""

MIN_VISIBLE = 0.2
"""Share of an object that must stay visible for it to remain a target."""

COLUMNS = ("boxes", "labels", "iscrowd", "has_mask", "quality", "masks")


class CopyPasteDataset(InstanceDataset):
    """Instances in images, into some of which objects of another image are pasted.

    Each object of the other image that has a good mask is pasted with probability 1/2, where it lies in its own image,
    after all transforms. What it covers is taken from the masks and boxes below it.

    Args:
        *args: Arguments of :class:`~boxel.data.dataset.InstanceDataset`.
        share: Probability that objects are pasted into an image.
        **kwargs: Keyword arguments of the same class.

    References:
        Ghiasi et al., Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation, CVPR 2021.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> dataset = CopyPasteDataset(sample_images(), share=1.0)
        >>> image, target = dataset[0, 7]  # the image of index 0, with seed 7
        >>> len(target["boxes"]) == len(target["masks"])
        True
    """

    def __init__(self, *args: Any, share: float, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.share = share

    def __getitem__(self, key: int | SeededIndex) -> Sample:
        """Return the sample of an image; the seed of a `SeededIndex` fixes what is pasted too."""
        sample = super().__getitem__(key)
        seed = key[1] if isinstance(key, tuple) else int(torch.randint(2**31, ()))
        # Not the seed of the transforms: the same numbers would decide both.
        rng = torch.Generator().manual_seed(seed + 2**31)
        if float(torch.rand((), generator=rng)) >= self.share:
            return sample
        other, other_seed = (int(torch.randint(high, (), generator=rng)) for high in (len(self), 2**31))
        objects = super().__getitem__((other, other_seed))
        cuts = find_cuts(objects[1])
        return paste(sample, objects, cuts[torch.rand(len(cuts), generator=rng) < 0.5])


def find_cuts(target: dict[str, Any]) -> Tensor:
    """Return the indices of the instances whose masks are true, or good by their quality."""
    if "masks" not in target:
        return torch.zeros(0, dtype=torch.long)
    quality = target["quality"]
    good = torch.where(quality.isnan(), target["has_mask"], quality >= MIN_QUALITY) & ~target["iscrowd"]
    return (good & target["masks"].flatten(1).any(1)).nonzero().squeeze(1)


def paste(sample: Sample, objects: Sample, chosen: Tensor) -> Sample:
    """Paste the chosen instances of another sample, as far as they fit into the image.

    An instance of which less than `MIN_VISIBLE` remains is dropped; the box of one that loses part of its mask becomes
    that of what remains.
    """
    (image, below), (other_image, above) = sample, objects
    height, width = image.shape[-2:]
    pasted = {name: above[name][chosen] for name in COLUMNS if name in above}
    if not len(chosen):
        return sample
    whole = pasted["masks"].flatten(1).sum(1)
    pasted["masks"] = _fit(pasted["masks"], height, width)
    pasted = _select(pasted, pasted["masks"].flatten(1).sum(1) >= MIN_VISIBLE * whole)
    cover = pasted["masks"].bool().any(0)
    if not cover.any():
        return sample
    bounds = torch.tensor([width, height, width, height])
    pasted["boxes"] = pasted["boxes"].as_subclass(Tensor).minimum(bounds)
    kept = _uncover(below, cover)
    merged = {name: torch.cat([kept[name], pasted[name]]) for name in COLUMNS}
    merged["boxes"] = tv_tensors.BoundingBoxes(  # type: ignore[call-overload]
        merged["boxes"], format="XYXY", canvas_size=(height, width)
    )
    merged["masks"] = tv_tensors.Mask(merged["masks"])
    pixels = torch.where(cover, _fit(other_image.as_subclass(Tensor), height, width), image)
    return tv_tensors.Image(pixels), {**below, **merged}


def _uncover(target: dict[str, Any], cover: Tensor) -> dict[str, Tensor]:
    """Return the columns of the instances that stay visible beside the covered pixels, (H, W) bool."""
    columns = {name: target[name].as_subclass(Tensor) for name in COLUMNS if name in target}
    boxes = columns["boxes"].clone()
    masks = columns.get("masks", torch.zeros(len(boxes), *cover.shape, dtype=torch.uint8))
    left = masks * ~cover
    before, after = masks.flatten(1).sum(1), left.flatten(1).sum(1)
    inside = [cover[y0:y1, x0:x1].float().mean() for x0, y0, x1, y1 in _outer_pixels(boxes)]
    boxes_left = 1 - torch.tensor(inside) if len(boxes) else torch.zeros(0)
    visible = torch.where(before > 0, after / before.clamp(min=1), boxes_left)
    cut = (after < before) & (after > 0) & ~columns["iscrowd"]
    boxes[cut] = masks_to_boxes(left[cut]) + torch.tensor([0.0, 0, 1, 1])
    columns |= {"boxes": boxes, "masks": left}
    return _select(columns, (visible >= MIN_VISIBLE) | columns["iscrowd"])


def _outer_pixels(boxes: Tensor) -> list[list[int]]:
    """Return the first and last pixels (exclusive) of boxes, at least one pixel each."""
    first, last = boxes[:, :2].floor(), boxes[:, 2:].ceil()
    return torch.cat([first, last.maximum(first + 1)], 1).clamp(min=0).int().tolist()


def _fit(values: Tensor, height: int, width: int) -> Tensor:
    """Cut or pad the last two dimensions, (..., H, W), at the right and the bottom."""
    cut = values[..., :height, :width]
    return F.pad(cut, (0, width - cut.shape[-1], 0, height - cut.shape[-2]))


def _select(columns: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: column[rows] for name, column in columns.items()}
