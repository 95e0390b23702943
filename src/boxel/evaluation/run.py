"""Detections of a trained model on an annotated set, under the set's own image ids."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from boxel.data.annotations import Annotations
from boxel.models.predict import PredictConfig
from boxel.models.predict_files import predict_files
from boxel.utils.errors import BoxelError


def is_agnostic(model: Any) -> bool:
    """Whether the model was trained to tell objects from background only.

    Args:
        model: its run's `settings` say so, or its only category is the "object" that merged categories become.
    """
    merged = model.settings.get("data", {}).get("class_agnostic", False)
    return merged or [category.name for category in model.categories] == ["object"]


def predict_set(
    model: Any,
    data: Annotations,
    config: PredictConfig | None = None,
    batch_size: int = 1,
    report: Callable[[str], None] = print,
    class_agnostic: bool = False,
) -> list[dict[str, Any]]:
    """COCO results of a model on every image of a set.

    What is found of categories that the set lacks is left out, which a warning tells.

    Args:
        model: a model in eval mode.
        data: the images, of any categories for a class-agnostic model (see :func:`is_agnostic`).
        config: how images are shown; the model's own training size where None.
        batch_size: photos looked at together.
        report: is told of each image that can't be read; its instances count as missed.
        class_agnostic: keep what is found of any category, to be measured without classes.

    Raises:
        BoxelError: the set has none of the model's categories, or none of its images can be read.
    """
    ids = {category.name: category.id for category in data.categories}
    agnostic = class_agnostic or is_agnostic(model)
    lacking = [c.name for c in model.categories if not agnostic and c.name not in ids]
    if lacking:
        names = ", ".join(lacking[:10]) + ", ..." * (len(lacking) > 10)
        if len(lacking) == len(model.categories):
            raise BoxelError(
                f"{data.file} has none of the model's categories ({names}); --class-agnostic measures without them."
            )
        warnings.warn(
            f"{data.file} lacks some of the model's categories, which are left out: {names}.", stacklevel=2
        )
    paths = [data.image_path(index) for index in range(len(data))]
    results = []
    read = 0
    for index, found in predict_files(model, paths, config, batch_size, report):
        read += 1
        for row, name in zip(found.as_coco(data.image_ids[index]), found.names, strict=True):
            if agnostic or name in ids:
                results.append({**row, "category_id": ids.get(name, row["category_id"])})
    if paths and not read:
        raise BoxelError(
            f"{data.file}: none of its {len(paths)} images can be read in {data.root}; name their folder with "
            "--images."
        )
    return results
