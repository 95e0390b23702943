"""Fine-tuning: start from another run's weights as far as they fit."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from boxel.errors import BoxelError


def init_from(model: nn.Module, run: str | Path) -> tuple[list[str], list[str]]:
    """Load every weight of a model folder that this model has in the same shape.

    Args:
        model: changed in place; what does not match (class layers of other categories) stays new.
        run: a model folder.

    Returns:
        Names of the weights loaded and of those that stay new.

    Raises:
        BoxelError: there are no weights, or none fits.
    """
    path = Path(run) / "model.safetensors"
    if not path.is_file():
        raise BoxelError(
            f"{run} has no model.safetensors to start from; name the --out folder of a finished run."
        )
    weights = load_file(path)
    own = model.state_dict()
    loaded = [name for name, tensor in own.items() if name in weights and weights[name].shape == tensor.shape]
    if not loaded:
        raise BoxelError(
            f"{path}: none of its weights fits this model; train with the same --model settings."
        )
    model.load_state_dict({name: weights[name] for name in loaded}, strict=False)
    return loaded, [name for name in own if name not in loaded]
