"""A model run by the fastest means that is installed."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from boxel.data.images import read_image
from boxel.data.samples import sample_images
from boxel.exporting.exporters import find_exporter
from boxel.exporting.fuse_conv_bn import folded
from boxel.exporting.trace import trace
from boxel.models.boxcaseg import BoxCaseg
from boxel.utils.errors import BoxelError

logger = logging.getLogger(__name__)


def fastest(model: Any, threads: int = 1) -> Any:
    """What finds the same as a model and takes less time.

    Args:
        model: in eval mode.
        threads: of onnxruntime for one batch; torch has its own setting.

    Returns:
        The same network run by onnxruntime, where that is installed, the model lies on the CPU and is of a kind that
        can be exported, and the two agree on a photo; else, of a BoxCaseg, a copy without batch norms; else the model.
        It stands for the model in :func:`~boxel.models.boxcaseg.inference.soft_masks` and
        :func:`~boxel.models.inference.predict_batch`.
    """
    exported = _by_onnxruntime(model, threads) if find_spec("onnxruntime") else None
    if exported is None and isinstance(model, BoxCaseg):
        return folded(model)
    return exported or model


def _by_onnxruntime(model: Any, threads: int) -> Any | None:
    kind = find_exporter(model)
    if kind is None or next(model.parameters()).device.type != "cpu":
        return None
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            trace(kind.graph(model).eval(), path)
            agreement = kind.check(model, path, [read_image(sample_images().image_path(0))])
            if not agreement.agrees:
                raise BoxelError(f"the two differ: {agreement}.")
            return kind.runtime(model, path, threads)
    except Exception as error:  # whatever there is about this backbone, torch runs it
        logger.info("onnxruntime does not run this model, torch does: %s", error)
        return None
