"""Boxes in, masks out: `boxel.label`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from boxel.data import Annotations, read, write
from boxel.data.issues import summarize_issues
from boxel.labeling.calibrate import calibrate
from boxel.labeling.config import LabelConfig, label_config
from boxel.labeling.quality import LEAST_MASKS, Calibration, shipped_calibration, unknown
from boxel.labeling.runner import Outcome, Quality, label_set
from boxel.labeling.store import Store
from boxel.labeling.teachers import make_teacher
from boxel.labeling.teachers.base import Teacher
from boxel.labeling.teachers.boxcaseg import BoxCasegTeacher
from boxel.utils.errors import BoxelError, UsageError, nearest

EXPORTS = ("yolo", "voc", "labelme", "sbd")
"""Formats that a labeled set is also written in, if that is asked for; COCO always is."""


def label(
    data: Annotations | str | Path,
    *,
    images: str | Path | None = None,
    out: str | Path | None = None,
    teacher: str | Path | Teacher | Sequence[str | Path | Teacher] | None = None,
    config: LabelConfig | Mapping[str, Any] | None = None,
    **changes: Any,
) -> Annotations:
    """Masks for a data set that has boxes.

    Crowds, boxes without an area, and instances that have a mask that is trusted stay as they are. An image that can't
    be read is told, and its instances too stay as they are.

    Args:
        data: annotations, or a file or folder of any format `boxel.read` knows.
        images: folder of the images, where it is not beside the annotations.
        out: a COCO file to write, ``masks.json``. What is done is kept beside it, in ``masks.sqlite``: after any
            interruption the same call goes on, and images added to the set are labeled alone. Where it is None,
            nothing is written or kept.
        teacher: who draws the masks, one or several: a name that
            :func:`~boxel.labeling.teachers.make_teacher` knows, or a teacher of your own; the BoxCaseg that comes
            with boxel if neither this nor ``config`` names one.
        config: how.
        **changes: settings that win over it: ``drop=0.7``.

    Returns:
        The set with `segmentations`, `quality`, `source` (the teachers' names) and `trusted` filled in, and with the
        sizes of its images.

    Raises:
        BoxelError: the data, a setting or a file can't be used.

    Example:
        >>> masks = boxel.label("boxes.json", images="photos/", out="masks.json")  # doctest: +SKIP
    """
    return label_data(data, images=images, out=out, teacher=teacher, config=config, **changes).data


def label_data(
    data: Annotations | str | Path,
    *,
    images: str | Path | None = None,
    out: str | Path | None = None,
    to: Sequence[str] = (),
    teacher: str | Path | Teacher | Sequence[str | Path | Teacher] | None = None,
    config: LabelConfig | Mapping[str, Any] | None = None,
    calibrate_on: Annotations | str | Path | None = None,
    report: Callable[[str], None] = print,
    **changes: Any,
) -> Outcome:
    """:func:`label`, with all that can be said of how it went.

    Args:
        data: as there.
        images: as there.
        out: as there.
        to: formats of `EXPORTS` to write as well, each into a folder beside ``out``: ``masks_yolo/``.
        teacher: as there.
        config: as there.
        calibrate_on: boxes of other images with true masks, on which the quality is calibrated.
        report: is told of progress and of what could not be done.
        **changes: as there.

    Raises:
        BoxelError: as there.
    """
    several = [teacher] if isinstance(teacher, (str, Path)) or callable(teacher) else teacher
    settings = label_config(config, **changes)
    if isinstance(data, Annotations):
        if images is not None:
            raise UsageError("`images` is for annotations in a file; those in memory have their own `root`.")
    else:
        if (
            out is not None
            and Path(data).is_dir()
            and Path(out).resolve().is_relative_to(Path(data).resolve())
        ):
            raise UsageError(
                f"{out}: the masks would lie in {data}, which could not be read as it is any more; name a file "
                "elsewhere."
            )
        data = read(data, images=images)
        if data.issues:
            report(f"warning: {summarize_issues(data.issues)}")
    target = None if out is None else Path(out)
    if target is None and to:
        raise UsageError(f"to is {', '.join(to)}, but there is no `out` to write it beside; name one.")
    if target is not None:
        _check_target(target, data, to)
    asked = [str(one) if isinstance(one, Path) else one for one in several or settings.teachers]
    for one in asked:
        if not isinstance(one, str) and not hasattr(one, "name"):
            raise UsageError(f"{one!r} has no `name`, which a teacher is known by; give it one.")
    make = partial(
        make_teacher,
        categories=data.categories,
        device=settings.device,
        margin=settings.margin + settings.box_slack,
        threads=max(1, (os.cpu_count() or 1) // settings.workers),
    )
    # What can't be made leaves no file behind.
    teachers = [make(one) if isinstance(one, str) else one for one in asked]
    _check_reliability(settings, [one.name for one in teachers], [c.name for c in data.categories])
    with Store(None if target is None else _store_of(target)) as store:
        if target is not None:
            _claim(target, to, store)
        masked = None if calibrate_on is None else _masked(calibrate_on, data)
        quality = _quality(teachers, settings, _shipped(teachers, asked[0]), masked, report)
        outcome = label_set(data, teachers, settings, store, quality, report)
        if target is None:
            return outcome
        made = replace(outcome.data, file=str(target))
        write(made, target)
        for format in to:
            _export(made, _folder_of(target, format), format)
    return replace(outcome, data=made)


def _quality(
    teachers: Sequence[Teacher],
    settings: LabelConfig,
    prior: Calibration | None,
    masked: Annotations | None,
    report: Callable[[str], None],
) -> Quality:
    """What tells the quality of the teachers' masks."""
    if masked is not None:
        return calibrate(masked, teachers, settings, prior, report)
    if prior is None:
        names = " with ".join(teacher.name for teacher in teachers)
        report(
            f"masks of {names} get no quality: true masks of {LEAST_MASKS} boxes calibrate it (--calibrate)"
        )
        return unknown
    return prior


def _masked(masked: Annotations | str | Path, data: Annotations) -> Annotations:
    """True masks; their photos are beside them, or where those of the boxes are."""
    if isinstance(masked, Annotations):
        return masked
    found = read(masked)
    beside = any(found.image_path(image).is_file() for image in range(len(found)))
    return found if beside else read(masked, images=data.root)


def _shipped(teachers: Sequence[Teacher], origin: str | Teacher) -> Calibration | None:
    """The calibration that comes with boxel for these teachers; a BoxCaseg of the user's own has that of boxel's.

    Args:
        teachers: who draws the masks.
        origin: the first of them as it was asked for; an adapted model has the calibration of what it was adapted from.
    """
    if len(teachers) > 1:
        return None
    own = shipped_calibration(origin if isinstance(origin, str) else origin.name)
    return (
        shipped_calibration("boxcaseg") if own is None and isinstance(teachers[0], BoxCasegTeacher) else own
    )


def _store_of(target: Path) -> Path:
    return target.with_suffix(".sqlite")


def _folder_of(target: Path, format: str) -> Path:
    return target.with_name(f"{target.stem}_{format}")


def _check_reliability(settings: LabelConfig, teachers: list[str], categories: list[str]) -> None:
    """Refuse weights that would have no effect."""
    for teacher, weights in settings.reliability.items():
        for kind, name, known in [
            ("teacher", teacher, teachers),
            *(("category", category, categories) for category in weights),
        ]:
            if name not in known:
                raise UsageError(
                    f"reliability names {name!r}, which is no {kind} here.{nearest(name, known)}"
                )


def _check_target(target: Path, data: Annotations, to: Sequence[str]) -> None:
    """Refuse what would be overwritten, or could not be written after hours of work."""
    for format in to:
        if format not in EXPORTS:
            raise UsageError(
                f"{format!r} is none of the formats masks are also written in ({', '.join(EXPORTS)})."
                f"{nearest(format, list(EXPORTS))}"
            )
    if target.suffix.lower() != ".json":
        raise UsageError(f"{target}: the masks are a COCO file; end its name on .json.")
    if data.file and Path(data.file).resolve() == target.resolve():
        raise UsageError(f"{target}: this is the file of the boxes; name another for the masks.")
    if target.exists() and not _store_of(target).exists():
        raise UsageError(
            f"{target}: there is such a file already, and no {_store_of(target).name} beside it to go on from; name a "
            "new file, or remove this one."
        )
    if not _store_of(target).exists():
        _refuse_taken(target, to)  # a job that has begun knows which are its own
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BoxelError(f"{target}: its folder can't be made ({error}); name another file.") from error


def _claim(target: Path, to: Sequence[str], store: Store) -> None:
    """Note which folders are the job's own, to be replaced whenever it ends, and refuse those that are not."""
    own = store.fact("exports") or []
    new = [format for format in to if format not in own]
    _refuse_taken(target, new)
    store.keep_fact("exports", [*own, *new])


def _refuse_taken(target: Path, to: Sequence[str]) -> None:
    for format in to:
        folder = _folder_of(target, format)
        for path in (folder, _part_of(folder)):
            if path.exists():
                raise UsageError(f"{path}: there is such a folder already; remove it, or name another `out`.")


def _part_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".part")


def _export(data: Annotations, folder: Path, format: str) -> None:
    """Write a folder that is the job's own, whole or not at all."""
    partial = _part_of(folder)
    shutil.rmtree(partial, ignore_errors=True)
    write(data, partial, format)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
