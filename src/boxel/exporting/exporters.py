"""The kinds of models that can be exported, and what belongs to each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from boxel.exporting.boxcaseg import BoxCasegGraph
from boxel.exporting.boxinst import BoxInstGraph
from boxel.exporting.check import check_boxcaseg, check_boxinst
from boxel.models.boxcaseg import BoxCaseg
from boxel.models.boxinst import BoxInst
from boxel.models.onnx import OnnxBoxCaseg, OnnxBoxInst


@dataclass(frozen=True)
class Kind:
    """What belongs to a kind of model.

    Attributes:
        method: its name in recipes.
        graph: makes the module that is traced, of a model.
        check: compares an exported file with its model on photos.
        runtime: runs a file in the place of its model.
    """

    method: str
    graph: Callable[[Any], Any]
    check: Callable[..., Any]
    runtime: Callable[..., Any]


KINDS: dict[type[nn.Module], Kind] = {
    BoxInst: Kind("boxinst", BoxInstGraph, check_boxinst, OnnxBoxInst),
    BoxCaseg: Kind("boxcaseg", BoxCasegGraph, check_boxcaseg, OnnxBoxCaseg),
}
