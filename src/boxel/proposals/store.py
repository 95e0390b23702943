"""Candidate segments of a whole set, made once and kept on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

import msgspec
import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.images import read_image
from boxel.masks.grabcut import grabcut_from_ellipse
from boxel.proposals.candidates import Candidates, from_sets, load, with_masks
from boxel.proposals.config import ProposalConfig
from boxel.proposals.sources import propose
from boxel.utils.errors import BoxelError


def make_candidates(
    data: Annotations,
    folder: str | Path,
    config: ProposalConfig,
    *,
    workers: int = 1,
    advance: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """Make what is not in a folder yet, so that it can go on after any end.

    Args:
        data: the set.
        folder: where they are kept, a file for each image.
        config: which segments.
        workers: processes that make them; with joblib's `parallel_config` other machines.
        advance: is told how many images were done since it was called last.

    Returns:
        A sentence for each image whose segments could not be made.
    """
    jobs = (delayed(_make)(*_order(data, image, folder, config)) for image in range(len(data)))
    lost = []
    for fault in Parallel(workers, return_as="generator_unordered", pre_dispatch="4*n_jobs")(jobs):
        advance(1)
        if fault:
            lost.append(fault)
    return lost


def load_candidates(data: Annotations, image: int, folder: str | Path, config: ProposalConfig) -> Candidates:
    """The segments of an image, from the folder or, where they are not there yet, made and put there.

    Raises:
        BoxelError: the image, or the file of its segments, can't be read.
    """
    photo, boxes, file, config = _order(data, image, folder, config)
    fault = _make(photo, boxes, file, config)
    if fault:
        raise BoxelError(fault)
    return load(file)


def box_indices(data: Annotations, image: int) -> NDArray[np.intp]:
    """(N,) the instances of an image that segments are made for: those that are no crowd, with a box of some size."""
    own = np.asarray(data.instances_in(image))
    boxes = data.boxes[own]
    return own[~data.iscrowd[own] & np.isfinite(boxes).all(1) & (boxes[:, :2] < boxes[:, 2:]).all(1)]


_Order = tuple[Path, NDArray[np.float64], Path, ProposalConfig]


def _order(data: Annotations, image: int, folder: str | Path, config: ProposalConfig) -> _Order:
    """What is to be made, and the file for it, whose name has a part for all that decides what is in it."""
    photo = Path(data.image_path(image))
    boxes = np.zeros((0, 4))
    if config.fit_boxes or config.grabcut:
        boxes = data.boxes[box_indices(data, image)]
    decides = msgspec.json.encode([data.paths[image], asdict(config), boxes.round(3).tolist()])
    return (
        photo,
        boxes,
        Path(folder) / f"{photo.stem}-{blake2b(decides, digest_size=8).hexdigest()}.npz",
        config,
    )


def _make(photo: Path, boxes: NDArray[np.float64], file: Path, config: ProposalConfig) -> str | None:
    """Make a file that is not there; returns what went wrong."""
    if file.exists():
        return None
    try:
        image = read_image(photo)
    except BoxelError as error:
        return str(error)
    if config.fit_boxes and not len(boxes):
        found = from_sets(np.zeros(image.shape[:2], dtype=np.int64), np.zeros((0, 1), dtype=bool))
    else:
        fitted = boxes if config.fit_boxes else None
        found = propose(image, config.source, fitted, config.count)
    if config.grabcut and len(boxes):
        found = with_masks(found, _grabcuts(image, boxes))
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part.npz")
    found.save(part)
    part.replace(file)
    return None


def _grabcuts(image: NDArray[np.uint8], boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    masks = np.zeros((len(boxes), *image.shape[:2]), dtype=bool)
    for mask, box in zip(masks, boxes, strict=True):
        own, left, top = grabcut_from_ellipse(image, box)
        mask[top : top + own.shape[0], left : left + own.shape[1]] = own
    return masks
