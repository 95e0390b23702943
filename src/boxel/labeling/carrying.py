"""Carry masks along tracks: where the mask of a frame is doubtful, a good one of a neighboring frame may replace it.

The mask of the neighbor follows the optical flow between the two boxes. Its estimated quality is that of the neighbor
times how well the flow there and the flow back agree, so that frames that are far apart lend nothing to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import PurePosixPath
from typing import NamedTuple, cast

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.formats.extras import decode_extras, set_field
from boxel.data.images import read_image
from boxel.labeling.overlaps import PlacedMask, box_agreement
from boxel.masks.boxes import Region, pixel_region
from boxel.masks.rle import Rle, decode, encode_in_box
from boxel.utils.errors import BoxelError
from boxel.utils.frames import split_frame
from boxel.utils.progress import progress

FIELD = "carried_from"
"""Name in the extras of a carried mask, for the id of the annotation that it comes from."""

MAX_DOUBTFUL = 0.75
"""Quality below which a mask may be replaced."""

_REACH = 2  # boxes of the track on either side
_SIDE = 160  # pixels of a box with its margin, in which the flow is computed
_MARGIN = 0.2  # around a box, as a share of its sides
_ERROR = 4.0  # pixels between flow and flow back by which the quality falls to a third
_NEAR = np.ones((15, 15), np.uint8)  # what around a mask counts for that
_CACHED = 8  # images in memory
_GRID = np.stack(np.meshgrid(*[np.arange(_SIDE, dtype=np.float32)] * 2), axis=2)  # x, y of the pixels
_COLUMNS = ("segmentations", "quality", "source", "trusted", "areas", "extras")


class _Crop(NamedTuple):
    """A box with a margin: its left upper corner in the image, pixels of the crop per pixel, and gray pixels."""

    corner: NDArray[np.float64]
    scale: NDArray[np.float64]
    gray: NDArray[np.uint8]


def carry_masks(
    data: Annotations, made: NDArray[np.bool_], drop: float = 0.0, slack: float = 0.0
) -> tuple[Annotations, NDArray[np.bool_]]:
    """Replace doubtful masks of tracks by those of neighboring frames that are estimated to be better.

    Args:
        data: The labeled dataset; boxes of a track have the same ``track_id`` in their extras. True masks count as
            perfect.
        made: (N,) bool, the masks that may be replaced.
        drop: Minimum IoU of the tight box of a trusted mask with its box.
        slack: How far a mask may reach past its box, as a share of its sides.

    Returns:
        The dataset, and (N,) bool, which masks were carried.
    """
    quality = np.where(np.isnan(data.quality) & data.has_mask & ~made, 1.0, data.quality.astype(np.float64))
    quality[~data.has_mask | data.iscrowd] = np.nan
    doubtful = made & (quality < MAX_DOUBTFUL)
    wanted: dict[int, list[int]] = {}
    for track in _group_tracks(data) if doubtful.any() else ():
        for at, row in enumerate(track):
            around = [*track[max(at - _REACH, 0) : at], *track[at + 1 : at + 1 + _REACH]]
            if doubtful[row] and (better := [other for other in around if quality[other] > quality[row]]):
                wanted[row] = better
    columns = {name: getattr(data, name).copy() for name in _COLUMNS}
    carried = np.zeros(len(made), dtype=bool)
    read = lru_cache(_CACHED)(partial(_read_gray, data))
    with progress(len(wanted), "doubtful masks of tracks") as advance:
        for row in sorted(wanted, key=lambda row: int(data.image_index[row])):
            found = _find_better(data, quality, row, wanted[row], read, slack)
            advance(1)
            if found is None:
                continue
            mask, columns["quality"][row], other = found
            height, width = _size(data, row)
            region = pixel_region(data.boxes[row], height, width, slack)
            visible = data.boxes[row].clip(0, [width, height] * 2)
            rle = encode_in_box(mask, region.left, region.top, height, width)
            columns["segmentations"][row] = msgspec.json.encode(rle)
            columns["source"][row] = data.source[other] or data.source[row]
            columns["trusted"][row] = box_agreement(PlacedMask(visible, region, mask), slack) >= drop
            columns["areas"][row] = mask.sum()
            columns["extras"][row] = set_field(data.extras[row], FIELD, data.ids[other])
            carried[row] = True
    return replace(data, **columns), carried


def _group_tracks(data: Annotations) -> Iterator[list[int]]:
    """Yield the instances of each track in the order of time."""
    videos = [_place_in_time(data, image) for image in range(len(data))]
    tracks: dict[object, list[tuple[object, int]]] = {}
    for row, text in enumerate(data.extras):
        if text is not None and b"track_id" in text and data.has_box[row]:
            id = decode_extras(text).get("track_id")
            if isinstance(id, int | str):
                video, time = videos[data.image_index[row]]
                tracks.setdefault((video, id), []).append((time, row))
    return ([row for _, row in sorted(track)] for track in tracks.values() if len(track) > 1)  # type: ignore[type-var]


def _place_in_time(data: Annotations, image: int) -> tuple[object, tuple[int, str]]:
    """Return the video of an image, or the folder of it, and what sorts its frames."""
    path, fields = data.paths[image], decode_extras(data.image_extras[image])
    if frame := split_frame(path):
        return frame[0], (frame[1], "")
    number = next((fields[name] for name in ("frame_index", "frame_id") if name in fields), 0)
    video = fields.get("video_id")
    if not isinstance(video, int | str):
        video = str(PurePosixPath(path).parent)
    return video, (number if isinstance(number, int) else 0, path)


def _size(data: Annotations, row: int) -> tuple[int, int]:
    """Return the (height, width) of the image of an instance."""
    return data.image_size(int(data.image_index[row]))[::-1]


def _read_gray(data: Annotations, image: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(read_image(data.image_path(image)), cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _find_better(
    data: Annotations,
    quality: NDArray[np.float64],
    row: int,
    others: list[int],
    read: Callable[[int], NDArray[np.uint8]],
    slack: float,
) -> tuple[NDArray[np.bool_], float, int] | None:
    """Return the best mask that others lend to an instance, within its region, its quality and where it is from."""
    best, found = float(quality[row]), None
    region = pixel_region(data.boxes[row], *_size(data, row), slack)
    with suppress(BoxelError):  # an image or a mask that cannot be read has been reported
        crop = _cut(read(int(data.image_index[row])), data.boxes[row])
        for other in others:
            if quality[other] <= best:
                continue
            source = _cut(read(int(data.image_index[other])), data.boxes[other])
            mask = decode(cast(Rle, data.rle(other))).astype(np.float32)
            lent, agreement = _move_mask(mask, source, crop, region)
            if quality[other] * agreement > best and lent.any():
                best = float(quality[other]) * agreement
                found = lent, best, other
    return found


def _move_mask(
    mask: NDArray[np.float32], source: _Crop, target: _Crop, region: Region
) -> tuple[NDArray[np.bool_], float]:
    """Move the mask of an image along the optical flow into a region of another image.

    Returns:
        The mask of the region, and how well the flow there and the flow back agree, in [0, 1]; 0 for no mask.
    """
    there, back = _flow(target.gray, source.gray), _flow(source.gray, target.gray)
    grid = _GRID + there
    error = np.linalg.norm(there + _remap(back, grid), axis=2)
    inside = _remap(mask, grid / source.scale + source.corner) > 0.5
    near = cv2.dilate(inside.astype(np.uint8), _NEAR) > 0
    agreement = float(np.exp(-error[near].mean() / _ERROR)) if near.any() else 0.0
    y, x = np.mgrid[region.top : region.bottom, region.left : region.right]
    at = (np.stack([x, y], axis=2) - target.corner) * target.scale
    moved = _remap(mask, _remap(grid.astype(np.float32), at) / source.scale + source.corner) > 0.5
    return moved, agreement


def _cut(gray: NDArray[np.uint8], box: NDArray[np.float64]) -> _Crop:
    """Cut a box with its margin out of an image, and even out its contrast."""
    sides = box[2:] - box[:2]
    corner, scale = box[:2] - _MARGIN * sides, _SIDE / ((1 + 2 * _MARGIN) * sides)
    pixels = cv2.remap(
        gray, *_split(_GRID / scale + corner), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    even = cv2.createCLAHE(3.0, (4, 4)).apply(np.asarray(pixels))
    return _Crop(corner, scale, np.asarray(even, dtype=np.uint8))


def _flow(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return where each pixel of one crop has gone in the other: (h, w, 2) x, y."""
    dense = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(dense.calc(one, other, None), dtype=np.float32)  # type: ignore[call-overload]


def _remap(values: NDArray[np.float32], at: NDArray[np.floating]) -> NDArray[np.float32]:
    """Interpolate values at (h, w, 2) x, y; beyond their border they continue."""
    found = cv2.remap(values, *_split(at), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, dtype=np.float32)


def _split(at: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.ascontiguousarray(at[..., 0], np.float32), np.ascontiguousarray(at[..., 1], np.float32)
