"""Training of BoxSup: the labels are guessed anew from epoch to epoch, by what the network has learned so far."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.images import read_image
from boxel.data.label_maps import has_background
from boxel.data.transforms import RandomScaleCrop
from boxel.models.boxsup import BoxSupDataset, choose, costs
from boxel.models.boxsup.dataset import NONE
from boxel.models.semantic.inference import predict_probabilities, semantic_inference_config
from boxel.proposals import make_candidates
from boxel.training.callbacks.progress import say
from boxel.training.config import SEGMENTS, BoxSupTraining
from boxel.training.lit_module import from_all_processes
from boxel.training.loader import Samples
from boxel.training.prepare import repeats_of
from boxel.training.semantic import SemanticTask, crops_of
from boxel.utils.errors import BoxelError
from boxel.utils.progress import progress
from boxel.viz.overlays import contact_sheet, overlay_labels, save_image

SHOWN = 6
"""Images on the picture of an update."""

LEAST = 1e-6
"""The least probability a class is taken to have, so that a pixel costs 14 at most."""


def guessed_views(
    training: Annotations, extra: Annotations | None, settings: Any, out: Path, model: Any
) -> Samples:
    """Random squares of images, with the class that each pixel is guessed to have.

    Args:
        training: the set.
        extra: the same instances with masks that are candidates too, or None.
        settings: the run's.
        out: the run's folder, for the candidate segments unless they have one of their own.
        model: that is trained.
    """
    dataset = BoxSupDataset(
        training,
        Path(settings.segments_folder or out / "segments"),
        settings.segments if settings.label == SEGMENTS else None,
        RandomScaleCrop(settings.views, model.padding_color.detach().clone()),
        more=extra,
    )
    repeats = repeats_of(training, settings.mask_share)
    if (repeats > 1).any():
        say("%d images with given masks are shown %d times an epoch", (repeats > 1).sum(), repeats.max())
    return crops_of(dataset, settings, model, repeats)


class BoxSupTask(SemanticTask):
    """Steps, validations and updates of BoxSup.

    Attributes:
        updates: how many were made.
    """

    config: BoxSupTraining

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.updates = 0

    def on_train_start(self) -> None:
        """Make the candidate segments that are not there, and the first update."""
        self._make_segments()
        self._update_if_due()

    def on_train_batch_end(self, *args: Any) -> None:
        """Make the update that is due after an epoch."""
        self._update_if_due()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the present choices with the weights."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["updates"], checkpoint["choices"] = self.updates, self.dataset.choices.clone()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the choices of then.

        Raises:
            BoxelError: the data set has another number of instances.
        """
        if len(checkpoint["choices"]) != len(self.dataset.choices):
            raise BoxelError(
                f"{self.dataset.data.file}: {len(self.dataset.choices)} instances to learn from, but the run began "
                f"with {len(checkpoint['choices'])}; resume on the same data, or start anew with --init."
            )
        self.updates = checkpoint["updates"]
        self.dataset.choices.copy_(checkpoint["choices"])

    def _make_segments(self) -> None:
        """Make this process's share of the segments, and wait for the others'."""
        images = np.array([i for i in range(len(self.dataset)) if len(self.dataset.guessed(i))])
        if len(images):
            share = self.dataset.data.select_images(self._share(images))
            workers = max((os.cpu_count() or 1) // self.trainer.world_size, 1)
            with progress(len(share), "images' candidate segments", say) as advance:
                lost = make_candidates(
                    share, self.dataset.folder, self.dataset.config, workers=workers, advance=advance
                )
            for fault in lost:
                say("warning: %s", fault)
        self.trainer.strategy.barrier("segments")

    def _update_if_due(self) -> None:
        step, every = self.global_step, self.config.updates.every * self.course.steps_per_epoch
        due = 1 + int(step / every + 1e-9) if every else 1
        if self.updates < due and step < self.course.steps:
            self.updates = due
            self._update()

    def _update(self) -> None:
        """Choose a segment for each box that has no mask, and show the labels."""
        images = [image for image in range(len(self.dataset)) if len(self.dataset.guessed(image))]
        if images:
            self._choose_anew(images)
        if self.trainer.is_global_zero and (images or self.updates == 1):
            self._draw()

    def _choose_anew(self, images: list[int]) -> None:
        """A segment for each box of some images (Section 4.3)."""
        began, dataset = time.monotonic(), self.dataset
        before = dataset.choices.clone()
        self.model.eval()
        chosen = {image: self._choose(image) for image in self._share(np.array(images, dtype=int)).tolist()}
        self.model.train()
        for image, choices in from_all_processes(chosen, self.trainer.world_size).items():
            dataset.choices[dataset.guessed(image)] = torch.from_numpy(choices).int()
        boxes = sum(len(dataset.guessed(image)) for image in images)
        say(
            "update %d at step %d: %d boxes, %d with another segment than before, %d without any, in %.0f s",
            self.updates,
            self.global_step,
            boxes,
            (dataset.choices != before).sum(),
            boxes - (dataset.choices != NONE).sum(),
            time.monotonic() - began,
        )

    def _choose(self, image: int) -> NDArray[np.int64]:
        """The segments of an image's boxes; none where it can't be read, of which its sample warns."""
        dataset, config = self.dataset, self.config.updates
        data, own = dataset.data, dataset.guessed(image)
        try:
            photo, candidates = read_image(data.image_path(image)), dataset.candidates(image)
        except BoxelError:
            return np.full(len(own), NONE)
        labels = data.labels[own] + int(has_background(data))
        found = costs(candidates, data.boxes[own], labels, self._log_probabilities(photo), config)
        return choose(found, config.sampled, np.random.default_rng([self.config.seed, self.updates, image]))

    def _log_probabilities(self, photo: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(K, H, W) what the network says of a photo."""
        pixels = torch.from_numpy(photo).permute(2, 0, 1).to(self.device)
        found = predict_probabilities(self.model.network, pixels, semantic_inference_config(self.model))
        return found.clamp(min=LEAST).log().cpu().numpy()

    def _draw(self) -> None:
        """Show some images' labels of this update (Fig. 3)."""
        dataset, drawn = self.dataset, []
        names = [category.name for category in self.model.categories]
        for image in np.linspace(0, len(dataset) - 1, min(SHOWN, len(dataset))).round().astype(int).tolist():
            try:
                photo = read_image(dataset.data.image_path(image))
                labels = dataset.lookup[dataset.labels(image, (photo.shape[0], photo.shape[1]))]
            except BoxelError:
                continue
            drawn.append(overlay_labels(photo, labels, names))
        if drawn:
            path = Path(self.trainer.default_root_dir) / "labels" / f"update_{self.updates:03d}.jpg"
            path.parent.mkdir(exist_ok=True)
            save_image(contact_sheet(drawn, columns=3, cell=400), path)

    def _share(self, images: NDArray[np.integer]) -> NDArray[np.integer]:
        """This process's part of some images."""
        return images[self.trainer.global_rank :: self.trainer.world_size]
