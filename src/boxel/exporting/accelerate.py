"""Run a model by the fastest means that is installed."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from boxel.data.synthetic import make_scene
from boxel.exporting.onnx import make_graph, trace
from boxel.utils.errors import BoxelError

logger = logging.getLogger(__name__)


def accelerate(model: Any, threads: int = 1) -> Any:
    """Return a model in eval mode as run by onnxruntime with some threads, or itself if that is not possible.

    It is possible if the model is on the CPU and can be exported, and the two agree on an image. The runner has the
    model's `soft_masks`, or replaces the model in :func:`~boxel.models.inference.predict_batch`.
    """
    graph = make_graph(model)
    if graph is None or next(model.parameters()).device.type != "cpu":
        return model
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            trace(graph, path)
            runner = graph.runtime(model, path, threads)
            check = graph.check(model, runner, [make_scene(seed=0, index=0)[0]])
            if not check.agrees:
                raise BoxelError(f"the two differ: {check}.")
            return runner
    except Exception as error:  # whatever is special about this backbone, torch runs it
        logger.info("torch runs this model, since onnxruntime cannot: %s", error)
        return model
