"""What the review page shows and does: objects as plain data, and changes that are committed at once."""

from __future__ import annotations

import secrets
import threading
from base64 import b64encode
from collections.abc import Sequence
from hashlib import blake2b
from math import floor
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from boxel.labeling.box_segmenter import BoxSegmenter
from boxel.labeling.review import choose_next
from boxel.masks.rle import Rle, decode_in_box
from boxel.review.config import ReviewConfig
from boxel.review.editing import brush, correct, move_outline, predict_in_box
from boxel.review.pictures import Pictures, mask_png
from boxel.review.requests import (
    Change,
    Click,
    Edit,
    NewObject,
    Restore,
    SetBox,
    SetCategory,
    SetState,
    Stroke,
)
from boxel.review.sample import describe_guarantee, guarantee_so_far
from boxel.review.selection import count_states
from boxel.review.session import STATES, YOU, Review
from boxel.utils.errors import BoxelError
from boxel.utils.printable import count_noun
from boxel.viz.colors import pick_color

BoxTuple: TypeAlias = tuple[float, float, float, float]

_MAX_OTHERS = 500  # objects of one image besides the one that is shown
_SAME_BOX = 1.0  # pixels by which a mask may reach beyond its box


class ReviewService:
    """What the page asks for, for one review.

    Args:
        review: The review.
        segmenter: Predicts masks in boxes that are moved or added; None for none.
        config: What the page is for.
    """

    def __init__(self, review: Review, segmenter: BoxSegmenter | None, config: ReviewConfig) -> None:
        self.review, self.segmenter, self.config = review, segmenter, config
        self.pictures = Pictures(review)
        self._choosing = threading.Lock()
        # Another review may use the same port later, and must not get the pictures that a browser kept of this one.
        self._key = secrets.token_hex(4)
        self._history = blake2b(str(review.store.path.resolve()).encode(), digest_size=8).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return what the page shows of the whole dataset."""
        names = self.review.names
        colors = ["#{:02x}{:02x}{:02x}".format(*pick_color(label)) for label in range(len(names))]
        return {
            "name": self.config.name,
            "key": self._key,  # of this run, a part of the addresses of pictures
            "history": self._history,  # of the dataset, by which a tab keeps what it can undo
            "images": len(self.review.data),
            "objects": len(self.review),
            "takes_images": self.config.takes_images,
            "categories": [{"name": name, "color": color} for name, color in zip(names, colors, strict=True)],
            "predicts": self.segmenter is not None,
            "progress": count_states(self.review),
        }

    def summarize(self, row: int) -> dict[str, Any]:
        """Return what a list shows of an object."""
        review = self.review
        version, decision = review.entry(row)
        return {
            "row": row,
            "id": review.ids[row],
            "image": int(review.image_index[row]),
            "file": review.data.paths[review.image_index[row]],
            "category": int(review.labels[row]),
            "quality": decision.quality,
            "state": decision.state,
            "corrected": decision.maker == YOU,
            "suspect": review.suspects.get(row) if decision.state == "open" else None,
            "version": version,
            "box": _to_finite(decision.box),
        }

    def detail(self, row: int) -> dict[str, Any]:
        """Return an object with its mask, the size of its image and the other objects there."""
        summary = self.summarize(row)
        image = summary["image"]
        mask = problem = None
        width, height = self.review.data.image_size(image)
        try:
            mask = mask_png(self.review.rle(row))
            height, width = self.pictures.image(image).shape[:2]
        except BoxelError as error:  # the segmentation in the file is malformed, or the image cannot be read
            problem = self.describe_error(error)
        return summary | {
            "width": width,
            "height": height,
            "mask": None
            if mask is None
            else {"png": b64encode(mask.png).decode(), "left": mask.left, "top": mask.top},
            "problem": problem,
            "maker": self.review.entry(row).decision.maker,
            "others": _to_finite(self.review.boxes_in(image, row)[:_MAX_OTHERS]),
        }

    def describe_error(self, error: BoxelError) -> str:
        """Return an error as the page shows it, with paths within the folders of the dataset."""
        text = str(error)
        for folder in (self.review.data.root, self.review.store.path.parent):
            with_separator = str(folder / "_")[:-1]  # empty for the current folder
            text = text.replace(with_separator, "")
        return text

    def change(self, row: int, version: int, change: Change) -> dict[str, Any]:
        """Commit a change of an object; return the object as it is then."""
        fields = {} if isinstance(change, Restore) else self._to_fields(row, change)
        with self.review.lock:  # so that the answer is about this change, and not about one that follows
            if isinstance(change, Restore):
                self.review.restore(row, version, change.to)
            else:
                self.review.decide(row, version, **fields)
            return self.detail(row) | {"progress": count_states(self.review)}

    def add(self, image: int, new: NewObject) -> dict[str, Any]:
        """Add an object with a predicted mask."""
        box = self._clip_box(image, new.box)
        names = self.review.names
        label = names.index(new.category) if new.category in names else 0  # the review refuses it
        row = self.review.add(image, new.category, box, **self._predict(image, box, label))
        return self.detail(row) | {"progress": count_states(self.review)}

    def list_images(self, images: Sequence[int]) -> list[dict[str, Any]]:
        """Return what a list shows of images."""
        review = self.review
        counts = np.bincount(
            review.image_index[review.states != STATES.index("deleted")], minlength=len(review.data)
        )
        return [
            {"image": image, "file": review.data.paths[image], "objects": int(counts[image])}
            for image in images
        ]

    def image_detail(self, image: int) -> dict[str, Any]:
        """Return an image as if it were an object without a mask, for the first box in it."""
        height, width = self.pictures.image(image).shape[:2]
        return {
            "row": None,
            "image": image,
            "file": self.review.data.paths[image],
            "width": width,
            "height": height,
            "box": [0, 0, width, height],
            "mask": None,
            "others": _to_finite(self.review.boxes_in(image)[:_MAX_OTHERS]),
        }

    def next(self, count: int) -> list[dict[str, Any]]:
        """Return the objects whose correction is worth the most, and why."""
        review = self.review
        with self._choosing:  # it takes a while, and once at a time is enough
            data = review.apply(all_checked=True)
            try:
                chosen = choose_next(data, count)
            except BoxelError:  # all are checked
                return []
        keys = zip(review.image_index.tolist(), review.ids, strict=True)
        place = {key: row for row, key in enumerate(keys)}
        found = [
            (place[int(data.image_index[one.instance]), data.ids[one.instance]], one.reason) for one in chosen
        ]
        return [self.summarize(row) | {"reason": reason} for row, reason in found]

    def describe_guarantee(self) -> str:
        """State what the random sample that was decided on guarantees."""
        guarantee, missing = guarantee_so_far(self.review, self.config.guarantee)
        if guarantee is None:
            more, iou = count_noun(missing, "more mask"), self.config.guarantee
            return f"A guarantee of an IoU of {iou:g} needs decisions about {more} in the random order."
        return f"Of the {guarantee.checked} masks decided on in the random order, {describe_guarantee(guarantee)}"

    def _to_fields(self, row: int, change: Edit) -> dict[str, Any]:
        """Return what a change makes of the fields of a decision."""
        if isinstance(change, SetState):
            return {"state": change.state}
        if isinstance(change, SetCategory):
            return {"category": change.category}
        image = int(self.review.image_index[row])
        if isinstance(change, SetBox):
            box = self._clip_box(image, change.box)
            return {"box": box, "state": "open"} | self._predict(
                image, box, int(self.review.labels[row]), row
            )
        if isinstance(change, Click):
            return self._draw(row, self._click(row, image, change))
        rle, size = self.review.rle(row), self.pictures.image(image).shape[:2]
        if isinstance(change, Stroke):
            return self._draw(row, brush(rle, size, change.points, change.radius, change.add))
        return self._draw(row, move_outline(rle, size, change.before, change.after))

    def _click(self, row: int, image: int, click: Click) -> Rle:
        """Return the mask of an object after a click."""
        pixels = self.pictures.image(image)
        height, width = pixels.shape[:2]
        clicks = [(floor(one.point[0]), floor(one.point[1]), one.add) for one in (*click.earlier, click)]
        inside = [(x, y, add) for x, y, add in clicks if 0 <= x < width and 0 <= y < height]
        if not inside or inside[-1] != clicks[-1]:
            raise BoxelError("this click is outside the image; click inside it.")
        return correct(self.review.rle(row), pixels, self.review.entry(row).decision.box, inside)

    def _draw(self, row: int, rle: Rle) -> dict[str, Any]:
        """Return the fields of a mask that the reviewer drew; its box grows if it does not hold the mask."""
        if rle == self.review.rle(row):
            raise BoxelError("this changes nothing in the mask; Shift or the right button removes a part.")
        mask, left, top = decode_in_box(rle)
        if not mask.size:
            return {"mask": None, "maker": None, "quality": None, "state": "open"}
        fields: dict[str, Any] = {"mask": rle, "maker": YOU, "quality": None, "state": "accepted"}
        box = np.array(self.review.entry(row).decision.box)
        tight = np.array([left, top, left + mask.shape[1], top + mask.shape[0]], dtype=np.float64)
        beyond = (tight - box) * [-1, -1, 1, 1] > _SAME_BOX
        return fields | ({"box": tuple(np.where(beyond, tight, box).tolist())} if beyond.any() else {})

    def _predict(self, image: int, box: BoxTuple, label: int, own: int | None = None) -> dict[str, Any]:
        """Return the fields of a mask that the teacher predicts in a box; none if there is no teacher.

        Args:
            image: Index of the image.
            box: The box.
            label: Index of the class.
            own: The object whose box it is; None for a new one.
        """
        if self.segmenter is None:
            return {}
        others = self.review.boxes_in(image, own)
        found = predict_in_box(self.segmenter, self.pictures.image(image), box, others, label)
        if found is None:
            return {"mask": None, "maker": None, "quality": None}
        return {"mask": found.rle, "maker": self.config.teacher, "quality": found.quality}

    def _clip_box(self, image: int, box: BoxTuple) -> BoxTuple:
        """Return a box within its image, its corners in order.

        Raises:
            BoxelError: Its sides are shorter than a pixel there.
        """
        height, width = self.pictures.image(image).shape[:2]
        corners = np.array(box).reshape(2, 2).clip(0, [width, height])
        low, high = corners.min(axis=0), corners.max(axis=0)
        if (high - low < 1).any():
            raise BoxelError("a box has sides of at least one pixel inside the image; draw a larger one.")
        return tuple(np.concatenate([low, high]).round(2).tolist())


def _to_finite(boxes: ArrayLike) -> list[Any]:
    """Return boxes for JSON, which has no NaN: a coordinate that is not a number becomes 0."""
    return np.nan_to_num(np.asarray(boxes, dtype=np.float64), posinf=0, neginf=0).tolist()
