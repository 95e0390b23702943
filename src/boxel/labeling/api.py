"""Make masks for a dataset of boxes: `boxel.label`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from boxel.data import Annotations, Category, read, recognize, select_split
from boxel.data.formats.extras import decode_extras, set_field
from boxel.data.formats.rotated import CORNERS, add_rotated_boxes, is_rotated
from boxel.data.formats.sbd import require_scipy
from boxel.data.issues import summarize_issues
from boxel.data.provenance import describe_input
from boxel.data.tightening import FIELD as ORIGINAL_BOX
from boxel.data.tightening import find_tightened, restore_boxes, tighten_boxes
from boxel.labeling.calibration import calibrate, check_masks, distrust_predicted
from boxel.labeling.carrying import carry_masks
from boxel.labeling.config import LabelConfig, parse_label_config
from boxel.labeling.guarantee import CheckedMasks, guarantee_masks
from boxel.labeling.outputs import count_unreadable, find_changed_predictions
from boxel.labeling.quality import MIN_MASKS, Calibration, find_calibration, trust_reference
from boxel.labeling.review import find_checked, take_checked
from boxel.labeling.runner import LabelResult, check_store, label_images
from boxel.labeling.store import Store
from boxel.labeling.target import Target, folder_beside, refuse_unknown
from boxel.labeling.teachers import make_teacher
from boxel.labeling.teachers.base import Teacher
from boxel.labeling.teachers.boxcaseg import BoxCasegTeacher
from boxel.masks.boxes import paired_box_iou
from boxel.utils.device import available_cores
from boxel.utils.errors import BoxelError, UsageError, check_path, nearest
from boxel.utils.files import is_file, make_parent
from boxel.utils.printable import count_noun, name_ids

logger = logging.getLogger(__name__)

EXPORTS = ("yolo", "voc", "labelme", "cvat", "label-studio", "sbd")
"""Formats that a labeled dataset can be written in besides COCO."""

_MIN_SAME_BOX = 0.5  # IoU of the box of a true mask with that of the dataset

_WITHOUT_JSON = ("yolo", "voc", "sbd")
"""Formats of folders in which a JSON file more is not taken for annotations."""

TeacherLike: TypeAlias = str | Path | Teacher
"""A teacher, or a name or path for :func:`~boxel.labeling.teachers.make_teacher`."""


def label(
    data: Annotations | str | Path,
    *,
    images: str | Path | None = None,
    out: str | Path | None = None,
    teacher: TeacherLike | Sequence[TeacherLike] | None = None,
    config: LabelConfig | Mapping[str, object] | None = None,
    tighten: bool = False,
    rotated: bool = False,
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
        tighten: Replace a box by the tight box of its mask if it looks loose and the mask good. Its `extras` keep the
            old one as ``original_box``, from which a later run starts.
        rotated: Add ``corners``, those of the smallest rotated rectangle around each mask, to the `extras`.
        **settings: Single settings that take precedence over ``config``, e.g. ``drop=0.7``.

    Returns:
        The dataset with `segmentations`, `quality`, `source` (names of the teachers), `trusted` and the sizes of its
        images.

    Raises:
        BoxelError: The data, a setting or a file cannot be used.

    Examples:
        >>> from boxel.data import example_scenes
        >>> masks = label(example_scenes().without_masks(), teacher="ellipse")
        >>> bool(masks.has_mask.all())
        True
    """
    result = label_data(
        data,
        images=images,
        out=out,
        teacher=teacher,
        config=config,
        tighten=tighten,
        rotated=rotated,
        **settings,
    )
    return result.data


def label_data(
    data: Annotations | str | Path,
    *,
    images: str | Path | None = None,
    out: str | Path | None = None,
    to: str | Sequence[str] = (),
    teacher: TeacherLike | Sequence[TeacherLike] | None = None,
    config: LabelConfig | Mapping[str, object] | None = None,
    calibrate_on: Annotations | str | Path | None = None,
    tighten: bool = False,
    rotated: bool = False,
    **settings: Any,
) -> LabelResult:
    """Make masks as :func:`label` does, with two more arguments, and return what happened on the way too.

    Args:
        to: One or several formats of `EXPORTS` to write too, each into a folder beside ``out``, e.g. ``masks_yolo/``.
        calibrate_on: Boxes with ground-truth masks, on which the quality is calibrated. A guarantee compares with them
            too, and keeps those that belong to boxes of ``data``; without them, it compares with the true masks of
            ``data``.
        tighten: As for :func:`label`.
        rotated: As for :func:`label`.

    Raises:
        BoxelError: As for :func:`label`.

    Examples:
        >>> from boxel.data import example_scenes
        >>> label_data(example_scenes().without_masks(), teacher="ellipse").failures
        []
    """
    parsed = parse_label_config(config, **settings)
    to = [to] if isinstance(to, str) else to
    boxes = _read_boxes(data, images, out, to)
    paths = _check_target(out, to, boxes, parsed.overwrite)
    if not len(boxes.labels) and count_unreadable(boxes):
        raise BoxelError(f"{boxes.file}: none of its boxes can be used; `boxel check` states why.")
    if not len(boxes.labels):
        logger.warning("%s: there are no boxes in it; check that it is the right file", boxes.file)
    _warn_of_changed(boxes)
    # A teacher that cannot be made leaves no file behind.
    teachers, calibration = load_teachers(teacher, parsed, boxes.categories)
    if tighten and not calibration.is_fitted and calibrate_on is None and parsed.guarantee is None:
        names = " and ".join(one.name for one in teachers)
        raise UsageError(
            f"`tighten` needs a quality that is calibrated on masks of {names}; name annotations with at least "
            f"{MIN_MASKS} true masks in `calibrate_on`."
        )
    with Store(_store_path(paths["coco"]) if paths else None) as store:
        target = Target(store, paths, parsed.overwrite)
        in_memory = isinstance(data, Annotations)
        check_store(restore_boxes(boxes), teachers, parsed, store, in_memory)  # before minutes of work
        edited = target.take_edits(boxes)
        made_from = describe_input(data, boxes) if paths else {}
        true = None if calibrate_on is None else _read_masks(calibrate_on, boxes)
        given = _keep_checked(restore_boxes(edited.data), true, edited.own, parsed)
        calibration, checked = _calibrate(given, true, teachers, parsed, calibration)
        result = _carry(label_images(given, teachers, parsed, store, calibration, edited.own), parsed)
        if checked is not None:
            known = distrust_predicted(given).has_mask
            trusted, guarantee = guarantee_masks(result.data, result.made, known, checked)
            used = result.settings | {"guarantee": guarantee.iou}
            result = replace(result, data=trusted, guarantee=guarantee, settings=used)
        masks = _set_boxes(edited.set_fields(result.data), edited.data, result.made)
        if tighten:
            masks = tighten_boxes(masks, np.flatnonzero(result.made))
            if not len(find_tightened(masks)):
                logger.info("no box was tightened: none looks loose beside a good mask")
        masks = add_rotated_boxes(masks) if rotated else masks
        if paths:
            steps = {"tighten": tighten, "rotated": rotated, "carry": result.carried}
            wanted = {name: True for name, done in steps.items() if done}
            masks = target.add_provenance(masks, made_from, result.settings | wanted)
            target.write(masks, edited)
        return replace(result, data=masks)


def _keep_checked(
    data: Annotations, true: Annotations | None, own: NDArray[np.bool_], config: LabelConfig
) -> Annotations:
    """Put the true masks of a guarantee into the dataset as far as they belong to its boxes, so that they are kept.

    Ids and names of images may be the same by chance, but hardly the boxes too.
    """
    if true is None or config.guarantee is None:
        return data
    true = distrust_predicted(true)
    rows, others = find_checked(data, true)
    same = paired_box_iou(data.boxes[rows], true.boxes[others]) >= _MIN_SAME_BOX
    return take_checked(data, true.select_instances(others[same]), own)[0] if same.any() else data


def _calibrate(
    data: Annotations,
    given: Annotations | None,
    teachers: Sequence[Teacher],
    config: LabelConfig,
    calibration: Calibration,
) -> tuple[Calibration, CheckedMasks | None]:
    """Calibrate the quality on the true masks that are given; check it for a guarantee, if one is asked for."""
    if config.guarantee is not None:
        known = data if given is None else given
        recalibrate = given is not None or not calibration.is_fitted
        return check_masks(known, teachers, config, calibration, recalibrate)
    return (calibration if given is None else calibrate(given, teachers, config, calibration)), None


def _carry(result: LabelResult, config: LabelConfig) -> LabelResult:
    """Carry masks along tracks; a guarantee is about the masks of the teachers alone."""
    if not config.carry or config.guarantee is not None:
        return result
    data, carried = carry_masks(result.data, result.made, config.drop, config.box_slack)
    return replace(result, data=data, carried=int(carried.sum()))


def _set_boxes(masks: Annotations, given: Annotations, made: NDArray[np.bool_]) -> Annotations:
    """Return masks with the boxes that they were made from; other instances keep theirs, whether tightened or not.

    Corners that an earlier run made from a mask which was replaced are gone.
    """
    boxes, extras = masks.boxes.copy(), masks.extras.copy()
    boxes[~made] = given.boxes[~made]
    for row in range(len(made)):
        fields = decode_extras(given.extras[row])
        extras[row] = set_field(extras[row], ORIGINAL_BOX, None if made[row] else fields.get(ORIGINAL_BOX))
        replaced = made[row] and given.segmentations[row] is not None
        if replaced and CORNERS in fields and not is_rotated(fields, boxes[row]):
            extras[row] = set_field(extras[row], CORNERS, None)
    return replace(masks, boxes=boxes, extras=extras)


def load_teachers(
    teacher: TeacherLike | Sequence[TeacherLike] | None,
    config: LabelConfig,
    categories: Sequence[Category],
    threads: int | None = None,
) -> tuple[list[Teacher], Calibration]:
    """Make the teachers that are given, else those of the settings; find the calibration of their masks.

    Their networks have ``threads`` each, by default a share of the cores for each worker.
    """
    if config.crf:
        make_teacher("crf")  # which fails now if PyTorch is missing, not at the first image
    if teacher is None:
        teacher = config.teachers
    given = teacher if isinstance(teacher, Sequence) and not isinstance(teacher, str) else [teacher]
    threads = threads or max(1, available_cores() // config.workers)
    teachers: list[Teacher] = []
    for source in given or config.teachers:
        if isinstance(source, str | Path):
            teachers.append(make_teacher(str(source), categories, config.device, config.box_slack, threads))
        elif hasattr(source, "name"):
            teachers.append(source)
        else:
            raise UsageError(
                f"teacher {source!r} has no `name`, by which masks state their source; give it one."
            )
    calibration = None
    if len(teachers) == 1:  # there is none for the fusion of several
        calibration = find_calibration(teachers[0].name)
        if calibration is None and isinstance(teachers[0], BoxCasegTeacher):
            calibration = find_calibration("boxcaseg")
    return teachers, calibration or trust_reference(
        make_teacher("boxcaseg", (), config.device, config.box_slack, threads)
    )


def _read_boxes(
    data: Annotations | str | Path, images: str | Path | None, out: str | Path | None, to: Sequence[str]
) -> Annotations:
    if isinstance(data, Annotations):
        if images is not None:
            raise UsageError("`images` is for annotations in a file; those in memory have their own `root`.")
        return data
    check_path("data", data, "a path or Annotations")
    inside = (
        out is not None and Path(data).is_dir() and Path(out).resolve().is_relative_to(Path(data).resolve())
    )
    if inside and (to or recognize(data) not in _WITHOUT_JSON):
        raise UsageError(
            f"{out}: the masks would lie in {data}, which could then not be read as a dataset; name a file elsewhere."
        )
    boxes = read(data, images=images)
    if boxes.issues:
        logger.warning("%s", summarize_issues(boxes.issues))
    return boxes


def _warn_of_changed(boxes: Annotations) -> None:
    """Name the masks that were changed since they were written, but count as predicted."""
    if changed := find_changed_predictions(boxes):
        message = (
            "%s: %s changed since `boxel label` wrote the file, but still with a `source`, so predicted again (%s); "
            "remove the `source` of those that you corrected, and label again"
        )
        logger.warning(message, boxes.file, count_noun(len(changed), "mask"), name_ids(changed, "id"))


def _read_masks(masked: Annotations | str | Path, boxes: Annotations) -> Annotations:
    """Read ground-truth masks, whose images lie beside them or where those of the boxes do.

    Of a dataset with the splits `train` and `val` the latter is used: a teacher may have been trained on the other.
    """
    found = masked if isinstance(masked, Annotations) else read(masked)
    beside = any(is_file(found.image_path(image)) for image in range(len(found)))
    if not beside and not isinstance(masked, Annotations):
        found = read(masked, images=boxes.root)
    if {"train", "val"} <= {*found.splits}:
        logger.info("%s: the quality is calibrated on its split val", found.file)
        return select_split(found, "val")
    return found


def _check_target(
    out: str | Path | None, to: Sequence[str], data: Annotations, overwrite: bool
) -> dict[str, Path]:
    """Return the path of each output by format; refuse those that could not be written after hours of work."""
    for format in to:
        if format not in EXPORTS:
            raise UsageError(
                f"masks cannot be written as {format!r} ({', '.join(EXPORTS)}).{nearest(format, list(EXPORTS))}"
            )
    if out is None:
        if to:
            raise UsageError(f"`to` is {', '.join(to)}, but there is no `out` to write it beside; name one.")
        return {}
    if "sbd" in to:
        require_scipy()
    target = Path(out)
    if target.suffix.lower() != ".json":
        raise UsageError(f"{target}: the masks are a COCO file; end its name in .json.")
    if data.file and Path(data.file).resolve() == target.resolve():
        raise UsageError(f"{target}: this is the file of the boxes; name another for the masks.")
    paths = {"coco": target} | {format: folder_beside(target, format) for format in to}
    if not _store_path(target).exists():
        refuse_unknown(paths, _store_path(target), overwrite)  # and leave no store behind
    make_parent(target)
    return paths


def _store_path(target: Path) -> Path:
    return target.with_suffix(".sqlite")
