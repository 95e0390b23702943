"""Issues of ids and names: dangling references and duplicates."""

from __future__ import annotations

import posixpath
from dataclasses import replace

import numpy as np

from boxel.data.annotations import Category, ImageId, fresh_ids
from boxel.data.checks.repair_state import RepairState


def check_references(state: RepairState) -> None:
    """Check for `unknown-image` and `unknown-category`; such an annotation is left out.

    Readers find these in files; here they are found in datasets built in memory.
    """
    for kind, what, column, count in (
        ("unknown-image", "image", state.image_index, len(state.image_ids)),
        ("unknown-category", "category", state.labels, len(state.categories)),
    ):
        wrong = (column < 0) | (column >= count)
        for i in np.flatnonzero(wrong):
            reason = f"refers to {what} number {column[i]} of {count}"
            state.report_instance(i, kind, reason, "left out", index=column[i])
        state.keep &= ~wrong
        column[wrong] = 0  # they are left out; later checks may index with them


def check_categories(state: RepairState) -> None:
    """Check for `duplicate-category`, merged into the first of that name, and `duplicate-category-id`, renumbered."""
    first: dict[str, int] = {}
    kept: list[Category] = []
    state.category_positions = []
    new_label = np.zeros(len(state.categories), dtype=np.int32)
    for label, category in enumerate(state.categories):
        name = category.name.strip()
        if name in first:
            other = state.categories[first[name]]
            what = f"the category name {name!r} occurs twice, with ids {other.id} and {category.id}"
            repair, ids = f"merged into {other.id}", [other.id, category.id]
            state.report_dataset("duplicate-category", what, repair, name=name, ids=ids)
            new_label[label] = new_label[first[name]]
        else:
            first[name] = label
            new_label[label] = len(kept)
            kept.append(category)
            state.category_positions.append(label)
    fresh = fresh_ids(category.id for category in kept)
    seen: set[int] = set()
    for position, category in enumerate(kept):
        if category.id in seen:
            id = next(fresh)
            what = f"the category id {category.id} occurs twice, the second time as {category.name!r}"
            repair = f"renumbered to {id}"
            state.report_dataset("duplicate-category-id", what, repair, id=category.id, name=category.name)
            kept[position] = replace(category, id=id)
        seen.add(category.id)
    state.categories = tuple(kept)
    if len(new_label):
        state.labels = new_label[state.labels]


def check_image_ids(state: RepairState) -> None:
    """Check for `duplicate-image-id`: merged if of the same file, else the second is renumbered."""
    first: dict[ImageId, int] = {}
    fresh = fresh_ids(state.image_ids)
    for image, id in enumerate(state.data.image_ids):
        if id not in first:
            first[id] = image
            continue
        path, other = state.data.paths[image], state.data.paths[first[id]]
        if path == other:
            repair = "merged"
            state.keep_images[image] = False
            state.image_index[state.image_index == image] = first[id]
        else:
            state.image_ids[image] = next(fresh)
            repair = f"renumbered to {state.image_ids[image]}"
        message = f"{state.data.file}: the image id {id} occurs twice, for {other} and {path}."
        state.report_image(image, "duplicate-image-id", message, repair, paths=[other, path])


def check_image_files(state: RepairState) -> None:
    """Check for `shared-image`: images of different ids that are one file."""
    first: dict[str, int] = {}
    for image, path in enumerate(state.data.paths):
        other = first.setdefault(posixpath.normpath(path), image) if path else image
        if other != image and state.keep_images[image]:
            ids = [state.data.image_ids[other], state.data.image_ids[image]]
            what = (
                f"the images {ids[0]} and {ids[1]} are one file, {path}; put their annotations under one id."
            )
            state.report_image(image, "shared-image", f"{state.data.file}: {what}", ids=ids)


def check_annotation_ids(state: RepairState) -> None:
    """Check for `duplicate-annotation-id`: all but the first that stays are renumbered."""
    if len(set(state.ids)) == len(state.ids):
        return
    fresh = fresh_ids(state.ids)
    kept = state.keep & state.keep_images[state.image_index]
    seen: set[ImageId] = set()
    owned: set[ImageId] = set()  # by a row that stays
    for i, id in enumerate(state.data.ids):
        if id in seen:
            if not kept[i]:
                repair = "left out for another issue"
            elif id in owned:
                state.ids[i] = next(fresh)
                repair = f"renumbered to {state.ids[i]}"
            else:
                repair = "kept, since the other is left out"
            what = "has an id that is taken"
            state.report_instance(i, "duplicate-annotation-id", what, repair, position=i)
        seen.add(id)
        if kept[i]:
            owned.add(id)
