"""Make an exported file smaller: trained layers in float16 or as 8-bit integers.

What the graphs compute around the layers stays float32: float16 has steps of half a pixel from 512 on.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators with weights, which are nearly all of a file and of its time."""

BETWEEN = frozenset(
    {"Add", "AveragePool", "Clip", "Concat", "GlobalAveragePool", "MaxPool", "Relu", "Resize"}
)
"""Operators between layers, which need no conversion if they have the type of the layers."""


def to_float16(path: Path) -> None:
    """Convert the trained layers of a file, weights and activations; inputs and outputs stay float32.

    The converters of onnxruntime and onnxconverter-common pass the results of *all* nodes through float16, even of
    those that they are asked to leave alone.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = _simplify(path)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    floats = {name for name, tensor in weights.items() if tensor.data_type == TensorProto.FLOAT}
    for value in (*graph.value_info, *graph.input):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            floats.add(value.name)
    chosen = {node.name for node in _trained_nodes(model) if node.input[0] in floats}
    halves: set[str] = set()
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        if node.name not in chosen:
            continue
        # A name without a suffix stays that of the float32 tensor, for all other nodes.
        for place, name in enumerate(node.input):
            if name not in floats or (node.op_type == "Resize" and place > 0):  # scales are float32
                continue
            node.input[place] = half = f"{name}_half"
            if half not in halves and name in weights:
                limit = np.finfo(np.float16).max
                values = numpy_helper.to_array(weights[name]).clip(-limit, limit).astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(values, half))
            elif half not in halves:
                nodes.insert(
                    -1, helper.make_node("Cast", [name], [half], f"{half}_cast", to=TensorProto.FLOAT16)
                )
            halves.add(half)
        name = node.output[0]
        node.output[0] = half = f"{name}_half"
        halves.add(half)
        nodes.append(helper.make_node("Cast", [half], [name], f"{name}_cast", to=TensorProto.FLOAT))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    _drop_unused(model)
    onnx.save(model, path)


def to_int8(path: Path, inputs: Iterable[Mapping[str, NDArray[Any]]]) -> None:
    """Quantize the trained layers of a file, each channel on its own; activations by the ranges they have for inputs.

    Two kinds of layers stay float32, at the cost of few bytes: those whose results leave the trained modules, which
    would round scores and boxes, and those that are applied to several levels, which differ in their ranges;
    onnxruntime 1.32 aborts when it opens a file in which these are quantized.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """The inputs, in the form that onnxruntime asks for."""

        _inputs = iter(inputs)

        def get_next(self) -> Any:
            """Return the next inputs; None after the last."""
            return next(self._inputs, None)

    model = _simplify(path)
    trained = _trained_nodes(model)
    used_inside = {name for node in trained for name in node.input}
    uses = Counter(node.input[1] for node in trained if node.op_type in LAYERS)
    chosen = [
        node.name
        for node in trained
        if node.output[0] in used_inside and not (node.op_type in LAYERS and uses[node.input[1]] > 1)
    ]
    onnx.save(model, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it computes scales of all tensors, of infinite ones too
        quantize_static(
            *(path, path, Reader()),
            op_types_to_quantize=[*LAYERS, *BETWEEN],
            nodes_to_quantize=chosen,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,  # sums of more than 7 bits overflow on processors without VNNI
        )


def _simplify(path: Path) -> ModelProto:
    """Fold constants and infer types and shapes, as onnxruntime documents for files that are to be quantized."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(path, path, skip_symbolic_shape=True)  # that fails for NMS
    model = onnx.load(path)
    domains = {node.domain for node in model.graph.node}
    imports = [entry for entry in model.opset_import if entry.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    return model


def _trained_nodes(model: ModelProto) -> list[NodeProto]:
    """Return the nodes of trained modules, which torch names by the modules that they are in, e.g. `/neck/Add`."""
    return [
        node
        for node in model.graph.node
        if node.op_type in LAYERS | BETWEEN
        and node.name.count("/") > 1
        and not node.name.startswith("/anchor_generator/")
    ]


def _drop_unused(model: ModelProto) -> None:
    """Drop casts and weights whose results nothing uses."""
    graph = model.graph
    used = {value.name for value in graph.output}
    for node in graph.node:
        inner = [own for attribute in node.attribute for own in attribute.g.node]
        used.update(name for one in (node, *inner) for name in one.input)
    nodes = [node for node in graph.node if node.op_type != "Cast" or node.output[0] in used]
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
