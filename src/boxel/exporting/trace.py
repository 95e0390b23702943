"""A graph of modules written as an ONNX file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch.onnx.symbolic_helper import parse_args

from boxel.exporting.boxcaseg import BoxCasegGraph
from boxel.exporting.boxinst import BoxInstGraph

OPSET = 19
"""The first version of ONNX's operators with a deformable convolution."""


def trace(graph: BoxInstGraph | BoxCasegGraph, path: Path) -> None:
    """Write a graph, whose trained values go into the file, and whose inputs may then be of any number and size.

    Args:
        graph: in eval mode, on the CPU.
        path: of the file.
    """
    torch.onnx.register_custom_op_symbolic("torchvision::deform_conv2d", _deform_conv2d, OPSET)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whether they meant anything is for a check to tell
        torch.onnx.export(
            graph,
            graph.example(),
            str(path),
            # torch 2.4 has no other exporter that takes these graphs; that of torch 2.15 needs a minute for a small
            # BoxInst, and what it writes fails at some sizes of images.
            dynamo=False,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes=graph.inputs | graph.outputs,
        )


@parse_args("v", "v", "v", "v", "v", *"iiiiiiii", "b")
def _deform_conv2d(
    g: Any,
    x: Any,
    weight: Any,
    offset: Any,
    mask: Any,
    bias: Any,
    stride_y: int,
    stride_x: int,
    pad_y: int,
    pad_x: int,
    dilation_y: int,
    dilation_x: int,
    groups: int,
    offset_groups: int,
    modulated: bool,
) -> Any:
    """torchvision's operator in terms of ONNX; torch does not know how."""
    return g.op(
        "DeformConv",
        *(x, weight, offset, bias),
        *([mask] if modulated else []),
        strides_i=[stride_y, stride_x],
        pads_i=[pad_y, pad_x] * 2,
        dilations_i=[dilation_y, dilation_x],
        group_i=groups,
        offset_group_i=offset_groups,
    )
