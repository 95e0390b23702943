"""The exporters of the models that can be written as ONNX files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from boxel.exporting.boxcaseg import BoxCasegGraph
from boxel.exporting.boxinst import BoxInstGraph
from boxel.exporting.check import check_boxcaseg, check_boxinst
from boxel.methods import METHODS, resolve
from boxel.models.onnx import OnnxBoxCaseg, OnnxBoxInst


@dataclass(frozen=True)
class Exporter:
    """How models of one method are exported.

    Attributes:
        method: The method's name.
        graph: Makes the module to be traced from a model.
        check: Compares an exported file with its model on images.
        runtime: Runs an exported file like its model.
    """

    method: str
    graph: Callable[[Any], Any]
    check: Callable[..., Any]
    runtime: Callable[..., Any]


BOXINST = Exporter("boxinst", BoxInstGraph, check_boxinst, OnnxBoxInst)
BOXCASEG = Exporter("boxcaseg", BoxCasegGraph, check_boxcaseg, OnnxBoxCaseg)


def find_exporter(model: nn.Module) -> Exporter | None:
    """Return the exporter of a model, or None if models of its type cannot be exported."""
    for method in METHODS.values():
        if method.exporter is not None and type(model) is resolve(method.model):
            return resolve(method.exporter)
    return None
