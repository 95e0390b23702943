"""Label a whole dataset with a thread pool; the job can be resumed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

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
from boxel.data.images import describe_missing
from boxel.data.suspects import describe_suspects, find_suspects
from boxel.data.tightening import describe_tightened
from boxel.labeling.config import LabelConfig
from boxel.labeling.guarantee import Guarantee
from boxel.labeling.outputs import left_out, load_records
from boxel.labeling.quality import MIN_MASKS, Calibration
from boxel.labeling.shard import (
    KEEP,
    LABEL,
    QUALITY,
    ImageMasks,
    Labeler,
    assign_roles,
    fill_masks,
    label_shard,
    make_labeler,
)
from boxel.labeling.store import Batch, ImageRows, Store
from boxel.labeling.teachers.base import Teacher
from boxel.utils.errors import BoxelError
from boxel.utils.files import is_file
from boxel.utils.frames import stored_in
from boxel.utils.printable import count_noun
from boxel.utils.progress import progress

logger = logging.getLogger(__name__)

_NOT_CALIBRATED = (
    "the quality is what the bundled network expects of masks that it was not calibrated on: typically 0.07 off, or "
    "0.14 if their teacher is better than the network"
)
_UNLIKE = "these images are unlike those that the quality was calibrated on, so it may be wrong"
_REMEDY = "correct 20 masks that `boxel next --random` draws, and calibrate the quality on them"
MAX_DISTANCE = 2.0
"""Mean distance of the masks of a dataset above which its images are unlike those of the calibration."""


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
    labeler = make_labeler(teachers, config, calibration)
    settings = labeler.settings()
    store.check_settings(settings)
    own = np.zeros(len(data.ids), dtype=bool) if own is None else own
    judgment = judge_masks(data)
    rejected = judgment.bad & ~own & ~data.iscrowd
    for sentence in _describe_masks(data, judgment, rejected, config.relabel):
        logger.warning("%s", sentence)
    data = drop_masks(data, rejected)
    roles = assign_roles(data, config.relabel, own)
    digests = _fingerprints(data, roles)
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

    failures = _label_and_store(data, todo, labeler, roles, store)
    problems = [text for digest, text in failures.items() if is_file(data.image_path(todo[digest]))]
    paths = map(data.image_path, range(len(data)))
    missing = describe_missing(paths) if len(problems) < len(failures) else ""
    if failures and len(failures) == len(current):
        name, reason = data.file or "the dataset", f"the first: {problems[0]}" if problems else missing
        raise BoxelError(f"{name}: none of its {len(digests)} images can be labeled; {reason}")
    filled, masked, distance = fill_masks(data, _stored_masks(store, digests))
    failed = [image for image, digest in digests.items() if digest in failures]
    unmasked = np.flatnonzero((roles == LABEL) & ~masked & ~np.isin(data.image_index, failed))
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
    stored = (store.get("settings") or {}).get(QUALITY, "")
    store.check_settings(Labeler(teachers, config).settings() | {QUALITY: stored})


def _compare_datasets(data: Annotations, config: LabelConfig, store: Store) -> tuple[int, int]:
    """Return how many images of an earlier run a dataset lacks, at least in part, and how many it has."""
    records = load_records(store, "coco")
    if records:
        return left_out(records[-1], data)
    data = drop_masks(data, judge_masks(data).bad & ~data.iscrowd)
    roles = assign_roles(data, config.relabel)
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


def _fingerprints(data: Annotations, roles: NDArray[np.int8]) -> dict[int, bytes]:
    """Return the digest of each image with instances to label."""
    images = np.unique(data.image_index[roles == LABEL]).tolist()
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
    masks = [data.segmentations[i] if roles[i] == KEEP else None for i in own]
    content = [file, names, roles[own].tolist(), data.boxes[own].tobytes(), masks]
    return blake2b(msgspec.msgpack.encode(content), digest_size=16).digest()


def _label_and_store(
    data: Annotations, todo: Mapping[bytes, int], labeler: Labeler, roles: NDArray[np.int8], store: Store
) -> dict[bytes, str]:
    """Label images and commit them in order; return a sentence per image that failed."""
    boxes = np.bincount(data.image_index[roles == LABEL], minlength=len(data))
    digests = {image: digest for digest, image in todo.items()}
    failures: dict[bytes, str] = {}
    with (
        progress(sum(int(boxes[image]) for image in digests), "boxes") as advance,
        closing(label_shard(data, digests, labeler, roles)) as results,
        closing(Batch(store)) as batch,
    ):
        for image, width, height, rows, failure in results:
            if failure:
                failures[digests[image]] = failure
            else:
                batch.add(ImageRows(digests[image], data.paths[image], width, height, list(rows)))
            advance(int(boxes[image]))
    return failures


def _stored_masks(store: Store, digests: Mapping[int, bytes]) -> Iterator[ImageMasks]:
    """Yield the masks that a store has of the images of a dataset, given with their digests."""
    images_of: dict[bytes, list[int]] = {}
    for image, digest in digests.items():
        images_of.setdefault(digest, []).append(image)
    for done in store:
        for image in images_of.get(done.digest, ()):
            yield ImageMasks(image, done.width, done.height, done.rows)


def _log_problems(data: Annotations, problems: Sequence[str], unmasked: NDArray[np.int64]) -> None:
    for sentence in filter(None, problems):
        logger.warning("%s", sentence)
    if len(unmasked):
        first = unmasked[0]
        message = "%s without a mask: no object seen in it, or outside the image; the first: annotation %s (image %s)"
        count = count_noun(len(unmasked), "box", "boxes")
        logger.warning(message, count, data.ids[first], data.image_ids[data.image_index[first]])
