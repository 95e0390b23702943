"""Write a trained model as an ONNX file that replaces it."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.onnx.symbolic_helper import parse_args

from boxel.data.images import read_image
from boxel.data.samples import sample_images
from boxel.data.synthetic import make_scene
from boxel.exporting.boxcaseg import BoxCasegGraph
from boxel.exporting.boxinst import BoxInstGraph
from boxel.exporting.check import InstanceCheck, LabelCheck, LogitCheck
from boxel.exporting.mask_rcnn import MaskRCNNGraph
from boxel.exporting.precision import to_float16, to_int8
from boxel.exporting.semantic import SegmenterGraph
from boxel.methods import METHODS, Method, resolve
from boxel.models.io import find_folder, load
from boxel.models.pretrained import ONNX_FILE, export_command, model_digests
from boxel.utils.errors import BoxelError, MissingExtraError, UsageError, first_line, missing_extra
from boxel.utils.files import atomic_path
from boxel.utils.onnx import Precision, load_session

logger = logging.getLogger(__name__)

NUM_IMAGES = 4
"""Images that a file is checked on by default."""

INT8_IMAGES = 20
"""Images from which the ranges of activations are known well enough."""

OPSET = 19
"""The first version of ONNX's operators with a deformable convolution."""

Graph: TypeAlias = BoxInstGraph | MaskRCNNGraph | BoxCasegGraph | SegmenterGraph


def export(
    source: str | Path | nn.Module,
    path: str | Path,
    images: Sequence[str | Path] | None = None,
    precision: Precision = "float32",
) -> InstanceCheck | LogitCheck | LabelCheck:
    """Write a trained model as an ONNX file, after checking on images that onnxruntime and torch agree.

    The file takes batches and images of any size. Its metadata states what else is needed to run it without boxel.

    Args:
        source: What :func:`boxel.load` takes, or a model.
        path: The file; its folder is created if needed.
        images: Image files to check it on; if None a few of installed packages, or generated ones without these.
        precision: Type of the trained layers. `float16` halves the file. `int8` quantizes by the ranges that
            activations have in `images`, which must then be given and be of the kind that the model will see.

    Returns:
        How closely the two agree.

    Raises:
        UsageError: `int8` without images.
        BoxelError: The model cannot be loaded or exported, the extra `onnx` is not installed, an image cannot be read,
            or the results differ. An existing file is kept.

    Examples:
        >>> from boxel.data import example_scenes
        >>> check = export("boxcaseg", example_scenes().root / "boxcaseg.onnx")
        >>> check.agrees
        True
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("an export", error, "onnx") from error
    if precision == "int8" and not images:
        raise UsageError(
            f"`precision` is int8 and there are no `images`; give {INT8_IMAGES} or more of the kind to predict on."
        )
    if precision == "int8" and len(images or ()) < INT8_IMAGES:
        logger.warning("int8 is calibrated on %d images; give %d or more", len(images or ()), INT8_IMAGES)
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        raise UsageError(f"{path}: exported files are known by their suffix; end the name in .onnx.")
    folder = find_folder(source) if isinstance(source, (str, Path)) else None
    model: Any = load(folder) if folder else deepcopy(source)
    graph = make_graph(model.cpu().eval())
    if graph is None:
        exported = ", ".join(name for name, method in METHODS.items() if method.exporter)
        raise BoxelError(f"{path}: a {type(model).__name__} cannot be exported; models of {exported} can.")
    pixels = [read_image(image) for image in images or sample_images().paths[:NUM_IMAGES]]
    pixels = pixels or [make_scene(seed=0, index=index)[0] for index in range(NUM_IMAGES)]

    with atomic_path(path) as file:
        try:
            trace(graph, file)
        except OSError:
            raise
        except Exception as error:  # an operator without a translation, a shape that cannot be traced
            raise BoxelError(
                f"{path}: the model cannot be exported ({first_line(error)}); train it with another backbone."
            ) from error
        if precision == "float16":
            to_float16(file)
        elif precision == "int8":
            to_int8(file, _record_inputs(graph, model, file, pixels))
        written = onnx.load(file)
        onnx.helper.set_model_props(written, describe(graph, folder) | {"precision": precision})
        onnx.save(written, file)
        check = graph.check(model, graph.runtime(model, file), pixels, precision)
        if not check.agrees:
            remedy = "try other versions of the two" if precision == "float32" else "choose another precision"
            raise BoxelError(f"{path} is not written: onnxruntime and torch differ ({check}); {remedy}.")
    return check


def _record_inputs(
    graph: Graph, model: Any, file: Path, images: Sequence[NDArray[np.uint8]]
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield what the graph's file is given when it is checked on images, one after another."""
    session, inputs = load_session(file), []

    class Recorder:
        """The session, which keeps its inputs."""

        get_inputs = session.get_inputs

        def run(self, names: Any, given: dict[str, NDArray[Any]]) -> Any:
            inputs.append(given)
            return session.run(names, given)

    runner = graph.runtime(model, Recorder())
    for image in images:
        graph.check(model, runner, [image])
        yield from inputs
        inputs.clear()


def export_beside(folder: Path) -> None:
    """Export a model to `ONNX_FILE` in its own folder, where it replaces PyTorch; log a sentence if it cannot be."""
    try:
        export(folder, folder / ONNX_FILE)
    except MissingExtraError:
        logger.info(
            "%s labels with PyTorch only, since onnx is not installed; pip install 'boxel[onnx]', then run `%s`",
            *(folder, export_command(folder)),
        )
    except BoxelError as error:
        logger.warning("%s", error)


def describe(graph: Graph, folder: Path | None) -> dict[str, str]:
    """Return the metadata of a graph's file: what is needed to run it, and digests of the model folder, if any."""
    about = {name: json.dumps(value) for name, value in graph.metadata().items()}
    digests = model_digests(folder) if folder else {}
    method = cast(Method, find_method(graph.model)).name
    return {"method": method, "boxel": version("boxel"), **digests, **about}


def make_graph(model: nn.Module) -> Graph | None:
    """Return the graph that a model is exported as, in eval mode; None if models of its type cannot be exported."""
    method = find_method(model)
    return None if method is None or method.exporter is None else resolve(method.exporter)(model).eval()


def find_method(model: nn.Module) -> Method | None:
    """Return the method of a model, by its type; None if no method has such models."""
    return next((method for method in METHODS.values() if type(model) is resolve(method.model)), None)


def trace(graph: Graph, path: Path, fold_norms: bool = True) -> None:
    """Write a graph in eval mode on the CPU with its weights; the dynamic axes of its inputs may then have any size.

    Without `fold_norms`, batch norms stay nodes of their own instead of being folded into the convolutions.
    """
    training = torch.onnx.TrainingMode
    torch.onnx.register_custom_op_symbolic("torchvision::deform_conv2d", _deform_conv2d, OPSET)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the check decides whether they matter
        torch.onnx.export(
            graph,
            graph.example(),
            str(path),
            # torch 2.4 has no other exporter that takes these graphs; that of torch 2.15 needs a minute for a small
            # BoxInst, and its file fails at some image sizes.
            dynamo=False,
            training=training.EVAL if fold_norms else training.PRESERVE,
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
    """Translate torchvision's operator to ONNX, which torch does not."""
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
