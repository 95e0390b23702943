"""A training run from annotations to a model folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

from boxel.data import Annotations, read
from boxel.data.augment import ignore_small, jitter_boxes, train_transforms
from boxel.data.dataset import AspectBatchSampler, InstanceDataset, collate
from boxel.errors import BoxelError
from boxel.models import folder as model_folder
from boxel.training.checkpoints import AtomicCheckpoints, StopOnSignal
from boxel.training.config import DataConfig, TrainConfig
from boxel.training.init import init_from
from boxel.training.loader import ResumableLoader, Stream
from boxel.training.progress import progress_callbacks
from boxel.training.recipe import read_config
from boxel.training.samples import SamplePictures
from boxel.training.schedule import plan
from boxel.training.supervision import add_masks, keep_masks_of, split
from boxel.training.task import InstanceTask

log = logging.getLogger(__name__)


def train(
    method: str,
    data: Annotations | str | Path,
    *,
    out: str | Path = "runs/boxinst",
    images: str | Path | None = None,
    val: Annotations | str | Path | None = None,
    val_images: str | Path | None = None,
    masks: Annotations | str | Path | None = None,
    mask_classes: Sequence[str] | None = None,
    categories: Sequence[str] | None = None,
    class_agnostic: bool = False,
    config: TrainConfig | str | Path | Mapping[str, Any] | None = None,
    init: str | Path | None = None,
    resume: bool = False,
    **changes: Any,
) -> Any:
    """Train a segmenter from boxes, masks, or any mix of the two.

    Args:
        method: `boxinst`.
        data: annotations, or a file or folder of any format `boxel.read` knows. Instances with a mask are learned
            from it, the others from their box.
        out: folder of the run: configuration, metrics, curves, samples, checkpoints and the model.
        images: folder of the images, where it is not beside the annotations.
        val: what to validate on; otherwise the share `data.val_share` of the images is set aside.
        val_images: folder of its images, where it is not `images`.
        masks: annotations whose masks are added to `data` by annotation id.
        mask_classes: sets `data.mask_classes`, the categories whose masks are learned from.
        categories: sets `data.categories`, the only categories to learn.
        class_agnostic: sets `data.class_agnostic`, all categories learned as one.
        config: a recipe's file, its content, or a :class:`TrainConfig`.
        init: a model folder to start from; what does not fit stays new.
        resume: go on where the run in `out` stopped.
        **changes: settings that win over the recipe: ``epochs=12``, or by path, ``**{"model.tau": 0.2}``.

    Returns:
        The trained model in eval mode, or None if it was asked to stop before the end.

    Raises:
        BoxelError: data, settings or a file can't be used.
    """
    out = Path(out)
    for name, value in {"mask_classes": mask_classes, "categories": categories}.items():
        if value is not None:
            changes[f"data.{name}"] = list(value)
    if class_agnostic:
        changes["data.class_agnostic"] = True
    settings = read_config(asdict(config) if isinstance(config, TrainConfig) else config, **changes)
    training = _read(data, images)
    if masks is not None:
        training = add_masks(training, _read(masks, training.root))
    validation: Annotations | None
    if val is not None:
        validation = _read(val, val_images or images)
    else:
        training, validation = split(training, settings.data.val_share, settings.seed)
    # What is not to be learned from may still be measured on.
    if settings.data.mask_classes is not None:
        training = keep_masks_of(training, settings.data.mask_classes)
    training = _only(training, settings.data)
    if validation is not None:
        validation = _only(validation, settings.data)
        if validation.categories != training.categories:
            validation = validation.select_categories([c.name for c in training.categories])
    # Jitter and small boxes concern what is learned, never what is measured.
    training = ignore_small(training, settings.data.min_box)
    if settings.data.box_jitter:
        training = jitter_boxes(training, settings.data.box_jitter, settings.seed)
    if not len(training) or training.iscrowd.all():
        raise BoxelError(
            f"{training.file}: there is no instance to learn from; `boxel check` says what became of them."
        )

    record = {"method": method, **asdict(settings)}
    checkpoint = _prepare_folder(out, record, resume)
    pl.seed_everything(settings.seed, verbose=False)
    model = model_folder.build(method, len(training.categories), record["model"])
    model = model.to(memory_format=torch.channels_last)  # depthwise and 1x1 convolutions are faster so
    model.categories = training.categories  # type: ignore[assignment]
    model.settings = record  # type: ignore[assignment]
    if init is not None:
        loaded, new = init_from(model, init)
        log.info("%s: %d weights loaded; new: %s", init, len(loaded), ", ".join(new) or "none")

    stop = StopOnSignal(out / "checkpoints" / "last.ckpt")
    trainer = _trainer(out, settings, validation, stop, len(training))
    course = plan(settings, len(training), trainer.world_size)
    task = InstanceTask(model, settings, course, validation)
    batches = AspectBatchSampler(
        training, settings.batch_size, settings.seed, trainer.global_rank, trainer.world_size
    )
    stream = Stream(batches, course.steps * settings.accumulate)
    loader = ResumableLoader(
        InstanceDataset(training, train_transforms(settings.augment)), stream, settings.data.workers
    )
    trainer.limit_val_batches = 0 if validation is None else 1.0
    validations = max(round(len(stream) / (len(batches) * settings.validate_every)), 1)
    trainer.val_check_interval = len(stream) // validations
    trainer.fit_loop.epoch_loop.max_steps = course.steps
    trainer.fit(
        task, loader, None if validation is None else _val_loader(validation, trainer), ckpt_path=checkpoint
    )
    if stop.stopped:
        log.warning(
            "stopped at step %d of %d; the same command with --resume goes on.",
            trainer.global_step,
            course.steps,
        )
        return None
    if validation is not None and len(stream) % trainer.val_check_interval:
        trainer.validate(task, _val_loader(validation, trainer), verbose=False)
    if trainer.is_global_zero:
        _finish(out, model, trainer, record)
    return model.eval()


def _read(data: Annotations | str | Path, images: str | Path | None) -> Annotations:
    return data if isinstance(data, Annotations) else read(data, images=images)


def _only(data: Annotations, config: DataConfig) -> Annotations:
    data = data if config.categories is None else data.select_categories(config.categories)
    return data.class_agnostic() if config.class_agnostic else data


def _prepare_folder(out: Path, record: dict[str, Any], resume: bool) -> Path | None:
    """Make the run folder, or find the checkpoint to go on from."""
    config, last = out / "config.yaml", out / "checkpoints" / "last.ckpt"
    if not resume:
        if last.exists():
            raise BoxelError(f"{out} holds a run already; go on with --resume or name another --out.")
        out.mkdir(parents=True, exist_ok=True)
        config.write_text(yaml.safe_dump(record, sort_keys=False))
        return None
    if not last.is_file():
        raise BoxelError(
            f"{out} has no checkpoints/last.ckpt to resume from; leave --resume out to begin anew."
        )
    before = yaml.safe_load(config.read_text())
    if before != yaml.safe_load(yaml.safe_dump(record)):
        changed = [
            name for name in record if before.get(name) != yaml.safe_load(yaml.safe_dump(record[name]))
        ]
        raise BoxelError(
            f"{config}: the run began with other settings ({', '.join(changed)}); resume with the same ones."
        )
    return last


def _trainer(
    out: Path, settings: TrainConfig, validation: Annotations | None, stop: StopOnSignal, num_images: int
) -> pl.Trainer:
    has_masks = validation is not None and bool(validation.has_mask.any())
    callbacks: list[Callback] = [
        stop,
        ModelCheckpoint(
            out / "checkpoints",
            filename="last",
            every_n_train_steps=settings.checkpoint_every,
            enable_version_counter=False,
        ),
        *progress_callbacks(),
    ]
    if validation is not None:
        callbacks.append(SamplePictures(out, validation))
    if has_masks:
        callbacks.append(
            ModelCheckpoint(
                out / "checkpoints",
                filename="best",
                monitor="val/mask_AP",
                mode="max",
                enable_version_counter=False,
            )
        )
    if settings.patience and validation is not None:
        monitor = "val/mask_AP" if has_masks else "val/box_AP"
        callbacks.append(EarlyStopping(monitor, patience=settings.patience, mode="max"))
    if settings.ema:
        callbacks.append(EMAWeightAveraging(decay=settings.ema))
    return pl.Trainer(
        default_root_dir=out,
        accelerator=settings.device,
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy=settings.strategy,
        precision=settings.precision,  # type: ignore[arg-type]
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.optim.clip or None,
        # The whole run is one epoch to Lightning: schedules count steps, and any batch can be resumed from.
        max_epochs=1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=10,
        callbacks=callbacks,
        plugins=[AtomicCheckpoints()],
        logger=[CSVLogger(out, name="", version=""), TensorBoardLogger(out, name="", version="")],
        enable_model_summary=False,
    )


def _val_loader(validation: Annotations, trainer: pl.Trainer) -> DataLoader:
    part = validation.select_images(range(trainer.global_rank, len(validation), trainer.world_size))
    return DataLoader(InstanceDataset(part.without_masks()), batch_size=4, collate_fn=collate)


def _finish(out: Path, model: torch.nn.Module, trainer: pl.Trainer, record: dict[str, Any]) -> None:
    """Write the model folder: the best weights by mask AP where there are true masks, else the last ones."""
    metrics = {name: round(float(value), 5) for name, value in trainer.callback_metrics.items()}
    best = [c for c in trainer.checkpoint_callbacks if c.monitor and c.best_model_path]  # type: ignore[attr-defined]
    if best and float(best[0].best_model_score) > metrics.get("val/mask_AP", 0.0):
        state = torch.load(best[0].best_model_path, map_location="cpu", weights_only=True)["state_dict"]
        model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in state.items()})
        metrics["val/mask_AP"] = round(float(best[0].best_model_score), 5)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1))
    model_folder.save(model, out, record, model.categories)  # type: ignore[arg-type]
    log.info("the model is in %s", out)
