"""Tiny models whose random weights find and draw something, and a real photo."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from boxel.data.annotations import Category
from boxel.models.boxcaseg import BoxCaseg, BoxCasegConfig
from boxel.models.boxinst import BoxInst, BoxInstConfig
from boxel.models.io import build as build_model
from boxel.models.mask_rcnn import MaskRCNN, MaskRCNNConfig
from boxel.models.semantic.model import Segmenter


@pytest.fixture(scope="session")
def onnx_installed() -> None:
    """Skips what needs the extra `onnx` where it is not installed."""
    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'boxel[onnx]'")


@pytest.fixture(scope="session")
def pixels() -> NDArray[np.uint8]:
    """(300, 451, 3) of a cat."""
    return skimage.data.chelsea()


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory, pixels: NDArray[np.uint8]) -> Path:
    """A file of these pixels."""
    path = tmp_path_factory.mktemp("photo") / "street.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="session")
def boxinst(tiny_boxinst: dict[str, Any]) -> Callable[..., BoxInst]:
    """A function of options; the model's photos have a shorter side of 96 pixels, and a longer one up to 160."""

    tiny = tiny_boxinst | {"backbone": "resnet10t", "backbone_norm": "bn"}

    def build(classes: int = 3, **options: Any) -> BoxInst:
        torch.manual_seed(0)
        model = BoxInst(classes, BoxInstConfig(**tiny | options)).eval()
        # As if trained: scores, boxes and masks that differ from place to place.
        for part, spread, bias in (("classify", 0.3, -1.0), ("regress", 0.1, 4.0), ("controller", 0.2, 0.0)):
            layer = getattr(model.head, part)
            nn.init.normal_(layer.weight, std=spread)
            nn.init.constant_(layer.bias, bias)
        model.categories = tuple(Category(3 * k + 1, f"thing {k}") for k in range(classes))
        model.settings = {"augment": {"short_sides": [96], "max_size": 160}}
        return model

    return build


@pytest.fixture(scope="session")
def boxcaseg(tiny_boxcaseg: dict[str, Any]) -> Callable[..., BoxCaseg]:
    """A function of options; by default one head and a small backbone, which sees the box."""
    tiny = tiny_boxcaseg["model"] | {"box_channel": True}

    def build(**options: Any) -> BoxCaseg:
        torch.manual_seed(0)
        return BoxCaseg(BoxCasegConfig(**tiny | options)).eval()

    return build


@pytest.fixture(scope="session")
def segmenter(tiny_segmenter: dict[str, Any]) -> Callable[..., Segmenter]:
    """A function of a method and options; the longer side of the model's photos has 96 pixels."""
    tiny = tiny_segmenter["model"]

    def build(method: str, **options: Any) -> Segmenter:
        torch.manual_seed(0)
        model: Any = build_model(method, 4, tiny | options).eval()
        # As if trained: scores that differ from place to place.
        nn.init.normal_(model.network.classifier.scores.weight, std=0.3)
        model.categories = tuple(Category(3 * k, f"class {k}") for k in range(4))
        model.settings = {"views": {"long_side": 96}}
        return model

    return build


@pytest.fixture(scope="session")
def mask_rcnn() -> Callable[..., MaskRCNN]:
    """A function of options; the model's photos have a shorter side of 96 pixels, and a longer one up to 160."""
    tiny = {"backbone": "resnet10t", "weights": "none", "backbone_norm": "bn", "neck_channels": 16}
    tiny |= {
        "box_channels": 32,
        "mask_convs": 1,
        "mask_channels": 16,
        "proposals": 60,
        "score_threshold": 0.2,
    }

    def build(classes: int = 3, **options: Any) -> MaskRCNN:
        torch.manual_seed(0)
        model = MaskRCNN(classes, MaskRCNNConfig(**tiny | options)).eval()
        # As if trained: scores, boxes and masks that differ from place to place.
        for part, spread in (
            ("rpn.head.cls_logits", 1.0),
            ("rpn.head.bbox_pred", 0.1),
            ("roi_heads.box_predictor.cls_score", 2.0),
            ("roi_heads.box_predictor.bbox_pred", 1.0),
            ("roi_heads.mask_predictor.mask_fcn_logits", 1.0),
        ):
            nn.init.normal_(model.get_submodule(part).weight, std=spread)
        model.categories = tuple(Category(3 * k + 1, f"thing {k}") for k in range(classes))
        model.settings = {"augment": {"short_sides": [96], "max_size": 160}}
        return model

    return build
