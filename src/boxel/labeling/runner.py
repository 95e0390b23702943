"""The labeling of a whole set: one image after another, in a few threads, and so that it can go on after any end."""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.data.images import read_image
from boxel.labeling.config import LabelConfig
from boxel.labeling.fusion import Labeled, label_image
from boxel.labeling.overlaps import Piece
from boxel.labeling.quality import unknown
from boxel.labeling.store import Batch, ImageRows, Row, Store
from boxel.labeling.teachers.base import Teacher
from boxel.masks.boxes import Region
from boxel.masks.rle import Rle, decode, encode_in_box
from boxel.utils.errors import BoxelError, one_line
from boxel.utils.progress import progress

logger = logging.getLogger(__name__)

Quality = Callable[[Labeled], NDArray[np.float64]]
"""(N,) estimated IoU of each mask with the truth; NaN where unknown."""

_AHEAD = 4
"""Images a thread that are under way or waiting to be committed in their turn."""

_HOW = ("workers", "device")
"""Settings that don't change what comes out; what a device changes is told by the identity of a teacher."""


@dataclass(frozen=True)
class Outcome:
    """What a job did.

    Attributes:
        data: the set with its masks.
        labeled: images labeled now.
        found: images that an earlier run had labeled.
        changed: images labeled anew because they, or their boxes, are not what they were; their paths.
        bad: a sentence for each image that could not be labeled and has boxes only.
        without: annotations that were asked for and got no mask, though their image was labeled; their indices.
        settings: all that decided what came out, by name.
    """

    data: Annotations
    labeled: int
    found: int
    changed: list[str]
    bad: list[str]
    without: NDArray[np.int64]
    settings: dict[str, Any]

    def summary(self) -> str:
        """One line on what there is now."""
        data = self.data
        masked = data.has_segmentation & ~data.iscrowd
        quality = data.quality[masked & np.isfinite(data.quality)]
        parts = [f"{int(masked.sum()):,} masks in {len(data):,} images"]
        if len(quality):
            parts.append(
                f"quality {quality.mean():.2f} on average, {(quality >= 0.75).mean():.0%} of 0.75 or more"
            )
        dropped = int((masked & ~data.trusted).sum())
        parts += [f"{dropped:,} not trusted"] if dropped else []
        return "; ".join(parts)


def label_set(
    data: Annotations,
    teachers: Sequence[Teacher],
    config: LabelConfig,
    store: Store,
    quality: Quality = unknown,
    report: Callable[[str], None] = print,
) -> Outcome:
    """Label the images of a set that the store does not have yet, and put all masks into the set.

    Whatever ends it, the same call goes on: what was committed is not done again. The masks of an image depend on the
    image, its annotations and the settings alone, so it does not matter when, in which order or by how many threads
    they are made.

    Args:
        data: the set. Crowds, and instances with a mask that is trusted, stay as they are.
        teachers: who draws the masks; with an ``identity`` where a name does not say all.
        config: how; its own `teachers` are not heeded here.
        store: where it is kept.
        quality: tells the quality of an image's masks; with an ``identity`` too.
        report: is told of progress, of what has changed, and at the end of each image that could not be labeled.

    Raises:
        BoxelError: the store is of other settings, or not one image can be labeled.
    """
    settings = settings_of(teachers, config, quality)
    roles = _roles(data, config.relabel)
    counts = np.bincount(data.image_index[roles == _ASK], minlength=len(data))
    digests = {image: fingerprint(data, image, roles) for image in np.flatnonzero(counts).tolist()}
    known = store.known()
    store.agree(settings)
    todo = {digest: image for image, digest in digests.items() if digest not in known}
    current = set(digests.values())
    # A file that is there a second time, with other boxes, has not changed.
    paths = {path for digest, path in known.items() if digest not in current}
    changed = [
        data.paths[image]
        for image in todo.values()
        if data.paths[image] in paths and data.image_path(image).is_file()
    ]
    if known:
        report(f"{len(digests) - len(todo):,} of {len(digests):,} images are labeled already")
    for path in changed:
        report(f"{path}: the image or its annotations have changed; it is labeled anew")

    def work(digest: bytes) -> ImageRows:
        return _label_one(data, todo[digest], digest, roles, teachers, config, quality)

    faults: dict[bytes, str] = {}
    with (
        progress(sum(int(counts[image]) for image in todo.values()), "boxes", report) as advance,
        ThreadPoolExecutor(config.workers) as pool,
        closing(_in_turn(pool, work, todo, config.workers * _AHEAD)) as results,
        closing(Batch(store)) as batch,
    ):
        for digest, future in results:
            try:
                done = future.result()
            except Exception as error:  # whatever it is, the other images are worth having
                faults[digest] = fault_of(data.image_path(todo[digest]), error)
            else:
                batch.add(done)
            advance(int(counts[todo[digest]]))
    if faults and len(faults) == len(current):
        raise BoxelError(
            f"{data.file or 'the set'}: not one of its {len(digests)} images can be labeled, the first: "
            f"{next(iter(faults.values()))}"
        )
    filled, got = with_masks(data, store, digests)
    bad = [image for image, digest in digests.items() if digest in faults]
    without = np.flatnonzero((roles == _ASK) & ~got & ~np.isin(data.image_index, bad))
    for sentence in faults.values():
        report(sentence)
    if len(without):
        report(
            f"boxes that got no mask, since no teacher saw an object in them or they lie outside the image: "
            f"{len(without):,}, the first of annotation {data.ids[without[0]]} (image "
            f"{data.image_ids[data.image_index[without[0]]]})"
        )
    return Outcome(
        data=filled,
        labeled=len(todo) - len(faults),
        found=len(digests) - len(todo),
        changed=changed,
        bad=list(faults.values()),
        without=without,
        settings=settings,
    )


def settings_of(teachers: Sequence[Teacher], config: LabelConfig, quality: Quality) -> dict[str, Any]:
    """All that decides what comes out, beside the set itself, as plain data by name."""
    settings = {name: value for name, value in asdict(config).items() if name not in _HOW}
    # Of a path the last part: the weights are what counts, not from which folder they are named.
    settings["teachers"] = [Path(teacher.name).name for teacher in teachers]
    settings["weights of the teachers"] = [getattr(teacher, "identity", "") for teacher in teachers]
    settings["weights of the quality"] = getattr(quality, "identity", "")
    return settings


def fingerprint(data: Annotations, image: int, roles: NDArray[np.int8]) -> bytes:
    """A digest of all that an image's masks are made from: the file by its name and size, and its annotations.

    Args:
        data: the set.
        image: index of the image.
        roles: (N,) what each instance is to the job.
    """
    own = data.instances_in(image)
    try:
        size = os.stat(data.image_path(image)).st_size
    except (OSError, ValueError):  # ValueError: a null byte in the name
        size = -1
    said = [data.paths[image], size, int(data.widths[image]), int(data.heights[image])]
    names = [data.categories[label].name for label in data.labels[own]]
    masks = [data.segmentations[i] if roles[i] == _KEEP else None for i in own]
    content = [said, names, roles[own].tolist(), data.boxes[own].tobytes(), masks]
    return blake2b(msgspec.msgpack.encode(content), digest_size=16).digest()


def with_masks(
    data: Annotations, store: Store, digests: Mapping[int, bytes]
) -> tuple[Annotations, NDArray[np.bool_]]:
    """The set with the masks that the store has for its images; what has none there stays as it is.

    Args:
        data: the set.
        store: of a job on this set.
        digests: of images, by their index.

    Returns:
        The set, and (N,) bool, the instances that got a mask.
    """
    images_of: dict[bytes, list[int]] = {}
    for image, digest in digests.items():
        images_of.setdefault(digest, []).append(image)
    made = replace(data, **{name: getattr(data, name).copy() for name in _FILLED})
    got = np.zeros(len(data.ids), dtype=bool)
    for done in store:
        for image in images_of.get(done.digest, ()):
            made.widths[image], made.heights[image] = done.width, done.height
            own = data.instances_in(image)
            for row in done.rows:
                instance = own[row.position]
                made.segmentations[instance] = row.segmentation
                made.quality[instance] = np.nan if row.quality is None else row.quality
                made.source[instance] = sys.intern(row.source)
                made.trusted[instance] = row.trusted
                made.areas[instance] = np.nan  # that of the mask, from now on
                got[instance] = True
    return made, got


_FILLED = ("widths", "heights", "segmentations", "quality", "source", "trusted", "areas")

_LEAVE, _KEEP, _ASK = range(3)
"""What an instance is to the job: nothing to it, a mask that stays, or a box that gets a mask."""


def _roles(data: Annotations, relabel: bool) -> NDArray[np.int8]:
    masked = data.has_mask & (not relabel)
    roles = np.where(masked, _KEEP, _ASK).astype(np.int8)
    roles[data.iscrowd | ~data.has_box] = _LEAVE
    return roles


def fault_of(path: Path, error: Exception) -> str:
    """A sentence on an image that can't be labeled."""
    logger.debug("%s", path, exc_info=error)
    text = str(error) if isinstance(error, BoxelError) else f"{type(error).__name__}: {one_line(error)}."
    return text if str(path) in text else f"{path}: can't be labeled: {text}"


def _label_one(
    data: Annotations,
    image: int,
    digest: bytes,
    roles: NDArray[np.int8],
    teachers: Sequence[Teacher],
    config: LabelConfig,
    quality: Quality,
) -> ImageRows:
    """All that is done to one image, in a thread of its own.

    Raises:
        BoxelError: the image can't be used.
    """
    pixels = photo_of(data, image)
    height, width = pixels.shape[:2]
    own = data.instances_in(image)
    kept, asked = _split(data, own, roles, (height, width))
    names = [category.name for category in data.categories]
    labeled = label_image(
        pixels, data.boxes[own[asked]], data.labels[own[asked]], names, teachers, config, kept
    )
    return ImageRows(digest, data.paths[image], width, height, _rows(labeled, asked, quality(labeled)))


def photo_of(data: Annotations, image: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB pixels of an image of a set.

    Raises:
        BoxelError: they can't be read, or are of another size than the set says.
    """
    path = data.image_path(image)
    pixels = read_image(path)
    size = pixels.shape[1], pixels.shape[0]
    said = int(data.widths[image]), int(data.heights[image])
    if all(said) and said != size:
        raise BoxelError(
            f"{path}: the image is {size[0]} x {size[1]} pixels, not {said[0]} x {said[1]} as the annotations say, so "
            "its boxes may lie elsewhere; `boxel check --repair` corrects the size."
        )
    return pixels


def _split(
    data: Annotations, own: NDArray[np.int64], roles: NDArray[np.int8], size: tuple[int, int]
) -> tuple[list[Piece], NDArray[np.int64]]:
    """The masks of an image that stay, and the positions of the instances that get one."""
    height, width = size
    kept, asked = [], []
    for position, instance in enumerate(own.tolist()):
        x0, y0, x1, y1 = box = data.boxes[instance].clip(0, [width, height] * 2)
        if roles[instance] == _LEAVE or x1 <= x0 or y1 <= y0:
            continue
        if roles[instance] == _KEEP:
            try:
                kept.append(_piece(box, cast(Rle, data.rle(instance, size))))
            except BoxelError as error:
                logger.warning("%s It is labeled anew.", error)
                asked.append(position)
        else:
            asked.append(position)
    return kept, np.array(asked, dtype=np.int64)


def _piece(box: NDArray[np.float64], rle: Rle) -> Piece:
    x, y, w, h = coco_mask.toBbox(rle).astype(int).tolist()
    return Piece(box, Region(x, y, x + w, y + h), decode(rle)[y : y + h, x : x + w] > 0)


def _rows(labeled: Labeled, positions: NDArray[np.int64], quality: NDArray[np.float64]) -> list[Row]:
    """The rows of the boxes that got a mask."""
    size = labeled.image.shape[:2]
    rows = []
    for index, (mask, position) in enumerate(zip(labeled.masks, positions.tolist(), strict=True)):
        if mask is None:
            continue
        region = labeled.regions[index]
        code = msgspec.json.encode(encode_in_box(mask, region.left, region.top, *size))
        value = None if np.isnan(quality[index]) else float(quality[index])
        speakers = dict.fromkeys(vote.teacher for vote in labeled.votes if vote.speaks(index))
        rows.append(Row(position, code, value, "+".join(speakers), bool(labeled.trusted[index])))
    return rows


def _in_turn(
    pool: ThreadPoolExecutor, work: Callable[[bytes], ImageRows], items: Iterable[bytes], ahead: int
) -> Generator[tuple[bytes, Future[ImageRows]]]:
    """Each item and its future when its turn comes, with never more than so many ahead of it."""
    waiting: deque[tuple[bytes, Future[ImageRows]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > ahead:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for _, future in waiting:
            future.cancel()
