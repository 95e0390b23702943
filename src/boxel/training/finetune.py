"""Fine-tuning: start from another run's weights as far as they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from boxel.data.annotations import Category
from boxel.data.label_maps import BACKGROUND_NAME
from boxel.methods import SEMANTIC
from boxel.models.fcrn import FCRNInstances
from boxel.models.io import load, read_categories
from boxel.models.pretrained import folder_of, method_of
from boxel.models.semantic import Segmenter, SemanticConfig
from boxel.utils.errors import BoxelError

CLASS_LAYERS = (
    "head.classify.",
    "roi_heads.box_predictor.",
    "roi_heads.mask_predictor.mask_fcn_logits.",
    "network.classifier.scores.",
)
"""What begins the names of the weights that stand for categories."""

OF_SEMANTIC = "semantic."
"""What begins the names of the weights that :func:`load_semantic` fills, and no start does."""


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
    own = {name: value for name, value in model.state_dict().items() if not name.startswith(OF_SEMANTIC)}
    loaded = [name for name, tensor in own.items() if name in weights and weights[name].shape == tensor.shape]
    if [category.name for category in theirs] != [category.name for category in categories]:
        loaded = [name for name in loaded if not name.startswith(CLASS_LAYERS)]
    if not loaded:
        raise BoxelError(
            f"{path}: none of its weights fits this model; train with the same --model settings."
        )
    model.load_state_dict({name: weights[name] for name in loaded}, strict=False)
    return loaded, [name for name in own if name not in loaded]


def things_of(run: str | Path) -> tuple[Category, ...]:
    """The classes of a semantic run but for the background, of which there are instances.

    Raises:
        BoxelError: it knows no background.
    """
    ground, *things = read_categories(folder_of(run))
    if ground.name != BACKGROUND_NAME or not things:
        raise BoxelError(
            f"{run}: its first class is {ground.name!r} and not {BACKGROUND_NAME!r}, so that every pixel would be of "
            "an instance; train it on a set of instances."
        )
    return tuple(things)


def semantic_config(run: str | Path) -> SemanticConfig:
    """The semantic network's settings, as a part of another model's.

    Raises:
        BoxelError: it is no run that gives pixels a class.
    """
    if method_of(run) not in SEMANTIC:
        raise BoxelError(
            f"{run}: this is no run of {' or '.join(SEMANTIC)}; name the --out folder of one with --semantic."
        )
    settings = model_of(run)
    of_network = {
        entry.name: settings[entry.name] for entry in fields(SemanticConfig) if entry.name in settings
    }
    return SemanticConfig(**of_network | {"weights": "none"})


def load_semantic(model: FCRNInstances, run: str | Path) -> None:
    """Fill the semantic network of `fcrn-instances`.

    Args:
        model: changed in place.
        run: a model folder of `fcrn` or `boxsup`.

    Raises:
        BoxelError: the weights can't be read.
    """
    model.semantic.load_state_dict(cast(Segmenter, load(run)).network.state_dict())
