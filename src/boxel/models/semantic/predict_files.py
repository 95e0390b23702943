"""Label maps of image files: one bad image costs only itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from boxel.data.images import read_image
from boxel.models.semantic.predict import LabelMap, LookConfig, predict_maps
from boxel.utils.errors import BoxelError
from boxel.viz.overlays import overlay_labels, save_image


def map_files(
    model: Any, paths: Sequence[Path], config: LookConfig, report: Callable[[str], None] = print
) -> Iterator[tuple[int, LabelMap]]:
    """Label maps of image files, in their order.

    Args:
        model: a :class:`~boxel.models.semantic.model.Segmenter` in eval mode.
        paths: the files.
        config: how they are shown.
        report: is told of each file that can't be read.

    Yields:
        Index of a file that could be read, and its label map.
    """
    for index, path in enumerate(paths):
        try:
            photo = read_image(path)
        except BoxelError as error:
            report(f"skipped: {error}")
        else:
            yield index, next(predict_maps(model, photo, config))


def draw_map(path: Path, found: LabelMap, target: Path) -> None:
    """Draw the classes of a photo's pixels over it, into the file ``target``."""
    names = [category.name for category in found.classes]
    save_image(overlay_labels(read_image(path), found.labels, names), target)
