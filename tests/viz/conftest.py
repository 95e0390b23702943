"""Labeled sets made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from boxel.data import Annotations, Category
from boxel.data.formats.builder import Builder
from boxel.masks.rle import encode_in_box

WIDTH, HEIGHT = 200, 160

MakeSet = Callable[..., Annotations]


@pytest.fixture
def make_set(tmp_path: Path) -> MakeSet:
    """A function of rows, which makes a labeled set and its images.

    A row is ``(image, label, box, quality, source, trusted)``; quality -1 stands for a box without a mask. A mask is
    the box but for a pixel on each side. Images are gray, `WIDTH` x `HEIGHT`, and named ``0.png``, ``1.png``.
    """

    def make(rows, categories=("cat", "dog", "bird"), images=2):
        folder = tmp_path / "set"
        folder.mkdir(exist_ok=True)
        builder = Builder()
        for k in range(images):
            Image.new("RGB", (WIDTH, HEIGHT), (128, 128, 128)).save(folder / f"{k}.png")
            builder.add_image(k + 1, f"{k}.png", WIDTH, HEIGHT)
        for k, (image, label, box, quality, source, trusted) in enumerate(rows):
            x0, y0, x1, y1 = box
            mask = np.ones((y1 - y0 - 2, x1 - x0 - 2), dtype=bool)
            code = msgspec.json.encode(encode_in_box(mask, x0 + 1, y0 + 1, HEIGHT, WIDTH))
            builder.add(
                100 + k, image, label, box, None if quality == -1 else code, False, quality, source, trusted
            )
        kinds = [Category(k + 1, name) for k, name in enumerate(categories)]
        return builder.build(folder, kinds, folder / "masks.json")

    return make


SMALL, MEDIUM, LARGE = (10, 10, 20, 20), (40, 20, 72, 52), (60, 30, 156, 126)
"""Boxes of 10 x 10, 32 x 32 and 96 x 96 pixels: the latter two just so large as their size begins."""


@pytest.fixture
def hand_made(make_set: MakeSet) -> Annotations:
    """Six boxes with four masks, and a crowd with one.

    cat: 0.3 (not trusted), 0.9 and one of unknown quality; dog: 0.75 and a box; bird: a box.
    """
    data = make_set(
        [
            (0, 0, SMALL, 0.3, "cut", False),
            (0, 0, MEDIUM, 0.9, "cut", True),
            (0, 0, LARGE, float("nan"), None, True),
            (1, 1, MEDIUM, 0.75, "net", True),
            (1, 1, SMALL, -1, None, True),
            (1, 2, LARGE, -1, None, True),
            (1, 1, LARGE, 0.1, "cut", True),
        ]
    )
    data.iscrowd[-1] = True
    return data
