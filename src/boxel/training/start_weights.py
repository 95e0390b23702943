"""Read what a training starts from: a run, a bundled model, or a detector of torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from boxel.data.annotations import Category
from boxel.models.io import find_not_finite, read_categories, read_config_file
from boxel.models.pretrained import BUNDLED, model_folder
from boxel.utils.errors import BoxelError, first_line, nearest, one_line

if TYPE_CHECKING:
    from torch import Tensor


class _Layers(NamedTuple):
    """Where the layers of a detector of torchvision are in one of our models."""

    method: str
    class_layer: str  # the weight with a row per class, by which the detectors differ
    renamed: dict[str, str]  # prefixes of torchvision's names, and ours


_RCNN = {"backbone.fpn.": "neck."}
_FCOS = {
    "backbone.fpn.": "neck.pyramid.",
    "head.classification_head.conv.": "head.class_tower.",
    "head.classification_head.cls_logits.": "head.classify.",
    "head.regression_head.conv.": "head.box_tower.",
    "head.regression_head.bbox_reg.": "head.regress.",
    "head.regression_head.bbox_ctrness.": "head.center.",
}

DETECTORS = {
    "maskrcnn_resnet50_fpn": _Layers("mask-rcnn", "roi_heads.mask_predictor.mask_fcn_logits.weight", _RCNN),
    "fasterrcnn_resnet50_fpn": _Layers("mask-rcnn", "roi_heads.box_predictor.cls_score.weight", _RCNN),
    "fcos_resnet50_fpn": _Layers("boxinst", "head.classification_head.cls_logits.weight", _FCOS),
}
"""The detectors of torchvision that a training can start from by name, with weights learned from COCO."""

TORCHVISION_SETTINGS = {"backbone": "resnet50.tv_in1k", "level_scale": 1.0}
"""Settings of our models that make them torchvision's, beside our defaults."""


class StartWeights(NamedTuple):
    """Weights to start from, with the names of our models."""

    source: str  # where they come from
    weights: dict[str, Tensor]
    categories: Sequence[Category]  # in the order of the rows of the class layers; empty if unknown


def is_backbone(init: str | Path) -> bool:
    """Return whether `init` names a network of timm, which is a backbone with ImageNet's weights.

    Examples:
        >>> is_backbone("resnet18.a1_in1k"), is_backbone("boxcaseg"), is_backbone("fcos_resnet50_fpn")
        (True, False, False)
    """
    if _is_detector(init) or model_folder(init).exists():
        return False
    import timm

    return timm.is_model(str(init))


def _is_detector(init: str | Path) -> bool:
    return str(init) in DETECTORS and not Path(init).exists()


def read_start_settings(init: str | Path) -> tuple[str, dict[str, Any]]:
    """Return the method and the settings of the model that a training starts from.

    Args:
        init: A run folder, a bundled model, a name in :data:`DETECTORS`, or a file with the state dict of one.

    Raises:
        BoxelError: It is none of these, or cannot be read.

    Examples:
        >>> read_start_settings("fcos_resnet50_fpn")[0], read_start_settings("boxcaseg")[0]
        ('boxinst', 'boxcaseg')
    """
    if _is_detector(init) or Path(init).is_file():
        name = str(init) if _is_detector(init) else _read_file(init)[0]
        return DETECTORS[name].method, dict(TORCHVISION_SETTINGS)
    if not (model_folder(init) / "config.yaml").is_file():
        raise _no_model(init, "it has no config.yaml")
    config = read_config_file(model_folder(init))
    return config["method"], dict(config["model"])


def read_start_weights(init: str | Path) -> StartWeights:
    """Read the weights that a training starts from; argument and errors as of :func:`read_start_settings`.

    Those of torchvision's detectors are downloaded, unless torchvision did so before.
    """
    if _is_detector(init):
        return from_torchvision(str(init), _download(str(init)), source=str(init))
    if Path(init).is_file():
        return from_torchvision(*_read_file(init), source=str(init))
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = model_folder(init)
    try:
        weights = load_file(folder / "model.safetensors")
        broken = find_not_finite(weights)
        if broken is not None:
            raise ValueError(f"{broken} in its model.safetensors has values that are not finite")
        return StartWeights(f"{folder}/model.safetensors", weights, read_categories(folder))
    except (OSError, ValueError, SafetensorError) as error:
        raise _no_model(init, error) from error


def from_torchvision(name: str, state: dict[str, Tensor], source: str) -> StartWeights:
    """Give the state dict of one of torchvision's detectors the names and the meaning that our models give them.

    Our models then predict what torchvision's do, except for boxes of FCOS that end within half a cell of their
    location. torchvision takes the corners of cells for their locations, and we the centers, so that our distances to
    the left and the top are half a cell longer, those to the right and the bottom shorter. Boxes of P6 and P7 also
    differ if 128 does not divide the sides of the padded image: torchvision's strides are then not 64 and 128.

    Args:
        name: One of :data:`DETECTORS`.
        state: Its weights; names of older versions of torchvision are known.
        source: Where they come from, for messages.

    Returns:
        The weights. With 91 classes they are those of COCO, from the background on, with gaps.

    Raises:
        BoxelError: The weights are those of another network.
    """
    import torch
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    from torchvision.models import get_model, get_model_weights

    method, class_layer, renamed = DETECTORS[name]
    rows = len(state[class_layer])
    with torch.device("meta"):  # no memory and no random numbers
        model = get_model(name, weights=None, weights_backbone=None, num_classes=rows)
    try:
        model.load_state_dict(state, assign=True)  # torchvision renames what it called otherwise once
    except RuntimeError as error:
        raise BoxelError(
            f"{source}: its weights do not fit torchvision's {name} ({one_line(error, 300)}); give those of "
            f"{' or '.join(DETECTORS)}."
        ) from error
    weights = {
        _rename(old, renamed): weight
        for old, weight in model.state_dict().items()
        if not old.endswith("num_batches_tracked")
    }
    for part, color in (("mean", IMAGENET_DEFAULT_MEAN), ("std", IMAGENET_DEFAULT_STD)):
        weights[f"backbone.{part}"] = torch.tensor(color).view(3, 1, 1)
    names = get_model_weights(name).COCO_V1.meta["categories"]
    from_coco = rows == len(names)
    if method == "boxinst":
        for layer in ("head.classify.weight", "head.classify.bias"):
            weights[layer] = weights[layer][1:]  # of the background, which FCOS never predicts
        weights["head.regress.bias"] = weights["head.regress.bias"] + torch.tensor([0.5, 0.5, -0.5, -0.5])
    elif from_coco:  # trained without an epsilon in the frozen norms of the backbone; ours is 1e-5
        for layer in (own for own in weights if own.endswith("running_var")):
            weights[layer] = weights[layer] - 1e-5
    categories = [Category(row, name) for row, name in enumerate(names)][1:] if from_coco else []
    return StartWeights(source, weights, categories)


def _rename(name: str, renamed: dict[str, str]) -> str:
    prefix = next((prefix for prefix in renamed if name.startswith(prefix)), "")
    return renamed.get(prefix, "") + name.removeprefix(prefix)


def _read_file(path: str | Path) -> tuple[str, dict[str, Tensor]]:
    """Read the state dict of one of torchvision's detectors; return the name of the detector and the weights."""
    from boxel.layers.weights import read_weights

    state = read_weights(path)
    name = next((name for name, layers in DETECTORS.items() if layers.class_layer in state), None)
    if name is None:
        raise BoxelError(
            f"{path}: these are not the weights of one of torchvision's detectors ({', '.join(DETECTORS)}); give a run "
            "folder, or set `model.weights` to a file of weights of the backbone."
        )
    return name, state


def _download(name: str) -> dict[str, Tensor]:
    """Return torchvision's weights of a detector, downloaded if they are not in torch's cache."""
    from torch.hub import get_dir
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).COCO_V1
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # the network, the disk and torch each fail in their own ways
        file = Path(get_dir(), "checkpoints", Path(weights.url).name)
        raise BoxelError(
            f"{name}: its weights cannot be loaded ({first_line(error)}); download {weights.url} to {file}, or name a "
            "run folder with `init`."
        ) from error


def _no_model(init: str | Path, error: object) -> BoxelError:
    return BoxelError(
        f"{init}: no model to start from ({error}); name the folder of a finished run, a detector of torchvision "
        f"({', '.join(DETECTORS)}) or a backbone of timm.{nearest(str(init), [*DETECTORS, *BUNDLED])}"
    )
