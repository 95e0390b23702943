"""Fine-tuning: start from another run's weights as far as they fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from boxel.data.annotations import Category
from boxel.errors import BoxelError
from boxel.models.folder import read_categories
from boxel.models.shipped import folder_of

CLASS_LAYERS = ("head.classify.", "roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")
"""What begins the names of the weights that stand for categories."""


def model_of(run: str | Path) -> dict[str, Any]:
    """The model's settings of a run.

    Args:
        run: a model folder, or the name of a model that comes with boxel.

    Raises:
        BoxelError: there are none.
    """
    path = folder_of(run) / "config.yaml"
    try:
        return dict(yaml.safe_load(path.read_text())["model"])
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise BoxelError(
            f"{run}: no model to start from ({error}); name the --out folder of a finished run."
        ) from error


def init_from(
    model: nn.Module, run: str | Path, categories: Sequence[Category]
) -> tuple[list[str], list[str]]:
    """Load every weight of a model folder that this model has in the same shape.

    Args:
        model: changed in place; what does not match stays new, and so do class layers of other categories.
        run: a model folder, or the name of a model that comes with boxel.
        categories: the model's.

    Returns:
        Names of the weights loaded and of those that stay new.

    Raises:
        BoxelError: there are no weights, or none fits.
    """
    folder = folder_of(run)
    path = folder / "model.safetensors"
    try:
        weights = load_file(path)
        theirs = read_categories(folder)
    except (OSError, ValueError, SafetensorError) as error:
        raise BoxelError(
            f"{run}: no model to start from ({error}); name the --out folder of a finished run."
        ) from error
    own = model.state_dict()
    loaded = [name for name, tensor in own.items() if name in weights and weights[name].shape == tensor.shape]
    if [category.name for category in theirs] != [category.name for category in categories]:
        loaded = [name for name in loaded if not name.startswith(CLASS_LAYERS)]
    if not loaded:
        raise BoxelError(
            f"{path}: none of its weights fits this model; train with the same --model settings."
        )
    model.load_state_dict({name: weights[name] for name in loaded}, strict=False)
    return loaded, [name for name in own if name not in loaded]
