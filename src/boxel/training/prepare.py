"""Prepare the data of a run: read it, select the targets, and keep images for validation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from boxel.data import Annotations, read
from boxel.data.annotations import Category
from boxel.data.checks.masks import drop_bad_masks
from boxel.data.checks.statistics import find_leaks, group_identical
from boxel.data.formats import share_class_list
from boxel.data.issues import summarize_issues
from boxel.data.joining import join
from boxel.data.label_maps import has_pixel_truth, pixel_classes
from boxel.data.splits import count_splits, select_split
from boxel.methods import resolve
from boxel.training.config import DataConfig, TrainConfig
from boxel.training.finetune import read_things
from boxel.training.log import rank_zero_logger
from boxel.training.settings import Run
from boxel.utils.errors import BoxelError, UsageError, nearest
from boxel.utils.files import is_file
from boxel.utils.printable import count_noun

logger = rank_zero_logger(__name__)

Source: TypeAlias = Annotations | str | Path


@dataclass(frozen=True)
class TrainingData:
    """The datasets of a run."""

    training: Annotations
    validation: Annotations | None
    classes: tuple[Category, ...]  # of the model, in the order of its labels
    salient: Annotations | None  # images of single objects


def prepare_data(
    run: Run,
    sources: Sequence[Source],
    images: str | Path | None,
    val: Source | None,
    val_images: str | Path | None,
    masks: Source | None,
) -> TrainingData:
    """Read the data of a run and select its targets; the arguments are those of :func:`boxel.train`.

    The categories of `training` are not merged by `data.class_agnostic` yet, since a teacher may go by them.
    """
    settings, config = run.settings, run.settings.data
    if val is None and val_images is not None:
        raise UsageError("`val_images` is the folder of the images of `val`; name those annotations too.")
    class_list, *class_lists = share_class_list(config.class_list, val, *sources)
    source = _drop_bad_masks(read_training(sources, images, class_lists))
    if masks is not None:
        source = add_masks(source, _drop_bad_masks(_read(masks, source.root)))
    if val is None:
        source, held_out = _hold_out(source, settings, run.segmenter)
    else:
        source = select_training(source)
        # The images to validate on are in their own folder, beside their annotations, or among the training images.
        folders = [val_images] if val_images or images is None else [None, images]
        held_out = _read_validation(val, folders, class_list, run.segmenter)
    if held_out is not None:
        _report_leaks(source, held_out)
    check_images(source)
    things = read_things(run.inputs["semantic"]) if "semantic" in run.inputs else None
    training = _select_targets(source, config, things)
    (check_instances_or_labels if settings.teacher else resolve(run.method.check))(training)
    validation = None
    if held_out is not None:
        validation = _select_validation(held_out, config, None if run.segmenter else training.categories)
    merged = merge_classes(training, config)
    classes = pixel_classes(merged) if run.segmenter else merged.categories
    salient = None
    if "salient" in run.inputs:
        salient = _drop_bad_masks(select_training(read_training([run.inputs["salient"]])))
        check_images(salient, "put them into its folder `images`")
    return TrainingData(training, validation, classes, salient)


def read_training(
    sources: Sequence[Source],
    images: str | Path | None = None,
    class_lists: Sequence[str | Path | None] = (),
) -> Annotations:
    """Read datasets, each with its class list, and join them; those to train on are of the split `train` then.

    This is their own split of this name, else their images of no split. If neither is in any, their one other split is.
    """

    def read_all(split: str | None = None) -> list[Annotations]:
        folders = [images, *[None] * (len(sources) - 1)]
        lists = class_lists or [None] * len(sources)
        return [_read(*one, split) for one in zip(sources, folders, lists, strict=True)]

    try:
        parts = [_assign_to_train(part, None) for part in read_all()]
    except BoxelError:  # e.g. of labels of one split, beside a folder with the images of all
        parts = []
    if not any("train" in part.splits for part in parts):
        parts = [_assign_to_train(part, *set(part.splits)) for part in read_all("train")]
    return join(parts)


def _assign_to_train(data: Annotations, *splits: str | None) -> Annotations:
    """Return the dataset with a split `train`: images of some other splits, if there is none."""
    if "train" in data.splits:
        return data
    return replace(data, splits=["train" if split in splits else split for split in data.splits])


def select_training(data: Annotations, *used: str) -> Annotations:
    """Return the images of the split `train`, all if there are no splits; other splits are reported unless `used`."""
    training = select_split(data, "train")
    others = [split for split in data.splits if split not in ("train", *used)]
    if others and len(training) < len(data):
        logger.warning("%s: images of other splits are not trained on (%s)", data.file, count_splits(others))
    return training


def _read(
    source: Source, images: str | Path | None, class_list: str | Path | None = None, split: str | None = None
) -> Annotations:
    if isinstance(source, Annotations):
        return source if split is None else select_split(source, split)
    data = read(source, images=images, split=split, class_list=class_list)
    if data.issues:
        logger.warning("%s", summarize_issues(data.issues))
    return data


def _drop_bad_masks(data: Annotations) -> Annotations:
    """Return the dataset without segmentations that are not masks, of which only the boxes are used."""
    sound, sentences = drop_bad_masks(data)
    for sentence in sentences:
        logger.warning("%s", sentence)
    return sound


def _read_validation(
    source: Source, folders: Sequence[str | Path | None], class_list: str | Path | None, segmenter: bool
) -> Annotations:
    """Read what to validate on with the first of some folders that has its images."""
    tried = [_read(source, folder, class_list, "val") for folder in folders]
    data = next((data for data in tried if len(data) and is_file(data.image_path(0))), None)
    if data is None:
        raise BoxelError(
            f"{tried[-1].file}: its images are not in {tried[-1].root}; name their folder with `val_images`."
        )
    data = _drop_bad_masks(data)
    if segmenter and not has_pixel_truth(data).any():
        raise BoxelError(
            f"{data.file}: not one of its images has a label map or a mask to validate against; give another `val`, or "
            "none."
        )
    return data


def _report_leaks(training: Annotations, validation: Annotations) -> None:
    """Report images to validate on that are trained on too, or are copies of such."""
    parts = {"train": training, "val": validation}
    files = [(name, data.image_path(image)) for name, data in parts.items() for image in range(len(data))]
    splits, paths = [name for name, _ in files], [os.path.abspath(path) for _, path in files]
    sizes = [os.path.getsize(path) if os.path.isfile(path) else None for path in paths]
    shared = {*sizes[: len(training)]} & {*sizes[len(training) :]} - {None}
    # Only files of a size that both have may be copies, and are read.
    looks = [(size if size in shared else path, Path(path)) for size, path in zip(sizes, paths, strict=True)]
    groups = [list(dict.fromkeys(paths[k] for k in group)) for group in group_identical(looks)]
    leaks = find_leaks(paths, splits, groups)
    if leaks:
        logger.warning(
            "%s: %d of the images to validate on are trained on too, by name or content, e.g. %s; remove them from one "
            "of the two, since the metrics look better than they are.",
            *(validation.file, len(leaks), " = ".join(leaks[0])),
        )


def _hold_out(
    data: Annotations, settings: TrainConfig, segmenter: bool
) -> tuple[Annotations, Annotations | None]:
    """Return what to train on, and what to validate on: the dataset's own split `val`, else a share of its images.

    A segmenter is validated on images with a label map or masks.
    """
    if "val" in data.splits:
        own = select_split(data, "val")
        own = own.select_images(has_pixel_truth(own)) if segmenter else own
        if len(own):
            logger.info("%s: validating on its own split val: %s", data.file, count_noun(len(own), "image"))
            return select_training(data, "val"), own
        logger.warning("%s: no image of its split val has a mask or a label map to validate on", data.file)
    data = select_training(data)
    among = has_pixel_truth(data) if segmenter else None
    training, validation = split(data, settings.data.val_share, settings.seed, among)
    if validation is not None:
        logger.info("%d of %d images set aside for validation", len(validation), len(data))
    elif settings.data.val_share and len(data):
        logger.info(
            "no image is set aside for validation: too few have a mask or a label map to compare with"
        )
    return training, validation


def _select_targets(data: Annotations, config: DataConfig, things: Sequence[Category] | None) -> Annotations:
    """Select the targets by the settings: renamed categories, masks of some, a minimum size of boxes."""
    renamed = data.rename_categories(config.rename)
    masked = renamed if config.mask_classes is None else keep_masks_for(renamed, config.mask_classes)
    selected = masked if config.categories is None else masked.select_categories(config.categories)
    aligned = selected if things is None else align_categories(selected, things)
    return aligned.ignore_small(config.min_box)


def _select_validation(
    data: Annotations, config: DataConfig, categories: Sequence[Category] | None
) -> Annotations:
    """Apply the categories of the training data, which None leaves to a segmenter's dataset, and no other setting."""
    known = {category.name for category in data.categories}
    renamed = data.rename_categories({old: new for old, new in config.rename.items() if old in known})
    aligned = renamed if categories is None else align_categories(renamed, categories)
    return merge_classes(aligned, config)


def merge_classes(data: Annotations, config: DataConfig) -> Annotations:
    """Return the dataset with all categories as one if `class_agnostic` is set."""
    return data.class_agnostic() if config.class_agnostic else data


def summarize(data: TrainingData) -> str:
    """Describe in words what there is to learn from."""
    training = data.training
    targets = ~training.iscrowd
    masked, made = ((kind & targets).sum() for kind in (training.has_mask, training.has_generated_mask))
    parts = [f"{len(training)} images"]
    if any(training.label_maps):
        parts.append(f"{training.has_label_map.sum()} label maps")
    if len(training.labels):
        of_these = f", {made} of them made by a teacher" if made else ""
        boxes = targets.sum() - masked
        parts.append(f"{targets.sum()} instances ({masked} with masks{of_these}, {boxes} boxes only)")
    return f"{', '.join(parts)} of {len(data.classes)} categories"


def add_masks(data: Annotations, masks: Annotations) -> Annotations:
    """Return the dataset with the masks that another one has for the same annotation ids, at least one; others stay."""
    rows = {(masks.ids[i], masks.image_ids[masks.image_index[i]]): i for i in np.flatnonzero(masks.has_mask)}
    keys = ((annotation, data.image_ids[data.image_index[i]]) for i, annotation in enumerate(data.ids))
    pairs = [(i, rows[key]) for i, key in enumerate(keys) if key in rows]
    if not pairs:
        raise BoxelError(
            f"{masks.file}: none of its masks belongs to an annotation id of {data.file}; check `masks`."
        )
    own, other = np.array(pairs).T
    added = masks.select_instances(other)
    return replace_columns(data, own, added, ("segmentations", "areas", "source", "quality", "trusted"))


def replace_columns(
    data: Annotations, rows: NDArray[np.integer], other: Annotations, names: Sequence[str]
) -> Annotations:
    """Return the dataset with some columns of some instances from another one, which has these instances alone."""
    columns = {name: getattr(data, name).copy() for name in names}
    for name, column in columns.items():
        column[rows] = getattr(other, name)
    return replace(data, **columns)


def keep_masks_for(data: Annotations, classes: Sequence[str]) -> Annotations:
    """Return the dataset with masks of some categories only; the others keep their boxes (BoxInst, Tables 6 and 7).

    Label maps, which cover all categories, are dropped.
    """
    known = [category.name for category in data.categories]
    for name in classes:
        if name not in known:
            raise BoxelError(
                f"{data.file}: `mask_classes` names {name!r}, which is not a category of it.{nearest(name, known)}"
            )
    return data.keep_masks(np.isin(data.labels, [known.index(name) for name in classes]))


def align_categories(data: Annotations, categories: Sequence[Category]) -> Annotations:
    """Return the dataset under the categories of another one, matched by name, without instances of others."""
    names = [category.name for category in categories]
    label = [names.index(category.name) if category.name in names else -1 for category in data.categories]
    if max(label, default=-1) < 0:
        raise BoxelError(
            f"{data.file}: none of its categories is one of those to learn ({', '.join(names[:10])})."
        )
    return data.relabel(np.array(label, dtype=np.int32), categories)


def split(
    data: Annotations, share: float, seed: int, among: NDArray[np.bool_] | None = None
) -> tuple[Annotations, Annotations | None]:
    """Split a dataset at random into a share of its images for validation, at least one, and the others for training.

    The share is taken of the images for which `among`, (I,) bool, is true, or of all. The validation data is None if
    the share is 0 or there is one image to choose from.
    """
    choices = np.arange(len(data)) if among is None else np.flatnonzero(among)
    if share <= 0 or len(choices) < 2:
        return data, None
    order = np.random.default_rng(seed).permutation(choices)
    kept = np.ones(len(data), dtype=bool)
    kept[order[: min(max(round(len(choices) * share), 1), len(choices) - 1)]] = False
    return data.select_images(kept), data.select_images(~kept)


def check_images(data: Annotations, remedy: str = "name their folder with `images`") -> None:
    """Raise a :class:`BoxelError` if not one of the first images exists, as in a wrong folder."""
    first = [data.image_path(index) for index in range(min(len(data), 20))]
    if first and not any(map(is_file, first)):
        raise BoxelError(f"{data.file}: its images, e.g. {first[0]}, do not exist; {remedy}.")


def check_instances(data: Annotations) -> None:
    """Raise a :class:`BoxelError` if a dataset has no instance to learn from."""
    if not len(data) or data.iscrowd.all():
        names = ", ".join(category.name for category in data.categories[:10]) or "none"
        names += ", ..." if len(data.categories) > 10 else ""
        raise BoxelError(
            f"{data.file}: there is no instance to learn from in its {len(data)} images (categories: {names}; crowds "
            "and boxes under `min_box` are ignored); `boxel check` lists what else was left out."
        )


def check_instances_or_labels(data: Annotations) -> None:
    """Raise a :class:`BoxelError` if a dataset has neither an instance nor a label map to learn from."""
    if not any(data.label_maps):
        check_instances(data)


def check_masks(data: Annotations) -> None:
    """Raise a :class:`BoxelError` if no instance of a dataset has a mask to learn from."""
    check_instances(data)
    if not (data.has_mask & ~data.iscrowd).any():
        raise BoxelError(
            f"{data.file}: none of its {len(data.labels)} instances has a mask to learn from; `boxel label` makes "
            "masks of boxes."
        )


def check_labels(data: Annotations) -> None:
    """Raise a :class:`BoxelError` if a dataset has neither a label map nor a mask to learn from."""
    if not any(data.label_maps) and not data.has_mask.any():
        raise BoxelError(
            f"{data.file}: not one of its {len(data)} images has a label map or a mask to learn from; `label` names a "
            "teacher that makes masks of its boxes first."
        )
