"""Predict on image files: COCO results out, drawings beside them; one bad image costs only itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from boxel.data.images import read_image
from boxel.models.predict import Instances, PredictConfig, own_config, predict_batch
from boxel.utils.errors import BoxelError
from boxel.viz.overlays import overlay, save_image


def predict_files(
    model: Any,
    paths: Sequence[Path],
    config: PredictConfig | None = None,
    batch_size: int = 1,
    report: Callable[[str], None] = print,
) -> Iterator[tuple[int, Instances]]:
    """Instances of image files, in their order.

    Args:
        model: a model in eval mode.
        paths: the files.
        config: how they are shown; the model's own training size where None.
        batch_size: photos looked at together.
        report: is told of each file that can't be read.

    Yields:
        Index of a file that could be read, and its instances.
    """
    config = config or own_config(model)
    for at in range(0, len(paths), batch_size):
        readable = []
        for index in range(at, min(at + batch_size, len(paths))):
            try:
                readable.append((index, read_image(paths[index])))
            except BoxelError as error:
                report(f"skipped: {error}")
        if readable:
            found = predict_batch(model, [pixels for _, pixels in readable], config)
            yield from zip([index for index, _ in readable], found, strict=True)


def image_ids(paths: Sequence[Path]) -> list[int | str]:
    """The id each file's results get: COCO's number where the file is named by one, else the file's stem.

    Where that would be the same for two files, all get their paths.
    """
    ids: list[int | str] = [int(path.stem) if path.stem.isdecimal() else path.stem for path in paths]
    return ids if len(set(ids)) == len(ids) else [path.as_posix() for path in paths]


def drawing_names(paths: Sequence[Path]) -> list[str]:
    """The file each drawing goes to: the photo's own name, or its whole path with `_` where two photos share a name."""
    stems = [path.stem for path in paths]
    unique = len(set(stems)) == len(stems)
    return [f"{path.stem if unique else path.as_posix().strip('/').replace('/', '_')}.jpg" for path in paths]


def draw_instances(path: Path, found: Instances, target: Path, score: float = 0.3) -> None:
    """Draw the instances scored at least ``score`` over their photo, into the file ``target``."""
    best = found.scores >= score
    masks = [mask for mask, keep in zip(found.masks, best, strict=True) if keep]
    names = [category.name for category in found.categories]
    drawn = overlay(read_image(path), found.boxes[best], masks, found.labels[best], names, found.scores[best])
    save_image(drawn, target)
