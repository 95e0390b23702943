"""Make masks for a dataset of boxes: `boxel.label`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from boxel.data import Annotations, Category, read, write
from boxel.data.formats.sbd import require_scipy
from boxel.data.issues import summarize_issues
from boxel.labeling.config import LabelConfig, parse_label_config
from boxel.labeling.quality import MIN_MASKS, Calibration, find_calibration, unknown_quality
from boxel.labeling.runner import LabelResult, label_images
from boxel.labeling.store import Store
from boxel.labeling.teachers import make_teacher
from boxel.labeling.teachers.base import Teacher
from boxel.labeling.teachers.boxcaseg import BoxCasegTeacher
from boxel.utils.errors import BoxelError, UsageError, nearest
from boxel.utils.files import remove

logger = logging.getLogger(__name__)

EXPORTS = ("yolo", "voc", "labelme", "sbd")
"""Formats that a labeled dataset can be written in besides COCO."""

TeacherLike: TypeAlias = str | Path | Teacher
"""A teacher, or a name or path for :func:`~boxel.labeling.teachers.make_teacher`."""


def label(
    data: Annotations | str | Path,
    *,
    images: str | Path | None = None,
    out: str | Path | None = None,
    teacher: TeacherLike | Sequence[TeacherLike] | None = None,
    config: LabelConfig | Mapping[str, Any] | None = None,
    **settings: Any,
) -> Annotations:
    """Make masks for a dataset that has boxes.

    Crowds, boxes without an area, and instances with a trusted mask stay as they are. So do the instances of an image
    that cannot be read, about which a warning is logged.

    Args:
        data: Annotations, or a file or folder in any format that `boxel.read` knows.
        images: Folder of the images if they are not beside the annotations.
        out: COCO file to write, e.g. ``masks.json``. The progress is kept beside it in ``masks.sqlite``: after any
            interruption the same call resumes, and images that are added later are labeled alone. If None, nothing is
            written.
        teacher: One or several teachers: names for :func:`~boxel.labeling.teachers.make_teacher`, model folders, or
            teachers of your own. The default is the bundled BoxCaseg.
        config: Settings; see :class:`~boxel.labeling.config.LabelConfig`.
        **settings: Single settings that take precedence over ``config``, e.g. ``drop=0.7``.

    Returns:
        The dataset with `segmentations`, `quality`, `source` (names of the teachers), `trusted` and the sizes of its
        images.

    Raises:
        BoxelError: The data, a setting or a file cannot be used.

    Examples:
        >>> import tempfile
        >>> from boxel.data.synthetic import write_scenes
        >>> scenes = write_scenes(tempfile.mkdtemp(), 1, height=64, width=96)
        >>> masks = label(scenes.without_masks(), teacher="ellipse")
        >>> bool(masks.has_mask.all())
        True
    """
    return label_data(data, images=images, out=out, teacher=teacher, config=config, **settings).data


def label_data(
    data: Annotations | str | Path,
    *,
    images: str | Path | None = None,
    out: str | Path | None = None,
    to: Sequence[str] = (),
    teacher: TeacherLike | Sequence[TeacherLike] | None = None,
    config: LabelConfig | Mapping[str, Any] | None = None,
    calibrate_on: Annotations | str | Path | None = None,
    **settings: Any,
) -> LabelResult:
    """Make masks as :func:`label` does, and return what happened on the way too.

    Args:
        data: As for :func:`label`.
        images: As for :func:`label`.
        out: As for :func:`label`.
        to: Formats of `EXPORTS` to write as well, each into a folder beside ``out``, e.g. ``masks_yolo/``.
        teacher: As for :func:`label`.
        config: As for :func:`label`.
        calibrate_on: Boxes of other images with ground-truth masks, on which the quality is calibrated.
        **settings: As for :func:`label`.

    Raises:
        BoxelError: As for :func:`label`.

    Examples:
        >>> import tempfile
        >>> from boxel.data.synthetic import write_scenes
        >>> scenes = write_scenes(tempfile.mkdtemp(), 1, height=64, width=96)
        >>> label_data(scenes.without_masks(), teacher="ellipse").failures
        []
    """
    parsed = parse_label_config(config, **settings)
    boxes = _read_boxes(data, images, out)
    target = _check_target(out, to, boxes)
    sources = list_sources(teacher, parsed)
    # A teacher that cannot be made leaves no file behind.
    teachers = make_teachers(sources, parsed, boxes.categories)
    _check_reliability(parsed, teachers, boxes.categories)
    with Store(None if target is None else _store_path(target)) as store:
        if target is not None:
            _claim_exports(target, to, store)
        quality = choose_quality(teachers, sources[0])
        if calibrate_on is not None:
            quality = _calibrate(calibrate_on, boxes, teachers, parsed, quality)
        elif quality is None:
            names = " with ".join(teacher.name for teacher in teachers)
            logger.warning(
                "masks of %s get no quality estimate; it takes %d ground-truth masks in `calibrate_on`",
                names,
                MIN_MASKS,
            )
        result = label_images(boxes, teachers, parsed, store, quality or unknown_quality)
        return result if target is None else _write_result(result, target, to)


def list_sources(
    teacher: TeacherLike | Sequence[TeacherLike] | None, config: LabelConfig
) -> list[str | Teacher]:
    """List the teachers to use: those given, else those of the settings; paths become text."""
    if teacher is None:
        return list(config.teachers)
    given = teacher if isinstance(teacher, Sequence) and not isinstance(teacher, str) else [teacher]
    sources = [str(source) if isinstance(source, Path) else source for source in given]
    for source in sources:
        if not isinstance(source, str) and not hasattr(source, "name"):
            raise UsageError(
                f"teacher {source!r} has no `name`, by which masks state their source; give it one."
            )
    return sources or list(config.teachers)


def make_teachers(
    sources: Sequence[str | Teacher], config: LabelConfig, categories: Sequence[Category]
) -> list[Teacher]:
    """Make the teachers that are given by name."""
    threads = max(1, (os.cpu_count() or 1) // config.workers)
    margin = config.margin + config.box_slack
    return [
        make_teacher(source, categories, device=config.device, margin=margin, threads=threads)
        if isinstance(source, str)
        else source
        for source in sources
    ]


def choose_quality(teachers: Sequence[Teacher], source: str | Teacher) -> Calibration | None:
    """Choose the calibration for teachers; a BoxCaseg without one of its own has that of the bundled network.

    Args:
        teachers: The teachers; there is no calibration for the fusion of several.
        source: The first of them as it was given.
    """
    if len(teachers) > 1:
        return None
    found = find_calibration(source if isinstance(source, str) else source.name)
    if found is None and isinstance(teachers[0], BoxCasegTeacher):
        return find_calibration("boxcaseg")
    return found


def _read_boxes(
    data: Annotations | str | Path, images: str | Path | None, out: str | Path | None
) -> Annotations:
    if isinstance(data, Annotations):
        if images is not None:
            raise UsageError("`images` is for annotations in a file; those in memory have their own `root`.")
        return data
    if out is not None and Path(data).is_dir() and Path(out).resolve().is_relative_to(Path(data).resolve()):
        raise UsageError(
            f"{out}: the masks would lie in {data}, which could then not be read as a dataset; name a file elsewhere."
        )
    boxes = read(data, images=images)
    if boxes.issues:
        logger.warning("%s", summarize_issues(boxes.issues))
    return boxes


def _calibrate(
    masked: Annotations | str | Path,
    boxes: Annotations,
    teachers: Sequence[Teacher],
    config: LabelConfig,
    prior: Calibration | None,
) -> Calibration:
    """Calibrate on ground-truth masks, whose images lie beside them or where those of the boxes do."""
    from boxel.labeling.calibration import calibrate

    if not isinstance(masked, Annotations):
        found = read(masked)
        beside = any(found.image_path(image).is_file() for image in range(len(found)))
        masked = found if beside else read(masked, images=boxes.root)
    return calibrate(masked, teachers, config, prior)


def _check_reliability(
    config: LabelConfig, teachers: Sequence[Teacher], categories: Sequence[Category]
) -> None:
    """Refuse weights that would have no effect."""
    known_teachers, known_categories = [t.name for t in teachers], [c.name for c in categories]
    for teacher, weights in config.reliability.items():
        names = [("teacher", teacher, known_teachers)]
        names += [("category", category, known_categories) for category in weights]
        for kind, name, known in names:
            if name not in known:
                raise UsageError(f"reliability: there is no {kind} {name!r}.{nearest(name, known)}")


def _check_target(out: str | Path | None, to: Sequence[str], data: Annotations) -> Path | None:
    """Refuse files that would be overwritten, or that could not be written after hours of work."""
    for format in to:
        if format not in EXPORTS:
            raise UsageError(
                f"masks cannot be written as {format!r} ({', '.join(EXPORTS)}).{nearest(format, list(EXPORTS))}"
            )
    if out is None:
        if to:
            raise UsageError(f"`to` is {', '.join(to)}, but there is no `out` to write it beside; name one.")
        return None
    if "sbd" in to:
        require_scipy()
    target = Path(out)
    if target.suffix.lower() != ".json":
        raise UsageError(f"{target}: the masks are a COCO file; end its name in .json.")
    if data.file and Path(data.file).resolve() == target.resolve():
        raise UsageError(f"{target}: this is the file of the boxes; name another for the masks.")
    store = _store_path(target)
    if not store.exists():
        if target.exists():
            raise UsageError(
                f"{target}: this file exists, and there is no {store.name} beside it to resume from; name a new "
                "file, or remove this one."
            )
        _refuse_existing(target, to)  # a job in progress knows which folders are its own
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BoxelError(f"{target}: its folder cannot be created ({error}); name another file.") from error
    return target


def _claim_exports(target: Path, to: Sequence[str], store: Store) -> None:
    """Record the folders that belong to the job, which replaces them when it ends; refuse those of others."""
    own = store.get("exports") or []
    new = [format for format in to if format not in own]
    _refuse_existing(target, new)
    store.put("exports", [*own, *new])


def _refuse_existing(target: Path, to: Sequence[str]) -> None:
    for format in to:
        folder = _export_path(target, format)
        if folder.exists():
            raise UsageError(f"{folder}: this folder exists already; remove it, or name another `out`.")


def _write_result(result: LabelResult, target: Path, to: Sequence[str]) -> LabelResult:
    data = replace(result.data, file=str(target))
    write(data, target)
    for format in to:
        folder = _export_path(target, format)
        remove(folder)  # of this job; `write` makes a new folder complete or not at all
        write(data, folder, format)
    return replace(result, data=data)


def _store_path(target: Path) -> Path:
    return target.with_suffix(".sqlite")


def _export_path(target: Path, format: str) -> Path:
    return target.with_name(f"{target.stem}_{format}")
