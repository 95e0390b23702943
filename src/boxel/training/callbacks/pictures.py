"""Pictures of a run: predictions on the same validation images after each validation, and the curves."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import numpy as np

from boxel.data.annotations import Annotations
from boxel.data.images import read_image
from boxel.utils.errors import BoxelError
from boxel.viz.overlays import contact_sheet, save_image
from boxel.viz.plots import plot_curves


class SamplePictures(pl.Callback):
    """SeededIndex predictions on some validation images.

    Args:
        folder: The run folder; the pictures go to `samples/`.
        data: The validation data.
        count: Images per picture.
    """

    def __init__(self, folder: Path, data: Annotations, count: int = 6):
        self.folder, self.data = folder, data
        self.chosen = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write a picture, while the averaged weights, if any, are still in place."""
        if not trainer.is_global_zero:
            return
        drawn = []
        for index in self.chosen:
            try:
                image = read_image(self.data.image_path(int(index)))
            except BoxelError:
                continue  # the validation has reported it
            drawn.append(pl_module.picture(image, int(index)))  # type: ignore[operator]
        if drawn:
            path = self.folder / "samples" / f"step_{trainer.global_step:06d}.jpg"
            path.parent.mkdir(exist_ok=True)
            save_image(contact_sheet(drawn, columns=3, cell=400), path)


class Curves(pl.Callback):
    """Plot losses and metrics after each validation and at the end.

    Args:
        folder: The run folder, in which `metrics.csv` becomes `curves.png`.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Plot the curves so far."""
        self._plot(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Plot the complete curves."""
        self._plot(trainer)

    def _plot(self, trainer: pl.Trainer) -> None:
        metrics = self.folder / "metrics.csv"
        if trainer.is_global_zero and metrics.is_file():
            plot_curves(metrics, self.folder / "curves.png")
