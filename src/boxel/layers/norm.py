"""Group norm, and the exchange of the batch norms of a built network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, GroupNormAct, convert_sync_batchnorm
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision.ops import FrozenBatchNorm2d

from boxel.layers.types import Norm
from boxel.utils.errors import BoxelError, nearest


def group_norm(channels: int) -> nn.GroupNorm:
    """Create a group norm (Wu and He 2018) of 32 groups, or of the next lower number that divides the channels.

    A group has two channels or more: one has nothing to normalize over if a feature map is a single pixel.

    Args:
        channels: Channels of the feature map.

    Examples:
        >>> group_norm(48).num_groups
        24
    """
    most = min(32, max(channels // 2, 1))
    groups = max(number for number in range(1, most + 1) if channels % number == 0)
    return nn.GroupNorm(groups, channels)


def exchange_batch_norm(module: nn.Module, kind: Norm) -> nn.Module:
    """Replace every batch norm of a module; learned scales and shifts are kept.

    Args:
        module: Changed in place (returned because the module itself may be a batch norm).
        kind: ``"bn"`` changes nothing. ``"gn"`` keeps scale and shift but has no running statistics, so the features of
            pretrained weights change: train all stages then, or use a network that was trained with group norm.

    Returns:
        The module with its normalization replaced.

    Raises:
        BoxelError: The kind is unknown.

    Examples:
        >>> type(exchange_batch_norm(nn.Sequential(nn.BatchNorm2d(4)), "gn")[0]).__name__
        'GroupNorm'
    """
    if kind not in get_args(Norm):
        raise BoxelError(
            f"norm {kind!r} is unknown; choose one of {', '.join(get_args(Norm))}.{nearest(kind, [*get_args(Norm)])}"
        )
    if kind == "frozen_bn":
        return _replace_batch_norms(module, FrozenBatchNorm2dAct)
    if kind == "sync_bn":
        return convert_sync_batchnorm(module)
    if kind == "gn":
        return _replace_batch_norms(module, _to_group_norm)
    return module


def synchronize_heads(model: nn.Module) -> None:
    """Let the batch norms of all parts of a model but its `backbone` have statistics over all devices.

    Examples:
        >>> model = nn.ModuleDict({"backbone": nn.BatchNorm2d(4), "head": nn.BatchNorm2d(4)})
        >>> synchronize_heads(model)
        >>> [type(part).__name__ for part in model.values()]
        ['BatchNorm2d', 'SyncBatchNorm']
    """
    for name, part in model.named_children():
        if name != "backbone":
            model.add_module(name, exchange_batch_norm(part, "sync_bn"))


class FrozenBatchNorm2dAct(FrozenBatchNorm2d):
    """Frozen batch norm as one kernel, with the activation that follows it.

    Those of torchvision and timm multiply and add in two passes over the feature map, which took a quarter of a
    training step on CPU.
    """

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__(norm.num_features, norm.eps)
        for name in ("weight", "bias", "running_mean", "running_var"):
            if getattr(norm, name) is not None:
                getattr(self, name).copy_(getattr(norm, name).detach())
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """Normalize feature maps; the shape stays."""
        learns = x.requires_grad and not torch.jit.is_tracing()
        normalize = _FrozenBatchNorm.apply if learns else F.batch_norm
        x = normalize(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return self.act(self.drop(x))


class _FrozenBatchNorm(torch.autograd.Function):
    """Batch norm of fixed statistics, scale and shift, which keeps no feature map for its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        ctx.save_for_backward(weight * (var + rest[-1]).rsqrt())
        return F.batch_norm(x, mean, var, weight, *rest)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (grad * ctx.saved_tensors[0][:, None, None]).to(grad.dtype), *[None] * 7


def _replace_batch_norms(module: nn.Module, replace: Callable[[nn.BatchNorm2d], nn.Module]) -> nn.Module:
    if isinstance(module, nn.BatchNorm2d):
        return replace(module)
    for name, child in module.named_children():
        setattr(module, name, _replace_batch_norms(child, replace))
    return module


def _to_group_norm(old: nn.BatchNorm2d) -> nn.Module:
    norm = group_norm(old.num_features)
    if isinstance(old, BatchNormAct2d):  # timm's batch norm includes the activation that follows it
        norm = GroupNormAct(old.num_features, norm.num_groups)
        norm.drop, norm.act = old.drop, old.act
    norm.eps = old.eps
    if old.affine:
        norm.weight, norm.bias = old.weight, old.bias
    return norm
