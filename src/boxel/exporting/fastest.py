"""A model run by the fastest means that is installed."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from boxel.exporting.boxcaseg import BoxCasegGraph
from boxel.exporting.boxinst import BoxInstGraph
from boxel.exporting.trace import trace
from boxel.models.boxcaseg import BoxCaseg
from boxel.models.boxinst import BoxInst
from boxel.models.runtime import OnnxBoxCaseg, OnnxBoxInst

logger = logging.getLogger(__name__)

_BY_ONNX: dict[type, tuple[Any, Any]] = {
    BoxCaseg: (BoxCasegGraph, OnnxBoxCaseg),
    BoxInst: (BoxInstGraph, OnnxBoxInst),
}


def fastest(model: Any, threads: int = 1) -> Any:
    """What finds the same as a model and takes less time.

    Args:
        model: in eval mode.
        threads: of onnxruntime for one batch; torch has its own setting.

    Returns:
        The same network run by onnxruntime, where that is installed, the model lies on the CPU and is of a kind that
        can be exported; else the model. It stands for the model in
        :func:`~boxel.models.boxcaseg.predict.soft_masks` and :func:`~boxel.models.predict.predict_batch`.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    if type(model) not in _BY_ONNX or not on_cpu or find_spec("onnxruntime") is None:
        return model
    graph, runtime = _BY_ONNX[type(model)]
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            trace(graph(model).eval(), path)
            return runtime(model, path, threads)
    except Exception as error:  # whatever there is about this backbone, torch runs it
        logger.info("onnxruntime does not run this model, torch does: %s", error)
        return model
