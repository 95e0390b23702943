"""Training of BoxSup: after each epoch, the network chooses the segments that it learns from next."""

from __future__ import annotations

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
from boxel.models.boxsup.dataset import NO_SEGMENT, BoxSupDataset
from boxel.models.boxsup.update import choose_candidates, compute_costs
from boxel.proposals.store import make_candidates
from boxel.training.callbacks.pictures import draw_samples
from boxel.training.config import SEGMENTS, BoxSupTraining
from boxel.training.lit_module import gather_by_image
from boxel.training.loader import Samples
from boxel.training.log import rank_zero_logger
from boxel.training.prepare import TrainingData
from boxel.training.semantic import SemanticTask, make_view_samples
from boxel.training.settings import Run
from boxel.utils.device import available_cores
from boxel.utils.errors import BoxelError
from boxel.utils.progress import progress
from boxel.viz.overlays import overlay_labels

logger = rank_zero_logger(__name__)

MIN_PROBABILITY = 1e-6  # lower limit of a class's probability, so that a pixel costs at most 14
MAX_REPEATS = 10  # how often per epoch an image with given masks is used at most


def make_boxsup_samples(run: Run, data: TrainingData, model: Any) -> Samples:
    """Make random squares of images with the class that each pixel is currently assumed to have."""
    settings, training = run.settings, data.training
    dataset = BoxSupDataset(
        training,
        Path(settings.segments_folder or run.out / "segments"),
        settings.segments if settings.label == SEGMENTS else None,
        RandomScaleCrop(settings.views, model.network.padding_color.detach().clone()),
    )
    repeats = count_repeats(training, settings.mask_share)
    if (repeats > 1).any():
        message = "%d images with given masks are used %d times per epoch"
        logger.info(message, (repeats > 1).sum(), repeats.max())
    return make_view_samples(run, dataset, model, repeats)


def count_repeats(data: Annotations, share: float) -> NDArray[np.int64]:
    """Count how often to use each of (I,) images per epoch, so that few with given masks are not lost among many.

    The few have a label map, or a given mask (not a predicted one) for every instance, and are repeated to reach their
    `share`, up to `MAX_REPEATS`. The many have an instance without a given mask.
    """
    given = data.has_mask & ~data.has_generated_mask
    guessed, complete = np.zeros((2, len(data)), dtype=bool)
    guessed[data.image_index[~given & ~data.iscrowd]] = True
    complete[data.image_index[given & ~data.iscrowd]] = True
    few = data.has_label_map | (complete & ~guessed)
    repeats = np.ones(len(data), dtype=np.int64)
    if few.any():
        wanted = share / (1 - share) * (guessed & ~few).sum() / few.sum()
        repeats[few] = min(max(round(wanted), 1), MAX_REPEATS)
    return repeats


class BoxSupTask(SemanticTask):
    """Steps, validations and updates of BoxSup."""

    config: BoxSupTraining

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.updates = 0  # number of updates so far
        undecided = [image for image in range(len(self.dataset)) if len(self.dataset.undecided(image))]
        self.images = np.array(undecided, dtype=np.int64)  # those whose boxes choose a segment

    @property
    def share(self) -> NDArray[np.int64]:
        """This process's part of the images whose boxes choose a segment."""
        return self.images[self.trainer.global_rank :: self.trainer.world_size]

    def on_train_start(self) -> None:
        """Make the candidate segments that are missing, each process its share, and the first update."""
        if len(self.images):
            data = self.dataset.data.select_images(self.share)
            folder, config = self.dataset.folder, self.dataset.config
            workers = max(available_cores() // self.trainer.world_size, 1)
            with progress(len(data), "images' candidate segments") as advance:
                issues = make_candidates(data, folder, config, workers=workers, advance=advance)
            for issue in issues:
                logger.warning("%s", issue)
        self.trainer.strategy.barrier("segments")
        self._update_if_due()

    def on_train_batch_end(self, *args: Any) -> None:
        """Make the update that is due after an epoch."""
        self._update_if_due()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the current choices with the weights."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["updates"], checkpoint["choices"] = self.updates, self.dataset.choices.clone()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the choices."""
        if len(checkpoint["choices"]) != len(self.dataset.choices):
            raise BoxelError(
                f"{self.dataset.data.file}: {len(self.dataset.choices)} instances to learn from, but the run started "
                f"with {len(checkpoint['choices'])}; resume on the same data, or start a new run with `init`."
            )
        self.updates = checkpoint["updates"]
        self.dataset.choices.copy_(checkpoint["choices"])

    def _update_if_due(self) -> None:
        step, every = self.global_step, self.config.updates.every * self.plan.steps_per_epoch
        due = 1 + int(step / every + 1e-9) if every else 1
        if self.updates < due and step < self.plan.steps:
            self.updates = due
            self._update()

    def _update(self) -> None:
        """Choose a segment for each box that has no mask, and draw the labels."""
        if len(self.images):
            self._choose_segments()
        if self.trainer.is_global_zero and (len(self.images) or self.updates == 1):
            self._draw()

    def _choose_segments(self) -> None:
        """Choose a segment for each box that has no mask (section 4.3)."""
        start, dataset = time.monotonic(), self.dataset
        before = dataset.choices.clone()
        self.model.eval()
        chosen = {image: self._choose(image) for image in self.share.tolist()}
        self.model.train()
        for image, choices in gather_by_image(chosen, self.trainer.world_size).items():
            dataset.choices[dataset.undecided(image)] = torch.from_numpy(choices).int()
        boxes = sum(len(dataset.undecided(image)) for image in self.images)
        logger.info(
            "update %d at step %d: %d boxes, %d with another segment than before, %d without any, in %.0f s",
            self.updates,
            self.global_step,
            boxes,
            (dataset.choices != before).sum(),
            boxes - (dataset.choices != NO_SEGMENT).sum(),
            time.monotonic() - start,
        )

    def _choose(self, image: int) -> NDArray[np.int64]:
        """Return the segments of an image's boxes; `NO_SEGMENT` if it cannot be read, which its sample reports."""
        dataset, config = self.dataset, self.config.updates
        data, own = dataset.data, dataset.undecided(image)
        try:
            pixels, candidates = read_image(data.image_path(image)), dataset.candidates(image)
        except BoxelError:
            return np.full(len(own), NO_SEGMENT)
        labels = data.labels[own] + int(has_background(data))
        probabilities = self.predict(torch.from_numpy(pixels).permute(2, 0, 1).to(self.device))
        logs = probabilities.clamp(min=MIN_PROBABILITY).log().cpu().numpy()
        costs = compute_costs(candidates, data.boxes[own], labels, logs, config)
        rng = np.random.default_rng([self.config.seed, self.updates, image])
        return choose_candidates(costs, config.top_k, rng)

    def _draw(self) -> None:
        """Draw the labels of some images after this update (Fig. 3)."""
        dataset, names = self.dataset, [category.name for category in self.model.categories]

        def draw(pixels: NDArray[np.uint8], image: int) -> NDArray[np.uint8]:
            labels = dataset.lookup[dataset.labels(image, pixels.shape[:2])]
            return overlay_labels(pixels, labels, names)

        path = Path(self.trainer.default_root_dir, "labels", f"update_{self.updates:03d}.jpg")
        draw_samples(dataset.data, draw, path)
