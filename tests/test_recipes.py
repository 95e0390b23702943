"""Every recipe trains two optimiser steps at a tiny size, and says what the paper says."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import boxel
from boxel.data import write
from boxel.data.annotations import Category
from boxel.data.formats.voc import CLASSES as VOC
from boxel.data.scenes import write_scenes
from boxel.errors import BoxelError
from boxel.layers.bifpn import BiFPN
from boxel.layers.deformable import ModulatedDeformConv2d
from boxel.models.boxinst import BoxInst
from boxel.training import train
from boxel.training.config import TrainConfig
from boxel.training.recipe import read_config
from boxel.training.schedule import lr_factor, plan

ROOT = Path(__file__).resolve().parents[1] / "recipes"
PAPER = sorted((ROOT / "boxinst").glob("*.yaml"))
ALL = [*sorted(ROOT.rglob("*.yaml")), Path(boxel.__file__).parent / "demo.yaml"]

SHRUNK = {
    "model.backbone": "resnet10t",
    "model.weights": "none",
    "model.backbone_norm": "bn",
    "model.neck_channels": 16,
    "model.head_convs": 1,
    "model.mask_convs": 1,
    "model.mask_channels": 16,
    "augment.max_size": 96,
    "data.workers": 0,
    "batch_size": 2,
    "optim.reference_batch": 0,  # two steps are two steps
    "steps": 2,
    "device": "cpu",
    "checkpoint_every": 2,
}
"""What makes a recipe small. Everything else in it stays as it is."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
