"""Run a model by the fastest means that is installed."""

from __future__ import annotations

import logging
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils.fusion import fuse_conv_bn_eval

from boxel.data.images import read_image
from boxel.data.samples import sample_images
from boxel.exporting.onnx import make_graph, trace
from boxel.models.boxcaseg import BoxCaseg
from boxel.utils.errors import BoxelError

logger = logging.getLogger(__name__)


def accelerate(model: Any, threads: int = 1) -> Any:
    """Return a faster runner with the same results as a model.

    Args:
        model: In eval mode.
        threads: Threads of onnxruntime per batch; torch has its own setting.

    Returns:
        The network run by onnxruntime if it is installed, the model is on the CPU and can be exported, and the two
        agree on an image; else a BoxCaseg without batch norms, or the model. It replaces the model in
        :func:`~boxel.models.boxcaseg.inference.soft_masks` and :func:`~boxel.models.inference.predict_batch`.
    """
    exported = _run_by_onnxruntime(model, threads) if find_spec("onnxruntime") else None
    if exported is None and isinstance(model, BoxCaseg):
        return fuse_batch_norms(model)
    return exported or model


def _run_by_onnxruntime(model: Any, threads: int) -> Any | None:
    graph = make_graph(model)
    if graph is None or next(model.parameters()).device.type != "cpu":
        return None
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            trace(graph, path)
            runner = graph.runtime(model, path, threads)
            check = graph.check(model, runner, [read_image(sample_images().image_path(0))])
            if not check.agrees:
                raise BoxelError(f"the two differ: {check}.")
            return runner
    except Exception as error:  # whatever is special about this backbone, torch runs it
        logger.info("torch runs this model, since onnxruntime cannot: %s", error)
        return None


@torch.inference_mode()
def fuse_batch_norms(model: BoxCaseg) -> BoxCaseg:
    """Return a copy of a model whose batch norms are fused into the convolutions before them.

    The convolution of each norm is found by running the copy on a crop, independent of their names in the backbone.

    Args:
        model: In eval mode.
    """
    copy = deepcopy(model)
    outputs: list[tuple[Tensor, nn.Conv2d]] = []
    conv_of: dict[nn.BatchNorm2d, nn.Conv2d] = {}

    def record(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            outputs.append((output, module))
        elif isinstance(module, nn.BatchNorm2d):
            for result, conv in outputs:
                if result is inputs[0]:
                    conv_of[module] = conv

    side, device = 64, next(copy.parameters()).device
    inside = torch.ones(1, side, dtype=torch.bool, device=device)
    with register_module_forward_hook(record):
        copy.predict_logits(torch.zeros(1, 3, side, side, device=device), inside, inside)

    fused: dict[nn.Module, nn.Module] = {}
    for norm, conv in conv_of.items():
        fused[conv] = fuse_conv_bn_eval(conv, norm)
        fused[norm] = getattr(norm, "act", nn.Identity())  # timm's norms have an activation in them
    for parent in list(copy.modules()):
        for name, child in list(parent.named_children()):
            if child in fused:
                setattr(parent, name, fused[child])
    return copy
