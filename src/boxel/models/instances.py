"""Detected instances of one image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Category
from boxel.data.sources import ImageLike, to_image
from boxel.data.windows import ImageWindows, open_windows
from boxel.masks.rle import Rle, decode_all
from boxel.utils.errors import BoxelError
from boxel.utils.files import write_text
from boxel.utils.frames import frame_stem
from boxel.viz.output import Drawable, save_image
from boxel.viz.overlays import overlay

if TYPE_CHECKING:
    from supervision import Detections

    from boxel.models.label_map import LabelMap

ResultT = TypeVar("ResultT", "Instances", "LabelMap")
Index: TypeAlias = int | slice | Sequence[int] | Sequence[bool] | NDArray[np.bool_] | NDArray[np.integer]


@dataclass(frozen=True, repr=False, eq=False)
class Instances(Drawable):
    """Instances of one image, best first.

    Indexing with an integer, a slice, a boolean mask or an array of indices returns the chosen instances.

    Attributes:
        boxes: (N, 4) float32 xyxy, pixels of the image.
        scores: (N,) float32 in [0, 1].
        labels: (N,) int64, index into `categories`.
        rles: N compressed COCO run-length codes of the image's size.
        categories: Categories of the model.
        image_size: (height, width) of the image in pixels.
        source: The image itself, or the file it is read from again for drawing; None if unknown.

    Examples:
        >>> from boxel.models import load
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> instances = load("boxcaseg").predict(image, [[0, 0, 4, 4], [2, 1, 6, 3]])
        >>> instances.masks.shape
        (2, 4, 6)
        >>> len(instances[instances.boxes[:, 0] > 1])
        1
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    rles: list[Rle]
    categories: tuple[Category, ...]
    image_size: tuple[int, int]
    source: ImageLike | None = None

    def __len__(self) -> int:
        """Return the number of instances."""
        return len(self.scores)

    def __getitem__(self, index: Index) -> Instances:
        """Return the chosen instances; an integer gives one instance, still as :class:`Instances`."""
        rows = np.atleast_1d(np.arange(len(self))[index])  # type: ignore[index]
        return replace(
            self,
            boxes=self.boxes[rows],
            scores=self.scores[rows],
            labels=self.labels[rows],
            rles=[self.rles[row] for row in rows.tolist()],
        )

    def __iter__(self) -> Iterator[Instances]:
        """Iterate over the instances, one at a time."""
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        """Return a summary on one line."""
        shown = [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores[:5], strict=False)]
        listed = ": " + ", ".join(shown) + ", ..." * (len(self) > len(shown)) if shown else ""
        height, width = self.image_size
        return f"Instances({len(self)} in {width} x {height} pixels{listed})"

    @property
    def names(self) -> list[str]:
        """Category name of each instance."""
        return [self.categories[label].name for label in self.labels]

    @property
    def masks(self) -> NDArray[np.bool_]:
        """Dense masks, (N, H, W) bool; decoded at each access."""
        return decode_all(self.rles, *self.image_size)

    def plot(self, image: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Draw the instances over their image.

        Args:
            image: (H, W, 3) uint8 RGB; `source` if None.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            BoxelError: `source` is unknown or cannot be read.
        """
        if image is None:
            if self.source is None:
                raise BoxelError("these instances do not know their image; give it as `image`.")
            image = to_image(self.source)
        names = [category.name for category in self.categories]
        return overlay(image, self.boxes, self.rles, self.labels, names, self.scores)

    def save(self, path: str | Path, image: NDArray[np.uint8] | None = None) -> None:
        """Write a COCO results file, or a drawing.

        Args:
            path: A `.json` file for results; an image file for a drawing as of :meth:`plot`.
            image: As for :meth:`plot`.
        """
        if Path(path).suffix.lower() == ".json":
            write_text(path, json.dumps(self.to_coco()))
        else:
            save_image(self.plot(image), path)

    def to_coco(self, image_id: int | str | None = None) -> list[dict[str, object]]:
        """Return the entries of a COCO results file.

        Args:
            image_id: Id of the image; if None, the number or the name in the file name of `source`, else 0.

        Returns:
            A dict per instance: boxes xywh in pixels to 2 digits, scores to 5.
        """
        if image_id is None:
            image_id = image_id_from_name(self.source) if isinstance(self.source, str | Path) else 0
        return [
            {
                "image_id": image_id,
                "category_id": self.categories[label].id,
                "bbox": [round(float(v), 2) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
                "score": round(float(score), 5),
                "segmentation": rle,
            }
            for box, score, label, rle in zip(self.boxes, self.scores, self.labels, self.rles, strict=True)
        ]

    def to_supervision(self) -> Detections:
        """Return supervision's `Detections`, with dense masks and `class_name` in its data."""
        from supervision import Detections

        return Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.labels,
            data={"class_name": np.array(self.names, dtype=str)},
        )


def map_windows(
    images: ImageLike | Sequence[ImageLike], predict: Callable[[ImageWindows], ResultT], in_parts: bool
) -> ResultT | list[ResultT]:
    """Return what is predicted of an image, or a list of it for a list or tuple of images; see `open_windows`."""
    several = isinstance(images, (list, tuple))
    results = []
    for source in cast("list[ImageLike]", images if several else [images]):
        with open_windows(source, in_parts) as image:
            results.append(replace(predict(image), source=source))
    return results if several else results[0]


def image_id_from_name(path: str | Path) -> int | str:
    """Return the COCO id in a file's name: a number if the stem is one, else the stem."""
    stem = frame_stem(str(path)) or Path(path).stem
    return int(stem) if stem.isdecimal() else stem
