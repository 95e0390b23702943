"""Label a whole dataset with a thread pool; the job can be resumed."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.checks.masks import (
    MaskJudgment,
    describe_rectangles,
    describe_unusable,
    drop_masks,
    find_drawn_masks,
    judge_masks,
)
from boxel.data.formats.extras import set_field
from boxel.data.images import describe_missing, read_image
from boxel.data.label_maps import UNDECIDED
from boxel.data.suspects import describe_suspects, find_suspects, mark_suspect
from boxel.data.tightening import describe_tightened
from boxel.labeling.config import LabelConfig
from boxel.labeling.fusion import LabeledImage, label_image
from boxel.labeling.guarantee import Guarantee
from boxel.labeling.outputs import left_out, load_records
from boxel.labeling.overlaps import PlacedMask
from boxel.labeling.quality import MIN_MASKS, Calibration, compute_cues
from boxel.labeling.store import Batch, ImageRows, MaskRow, Store
from boxel.labeling.suspects import SuspectScores, find_suspect_scores
from boxel.labeling.teachers.base import Teacher
from boxel.masks.boxes import Region
from boxel.masks.rle import Rle, decode_in_box, encode_in_box
from boxel.utils.ahead import work_ahead
from boxel.utils.errors import BoxelError, one_line
from boxel.utils.files import is_file
from boxel.utils.frames import stored_in
from boxel.utils.printable import count_noun
from boxel.utils.progress import progress

logger = logging.getLogger(__name__)

_IMAGES_AHEAD = 4  # images per thread that are in progress or waiting to be committed in order
# A device that matters is in a teacher's identity.
_NEUTRAL_SETTINGS = (
    "workers",
    "device",
    "overwrite",
    "guarantee",
    "carry",
)  # the last two come after the store
_QUALITY = "weights of the quality"  # the setting that is known only after a calibration
_NOT_CALIBRATED = (
    "the quality is what the bundled network expects of masks that it was not calibrated on: typically 0.07 off, or "
    "0.14 if their teacher is better than the network"
)
_UNLIKE = "these images are unlike those that the quality was calibrated on, so it may be wrong"
_REMEDY = "correct 20 masks that `boxel next --random` draws, and calibrate the quality on them"
_FILLED_COLUMNS = ("widths", "heights", "segmentations", "quality", "source", "trusted", "areas", "extras")
MAX_DISTANCE = 2.0
"""Mean distance of the masks of a dataset above which its images are unlike those of the calibration."""

_SKIP, _KEEP, _LABEL = range(3)  # roles of an instance: ignored, has a mask that stays, or gets a mask


@dataclass(frozen=True)
class LabelResult:
    """A labeled dataset and what happened on the way.

    Attributes:
        data: The dataset with its masks.
        labeled: Number of images labeled now.
        reused: Number of images that an earlier run had labeled.
        changed: Paths of images labeled again because they or their boxes have changed.
        failures: One sentence per image that could not be labeled and keeps its boxes only.
        made: (N,) bool, the instances that got a mask, now or in an earlier run.
        replaced: (N,) bool, those of them whose segmentation was not a mask.
        reasons: Why they were replaced, with ids.
        unmasked: Indices of annotations that got no mask although their image was labeled.
        settings: All settings that the masks depend on, by name.
        distance: (N,) distance of each mask's cues from those that its quality was calibrated on, 1 on average for
            similar images; NaN if unknown.
        is_calibrated: Whether the quality was calibrated on masks of these teachers.
        guarantee: What is guaranteed of the masks that are trusted, if that was asked for.
        carried: Number of masks that come from neighboring frames of their tracks.
    """

    data: Annotations
    labeled: int
    reused: int
    changed: list[str]
    failures: list[str]
    made: NDArray[np.bool_]
    replaced: NDArray[np.bool_]
    reasons: str
    unmasked: NDArray[np.int64]
    settings: dict[str, object]
    distance: NDArray[np.float64]
    is_calibrated: bool = True
    guarantee: Guarantee | None = None
    carried: int = 0

    def summary(self) -> str:
        """Summarize in one line how many boxes got a mask, how good these are, and what the other boxes have."""
        data, made = self.data, self.made
        kept = data.has_segmentation & ~made & ~data.iscrowd
        lacking = ~data.has_segmentation & ~data.iscrowd
        unseen = np.isin(np.arange(len(made)), self.unmasked)
        quality = data.quality[made & np.isfinite(data.quality)]
        text = f"{made.sum():,} of {(made | lacking).sum():,} boxes in {len(data):,} images got a mask"
        if len(quality):
            good = (quality >= 0.75).mean()
            text += f"; mean quality of these masks {quality.mean():.2f}, {good:.0%} at least 0.75"
        if kept.any() or self.reasons:
            text += f"; {(made & ~self.replaced).sum():,} made, {kept.sum():,} kept"
            text += f", {self.reasons}" if self.reasons else ""
        if self.carried:
            text += f"; {self.carried:,} carried over from neighboring frames"
        if tightened := describe_tightened(data):
            text += f"; {tightened}"
        others = {
            "of them not trusted": made & ~data.trusted & (self.guarantee is None),
            "without a mask: no object seen in the box, or outside the image": lacking & unseen,
            "without a mask: the box has no area": lacking & ~data.has_box,
            "without a mask: the image could not be labeled": lacking & ~unseen & data.has_box,
            "left alone as crowds": data.iscrowd,
        }
        parts = [f"{some.sum():,} {what}" for what, some in others.items() if some.any()]
        parts += [self.guarantee.describe()] if self.guarantee else []
        parts += [] if self.is_calibrated or not len(quality) else [_NOT_CALIBRATED]
        parts += [_UNLIKE] if self.is_unlike else []
        parts += [_REMEDY] if self.needs_calibration else []
        return "; ".join([text, *parts])

    @property
    def needs_calibration(self) -> bool:
        """Whether the quality is worth calibrating: on masks of these teachers, or on images like these."""
        return self.is_unlike or (
            not self.is_calibrated and bool(np.isfinite(self.data.quality[self.made]).any())
        )

    @property
    def is_unlike(self) -> bool:
        """Whether the images are unlike those that the quality was calibrated on, so that it may be wrong."""
        distance = self.distance[np.isfinite(self.distance)]
        return len(distance) >= MIN_MASKS and float(distance.mean()) > MAX_DISTANCE

    def describe_suspects(self) -> str:
        """State how many boxes look wrong by content, of each kind, with annotation ids; empty if none does."""
        return describe_suspects(self.data, find_suspects(self.data))

    def write_report(self, path: str | os.PathLike[str], command: str = "") -> None:
        """Write the HTML report on the dataset; see :func:`boxel.viz.write_report`."""
        from boxel.viz.report import write_report

        known = {name: getattr(self, name) for name in ("failures", "changed", "settings")}
        write_report(self.data, path, **known, summary=self.summary(), command=command)


@dataclass(frozen=True)
class _Job:
    """What the masks of a dataset are made from."""

    data: Annotations
    teachers: Sequence[Teacher]
    config: LabelConfig
    calibration: Calibration | None
    suspect_scores: SuspectScores | None
    roles: NDArray[np.int8]  # (N,), of each instance


def label_images(
    data: Annotations,
    teachers: Sequence[Teacher],
    config: LabelConfig,
    store: Store,
    calibration: Calibration | None = None,
    own: NDArray[np.bool_] | None = None,
) -> LabelResult:
    """Label the images of a dataset that the store does not have yet, and return the dataset with all masks.

    The masks of an image depend on the image, its annotations and the settings alone, not on the order or the number
    of threads. A store of other settings, and images none of which can be labeled, are a :class:`BoxelError`.

    Args:
        own: (N,) bool, instances that a user has drawn in an output of the job: their masks stay in any case.
    """
    settings = _collect_settings(teachers, config, calibration)
    store.check_settings(settings)
    own = np.zeros(len(data.ids), dtype=bool) if own is None else own
    judgment = judge_masks(data)
    rejected = judgment.bad & ~own & ~data.iscrowd
    for sentence in _describe_masks(data, judgment, rejected, config.relabel):
        logger.warning("%s", sentence)
    data = drop_masks(data, rejected)
    scores = find_suspect_scores(teachers[0].name) if len(teachers) == 1 else None
    job = _Job(data, teachers, config, calibration, scores, _assign_roles(data, config.relabel, own))
    digests = _fingerprints(data, job.roles)
    current, finished = set(digests.values()), store.paths()
    todo = {digest: image for image, digest in digests.items() if digest not in finished}
    # A file that occurs a second time, with other boxes, has not changed.
    outdated = {path for digest, path in finished.items() if digest not in current}
    changed = [
        data.paths[i] for i in todo.values() if data.paths[i] in outdated and is_file(data.image_path(i))
    ]
    if finished:
        logger.info("%d of %d images are labeled already", len(digests) - len(todo), len(digests))
    if gone := outdated.difference(data.paths):
        logger.info(
            "%s of the earlier run no longer in the dataset, and left out", count_noun(len(gone), "image")
        )
    for path in changed:
        what = "it is labeled again, and masks that are not your own may change"
        logger.info("%s: the image or its annotations have changed; %s", path, what)

    failures = _label_and_store(job, todo, store)
    problems = [text for digest, text in failures.items() if is_file(data.image_path(todo[digest]))]
    paths = map(data.image_path, range(len(data)))
    missing = describe_missing(paths) if len(problems) < len(failures) else ""
    if failures and len(failures) == len(current):
        name, reason = data.file or "the dataset", f"the first: {problems[0]}" if problems else missing
        raise BoxelError(f"{name}: none of its {len(digests)} images can be labeled; {reason}")
    filled, masked, distance = _merge_masks(data, store, digests)
    failed = [image for image, digest in digests.items() if digest in failures]
    unmasked = np.flatnonzero((job.roles == _LABEL) & ~masked & ~np.isin(data.image_index, failed))
    _log_problems(data, [*problems, missing], unmasked)
    return LabelResult(
        data=filled,
        labeled=len(todo) - len(failures),
        reused=len(digests) - len(todo),
        changed=changed,
        failures=list(failures.values()),
        made=masked,
        replaced=rejected & masked,
        reasons=judgment.describe(data.ids, rejected & masked, "replaced because "),
        unmasked=unmasked,
        settings=settings,
        distance=distance,
        is_calibrated=calibration is None or calibration.is_fitted,
    )


def check_store(
    data: Annotations, teachers: Sequence[Teacher], config: LabelConfig, store: Store, in_memory: bool = False
) -> None:
    """Refuse a store with masks of another dataset, or with other settings except for a calibration.

    Args:
        in_memory: The annotations may differ from their file.
    """
    file, before = str(Path(data.file).resolve()) if data.file else "", store.get("dataset")
    if before is not None and (in_memory or file != before):
        lacking, complete = _compare_datasets(data, config, store)
        # In memory boxes may have been changed on purpose, but hardly all of them.
        changed_in_memory = in_memory and file == before and complete
        if lacking and not changed_in_memory:
            raise BoxelError(
                f"{store.path}: it has masks of {before or 'another dataset in memory'}, and {lacking} of its images "
                f"are not in {data.file or 'the dataset in memory'}, or have other boxes there; name another `out`."
            )
    store.put("dataset", file or before or "")
    stored = (store.get("settings") or {}).get(_QUALITY, "")
    store.check_settings(_collect_settings(teachers, config, None) | {_QUALITY: stored})


def _compare_datasets(data: Annotations, config: LabelConfig, store: Store) -> tuple[int, int]:
    """Return how many images of an earlier run a dataset lacks, at least in part, and how many it has."""
    records = load_records(store, "coco")
    if records:
        return left_out(records[-1], data)
    data = drop_masks(data, judge_masks(data).bad & ~data.iscrowd)
    roles = _assign_roles(data, config.relabel, np.zeros(len(data.ids), dtype=bool))
    current = set(_fingerprints(data, roles).values())
    finished = store.paths().keys()
    return len(finished - current), len(finished & current)


def _describe_masks(
    data: Annotations, judgment: MaskJudgment, rejected: NDArray[np.bool_], relabel: bool
) -> list[str]:
    """Return a sentence on segmentations that are not masks, and one if all masks are rectangles."""
    if relabel:
        return []
    drawn = find_drawn_masks(data, judgment)
    remedy = "masks are made for them" if rejected[drawn].all() else "`relabel` makes masks for them"
    rectangles = describe_rectangles(data, judgment, remedy)
    others = rejected & ~drawn if rectangles else rejected
    sentences = [f"{data.file or 'the dataset'}: {rectangles}."] if rectangles else []
    return sentences + describe_unusable(data, judgment, others, "and masks are made instead")


def _collect_settings(
    teachers: Sequence[Teacher], config: LabelConfig, calibration: Calibration | None
) -> dict[str, Any]:
    """Collect all that decides the masks, besides the dataset itself, as plain data by name."""
    settings = {name: value for name, value in asdict(config).items() if name not in _NEUTRAL_SETTINGS}
    # The last part of a path: the weights count, not the folder they lie in.
    settings["teachers"] = [Path(teacher.name).name for teacher in teachers]
    settings["weights of the teachers"] = [getattr(teacher, "identity", "") for teacher in teachers]
    settings[_QUALITY] = calibration.identity if calibration else ""
    return settings


def _fingerprints(data: Annotations, roles: NDArray[np.int8]) -> dict[int, bytes]:
    """Return the digest of each image with instances to label."""
    images = np.unique(data.image_index[roles == _LABEL]).tolist()
    return {image: _fingerprint(data, image, roles) for image in images}


def _fingerprint(data: Annotations, image: int, roles: NDArray[np.int8]) -> bytes:
    """Compute a digest of all that the masks of an image are made from: its file name and size, and annotations."""
    own = data.instances_in(image)
    try:
        size = os.stat(stored_in(data.image_path(image))).st_size
    except (OSError, ValueError):  # ValueError: a null byte in the name
        size = -1
    file = [data.paths[image], size, int(data.widths[image]), int(data.heights[image])]
    names = [data.categories[label].name for label in data.labels[own]]
    masks = [data.segmentations[i] if roles[i] == _KEEP else None for i in own]
    content = [file, names, roles[own].tolist(), data.boxes[own].tobytes(), masks]
    return blake2b(msgspec.msgpack.encode(content), digest_size=16).digest()


def _merge_masks(
    data: Annotations, store: Store, digests: Mapping[int, bytes]
) -> tuple[Annotations, NDArray[np.bool_], NDArray[np.float64]]:
    """Fill a dataset with the masks of a store; return it, which instances got a mask, and the distances of these."""
    images_of: dict[bytes, list[int]] = {}
    for image, digest in digests.items():
        images_of.setdefault(digest, []).append(image)
    filled = replace(data, **{name: getattr(data, name).copy() for name in _FILLED_COLUMNS})
    masked, distance = np.zeros(len(data.ids), dtype=bool), np.full(len(data.ids), np.nan)
    for done in store:
        for image in images_of.get(done.digest, ()):
            filled.widths[image], filled.heights[image] = done.width, done.height
            own = data.instances_in(image)
            for row in done.rows:
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


def _assign_roles(data: Annotations, relabel: bool, own: NDArray[np.bool_]) -> NDArray[np.int8]:
    """Return what is done with each instance; masks that a teacher has predicted before are made again."""
    has_source = np.array([source is not None for source in data.source], dtype=bool)
    predicted = has_source & np.isfinite(data.quality)
    masked = data.has_mask & (own | ~(predicted | relabel))
    roles = np.where(masked, _KEEP, _LABEL).astype(np.int8)
    roles[data.iscrowd | ~data.has_box] = _SKIP
    return roles


def _label_and_store(job: _Job, todo: Mapping[bytes, int], store: Store) -> dict[bytes, str]:
    """Label images in threads and commit them in order; return a sentence per image that failed."""
    data = job.data
    boxes = np.bincount(data.image_index[job.roles == _LABEL], minlength=len(data))
    failures: dict[bytes, str] = {}
    label_one = partial(_label_one, job=job)
    with (
        progress(sum(int(boxes[image]) for image in todo.values()), "boxes") as advance,
        ThreadPoolExecutor(job.config.workers) as pool,
        closing(work_ahead(pool, label_one, todo.items(), job.config.workers * _IMAGES_AHEAD)) as results,
        closing(Batch(store)) as batch,
    ):
        for (digest, image), future in results:
            try:
                rows = future.result()
            except Exception as error:  # other images are still worth labeling
                failures[digest] = describe_failure(data.image_path(image), error)
            else:
                batch.add(rows)
            advance(int(boxes[image]))
    return failures


def _label_one(item: tuple[bytes, int], job: _Job) -> ImageRows:
    """Label one image, given with its digest, in a thread."""
    (digest, image), data = item, job.data
    pixels = load_image(data, image)
    height, width = pixels.shape[:2]
    own = data.instances_in(image)
    existing, positions = _split_by_role(job, own, (height, width))
    boxes, labels = data.boxes[own[positions]], data.labels[own[positions]]
    labeled = label_image(pixels, boxes, labels, job.teachers, job.config, existing)
    rows = _mask_rows(job, labeled, positions)
    return ImageRows(digest, data.paths[image], width, height, rows)


def _split_by_role(
    job: _Job, own: NDArray[np.int64], size: tuple[int, int]
) -> tuple[list[PlacedMask], NDArray[np.int64]]:
    """Return the masks of an image that stay, and the positions of the instances that get one."""
    height, width = size
    existing, positions = [], []
    for position, instance in enumerate(own.tolist()):
        x0, y0, x1, y1 = box = job.data.boxes[instance].clip(0, [width, height] * 2)
        if job.roles[instance] == _SKIP or x1 <= x0 or y1 <= y0:
            continue
        if job.roles[instance] == _KEEP:
            try:
                mask, left, top = decode_in_box(cast(Rle, job.data.rle(instance, size)))
                region = Region(left, top, left + mask.shape[1], top + mask.shape[0])
                existing.append(PlacedMask(box, region, mask > 0))
                continue
            except BoxelError as error:
                logger.warning("%s It is labeled again.", error)
        positions.append(position)
    return existing, np.array(positions, dtype=np.int64)


def _mask_rows(job: _Job, labeled: LabeledImage, positions: NDArray[np.int64]) -> list[MaskRow]:
    """Encode the masks of an image for the store, with their quality and what may be wrong with their boxes."""
    count = len(labeled.boxes)
    reference = job.calibration.reference if job.calibration else None
    cues = compute_cues(labeled, reference) if job.calibration or job.suspect_scores else np.empty((count, 0))
    quality = job.calibration.estimate(cues) if job.calibration else np.full(count, np.nan)
    distance = job.calibration.distance(cues) if job.calibration else np.full(count, np.nan)
    suspects = job.suspect_scores.judge(cues, labeled) if job.suspect_scores else [None] * count
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


def _log_problems(data: Annotations, problems: Sequence[str], unmasked: NDArray[np.int64]) -> None:
    for sentence in filter(None, problems):
        logger.warning("%s", sentence)
    if len(unmasked):
        first = unmasked[0]
        message = "%s without a mask: no object seen in it, or outside the image; the first: annotation %s (image %s)"
        count = count_noun(len(unmasked), "box", "boxes")
        logger.warning(message, count, data.ids[first], data.image_ids[data.image_index[first]])
