"""Fine-tuning: start from the weights of another model, as far as they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from boxel.data.annotations import OBJECT, Category
from boxel.data.label_maps import BACKGROUND_NAME
from boxel.methods import SEMANTIC
from boxel.models.io import read_categories
from boxel.models.pretrained import model_folder, read_method
from boxel.models.semantic import SemanticConfig
from boxel.training.start_weights import StartWeights, read_start_settings
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


class Initialized(NamedTuple):
    """Names of weights after :func:`init_from`, without the counters of batch norms."""

    loaded: list[str]
    new: list[str]  # of the model; they stay as they were
    unused: list[str]  # of those to start from
    classes: list[str]  # names of the classes whose rows of the class layers are loaded


def init_from(model: nn.Module, start: StartWeights, categories: Sequence[Category]) -> Initialized:
    """Load every weight that the model has in the same shape, at least one.

    What does not match stays new. If `categories` are others, the class layers take the rows of those that have the
    same name, and the other rows stay new; without any such name, the whole layers do. From a class-agnostic model each
    class takes the rows of its one class. The first convolution takes the input channels that both have, e.g. RGB if
    the others are the boxes of a BoxCaseg.
    """
    weights = dict(start.weights)
    own = {name: value for name, value in model.state_dict().items() if not name.startswith(SEMANTIC_LAYERS)}
    stem = next((name for name in own if "backbone.body." in name and own[name].ndim == 4), "")
    if stem in weights:
        weights[stem] = _fit_input_channels(weights[stem], own[stem])
    trained, classes = ([category.name for category in part] for part in (start.categories, categories))
    taken = _match_classes(trained, classes)
    if trained != classes:
        fitting = {name: weight for name, weight in weights.items() if not name.startswith(CLASS_LAYERS)}
        weights = fitting | _fit_class_layers(weights, own, trained, taken)
    loaded = [name for name, tensor in own.items() if name in weights and weights[name].shape == tensor.shape]
    if not loaded:
        raise BoxelError(
            f"{start.source}: none of its weights fits this model; train with the same `model` settings."
        )
    model.load_state_dict({name: weights[name] for name in loaded}, strict=False)
    new, unused = (
        [name for name in names if name not in loaded and not name.endswith("num_batches_tracked")]
        for names in (own, start.weights)
    )
    unused = [name for name in unused if not name.startswith(SEMANTIC_LAYERS)]
    by_name = any(name.startswith(CLASS_LAYERS) for name in loaded)
    return Initialized(loaded, new, unused, [name for name in classes if by_name and taken[name]])


def _match_classes(trained: Sequence[str], classes: Sequence[str]) -> dict[str, str | None]:
    """Return per class the one whose rows it takes: that of its name, or the one class of a class-agnostic model."""
    if list(trained) == [OBJECT]:
        return dict.fromkeys(classes, OBJECT)
    return {name: name if name in trained else None for name in classes}


def _fit_input_channels(weight: Tensor, own: Tensor) -> Tensor:
    """Return a model's own (out, in, h, w) weight, its input channels replaced as far as another weight has them."""
    if (len(weight), weight.shape[2:]) != (len(own), own.shape[2:]):
        return weight
    fitted, shared = own.clone(), min(weight.shape[1], own.shape[1])
    fitted[:, :shared] = weight[:, :shared]
    return fitted


def _fit_class_layers(
    weights: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    trained: Sequence[str],
    taken: Mapping[str, str | None],
) -> dict[str, Tensor]:
    """Return a model's own class layers, with the rows that others have for some classes.

    Every class has as many rows, e.g. four for the sides of its box. `taken` are, per class, the one whose rows it
    takes. Layers without a common class, and those with rows of another shape, are left out.
    """
    shared = {name: other for name, other in taken.items() if other is not None}
    fitted = {}
    for layer in (name for name in own if shared and name in weights and name.startswith(CLASS_LAYERS)):
        background = [""] if layer.startswith("roi_heads.") else []  # the first rows of torchvision's heads
        ours, theirs = [*background, *taken], [*background, *trained]
        rows = len(own[layer]) // len(ours)
        if weights[layer].shape == (rows * len(theirs), *own[layer].shape[1:]):
            fitted[layer] = own[layer].clone()
            by_class = fitted[layer].unflatten(0, (len(ours), rows))  # a view
            rows_of = weights[layer].unflatten(0, (len(theirs), rows))
            for name, other in (dict.fromkeys(background, "") | shared).items():
                by_class[ours.index(name)] = rows_of[theirs.index(other)]
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
    settings = read_start_settings(run)[1]
    own = {entry.name: settings[entry.name] for entry in fields(SemanticConfig) if entry.name in settings}
    return SemanticConfig(**own | {"weights": "none"})
