"""Choose the recipe of a run that names none: on a machine without a GPU, a small one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boxel.methods import get_method
from boxel.training.log import rank_zero_logger

logger = rank_zero_logger(__name__)

NETWORK = ("model", "model.backbone", "model.weights")
"""Settings that choose a network, and so leave no choice to a recipe."""


def choose_recipe(method: str, settings: Mapping[str, Any]) -> str | None:
    """Return the recipe of a method for a machine without a GPU, or None if there is one or a network was chosen."""
    device = settings.get("device", "auto")
    if any(name in settings for name in NETWORK) or device not in ("auto", "cpu"):
        return None
    if device == "auto" and _has_gpu():
        return None
    small = get_method(method).small
    logger.info("training on the CPU, so by the recipe `%s`, which is small; `config` names another", small)
    return small


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()
