"""The training task: what happens in a step and in a validation, for every model of instances."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from boxel.data.annotations import Annotations
from boxel.evaluation import BOX_LIKE, box_agreement, coco_ap, mask_iou, mean_fill
from boxel.models.predict import Instances, PredictConfig, predict_batch, trained_size
from boxel.training.config import TrainConfig
from boxel.training.schedule import Plan, build_optimizer, build_scheduler


class InstanceTask(pl.LightningModule):
    """Steps and validations of a model with torchvision's detection interface.

    Args:
        model: `model(images, targets)` gives raw losses, `model.loss_weights(progress)` their weights.
        config: the run's.
        course: its steps and learning rate.
        truth: what to validate against, or None.
    """

    def __init__(self, model: Any, config: TrainConfig, course: Plan, truth: Annotations | None):
        super().__init__()
        self.model, self.config, self.course, self.truth = model, config, course, truth
        self.results: dict[Any, list[dict[str, Any]]] = {}
        self.loss_was_finite = True

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Make a step's randomness depend on the seed and the step alone, so that a resumed run repeats it."""
        torch.manual_seed(self.config.seed * 1_000_003 + batch_idx)

    def training_step(
        self, batch: tuple[list[Tensor], list[dict[str, Any]]], batch_idx: int
    ) -> Tensor | None:
        """The weighted sum of the losses; raw losses and weights are logged apart."""
        losses = self.model(*batch)
        weights = self.model.loss_weights(self.global_step / self.course.steps)
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

    def validation_step(self, batch: tuple[list[Tensor], list[dict[str, Any]]], batch_idx: int) -> None:
        """Find the instances of a batch of images as they are on disk."""
        photos = [image.permute(1, 2, 0).cpu().numpy() for image in batch[0]]
        found = predict_batch(self.model, photos, self._shown())
        for instances, target in zip(found, batch[1], strict=True):
            self.results[target["image_id"]] = instances.as_coco(target["image_id"])

    def on_validation_epoch_end(self) -> None:
        """Measure what was found and log it under `val/`."""
        results = _from_all_processes(self.results, self.trainer.world_size)
        self.results = {}
        if self.truth is None:
            return
        metrics = validation_metrics(results, self.truth)
        if metrics.get("mask_fill", 0.0) > BOX_LIKE:
            self._explain_filled_masks(metrics["mask_fill"])
        # Every process has measured the same.
        self.log_dict(
            {f"val/{name}": value for name, value in metrics.items()}, prog_bar=False, sync_dist=False
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the figures of the weights with them."""
        found = {
            n: round(float(v), 5) for n, v in self.trainer.callback_metrics.items() if n.startswith("val/")
        }
        checkpoint["metrics"] = {"step": self.global_step, **found}

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule."""
        optimizer = build_optimizer(self.model, self.config.optim, self.course.lr)
        scheduler = build_scheduler(optimizer, self.course, self.config.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def find(self, photo: Any) -> Instances:
        """Instances of one (H, W, 3) uint8 photo, for sample pictures."""
        return predict_batch(self.model, [photo], self._shown())[0]

    def _shown(self) -> PredictConfig:
        return trained_size(asdict(self.config.augment))

    def _explain_filled_masks(self, fill: float) -> None:
        weight = self.model.loss_weights(self.global_step / self.course.steps).get("affinity", 1.0)
        final = self.model.loss_weights(1.0).get("affinity", 1.0)
        cause = (
            "the affinity loss is off (model.affinity_weight is 0)"
            if final == 0
            else f"the affinity loss has weight {weight:.2f} of {final:.2f} so far, so wait for the end of its warm-up"
            if weight < final
            else "too many edges across outlines pass for positive, so raise model.tau (see `boxel inspect affinity`), "
            "or boxes alone say too little in so short a training, so set model.hint_weight to 1"
        )
        warnings.warn(f"masks fill {fill:.0%} of their boxes: {cause}.", stacklevel=1)


def validation_metrics(results: list[dict[str, Any]], truth: Annotations) -> dict[str, float]:
    """The few figures worth following during training.

    Args:
        results: COCO results.
        truth: what they are measured against.

    Returns:
        Finite figures in [0, 1] by name: `box_AP`, `box_AP50` and `mask_fill`; with true masks `mask_AP`, `mask_AP50`,
        `mask_AP75` and `mask_iou`, else `box_agreement`.
    """
    metrics = {
        f"box_{name}": value
        for name, value in coco_ap(results, truth, "bbox").items()
        if name in ("AP", "AP50")
    }
    if truth.has_mask.any():
        mask_ap = coco_ap(results, truth, "segm")
        metrics |= {f"mask_{name}": mask_ap[name] for name in ("AP", "AP50", "AP75")}
        metrics["mask_iou"] = mask_iou(results, truth)["mask_iou"]
    else:
        metrics["box_agreement"] = box_agreement(results, truth)["mean"]
    metrics["mask_fill"] = mean_fill(results)
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _from_all_processes(results: dict[Any, list[dict[str, Any]]], processes: int) -> list[dict[str, Any]]:
    """Results of all images; an image that several processes have looked at counts once."""
    parts: list[Any] = [results]
    if processes > 1:
        parts = [None] * processes
        torch.distributed.all_gather_object(parts, results)
    together = {image: rows for part in parts for image, rows in part.items()}
    return [row for rows in together.values() for row in rows]
