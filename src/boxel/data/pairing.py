"""Pair the images of two datasets of the same images by the names of their files."""

from __future__ import annotations

from boxel.data.annotations import Annotations
from boxel.data.formats.layout import file_stems
from boxel.data.image_names import ImageNames, choose_path, split_path


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
    by_stem = {stem: index for index, stem in enumerate(file_stems(other.paths)) if index in free}
    for image, stem in enumerate(file_stems(data.paths)):
        index = by_stem.get(stem) if pairs[image] is None else None
        if index is not None and choose_path(split_path(data.paths[image]), [split_path(other.paths[index])]):
            pairs[image] = index
    return pairs
