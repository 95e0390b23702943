"""A few real images with outlines drawn by hand, without a download.

The images are those that scikit-image and, if installed, scikit-learn carry in their wheels; only the outlines, in
``samples.json``, are of this project.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import msgspec
from PIL import Image

from boxel.data.annotations import Annotations, Category
from boxel.data.formats import write_as_given
from boxel.data.formats.builder import Builder
from boxel.utils.errors import BoxelError


class _Object(msgspec.Struct):
    category: str
    polygons: list[list[float]]  # x, y, x, y, ... in pixels


def sample_images() -> Annotations:
    """Return the sample images where they are installed, with boxes and masks.

    A person at a camera, an astronaut, a cat, a cup with its spoon, coins, a motorcycle, a rocket, and with
    scikit-learn a pagoda and flowers. Every box is the tight box of its outline.

    Returns:
        Up to 9 images with absolute paths. An image that no installed package has is left out.

    Examples:
        >>> "cat" in [category.name for category in sample_images().categories]
        True
    """
    source = files("boxel.data") / "samples.json"
    outlines = msgspec.json.decode(source.read_bytes(), type=dict[str, list[_Object]])
    names = sorted({item.category for objects in outlines.values() for item in objects})
    rows = Builder()
    for resource, objects in outlines.items():
        path = _find_installed(resource)
        if path is None:
            continue
        with Image.open(path) as opened:
            image = rows.add_image(len(rows.paths) + 1, str(path), *opened.size)
        for item in objects:
            xs = [x for polygon in item.polygons for x in polygon[::2]]
            ys = [y for polygon in item.polygons for y in polygon[1::2]]
            box = min(xs), min(ys), max(xs), max(ys)
            segmentation = msgspec.json.encode(item.polygons)
            rows.add(len(rows.ids) + 1, image, names.index(item.category), box, segmentation)
    categories = [Category(number, name) for number, name in enumerate(names, start=1)]
    return rows.build(Path(), categories, Path(str(source)))


def write_sample_images(folder: str | os.PathLike[str]) -> Annotations:
    """Write the sample images as a dataset: the images, ``boxes.json`` and ``masks.json`` (COCO).

    Args:
        folder: Created if needed.

    Returns:
        The dataset of ``masks.json``, its paths relative to the folder.

    Raises:
        BoxelError: Not one of the images is installed.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     "astronaut.png" in write_sample_images(folder).paths
        True
    """
    folder, data = Path(folder), sample_images()
    if not len(data):
        raise BoxelError(
            "the sample images are photographs of scikit-image, which is not installed; pip install 'boxel[demo]'."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path in data.paths:
        shutil.copyfile(path, folder / Path(path).name)
    names = [Path(path).name for path in data.paths]
    data = replace(data, root=folder, paths=names, file=str(folder / "masks.json"))
    write_as_given(data, folder / "masks.json")
    write_as_given(data.without_masks(), folder / "boxes.json")
    return data


def _find_installed(resource: str) -> Path | None:
    """Find the file of an installed package without importing it; None if there is none."""
    package, _, name = resource.partition("/")
    spec = importlib.util.find_spec(package)
    places = (spec and spec.submodule_search_locations) or ()
    return next((path for place in places if (path := Path(place, name)).is_file()), None)
