"""Candidate segments of a whole dataset, made once and kept on disk."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from dataclasses import asdict
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.images import read_image
from boxel.masks.grabcut import grabcut_from_ellipse
from boxel.proposals.candidates import Candidates, add_masks
from boxel.proposals.config import ProposalConfig
from boxel.proposals.mcg_files import read_mcg
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
    """Make the candidate segments that a folder does not contain yet; an interrupted call can be repeated.

    They are made in several processes; with joblib's `parallel_config`, on other machines. `advance` is called with the
    number of images done since its last call. A sentence per image whose segments could not be made is returned.

    Raises:
        BoxelError: The folder cannot be written, or a process was killed, e.g. since the memory was used up.
    """
    job = partial(_make_in_worker, os.getpid())
    jobs = (delayed(job)(*_job(data, image, folder, config), config) for image in range(len(data)))
    errors, done = [], 0
    try:
        for error in Parallel(workers, return_as="generator_unordered", pre_dispatch="4*n_jobs")(jobs):
            done += 1
            advance(1)
            if error:
                errors.append(error)
    except BrokenExecutor as error:
        raise BoxelError(
            f"{folder}: a process that makes segments was killed, perhaps since the memory is used up, after {done} of "
            f"{len(data)} images; the same call with fewer `workers` resumes."
        ) from error
    return errors


def load_candidates(data: Annotations, image: int, folder: str | Path, config: ProposalConfig) -> Candidates:
    """Load the candidate segments of an image from the folder; they are made if they are not there yet.

    Raises:
        BoxelError: The image, or the file of its segments, cannot be read.
    """
    path, boxes, file = _job(data, image, folder, config)
    error = _make(path, boxes, file, config)
    if error:
        raise BoxelError(error)
    return Candidates.load(file)


def box_indices(data: Annotations, image: int) -> NDArray[np.intp]:
    """Return (N,) the instances of an image that get segments: not crowds, and with a box of positive area."""
    own = np.asarray(data.instances_in(image))
    boxes = data.boxes[own]
    return own[~data.iscrowd[own] & np.isfinite(boxes).all(1) & (boxes[:, :2] < boxes[:, 2:]).all(1)]


def _job(
    data: Annotations, image: int, folder: str | Path, config: ProposalConfig
) -> tuple[Path, NDArray[np.float64], Path]:
    """Return the image file, (M, 4) boxes and the file of segments, named by a digest of all that determines them."""
    path = Path(data.image_path(image))
    boxes = np.zeros((0, 4))
    if config.fit_boxes or config.grabcut:
        boxes = data.boxes[box_indices(data, image)]
    settings = {key: value for key, value in asdict(config).items() if value is not None}
    content = msgspec.json.encode([data.paths[image], settings, boxes.round(3).tolist()])
    name = f"{path.stem}-{blake2b(content, digest_size=8).hexdigest()}.npz"
    return path, boxes, Path(folder) / name


def _make_in_worker(parent: int, *job: Any) -> str | None:
    _end_with(parent)
    return _make(*job)


@cache
def _end_with(parent: int) -> None:
    """Let this process, which joblib keeps for minutes, end soon after its parent; a signal may have killed that."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    if os.getppid() == parent:
        threading.Thread(target=watch, daemon=True).start()


def _make(path: Path, boxes: NDArray[np.float64], file: Path, config: ProposalConfig) -> str | None:
    """Make the segments of an image if their file is missing; return what went wrong."""
    if file.exists():
        return None
    try:
        image = read_image(path)
        candidates = _find_candidates(image, path.stem, boxes, config)
    except BoxelError as error:
        return str(error)
    if config.grabcut and len(boxes):
        candidates = add_masks(candidates, _grabcuts(image, boxes))
    candidates.save(file)
    return None


def _find_candidates(
    image: NDArray[np.uint8], stem: str, boxes: NDArray[np.float64], config: ProposalConfig
) -> Candidates:
    """Read or make the segments of an image; none if they are to fit boxes and it has none."""
    if config.files is not None:
        return read_mcg(Path(config.files, f"{stem}.mat"), image.shape[:2], config.count)
    if config.fit_boxes and not len(boxes):
        whole = np.zeros(image.shape[:2], dtype=np.int64)
        return Candidates.from_sets(whole, np.zeros((0, 1), dtype=bool))
    return propose(image, config.source, boxes if config.fit_boxes else None, config.count)


def _grabcuts(image: NDArray[np.uint8], boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    masks = np.zeros((len(boxes), *image.shape[:2]), dtype=bool)
    for mask, box in zip(masks, boxes, strict=True):
        own, left, top = grabcut_from_ellipse(image, box)
        mask[top : top + own.shape[0], left : left + own.shape[1]] = own
    return masks
