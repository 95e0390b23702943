"""A model run by the fastest means that is installed."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from boxel.exporting.boxcaseg import BoxCasegGraph
from boxel.exporting.trace import trace
from boxel.models.boxcaseg import BoxCaseg
from boxel.models.boxcaseg.predict import Segmenter
from boxel.models.runtime import OnnxBoxCaseg

logger = logging.getLogger(__name__)


def fastest(model: BoxCaseg, threads: int = 1) -> Segmenter:
    """A BoxCaseg for :func:`~boxel.models.boxcaseg.predict.soft_masks`.

    Args:
        model: in eval mode.
        threads: of onnxruntime for one batch; torch has its own setting.

    Returns:
        The same network run by onnxruntime, where that is installed and the model lies on the CPU; else the model.
    """
    if model.backbone.mean.device.type != "cpu" or find_spec("onnxruntime") is None:
        return model
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder, "boxcaseg.onnx")
            trace(BoxCasegGraph(model).eval(), path)
            return OnnxBoxCaseg(model, path, threads)
    except Exception as error:  # whatever there is about this backbone, torch runs it
        logger.info("onnxruntime does not run this model, torch does: %s", error)
        return model
