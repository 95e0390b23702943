"""Issues of image files: all are decoded, with one thread per core."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np

from boxel.data.checks import exif
from boxel.data.checks.image_facts import ImageFacts, read_facts
from boxel.data.checks.repair_state import RepairState
from boxel.data.images import ImageError, ImageHeader, in_turn
from boxel.data.label_maps import label_map_size
from boxel.utils.device import available_cores
from boxel.utils.errors import BoxelError
from boxel.utils.frames import stored_in
from boxel.utils.printable import count_noun


def check_files(state: RepairState) -> None:
    """Check for the five kinds of `ImageError`, `image-size` and the issues of `exif`.

    An image that cannot be read is left out with its instances. If no image is found at all, this is one issue of the
    dataset, `images-missing`, and nothing is left out: the folder is wrong, not the images.
    """
    data = state.data
    if len(set(data.paths)) > 1 and all(_is_missing(os.path.join(data.root, path)) for path in data.paths):
        state.report_dataset(
            "images-missing",
            f"none of the {len(data)} images is under {data.root}; name their folder with `images`",
            images=len(data),
            first=str(data.image_path(0)),
        )
        return
    paths = [data.image_path(image) for image in range(len(data))]
    found = _read_all(paths)
    instances = np.bincount(state.image_index, minlength=len(paths))
    state.facts = {image: facts for image, facts in enumerate(found) if isinstance(facts, ImageFacts)}
    headers = {image: facts.header for image, facts in state.facts.items()}
    for image, error in enumerate(found):
        if isinstance(error, ImageError):
            count = int(instances[image])
            repair = f"left out with its {count_noun(count, 'annotation')}"
            state.report_image(image, error.kind, str(error), repair, **error.values, annotations=count)
            state.keep_images[image] = False
    _check_sizes(state, headers)
    exif.check_orientation(state, headers)
    for image, header in headers.items():
        state.widths[image], state.heights[image] = header.upright


def check_label_maps(state: RepairState) -> None:
    """Check for `label-map-*`: one that cannot be read or is of another size than its image; it is left out."""
    for image, name in enumerate(state.label_maps):
        if name is None:
            continue
        path = state.data.root / name
        try:
            size = label_map_size(path)
        except BoxelError as error:
            kind = "label-map-unreadable" if path.is_file() else "label-map-missing"
            state.report_image(image, kind, str(error), "label map left out", label_map=str(path))
            state.label_maps[image] = None
            continue
        expected = (int(state.widths[image]), int(state.heights[image]))
        if min(expected) > 0 and size != expected:
            message = f"{path}: the label map is {_by(size)} pixels and its image {_by(expected)}."
            values = {"label_map": str(path), "found": size, "image": expected}
            state.report_image(image, "label-map-size", message, "label map left out", **values)
            state.label_maps[image] = None


def _is_missing(path: str) -> bool:
    try:
        os.stat(stored_in(path))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        pass
    return False


def _read_all(paths: list[Path]) -> list[ImageFacts | ImageError]:
    with ThreadPoolExecutor(available_cores()) as pool:
        slices = [paths[start : start + 64] for start in range(0, len(paths), 64)]
        return list(chain.from_iterable(pool.map(lambda some: [_read(path) for path in some], slices)))


def _read(path: Path) -> ImageFacts | ImageError:
    try:
        with in_turn(path):
            return read_facts(path)
    except ImageError as error:
        return error


def _check_sizes(state: RepairState, headers: Mapping[int, ImageHeader]) -> None:
    for image, header in headers.items():
        recorded = (int(state.widths[image]), int(state.heights[image]))
        if min(recorded) > 0 and recorded != header.upright:
            note = " (before rotation)" if recorded == header.stored else ""
            message = (
                f"{state.data.image_path(image)}: the image is {_by(header.upright)} pixels, "
                f"not {_by(recorded)}{note} as {state.data.file} states."
            )
            repair = f"size set to {_by(header.upright)}"
            values = {"recorded": recorded, "found": header.upright, "orientation": header.orientation}
            state.report_image(image, "image-size", message, repair, **values)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
