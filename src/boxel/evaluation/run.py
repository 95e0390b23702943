"""Detections of a trained model on an annotated set, under the set's own image ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from boxel.data.annotations import Annotations
from boxel.errors import BoxelError
from boxel.models.predict import PredictConfig
from boxel.models.predict_files import predict_files


def is_agnostic(model: Any, data: Annotations) -> bool:
    """Whether the model tells objects from background only: its one category is none of the set's."""
    names = [category.name for category in data.categories]
    return len(model.categories) == 1 and model.categories[0].name not in names


def predict_set(
    model: Any,
    data: Annotations,
    config: PredictConfig | None = None,
    batch_size: int = 1,
    report: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """COCO results of a model on every image of a set.

    Args:
        model: a model in eval mode.
        data: the images; a class-agnostic model (see :func:`is_agnostic`) may be run on a set of any categories.
        config: how images are shown; the model's own training size where None.
        batch_size: photos looked at together.
        report: is told of each image that can't be read.

    Raises:
        BoxelError: the model has a category, not its only one, that the set lacks.
    """
    ids = {category.name: category.id for category in data.categories}
    missing = [c.name for c in model.categories if c.name not in ids]
    if missing and not is_agnostic(model, data):
        raise BoxelError(f"{data.file}: the model finds {missing[0]!r}, which is no category of this set.")
    paths = [data.image_path(index) for index in range(len(data))]
    results = []
    for index, found in predict_files(model, paths, config, batch_size, report):
        for row, name in zip(found.as_coco(data.image_ids[index]), found.names, strict=True):
            results.append({**row, "category_id": ids.get(name, row["category_id"])})
    return results
