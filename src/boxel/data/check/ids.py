"""Faults of ids and names: what refers to nothing, and what is there twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from boxel.data.annotations import Category, ImageId
from boxel.data.check.repair_state import Work


def references(work: Work) -> None:
    """`unknown-image`, `unknown-category`: an annotation that refers to neither; it is left out.

    Readers find these in files; here they are found in sets put together in memory.
    """
    for kind, what, column, count in (
        ("unknown-image", "image", work.image_index, len(work.image_ids)),
        ("unknown-category", "category", work.labels, len(work.categories)),
    ):
        wrong = (column < 0) | (column >= count)
        for i in np.flatnonzero(wrong):
            work.about_instance(
                int(i),
                kind,
                f"is of {what} number {column[i]} of {count}",
                "left out",
                {"index": int(column[i])},
            )
        work.keep &= ~wrong
        column[wrong] = 0  # they are left out; what follows may index with them meanwhile


def categories(work: Work) -> None:
    """`category-twice`: two categories of one name become the first; `category-id-twice`: renumbered."""
    first: dict[str, int] = {}
    kept: list[Category] = []
    new_label = np.zeros(len(work.categories), dtype=np.int32)
    for label, category in enumerate(work.categories):
        name = category.name.strip()
        if name in first:
            other = work.categories[first[name]]
            work.about_set(
                "category-twice",
                f"the category name {name!r} is there twice, with ids {other.id} and {category.id}",
                f"merged into {other.id}",
                {"name": name, "ids": [other.id, category.id]},
            )
            new_label[label] = new_label[first[name]]
        else:
            first[name] = label
            new_label[label] = len(kept)
            kept.append(category)
    fresh = fresh_ids(category.id for category in kept)
    seen: set[int] = set()
    for position, category in enumerate(kept):
        if category.id in seen:
            id = int(next(fresh))
            work.about_set(
                "category-id-twice",
                f"the category id {category.id} is there twice, the second time as {category.name!r}",
                f"renumbered {id}",
                {"id": category.id, "name": category.name},
            )
            kept[position] = replace(category, id=id)
        seen.add(category.id)
    work.categories = tuple(kept)
    if len(new_label):
        work.labels = new_label[work.labels]


def image_ids(work: Work) -> None:
    """`image-id-twice`: of the same file, the two are merged; of another file, the second is renumbered."""
    first: dict[ImageId, int] = {}
    fresh = fresh_ids(work.image_ids)
    for image, id in enumerate(work.data.image_ids):
        if id not in first:
            first[id] = image
            continue
        path, other = work.data.paths[image], work.data.paths[first[id]]
        if path == other:
            repair = "merged"
            work.keep_images[image] = False
            work.image_index[work.image_index == image] = first[id]
        else:
            work.image_ids[image] = next(fresh)
            repair = f"renumbered {work.image_ids[image]}"
        message = f"{work.data.file}: the image id {id} is there twice, for {other} and {path}."
        work.about_image(image, "image-id-twice", message, repair, {"paths": [other, path]})


def annotation_ids(work: Work) -> None:
    """`annotation-id-twice`: all are renumbered but the first that is not left out for another fault."""
    if len(set(work.ids)) == len(work.ids):
        return
    fresh = fresh_ids(work.ids)
    kept = work.keep & work.keep_images[work.image_index]
    seen: set[ImageId] = set()
    owned: set[ImageId] = set()  # by a row that stays
    for i, id in enumerate(work.data.ids):
        if id in seen:
            if not kept[i]:
                repair = "left out for another fault"
            elif id in owned:
                work.ids[i] = next(fresh)
                repair = f"renumbered {work.ids[i]}"
            else:
                repair = "kept, for the other is left out"
            work.about_instance(i, "annotation-id-twice", "has an id that is taken", repair, {"position": i})
        seen.add(id)
        if kept[i]:
            owned.add(id)


def fresh_ids(taken: Iterable[ImageId]) -> Iterator[int]:
    """Whole numbers above all that are taken."""
    # An id of digits in a string counts too, lest the two be mixed up where a format writes both alike.
    numbers = [int(id) for id in taken if not isinstance(id, str) or id.isdecimal()]
    number = max(numbers, default=0)
    while True:
        number += 1
        yield number
