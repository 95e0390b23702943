"""Sessions of onnxruntime on the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from boxel.utils.errors import BoxelError, first_line

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Precision: TypeAlias = Literal["float32", "float16", "int8"]
"""The type of the weights and activations of an exported file."""


def load_session(path: str | Path | InferenceSession, threads: int = 1) -> InferenceSession:
    """Open an ONNX file for inference on the CPU, with some threads per call; several threads may call the session.

    A session, or what runs like one, is returned as it is.
    """
    if not isinstance(path, (str, Path)):
        return path
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # for what it does while it is imported
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Waiting threads sleep: spinning takes the cores of the other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only; warnings concern those who write exporters
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # a missing or damaged file, an operator that this version lacks
        raise BoxelError(
            f"{path}: onnxruntime {onnxruntime.__version__} cannot run this file ({first_line(error)}); export it "
            "again, or pip install --upgrade onnxruntime."
        ) from error
