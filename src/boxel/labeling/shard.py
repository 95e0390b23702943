"""Label some images of a dataset: what a job on one machine and the jobs on many do alike."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.formats.extras import set_field
from boxel.data.images import in_turn, read_image
from boxel.data.label_maps import UNDECIDED
from boxel.data.suspects import mark_suspect
from boxel.labeling.config import LabelConfig
from boxel.labeling.fusion import LabeledImage, label_image
from boxel.labeling.overlaps import PlacedMask
from boxel.labeling.quality import Calibration, compute_cues
from boxel.labeling.store import MaskRow
from boxel.labeling.suspects import SuspectScores, find_suspect_scores
from boxel.labeling.teachers.base import Teacher
from boxel.masks.boxes import Region
from boxel.masks.rle import Rle, decode_in_box, encode_in_box
from boxel.utils.ahead import work_ahead
from boxel.utils.errors import BoxelError, one_line

logger = logging.getLogger(__name__)

SKIP, KEEP, LABEL = range(3)
"""Roles of an instance: ignored, has a mask that stays, or gets a mask."""

QUALITY = "weights of the quality"
"""The setting that is known only after a calibration."""

_IMAGES_AHEAD = 4  # images per thread that are in progress or waiting to be taken in order
# A device that matters is in a teacher's identity; a guarantee and carried masks come afterwards.
_NEUTRAL_SETTINGS = ("workers", "device", "overwrite", "guarantee", "carry")
_FILLED_COLUMNS = ("widths", "heights", "segmentations", "quality", "source", "trusted", "areas", "extras")


@dataclass(frozen=True)
class Labeler:
    """All that masks are made from, besides the images and their annotations.

    Attributes:
        teachers: What predicts the masks.
        config: Settings; its `teachers` are ignored.
        calibration: What estimates the quality of the masks; None to leave it unknown.
        suspect_scores: What finds boxes that look wrong.
    """

    teachers: Sequence[Teacher]
    config: LabelConfig
    calibration: Calibration | None = None
    suspect_scores: SuspectScores | None = None

    def settings(self) -> dict[str, Any]:
        """Collect all that decides the masks, besides the dataset itself, as plain data by name."""
        settings = {
            name: value for name, value in asdict(self.config).items() if name not in _NEUTRAL_SETTINGS
        }
        # The last part of a path: the weights count, not the folder they lie in.
        settings["teachers"] = [Path(teacher.name).name for teacher in self.teachers]
        settings["weights of the teachers"] = [getattr(teacher, "identity", "") for teacher in self.teachers]
        settings[QUALITY] = self.calibration.identity if self.calibration else ""
        return settings


def make_labeler(
    teachers: Sequence[Teacher], config: LabelConfig, calibration: Calibration | None = None
) -> Labeler:
    """Make a labeler, which finds suspect boxes if there are scores for its teacher."""
    scores = find_suspect_scores(teachers[0].name) if len(teachers) == 1 else None
    return Labeler(teachers, config, calibration, scores)


class ImageMasks(NamedTuple):
    """The masks of an image, or why it has none.

    Attributes:
        image: Index of the image.
        width: Of the image in pixels; 0 if it could not be labeled.
        height: As `width`.
        rows: The masks of the instances that got one.
        failure: One sentence, empty for an image that was labeled.
    """

    image: int
    width: int = 0
    height: int = 0
    rows: Sequence[MaskRow] = ()
    failure: str = ""


def assign_roles(data: Annotations, relabel: bool, own: NDArray[np.bool_] | None = None) -> NDArray[np.int8]:
    """Return what is done with each instance; masks that a teacher has predicted before are made again.

    Args:
        data: The dataset.
        relabel: Make new masks for instances that have one of the user's, too.
        own: (N,) bool, instances that a user has drawn in an output: their masks stay in any case.

    Returns:
        (N,) int8 of `SKIP`, `KEEP` and `LABEL`.
    """
    predicted = data.has_source & np.isfinite(data.quality)
    stays = ~(predicted | relabel)
    masked = data.has_mask & (stays if own is None else own | stays)
    roles = np.where(masked, KEEP, LABEL).astype(np.int8)
    roles[data.iscrowd | ~data.has_box] = SKIP
    return roles


def label_shard(
    data: Annotations, images: Iterable[int], labeler: Labeler, roles: NDArray[np.int8]
) -> Generator[ImageMasks]:
    """Label some images of a dataset in threads; an image that cannot be labeled costs only itself.

    The masks of an image depend on the image, its annotations and the labeler alone, not on the order or the number of
    threads.

    Args:
        data: The dataset.
        images: Indices of the images.
        labeler: What makes the masks.
        roles: (N,) what is done with each instance of the dataset; see `assign_roles`.

    Yields:
        The masks of each image, in the order of ``images``.
    """
    workers = labeler.config.workers
    label_one = partial(_label_one, data=data, labeler=labeler, roles=roles)
    with (
        ThreadPoolExecutor(workers) as pool,
        closing(work_ahead(pool, label_one, images, workers * _IMAGES_AHEAD)) as results,
    ):
        for image, future in results:
            try:
                yield future.result()
            except Exception as error:  # other images are still worth labeling
                yield ImageMasks(image, failure=describe_failure(data.image_path(image), error))


def fill_masks(
    data: Annotations, found: Iterable[ImageMasks]
) -> tuple[Annotations, NDArray[np.bool_], NDArray[np.float64]]:
    """Fill a dataset with masks.

    Returns:
        The dataset; (N,) bool, which instances got a mask; (N,) the distance of each mask's cues from those that its
        quality was calibrated on, NaN if unknown.
    """
    filled = replace(data, **{name: getattr(data, name).copy() for name in _FILLED_COLUMNS})
    masked, distance = np.zeros(len(data.ids), dtype=bool), np.full(len(data.ids), np.nan)
    for image, width, height, rows, failure in found:
        if failure:
            continue
        filled.widths[image], filled.heights[image] = width, height
        own = data.instances_in(image)
        for row in rows:
            instance = own[row.position]
            filled.segmentations[instance] = row.segmentation
            filled.quality[instance] = np.nan if row.quality is None else row.quality
            filled.source[instance] = sys.intern(row.source)
            filled.trusted[instance] = row.trusted
            filled.areas[instance] = row.area
            extras = mark_suspect(filled.extras[instance], row.suspect)
            filled.extras[instance] = set_field(extras, UNDECIDED, row.undecided)
            masked[instance] = True
            distance[instance] = np.nan if row.distance is None else row.distance
    return filled, masked, distance


def load_image(data: Annotations, image: int) -> NDArray[np.uint8]:
    """Read the (H, W, 3) uint8 RGB pixels of an image; refuse one of another size than its annotations state."""
    path = data.image_path(image)
    pixels = read_image(path)
    size = pixels.shape[1], pixels.shape[0]
    stated = int(data.widths[image]), int(data.heights[image])
    if all(stated) and stated != size:
        raise BoxelError(
            f"{path}: the image has {size[0]} x {size[1]} pixels, but its annotations state {stated[0]} x {stated[1]}, "
            "so its boxes may lie elsewhere; `boxel check --repair` corrects the size."
        )
    return pixels


def describe_failure(path: Path, error: Exception) -> str:
    """Describe in one sentence why an image cannot be labeled."""
    logger.debug("%s", path, exc_info=error)
    text = str(error) if isinstance(error, BoxelError) else f"{type(error).__name__}: {one_line(error)}."
    return text if str(path) in text else f"{path}: cannot be labeled: {text}"


def _label_one(image: int, data: Annotations, labeler: Labeler, roles: NDArray[np.int8]) -> ImageMasks:
    """Label one image, in a thread."""
    own = data.instances_in(image)
    with in_turn(data.image_path(image)):
        pixels = load_image(data, image)
        height, width = pixels.shape[:2]
        existing, positions = _split_by_role(data, own, roles, (height, width))
        boxes, labels = data.boxes[own[positions]], data.labels[own[positions]]
        labeled = label_image(pixels, boxes, labels, labeler.teachers, labeler.config, existing)
        rows = _mask_rows(labeler, labeled, positions)
        del labeled, pixels  # before another large image is read
    return ImageMasks(image, width, height, rows)


def _split_by_role(
    data: Annotations, own: NDArray[np.int64], roles: NDArray[np.int8], size: tuple[int, int]
) -> tuple[list[PlacedMask], NDArray[np.int64]]:
    """Return the masks of an image that stay, and the positions of the instances that get one."""
    height, width = size
    existing, positions = [], []
    for position, instance in enumerate(own.tolist()):
        x0, y0, x1, y1 = box = data.boxes[instance].clip(0, [width, height] * 2)
        if roles[instance] == SKIP or x1 <= x0 or y1 <= y0:
            continue
        if roles[instance] == KEEP:
            try:
                mask, left, top = decode_in_box(cast(Rle, data.rle(instance, size)))
                region = Region(left, top, left + mask.shape[1], top + mask.shape[0])
                existing.append(PlacedMask(box, region, mask > 0))
                continue
            except BoxelError as error:
                logger.warning("%s It is labeled again.", error)
        positions.append(position)
    return existing, np.array(positions, dtype=np.int64)


def _mask_rows(labeler: Labeler, labeled: LabeledImage, positions: NDArray[np.int64]) -> list[MaskRow]:
    """Encode the masks of an image for the store, with their quality and what may be wrong with their boxes."""
    count, calibration, scores = len(labeled.boxes), labeler.calibration, labeler.suspect_scores
    reference = calibration.reference if calibration else None
    cues = compute_cues(labeled, reference) if calibration or scores else np.empty((count, 0))
    quality = calibration.estimate(cues) if calibration else np.full(count, np.nan)
    distance = calibration.distance(cues) if calibration else np.full(count, np.nan)
    suspects = scores.judge(cues, labeled) if scores else [None] * count
    rows = []
    for index, position in enumerate(positions.tolist()):
        mask, (left, top, *_) = labeled.masks[index], labeled.regions[index]
        if mask is None:
            continue
        teachers = dict.fromkeys(vote.teacher for vote in labeled.votes if vote.has_opinion(index))
        undecided, size = labeled.undecided[index], labeled.image.shape[:2]
        rows.append(
            MaskRow(
                position=position,
                segmentation=msgspec.json.encode(encode_in_box(mask, left, top, *size)),
                quality=None if np.isnan(quality[index]) else float(quality[index]),
                source="+".join(teachers),
                trusted=bool(labeled.trusted[index]),
                area=int(np.count_nonzero(mask)),
                suspect=suspects[index],
                distance=None if np.isnan(distance[index]) else float(distance[index]),
                undecided=None if undecided is None else encode_in_box(undecided, left, top, *size),
            )
        )
    return rows
