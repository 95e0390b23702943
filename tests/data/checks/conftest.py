"""A small dataset with real image files, into which each test puts issues."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from boxel.data.annotations import Annotations, Category


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.png and b.png of 100 x 80 pixels."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("a.png", "b.png"):
        Image.new("RGB", (100, 80), "gray").save(folder / name)
    return folder


@pytest.fixture(scope="session")
def make(photos: Path) -> Callable[..., Annotations]:
    """`make(boxes, segmentations=..., any column=...)`: instances 11, 12, ... are cats in a.png."""

    def make(
        boxes: Any = ((10, 10, 50, 40),), segmentations: list[Any] | None = None, **columns: Any
    ) -> Annotations:
        n = len(boxes)
        raw = np.empty(n, dtype=object)
        for i, segmentation in enumerate(segmentations or []):
            is_raw = segmentation is None or isinstance(segmentation, bytes)
            raw[i] = segmentation if is_raw else msgspec.json.encode(segmentation)
        columns = {
            "root": photos,
            "image_ids": [1, 2],
            "paths": ["a.png", "b.png"],
            "categories": (Category(7, "cat"), Category(9, "dog")),
            "ids": list(range(11, 11 + n)),
            "file": "set.json",
        } | columns
        arrays = {
            "widths": ([100] * len(columns["paths"]), np.int32),
            "heights": ([80] * len(columns["paths"]), np.int32),
            "image_index": ([0] * n, np.int32),
            "labels": ([0] * n, np.int32),
            "iscrowd": ([False] * n, bool),
        }
        for name, (default, dtype) in arrays.items():
            columns[name] = np.array(columns.get(name, default), dtype=dtype)
        return Annotations(
            boxes=np.array(boxes, dtype=np.float64).reshape(n, 4), segmentations=raw, **columns
        )

    return make
