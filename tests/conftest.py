"""What tests share."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from boxel.cli import main
from boxel.data import write
from boxel.data.synthetic import write_scenes


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos beside the repository; the test is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_boxinst() -> dict[str, Any]:
    """Options of a BoxInst that is made in a moment."""
    return {
        "backbone": "tf_efficientnet_lite0",
        "weights": "none",
        "neck_channels": 40,
        "head_convs": 1,
        "mask_convs": 1,
        "mask_channels": 40,
    }


@pytest.fixture(scope="session")
def tiny_boxcaseg() -> dict[str, Any]:
    """Settings of a BoxCaseg that trains in a moment."""
    return {
        "model": {
            "backbone": "resnet10t",
            "weights": "none",
            "neck": "top_down",
            "neck_channels": 16,
            "heads": ["shared"],
            "side": 64,
            "hint_weight": 1.0,
            "affinity_weight": 0.5,
        },
        "crops": {"side": 64},
        "data": {"workers": 0, "val_share": 0.0},
        "steps": 2,
        "batch_size": 4,
    }


@pytest.fixture(scope="session")
def tiny_fcrn() -> dict[str, Any]:
    """Settings of an FCRN, or of its localization network, that trains in a moment."""
    return {
        "model": {
            "backbone": "resnet10t",
            "weights": "none",
            "backbone_norm": "bn",
            "frozen_stages": 0,
            "kernel": 3,
            "dilation": 2,
            "min_kept": 64,
        },
        "views": {"crop": 64, "long_side": 96},
        "data": {"workers": 0, "val_share": 0.25},
        "optim": {"name": "adamw", "lr": 0.002, "reference_batch": 0},
        "steps": 4,
        "batch_size": 2,
    }


@pytest.fixture(scope="session")
def tiny_segmenter() -> dict[str, Any]:
    """Settings of a BoxSup, or of another segmenter of classes, that trains in a moment."""
    return {
        "model": {
            "backbone": "tf_efficientnet_lite0",
            "weights": "none",
            "backbone_norm": "bn",
            "output_stride": 16,
            "classifier": "dilated",
            "kernel": 3,
            "dilation": 1,
            "hidden": 0,
        },
        "views": {"crop": 64, "long_side": 96},
        "data": {"workers": 0, "val_share": 0},
        "optim": {"name": "adamw", "lr": 0.001, "reference_batch": 0},
        "batch_size": 2,
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def place(tiny_fcrn: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scenes (`scenes/masks.json`), the same as label maps (`maps/`), a recipe, and a run on the maps."""
    folder = tmp_path_factory.mktemp("place")
    scenes = write_scenes(folder / "scenes", 4, height=64, width=96)
    with pytest.warns(UserWarning, match="a semantic dataset has no instances"):
        write(scenes, folder / "maps", format="semantic")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tiny_fcrn))
    words = ["train", "fcrn", str(folder / "maps"), "--config", str(folder / "recipe.yaml")]
    assert main([*words, "--out", str(folder / "run")]) == 0
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A Chromium without a window; tests that need one are skipped without it, unless BOXEL_BROWSER demands it."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None and "BOXEL_BROWSER" not in os.environ:
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    flags = (
        "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
    )
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=flags.split())
        yield chromium
        chromium.close()
