"""Lines of a distinct color (wires, stems, roots), which a filter finds where a network is in doubt."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from boxel.labeling.probabilities import expect_ious, sigmoid
from boxel.labeling.teachers.base import SoftMask
from boxel.masks.boxes import Region, pixel_region
from boxel.masks.crops import crop_spans, resample_at

_MARGIN = 0.2  # how far beyond the box pixels are looked at, as a share of its sides
_SIDE = 256  # maximum rows and columns of the crop
_SIGMAS = (1.0, 1.5, 2.2, 3.3, 5.0)  # scales of the filter, in pixels of the crop
_MAX_SIGMA = 0.15  # of the box's shorter side
_LOW = 0.7  # share of Otsu's threshold above which a pixel is on a line
_REACH = 5.0  # standard deviation in pixels of the means of the colors nearby
_OUTLINE = 0.55  # where a line ends, on the way from the color of the background to its own
_MIN_SPAN = 0.9  # share of the box that the tight box of a line covers
_MAX_WIDTH = 0.12  # of a line, in sides of a square with the box's area
_MIN_CONTRAST = 3.5  # distance of the color of a line from that around it, in standard deviations
_LOGIT = 2.0  # of a line: it decides where the network is in doubt, not where it is certain
_DOUBT = 0.75  # expected IoU below which lines are looked for


def add_line(image: NDArray[np.uint8], box: NDArray[np.float64], soft: SoftMask) -> SoftMask:
    """Add the logits of the line that spans the box to those of a network that is in doubt.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: (4,) xyxy pixels, partly in the image.
        soft: The prediction of a network for the box, (S, S) logits of probabilities.

    Returns:
        The prediction with the line, on another grid; `soft` itself if the network is certain, or there is no line of a
        distinct color.

    Examples:
        >>> image, box = np.zeros((40, 40, 3), np.uint8), np.array([4.0, 4, 36, 36])
        >>> image[19:22, 4:36] = 255  # a line that does not span its box
        >>> soft = SoftMask(np.zeros((8, 8), np.float32), (0, 0, 40, 40))
        >>> add_line(image, box, soft) is soft
        True
    """
    height, width = image.shape[:2]
    box = box.clip(0, [width, height] * 2)
    inside = np.ix_(*crop_spans(box, soft.window, len(soft.logits)))
    if expect_ious(sigmoid(soft.logits[inside])).max() > _DOUBT:
        return soft
    found = find_line(image, box)
    if found is None:
        return soft
    mask, context = found
    # Where the centers of its cells lie in the image, in fractions of pixels.
    rows, columns = (
        start + (np.arange(cells) + 0.5) * pixels / cells - 0.5
        for start, pixels, cells in zip((context.top, context.left), context.shape, mask.shape, strict=True)
    )
    network = resample_at(soft.logits, soft.window, rows, columns)
    line = np.where(mask, np.float32(_LOGIT), np.float32(-_LOGIT))
    window = (context.left, context.top, context.right, context.bottom)
    return SoftMask(network + line, window, soft.score)


def find_line(image: NDArray[np.uint8], box: NDArray[np.float64]) -> tuple[NDArray[np.bool_], Region] | None:
    """Find the line that spans a box in the image; None unless there is one of a distinct color.

    Returns:
        (h, w) mask of a crop with some background around the box, and the pixels of the image that it covers.

    References:
        Sato et al., "Three-dimensional multi-scale line filter for segmentation and visualization of curvilinear
        structures in medical images", Medical Image Analysis 1998: the curvatures across and along a line.
    """
    height, width = image.shape[:2]
    context = pixel_region(box, height, width, _MARGIN)
    scale = min(1.0, _SIDE / max(context.shape))
    size = [max(1, round(side * scale)) for side in context.shape]
    crop = cv2.resize(image[context.slices], size[::-1], interpolation=cv2.INTER_AREA)
    lab = np.asarray(cv2.cvtColor(crop.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), dtype=np.float32)
    part = pixel_region((box - np.tile([context.left, context.top], 2)) * scale, *size)
    lines = [_find_line(one[part.slices]) for one in _filter_lines(lab, _MAX_SIGMA * min(part.shape))]
    mask = np.zeros(size, dtype=bool)
    mask[part.slices] = max(lines, key=lambda line: line[1])[0]
    if mask.any():
        mask = _follow_color(lab, mask)
        mask[: part.top] = mask[part.bottom :] = mask[:, : part.left] = mask[:, part.right :] = False
    if not _is_distinct(lab, mask, part.shape):
        return None
    return mask, context


def _filter_lines(lab: NDArray[np.float32], max_sigma: float) -> list[NDArray[np.float32]]:
    """Return six (h, w) responses of an (h, w, 3) image: to dark lines in each channel, then to bright ones."""
    found = np.zeros((2, *lab.shape), np.float32)
    for sigma in _SIGMAS:
        if sigma > max(max_sigma, _SIGMAS[0]):
            break
        smooth = cv2.GaussianBlur(lab, (0, 0), sigma)
        xx, yy, xy = (cv2.Sobel(smooth, cv2.CV_32F, *order, scale=0.25) for order in ((2, 0), (0, 2), (1, 1)))
        mean, half = (xx + yy) / 2, np.sqrt(np.square((xx - yy) / 2) + np.square(xy))
        for curvature, best in zip((mean, -mean), found, strict=True):
            # The curvature across a line is half + mean, that along it half - mean; this is across - |along|.
            np.maximum(best, 2 * sigma**2 * np.minimum(half, curvature), out=best)
    return list(np.moveaxis(found, 3, 1).reshape(6, *lab.shape[:2]))


def _find_line(response: NDArray[np.float32]) -> tuple[NDArray[np.bool_], float]:
    """Return the strongest connected line in the box, and how well it stands out and spans the box."""
    levels = (255 * response / max(response.max(), 1e-6)).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    _, parts = cv2.connectedComponents((levels > _LOW * threshold).astype(np.uint8))
    strength = np.bincount(parts.ravel(), response.ravel())
    strength[0] = 0
    mask = parts == strength.argmax() if len(strength) > 1 else np.zeros(parts.shape, dtype=bool)
    if mask.all() or not mask.any():
        return mask, 0.0
    return mask, _span(mask) * np.log1p(response[mask].mean() / (response[~mask].mean() + 0.3))


def _follow_color(lab: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Move the outline of a line to where the color changes from the line's to that of the background nearby."""
    near = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    line, background = _local_mean(lab, mask), _local_mean(lab, ~near)
    change = line - background
    return near & (((lab - background) * change).sum(axis=2) > _OUTLINE * (change**2).sum(axis=2))


def _local_mean(lab: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    weight = mask[..., None].astype(np.float32)
    total = cv2.GaussianBlur(lab * weight, (0, 0), _REACH)
    return total / (cv2.GaussianBlur(weight, (0, 0), _REACH)[..., None] + 1e-4)


def _is_distinct(lab: NDArray[np.float32], mask: NDArray[np.bool_], size: tuple[int, int]) -> bool:
    """Whether a mask is one thin line that spans a box of this size, of a color that its surroundings lack."""
    binary = mask.astype(np.uint8)
    outlines, _ = cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    around = cv2.dilate(binary, np.ones((9, 9), np.uint8)) > cv2.dilate(binary, np.ones((3, 3), np.uint8))
    if not outlines or not around.any():
        return False
    outline = max(outlines, key=len)
    length = cv2.arcLength(outline, True) / 2
    width = 1 + (cv2.contourArea(outline) + 1) / max(length, 1)  # with holes, as a ring is not a line
    line, background = lab[mask], lab[around]
    change = line.mean(axis=0) - background.mean(axis=0)
    change /= max(np.linalg.norm(change), 1e-6)
    line, background = line @ change, background @ change
    contrast = (line.mean() - background.mean()) / np.sqrt((line.var() + background.var()) / 2 + 1)
    return bool(
        _span(mask) * mask.size > _MIN_SPAN * np.prod(size)
        and width < _MAX_WIDTH * np.sqrt(np.prod(size))
        and contrast > _MIN_CONTRAST
    )


def _span(mask: NDArray[np.bool_]) -> float:
    """Return the share of an image that the tight box of a mask covers."""
    *_, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return float(width * height / mask.size)
