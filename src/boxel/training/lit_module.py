"""The steps of a run as a LightningModule, whatever the model."""

from __future__ import annotations

import logging
import math
from typing import Any, ClassVar, TypeAlias

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from boxel.data.annotations import Annotations
from boxel.data.dataset import ImageDataset, collate
from boxel.training.config import TrainConfig
from boxel.training.schedule import Plan, build_optimizer, build_scheduler, lr_factor
from boxel.viz.drawing import draw_truth

logger = logging.getLogger(__name__)

Batch: TypeAlias = tuple[list[Tensor], list[dict[str, Any]]]
"""Images and their targets."""


class Task(pl.LightningModule):
    """Training steps of a model with torchvision's detection interface; subclasses add the validation.

    ``model(images, targets)`` returns raw losses, and ``model.loss_weights(progress)`` their weights. The truth is what
    to validate against, if anything, and the dataset the training samples.
    """

    measures: ClassVar[tuple[str, ...]]
    """Metrics that select the best checkpoint: the first one needs true masks, the last one boxes alone."""

    val_batch_size: ClassVar[int] = 1

    def __init__(
        self, model: Any, config: TrainConfig, plan: Plan, truth: Annotations | None, dataset: Any = None
    ):
        super().__init__()
        self.model, self.config, self.plan = model, config, plan
        self.truth, self.dataset = truth, dataset
        self.results: dict[Any, Any] = {}  # of the validation images of this process, by image id
        self.own_images = 0  # how many of them no other process has
        self.loss_was_finite = True

    @classmethod
    def select_measure(cls, truth: Annotations) -> str:
        """Return the metric that selects the best checkpoint for some validation data."""
        return cls.measures[0 if (truth.has_mask & ~truth.iscrowd).any() else -1]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Make a step's randomness depend on the seed and the step alone, so that a resumed run repeats it."""
        torch.manual_seed(self.config.seed * 1_000_003 + batch_idx)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the weighted sum of the losses, and log the raw losses and their weights."""
        losses = self.compute_losses(batch)
        weights = self.model.loss_weights(self.progress())
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        size, found = len(batch[0]), torch.stack([*losses.values(), total]).detach()
        # Each process has its share of the loss.
        found = self.trainer.strategy.reduce(found, reduce_op="mean")
        named = zip(losses, found, strict=False)
        self.log_dict({f"loss/{name}": loss for name, loss in named}, batch_size=size)
        self.log_dict({f"weight/{name}": float(weights[name]) for name in losses}, batch_size=size)
        self.log("loss/total", found[-1], prog_bar=True, batch_size=size)
        plan, schedule = self.plan, self.config.schedule
        factor = lr_factor(self.global_step, plan.steps, plan.warmup, schedule)
        self.log("lr", plan.lr * factor, batch_size=1)
        self.loss_was_finite = math.isfinite(float(found[-1]))
        if not self.loss_was_finite:
            broken = [name for name, loss in losses.items() if not torch.isfinite(loss)]
            logger.warning(
                "step %d: the loss %s is not finite (images %s), and the step is skipped; lower `optim.lr` or set "
                "`optim.clip` to 10.",
                self.global_step,
                ", ".join(broken) or "total",
                [target["image_id"] for target in batch[1]],
            )
        return total

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the raw losses of a batch by name."""
        return self.model(*batch)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Skip a step whose gradient is not finite, by clearing the gradients.

        Processes have exchanged their gradients by now, so all of them skip it.
        """
        sums = [p.grad.sum() for p in self.model.parameters() if p.grad is not None]
        if sums and not torch.stack(sums).isfinite().all():
            optimizer.zero_grad(set_to_none=True)
            # A loss that is not finite was reported already, and float16 finds its scale by such steps.
            if self.loss_was_finite and self.config.precision != "16-mixed":
                logger.warning(
                    "step %d: the loss is finite, but its gradient is not, and the step is skipped; lower `optim.lr`, "
                    "or set `precision` to 32-true.",
                    self.global_step,
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the metrics of the weights with them."""
        logged = self.trainer.callback_metrics.items()
        metrics = {name: round(float(value), 5) for name, value in logged if name.startswith("val/")}
        checkpoint["metrics"] = {"step": self.global_step, **metrics}

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule."""
        optimizer = build_optimizer(self.model, self.config.optim, self.plan.lr)
        scheduler = build_scheduler(optimizer, self.plan, self.config.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def progress(self) -> float:
        """Return the share of the training that is done, in [0, 1]."""
        return self.global_step / self.plan.steps

    def val_loader(self, truth: Annotations, processes: int, rank: int) -> DataLoader:
        """Return a process's share of the validation images; shares have one length, so some images may be in two."""
        dataset = self.val_dataset(truth)
        self.own_images = len(range(rank, len(dataset), processes))
        padded = np.resize(np.arange(len(dataset)), -(-len(dataset) // processes) * processes)
        share = Subset(dataset, padded[rank::processes].tolist())
        return DataLoader(share, self.val_batch_size, collate_fn=collate)

    def gather_results(self) -> list[Any]:
        """Return the results of all processes, one per validation image, and reset them."""
        gathered = gather_by_image(self.results, self.trainer.world_size)
        self.results = {}
        return list(gathered.values())

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Log the finite metrics of a validation, which every process has computed, under `val/`."""
        finite = {f"val/{name}": value for name, value in metrics.items() if math.isfinite(value)}
        self.log_dict(finite, sync_dist=False)

    def val_dataset(self, truth: Annotations) -> ImageDataset:
        """Return the validation images at their own size, with what `validation_step` needs."""
        raise NotImplementedError

    def picture(self, image: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """Draw the predictions on an (H, W, 3) RGB image, the one at an index of the validation data."""
        raise NotImplementedError

    def truth_picture(self, data: Annotations, image: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """Draw what is true of an image of the validation data, in the colors of the predictions."""
        return draw_truth(data, index, image)


def gather_by_image(results: dict[Any, Any], processes: int) -> dict[Any, Any]:
    """Return the results of all processes by image; an image that several of them have seen counts once."""
    parts: list[Any] = [results]
    if processes > 1:
        parts = [None] * processes
        torch.distributed.all_gather_object(parts, results)
    return {image: rows for part in parts for image, rows in part.items()}
