"""Choose the recipe of a run that names none: on a machine without a GPU, a small one."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boxel.methods import get_method
from boxel.training.log import rank_zero_logger

logger = rank_zero_logger(__name__)

NETWORK = ("model", "model.backbone", "model.weights")
"""Settings that choose a network, and so leave no choice to a recipe."""

GPU_NODES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What a GPU of NVIDIA or AMD is on Linux, the last on Windows' Linux."""


def choose_recipe(method: str, settings: Mapping[str, Any]) -> str | None:
    """Return the recipe of a method for a machine without a GPU, or None if there is one or a network was chosen."""
    device = settings.get("device", "auto")
    if any(name in settings for name in NETWORK) or device not in ("auto", "cpu"):
        return None
    return None if device == "auto" and has_gpu() else get_method(method).small


def announce_recipe(chosen: str | None) -> None:
    """Log which recipe was chosen, if one was."""
    if chosen is not None:
        logger.info(
            "training on the CPU, so by the recipe `%s`, which is small; `config` names another", chosen
        )


def has_gpu() -> bool:
    """Return whether the machine seems to have a GPU that PyTorch can use, without the seconds to import PyTorch."""
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return any(Path(node).exists() for node in GPU_NODES) or shutil.which("nvidia-smi") is not None
