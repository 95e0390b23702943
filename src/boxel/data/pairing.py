"""Pair the images of two datasets of the same images by the names of their files."""

from __future__ import annotations

from collections import Counter

from boxel.data.annotations import Annotations
from boxel.data.formats.layout import clean_name, file_stems
from boxel.data.image_names import ImageNames, choose_path, find_stem, split_path


def pair_images(data: Annotations, other: Annotations) -> list[int | None]:
    """Return for each image of a dataset its index in another; None if there is none, or if it may be several.

    Names are compared as by `ImageNames`, else as formats of one folder write them, e.g. ``a_1.jpg`` for ``a/1.jpg``.
    Ids do not count, since those of different files may stand for different images.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> data = sample_images()
        >>> pair_images(data.select_images([2, 0]), data)
        [2, 0]
    """
    known, own = ImageNames(other), ImageNames(data)
    found = [known.find_name(str(data.image_path(image))) for image in range(len(data))]
    back = [own.find_name(str(other.image_path(image))) for image in range(len(other))]
    pairs = [k if k is not None and back[k] == image else None for image, k in enumerate(found)]
    free = {index for index, path in enumerate(other.paths) if path} - set(pairs)
    by_name = {name: index for name, index in _flat_names(other) if index in free}
    for name, image in reversed(_flat_names(data)):
        index = by_name.get(name) if pairs[image] is None else None
        if index in free and choose_path(split_path(data.paths[image]), [split_path(other.paths[index])]):
            pairs[image] = index
            free.remove(index)
    return pairs


def _flat_names(data: Annotations) -> list[tuple[str, int]]:
    """Return each name that a format of one folder may give an image of a dataset, or of a larger one, and the image.

    Those that it gives in this dataset come last, and names of several images are left out.
    """
    names = []
    for image, path in enumerate(data.paths):
        *folders, file = split_path(path) or [""]
        parts = [*folders, find_stem(file)]
        names += [(clean_name("_".join(parts[k:])), image) for k in range(len(folders))]
    counts = Counter(name for name, _ in names)
    own = [(stem, image) for image, stem in enumerate(file_stems(data.paths))]
    return [*((name, image) for name, image in names if counts[name] == 1), *own]
