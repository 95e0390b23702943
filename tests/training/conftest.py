"""A dataset and a model so small that a training takes a second or two."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from boxel.data import Annotations
from boxel.data.synthetic import write_scenes

_SETTINGS: dict[str, Any] = {
    "model": {
        "backbone": "tf_efficientnet_lite0",
        "weights": "none",
        "backbone_norm": "bn",
        "frozen_stages": 0,
        "neck_channels": 64,
        "head_convs": 1,
        "mask_convs": 1,
        "mask_channels": 16,
        "max_instances": 4,
        # All detections are kept, so that even an untrained network has metrics to compare.
        "score_threshold": 0.0,
        "max_detections": 5,
    },
    "augment": {"short_sides": [64], "max_size": 96},
    "data": {"workers": 0, "val_share": 0.25},
    "optim": {"name": "adamw", "lr": 0.001, "reference_batch": 0},
    "schedule": {"warmup": 2},
    "batch_size": 2,
    "steps": 6,
    "device": "cpu",
}


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Annotations:
    """Eight scenes of 96 x 64 with masks; `boxes.json` and `masks.json` are beside the folder of the images."""
    return write_scenes(tmp_path_factory.mktemp("scenes"), 8, height=64, width=96)


@pytest.fixture
def tiny() -> dict[str, Any]:
    """Settings of a training of six steps."""
    return copy.deepcopy(_SETTINGS)


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder for the candidate segments, shared by a module's trainings."""
    return str(tmp_path_factory.mktemp("segments"))


@pytest.fixture
def tiny_boxsup(tiny_segmenter: dict[str, Any], segments: str) -> dict[str, Any]:
    """Settings of a training of eight steps with updates before the first and the fifth."""
    own = {"label": "segments", "segments": {"count": 20}, "epochs": 2, "segments_folder": segments}
    return copy.deepcopy(tiny_segmenter) | own


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"
