"""Fine-tuning: start from the weights of another run, as far as they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from boxel.data.annotations import Category
from boxel.data.label_maps import BACKGROUND_NAME
from boxel.methods import SEMANTIC
from boxel.models.io import read_categories, read_config_file
from boxel.models.pretrained import model_folder, read_method
from boxel.models.semantic import SemanticConfig
from boxel.utils.errors import BoxelError

if TYPE_CHECKING:
    from torch import Tensor, nn

CLASS_LAYERS = (
    "head.classify.",
    "roi_heads.box_predictor.",
    "roi_heads.mask_predictor.mask_fcn_logits.",
    "network.classifier.scores.",
)
"""Prefixes of the weights that belong to categories."""

SEMANTIC_LAYERS = "semantic."
"""Prefix of the weights of the network that `fcrn-instances` builds on, which :func:`init_from` does not fill."""


def read_model_settings(run: str | Path) -> dict[str, Any]:
    """Read the settings of the model of a run, or of a bundled model."""
    if not (model_folder(run) / "config.yaml").is_file():
        raise _no_model(run, "it has no config.yaml")
    return dict(read_config_file(model_folder(run))["model"])


class Initialized(NamedTuple):
    """Names of weights after :func:`init_from`, without the counters of batch norms."""

    loaded: list[str]
    new: list[str]  # of the model; they stay as they were
    unused: list[str]  # of the run


def init_from(model: nn.Module, run: str | Path, categories: Sequence[Category]) -> Initialized:
    """Load every weight of a run or a bundled model that the model has in the same shape, at least one.

    What does not match stays new, and so do the class layers if `categories` are others. The first convolution takes
    the input channels that both have, e.g. RGB if the run's others are the boxes of a BoxCaseg.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = model_folder(run)
    try:
        weights = load_file(folder / "model.safetensors")
        trained = read_categories(folder)
    except (OSError, ValueError, SafetensorError) as error:
        raise _no_model(run, error) from error
    own = {name: value for name, value in model.state_dict().items() if not name.startswith(SEMANTIC_LAYERS)}
    stem = next((name for name in own if "backbone.body." in name and own[name].ndim == 4), "")
    if stem in weights:
        weights[stem] = _fit_input_channels(weights[stem], own[stem])
    loaded = [name for name, tensor in own.items() if name in weights and weights[name].shape == tensor.shape]
    if [category.name for category in trained] != [category.name for category in categories]:
        loaded = [name for name in loaded if not name.startswith(CLASS_LAYERS)]
    if not loaded:
        raise BoxelError(
            f"{folder}/model.safetensors: none of its weights fits this model; train with the same `model` settings."
        )
    model.load_state_dict({name: weights[name] for name in loaded}, strict=False)
    new, unused = (
        [name for name in names if name not in loaded and not name.endswith("num_batches_tracked")]
        for names in (own, weights)
    )
    return Initialized(loaded, new, [name for name in unused if not name.startswith(SEMANTIC_LAYERS)])


def _fit_input_channels(weight: Tensor, own: Tensor) -> Tensor:
    """Return a model's own (out, in, h, w) weight, its input channels replaced as far as another weight has them."""
    if (len(weight), weight.shape[2:]) != (len(own), own.shape[2:]):
        return weight
    fitted, shared = own.clone(), min(weight.shape[1], own.shape[1])
    fitted[:, :shared] = weight[:, :shared]
    return fitted


def find_frozen(model: nn.Module, names: Sequence[str]) -> list[str]:
    """Return those of the named weights that training does not change."""
    from torchvision.ops import FrozenBatchNorm2d

    parameters = dict(model.named_parameters())
    return [
        name
        for name in names
        if (name in parameters and not parameters[name].requires_grad)
        or isinstance(model.get_submodule(name.rpartition(".")[0]), FrozenBatchNorm2d)
    ]


def name_layers(names: Sequence[str], others: Sequence[str]) -> str:
    """Name weights by the largest layers that hold none of the others.

    Examples:
        >>> name_layers(["neck.0.weight", "neck.0.bias", "head.scale"], others=["head.bias"])
        'neck, head.scale'
    """
    taken = {other[:end] for other in others for end in _find_dots(other)}
    layers = (next((name[:e] for e in _find_dots(name) if name[:e] not in taken), name) for name in names)
    return ", ".join(dict.fromkeys(layers))


def _find_dots(name: str) -> list[int]:
    return [place for place, letter in enumerate(name) if letter == "."]


def read_things(run: str | Path) -> tuple[Category, ...]:
    """Read the classes of a semantic run that have instances, i.e., all but the background."""
    first, *things = read_categories(model_folder(run))
    if first.name != BACKGROUND_NAME or not things:
        raise BoxelError(
            f"{run}: its first class is {first.name!r} and not {BACKGROUND_NAME!r}, so that every pixel would belong "
            "to an instance; train it on a dataset of instances."
        )
    return tuple(things)


def read_semantic_config(run: str | Path) -> SemanticConfig:
    """Read the settings of a semantic network, as a part of another model's."""
    if read_method(run) not in SEMANTIC:
        raise BoxelError(
            f"{run} is not a run of {' or '.join(SEMANTIC)}; name the folder of one with `semantic`."
        )
    settings = read_model_settings(run)
    own = {entry.name: settings[entry.name] for entry in fields(SemanticConfig) if entry.name in settings}
    return SemanticConfig(**own | {"weights": "none"})


def _no_model(run: str | Path, error: object) -> BoxelError:
    return BoxelError(f"{run}: no model to start from ({error}); name the folder of a finished run.")
