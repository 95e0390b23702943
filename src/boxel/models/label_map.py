"""The class of each pixel of one image, as a semantic model predicts it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxel.data.annotations import Category
from boxel.data.georeference import write_like
from boxel.data.label_maps import label_map_values
from boxel.data.sources import ImageLike, to_image
from boxel.utils.errors import BoxelError, nearest
from boxel.utils.files import atomic_path
from boxel.viz.output import Drawable
from boxel.viz.overlays import overlay_labels


@dataclass(frozen=True, repr=False, eq=False)
class LabelMap(Drawable):
    """The class of each pixel of one image.

    Attributes:
        labels: (H, W) uint8, index into `classes`.
        scores: (H, W) float32 in [0, 1], the probability of that class.
        classes: Classes of the model.
        source: The image itself, or the file it is read from again for drawing; None if unknown.

    Examples:
        >>> import numpy as np
        >>> from boxel.data.annotations import Category
        >>> classes = (Category(0, "background"), Category(7, "cat"))
        >>> labels = np.array([[0, 1, 1]], dtype=np.uint8)
        >>> label_map = LabelMap(labels, np.ones((1, 3), dtype=np.float32), classes)
        >>> label_map.mask("cat").tolist()
        [[False, True, True]]
        >>> label_map.values.tolist()
        [[0, 7, 7]]
    """

    labels: NDArray[np.uint8]
    scores: NDArray[np.float32]
    classes: tuple[Category, ...]
    source: ImageLike | None = None

    def __repr__(self) -> str:
        """Return a summary on one line."""
        height, width = self.labels.shape
        names = [self.classes[label].name for label in np.unique(self.labels).tolist()]
        return f"LabelMap({width} x {height} pixels of {', '.join(names)})"

    @property
    def values(self) -> NDArray[np.uint16]:
        """(H, W) original ids of the classes, as in the label maps of the dataset."""
        return label_map_values(self.classes)[self.labels]

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Return the (H, W) mask of a class.

        Raises:
            BoxelError: There is no class of this name.
        """
        names = [category.name for category in self.classes]
        if name not in names:
            raise BoxelError(f"the model has no class {name!r}.{nearest(name, names)}")
        return self.labels == names.index(name)

    def plot(self, image: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Draw the classes over their image, with a legend below.

        Args:
            image: (H, W, 3) uint8 RGB; `source` if None.

        Returns:
            (H + legend, W, 3) uint8 RGB.

        Raises:
            BoxelError: `source` is unknown or cannot be read.
        """
        if image is None:
            if self.source is None:
                raise BoxelError("this label map does not know its image; give it as `image`.")
            image = to_image(self.source)
        return overlay_labels(image, self.labels, [category.name for category in self.classes])

    def save(self, path: str | Path) -> None:
        """Write the original ids of the classes as an image, with 16 bits if an id exceeds 255.

        Args:
            path: A `.png` file; a `.tif` file has the coordinate system of `source`, if this is a GeoTIFF.

        Raises:
            BoxelError: The ids cannot be pixel values, or `source` has no coordinate system.
        """
        table = label_map_values(self.classes)
        kind = np.uint16 if table.max(initial=0) > 255 else np.uint8
        values = table.astype(kind)[self.labels]
        if Path(path).suffix.lower() in (".tif", ".tiff") and isinstance(self.source, str | os.PathLike):
            write_like(values, Path(path), self.source)
            return
        with atomic_path(path) as file:
            Image.fromarray(values).save(file)
