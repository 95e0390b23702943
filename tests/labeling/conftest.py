"""Small images with one disc each, and what is logged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxel.data import Annotations, write
from boxel.data.annotations import Category
from boxel.data.formats.builder import Builder

collect_ignore = ["killed_job.py"]  # a script that a test runs

MakeSet = Callable[..., Annotations]


@pytest.fixture
def make_set(tmp_path: Path) -> MakeSet:
    """A function of the number of images; it writes ``set/boxes.json`` and returns what is in it.

    Image k is 60 x 40 pixels with a disc of radius 8 + k % 5 about (30, 20), and has two boxes: that of the disc and
    the upper left quarter of the image.
    """

    def make(count: int) -> Annotations:
        folder = tmp_path / "set"
        folder.mkdir(exist_ok=True)
        rows = Builder()
        y, x = np.mgrid[:40, :60] + 0.5
        for k in range(count):
            radius = 8 + k % 5
            pixels = np.where(np.hypot(x - 30, y - 20)[..., None] < radius, (210, 40, 30), (30, 60, 190))
            noise = np.random.default_rng(k).integers(-20, 20, pixels.shape)
            Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{k}.png")
            image = rows.add_image(k + 1, f"{k}.png", 60, 40)
            rows.add(2 * k + 1, image, 0, (30 - radius, 20 - radius, 30 + radius, 20 + radius))
            rows.add(2 * k + 2, image, 1, (0, 0, 30, 20))
        data = rows.build(folder, [Category(3, "disc"), Category(9, "corner")], folder / "boxes.json")
        write(data, folder / "boxes.json")
        return data

    return make


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """The sentences that boxel logs, in order."""
    sentences: list[str] = []
    handler, logger = logging.Handler(), logging.getLogger("boxel")
    handler.emit = lambda record: sentences.append(record.getMessage())  # type: ignore[method-assign]
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield sentences
    logger.removeHandler(handler)
    logger.setLevel(level)
