"""The training task: what happens in a step, whatever the model."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from boxel.data.annotations import Annotations
from boxel.training.config import TrainConfig
from boxel.training.schedule import Plan, build_optimizer, build_scheduler


class Task(pl.LightningModule):
    """Steps of a model with torchvision's detection interface; how it is validated is a subclass's.

    A subclass logs its figures under `val/`, and draws a picture of what is found in a validation image.

    Args:
        model: `model(images, targets)` gives raw losses, `model.loss_weights(progress)` their weights.
        config: the run's.
        course: its steps and learning rate.
        truth: what to validate against, or None.
        dataset: what it learns from, where steps or validations need to know.
    """

    measures: ClassVar[tuple[str, ...]]
    """By what the best weights are told: where there are true masks, and where there are boxes only."""

    def __init__(
        self, model: Any, config: TrainConfig, course: Plan, truth: Annotations | None, dataset: Any = None
    ):
        super().__init__()
        self.model, self.config, self.course = model, config, course
        self.truth, self.dataset = truth, dataset
        self.loss_was_finite = True

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Make a step's randomness depend on the seed and the step alone, so that a resumed run repeats it."""
        torch.manual_seed(self.config.seed * 1_000_003 + batch_idx)

    def training_step(
        self, batch: tuple[list[Tensor], list[dict[str, Any]]], batch_idx: int
    ) -> Tensor | None:
        """The weighted sum of the losses; raw losses and weights are logged apart."""
        losses = self.model(*batch)
        weights = self.model.loss_weights(self.progress())
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        self.log_dict(
            {f"loss/{name}": loss.detach() for name, loss in losses.items()}, batch_size=len(batch[0])
        )
        self.log_dict({f"weight/{name}": float(weights[name]) for name in losses}, batch_size=len(batch[0]))
        self.log("loss/total", total.detach(), prog_bar=True, batch_size=len(batch[0]))
        groups = self.optimizers().param_groups  # type: ignore[union-attr]
        self.log("lr", max(group["lr"] for group in groups), batch_size=1)
        self.loss_was_finite = math.isfinite(float(total.detach()))
        if not self.loss_was_finite:
            broken = [name for name, loss in losses.items() if not torch.isfinite(loss)]
            warnings.warn(
                f"step {self.global_step}: the loss {', '.join(broken) or 'total'} is not finite (images "
                f"{[target['image_id'] for target in batch[1]]}) and the step is left out; "
                "lower --optim.lr or set --optim.clip 10.",
                stacklevel=1,
            )
        return total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave out a step whose gradient is not finite: without gradients nothing is changed.

        Processes have shared their gradients by now, so all of them leave it out.
        """
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if gradients and not torch.stack([gradient.sum() for gradient in gradients]).isfinite().all():
            optimizer.zero_grad(set_to_none=True)
            # A broken loss was reported already, and float16 finds its scale by such steps.
            if self.loss_was_finite and self.config.precision != "16-mixed":
                warnings.warn(
                    f"step {self.global_step}: the loss is finite, but its gradient is not, and the step is left out; "
                    "lower --optim.lr, or set --precision 32-true.",
                    stacklevel=1,
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the figures of the weights with them."""
        found = {
            n: round(float(v), 5) for n, v in self.trainer.callback_metrics.items() if n.startswith("val/")
        }
        checkpoint["metrics"] = {"step": self.global_step, **found}

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule."""
        optimizer = build_optimizer(self.model, self.config.optim, self.course.lr)
        scheduler = build_scheduler(optimizer, self.course, self.config.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def progress(self) -> float:
        """Share of the training that is done, in [0, 1]."""
        return self.global_step / self.course.steps

    def val_loader(self, truth: Annotations, processes: int, rank: int) -> DataLoader:
        """A process's share of the validation images, in batches that `validation_step` takes."""
        raise NotImplementedError

    def picture(self, photo: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """A validation image with what is found in it.

        Args:
            photo: (H, W, 3) RGB.
            index: of the image in the validation set.
        """
        raise NotImplementedError


def from_all_processes(results: dict[Any, Any], processes: int) -> dict[Any, Any]:
    """What every process has found, by image; an image that several have looked at counts once."""
    parts: list[Any] = [results]
    if processes > 1:
        parts = [None] * processes
        torch.distributed.all_gather_object(parts, results)
    return {image: rows for part in parts for image, rows in part.items()}
