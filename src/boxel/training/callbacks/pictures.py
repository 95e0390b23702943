"""Pictures of a run: predictions on the same validation images after each validation, and the curves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

import lightning.pytorch as pl
import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.images import read_image
from boxel.training.lit_module import Task
from boxel.utils.errors import BoxelError
from boxel.viz.drawing import join_with_truth
from boxel.viz.output import contact_sheet, save_image
from boxel.viz.plots import plot_curves

NUM_IMAGES = 6  # per picture


def draw_samples(
    data: Annotations,
    draw: Callable[[NDArray[np.uint8], int], NDArray[np.uint8]],
    path: Path,
    columns: int = 3,
    cell: int = 400,
) -> None:
    """Draw on some images of a dataset, evenly spaced, by a function of (H, W, 3) RGB pixels and an index.

    The drawings are written as one, in cells of so many pixels; images that cannot be read are left out.
    """
    drawn = []
    for index in np.linspace(0, len(data) - 1, min(NUM_IMAGES, len(data))).round().astype(int).tolist():
        with suppress(BoxelError):  # reported where the image is trained or validated on
            drawn.append(draw(read_image(data.image_path(index)), index))
    if drawn:
        save_image(contact_sheet(drawn, columns, cell), path)


class SamplePictures(pl.Callback):
    """Draw predictions on some validation images beside the truth, in `samples/` of the run folder."""

    def __init__(self, folder: Path, data: Annotations):
        self.folder, self.data = folder, data

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write a picture, while the averaged weights, if any, are still in place."""
        if trainer.is_global_zero:
            path = self.folder / "samples" / f"step_{trainer.global_step:06d}.jpg"
            task = cast(Task, pl_module)

            def draw(image: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
                return join_with_truth(
                    task.truth_picture(self.data, image, index), task.picture(image, index)
                )

            draw_samples(self.data, draw, path, columns=2, cell=720)


class Curves(pl.Callback):
    """Plot `metrics.csv` of the run folder as `curves.png` after each validation."""

    def __init__(self, folder: Path):
        self.folder = folder

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Plot the curves so far."""
        metrics = self.folder / "metrics.csv"
        if trainer.is_global_zero and metrics.is_file():
            plot_curves(metrics, self.folder / "curves.png")
