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
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from boxel.data import Annotations, read
from boxel.data.annotations import Category
from boxel.data.issues import summarize_issues
from boxel.data.joining import join
from boxel.data.label_maps import has_pixel_truth, pixel_classes
from boxel.methods import Method, get_method, resolve
from boxel.models import io as model_folder
from boxel.models.io import without_weights
from boxel.training.callbacks.checkpoints import AtomicCheckpoints, LastCheckpoint, Stopped
from boxel.training.callbacks.metrics_csv import MetricsTable
from boxel.training.callbacks.pictures import Curves, SamplePictures
from boxel.training.callbacks.progress import progress_callbacks, quiet_lightning, say
from boxel.training.config import SEGMENTS, TrainConfig
from boxel.training.finetune import init_from, load_semantic, model_of, semantic_config, things_of
from boxel.training.lit_module import Task
from boxel.training.loader import ResumableLoader, Stream
from boxel.training.prepare import (
    add_masks,
    check_instances_or_labels,
    keep_masks_of,
    split,
    under_categories,
)
from boxel.training.pseudo_masks import made_masks
from boxel.training.recipe import read_config
from boxel.training.schedule import Plan, plan
from boxel.training.semantic import SemanticTask
from boxel.utils.errors import BoxelError, UsageError

log = logging.getLogger(__name__)


def train(
    method: str,
    data: Annotations | str | Path | Sequence[Annotations | str | Path],
    *,
    out: str | Path | None = None,
    images: str | Path | None = None,
    val: Annotations | str | Path | None = None,
    val_images: str | Path | None = None,
    masks: Annotations | str | Path | None = None,
    salient: Annotations | str | Path | None = None,
    semantic: str | Path | None = None,
    mask_classes: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    categories: Sequence[str] | None = None,
    class_agnostic: bool = False,
    class_list: str | Path | None = None,
    config: TrainConfig | str | Path | Mapping[str, Any] | None = None,
    init: str | Path | None = None,
    resume: bool = False,
    **changes: Any,
) -> Any:
    """Train a segmenter from boxes, masks, or any mix of the two.

    Args:
        method: `boxinst`, `mask_rcnn`, `boxcaseg`, `fcrn`, `fcrn-instances` or `boxsup`.
        data: annotations, or a file or folder of any format `boxel.read` knows, or several of these, learned as one
            set; of a YOLO set its `train` split. Instances with a mask are learned from it, the others from their box.
        out: folder of the run: configuration, metrics, curves, samples, checkpoints and the model; `runs/METHOD` where
            None.
        images: folder of the images, where it is not beside the annotations; of several sets, of the first.
        val: what to validate on, of a YOLO set its `val` split; otherwise the share `data.val_share` of the images is
            set aside.
        val_images: folder of its images, where they are neither beside it nor in `images`.
        masks: annotations whose masks are added to `data` by annotation id.
        salient: images of one object each with its mask, which `boxcaseg` learns from beside the boxes: a folder of
            `images` and `masks`, or any set with masks.
        semantic: the run of `fcrn` or `boxsup` whose classes `fcrn-instances` finds the instances of.
        mask_classes: sets `data.mask_classes`, the categories whose masks are learned from.
        rename: sets `data.rename`, new names of categories by their old ones; those of one name become one.
        categories: sets `data.categories`, the only categories to learn.
        class_agnostic: sets `data.class_agnostic`, all categories learned as one.
        class_list: what the values of label maps stand for; see :func:`boxel.read`.
        config: a recipe's file, its content, or a :class:`TrainConfig`.
        init: a model folder to start from; what does not fit stays new. Without a `config` the model's settings are
            that run's too.
        resume: go on where the run in `out` stopped.
        **changes: settings that win over the recipe: ``epochs=12``, or by path, ``**{"model.tau": 0.2}``.

    Returns:
        The trained model in eval mode, or None if it was asked to stop before the end.

    Raises:
        BoxelError: data, settings or a file can't be used.
    """
    parts = get_method(method)
    out = Path("runs", method) if out is None else Path(out)
    _check_inputs(parts, {"salient": salient, "semantic": semantic})
    segmenter = parts.kind == "segmenter"
    for name, value in {"mask_classes": mask_classes, "categories": categories}.items():
        if value is not None:
            changes[f"data.{name}"] = list(value)
    if rename is not None:
        changes["data.rename"] = dict(rename)
    if class_agnostic:
        changes["data.class_agnostic"] = True
    if init is not None and config is None:
        config = {"model": model_of(init)}
    settings = read_config(asdict(config) if isinstance(config, TrainConfig) else config, method, **changes)
    if settings.label == SEGMENTS and method != "boxsup":
        raise UsageError(
            f"{method} has no segments to choose among; name a teacher of `boxel label` with --label."
        )
    if semantic is not None:
        settings.model.semantic = semantic_config(semantic)
    several = [data] if isinstance(data, (Annotations, str, Path)) else list(data)
    training = join([_read(one, None if k else images, "train", class_list) for k, one in enumerate(several)])
    if masks is not None:
        training = add_masks(training, _read(masks, training.root, "train"))
    validation: Annotations | None
    if val is not None:
        validation = _read_validation(val, val_images, images, class_list)
        if segmenter and not has_pixel_truth(validation).any():
            raise BoxelError(
                f"{validation.file}: not one of its images has a label map or a mask to validate against; give "
                "another --val, or none."
            )
    else:
        training, validation = _set_aside(training, settings, semantic=segmenter)
    _check_images(training)
    training = training.rename_categories(settings.data.rename)
    if validation is not None:
        there = {category.name for category in validation.categories}
        validation = validation.rename_categories(
            {old: new for old, new in settings.data.rename.items() if old in there}
        )
    # What is not to be learned from may still be measured on.
    if settings.data.mask_classes is not None:
        training = keep_masks_of(training, settings.data.mask_classes)
    if settings.data.categories is not None:
        training = training.select_categories(settings.data.categories)
    if validation is not None and not segmenter:  # whose data set brings classes together
        validation = under_categories(validation, training.categories)
    if semantic is not None:
        training = under_categories(training, things_of(semantic))
    # Small boxes concern what is learned, never what is measured.
    training = training.ignore_small(settings.data.min_box)
    wants_masks = settings.teacher is not None
    check = resolve(parts.check)
    (check_instances_or_labels if wants_masks else check)(training)
    validation = None if validation is None else _as_told(validation, settings)
    told = _as_told(training, settings)
    classes = pixel_classes(told) if segmenter else told.categories
    second = None
    if salient is not None:
        second = _read(salient, None, "train")
        _check_images(second, "put them into its folder `images`")
    record = {"method": method, **asdict(settings)}
    checkpoint = _prepare_folder(out, record, classes, resume)
    if resume and (out / "model.safetensors").exists():
        say("%s is finished already", out)
        return model_folder.load(out)
    pl.seed_everything(settings.seed, verbose=False)
    model = _build(method, record, classes, None if resume else init, resume)
    if semantic is not None and not resume:
        load_semantic(model, semantic)
    if wants_masks:  # and the weights to start from are there
        training = _labeled(training, settings, out, segmenter)
        check(training)
    training = _as_told(training, settings)  # not before, since a teacher may go by the categories

    task_type: type[Task] = resolve(parts.task)
    samples = resolve(parts.samples)(training, second, settings, out, model)
    with quiet_lightning():
        trainer = _trainer(out, settings, task_type, validation, checkpoint)
        course = plan(settings, samples.per_epoch, trainer.world_size)
        task = task_type(model, settings, course, validation, samples.dataset)
        batches = samples.batches(trainer.global_rank, trainer.world_size)
        stream = Stream(batches, course.steps * settings.accumulate)
        loader = ResumableLoader(samples.dataset, stream, settings.data.workers)
        validations = max(round(len(stream) / (len(batches) * settings.validate_every)), 1)
        trainer.val_check_interval = -(-course.steps // validations) * settings.accumulate
        trainer.limit_val_batches = 0 if validation is None else 1.0
        trainer.log_every_n_steps = min(10, max(course.steps // 20, 1))  # type: ignore[attr-defined]
        trainer.fit_loop.epoch_loop.max_steps = course.steps
        if trainer.is_global_zero:
            _announce(out, record, _summary(training, classes), samples.unit, course, trainer)
        try:
            val_loader = None
            if validation is not None:
                val_loader = task.val_loader(validation, trainer.world_size, trainer.global_rank)
            trainer.fit(task, loader, val_loader, ckpt_path=checkpoint)
        except Stopped:
            say(
                "stopped at step %d of %d; the same command with --resume goes on",
                trainer.global_step,
                course.steps,
            )
            return None
    if trainer.is_global_zero:
        _finish(out, model, record, task_type.measures)
    return model.eval()


def _check_inputs(method: Method, given: Mapping[str, Any]) -> None:
    """Raise a :class:`UsageError` if an input is missing that a method needs, or is there and of no use to it."""
    known = {extra.name: extra for extra in method.inputs}
    for name, value in given.items():
        if value is not None and name not in known:
            raise UsageError(f"{method.name} does not use `{name}`; leave it out.")
        if value is None and name in known and known[name].required:
            raise UsageError(f"{method.name} needs {known[name].help}; name it with `{name}`.")


def _read(
    data: Annotations | str | Path,
    images: str | Path | None,
    split: str,
    class_list: str | Path | None = None,
) -> Annotations:
    if isinstance(data, Annotations):
        return data
    found = read(data, images=images, split=split, class_list=class_list)
    if found.issues:
        log.warning("warning: %s", summarize_issues(found.issues))
    return found


def _set_aside(
    data: Annotations, settings: TrainConfig, semantic: bool
) -> tuple[Annotations, Annotations | None]:
    """Training and validation images; of a semantic set the latter are drawn from those that can be measured on."""
    among = has_pixel_truth(data) if semantic else None
    training, validation = split(data, settings.data.val_share, settings.seed, among)
    if validation is not None:
        say("%d of %d images set aside for validation", len(validation), len(data))
    elif settings.data.val_share:
        say("no image is set aside for validation: too few have a mask or a label map to be measured on")
    return training, validation


def _as_told(data: Annotations, settings: TrainConfig) -> Annotations:
    """The set with all categories as one, where that is asked for."""
    return data.class_agnostic() if settings.data.class_agnostic else data


def _labeled(data: Annotations, settings: TrainConfig, out: Path, semantic: bool) -> Annotations:
    """The set with masks of the boxes that have none, as `label` asks for; the run's folder keeps them.

    Masks that are not trusted are not made anew: `boxel label` made and dropped them.
    """
    bare = ~data.has_segmentation & ~data.iscrowd & data.has_box
    if semantic:
        bare &= ~data.has_label_map[data.image_index]
    if not bare.any():
        return data
    asked = data.select_instances(data.trusted | ~data.has_segmentation)
    if semantic:
        asked = asked.select_images(~data.has_label_map)
    say("making masks of %d boxes by %s, for %s", bare.sum(), settings.label, out / "masks.json")
    made = made_masks(asked, str(settings.label), out / "masks.json", settings.device)
    if made.has_mask.sum() <= asked.has_mask.sum():
        raise BoxelError(
            f"{data.file}: {settings.label} made no mask of its {bare.sum()} boxes; name another --label."
        )
    return add_masks(data, made)


def _check_images(data: Annotations, remedy: str = "name their folder with --images") -> None:
    """Raise where not one of the first images is there: the folder is wrong."""
    first = [data.image_path(index) for index in range(min(len(data), 20))]
    if first and not any(path.is_file() for path in first):
        raise BoxelError(f"{data.file}: its images, as {first[0]}, are not there; {remedy}.")


def _read_validation(
    val: Annotations | str | Path,
    val_images: str | Path | None,
    images: str | Path | None,
    class_list: str | Path | None,
) -> Annotations:
    """The set to validate on; its images are in their own folder, or beside it, or where the training images are."""
    tried = (
        [_read(val, val_images, "val", class_list)]
        if val_images or images is None
        else [_read(val, None, "val", class_list), _read(val, images, "val", class_list)]
    )
    for data in tried:
        if len(data) and data.image_path(0).is_file():
            return data
    raise BoxelError(
        f"{tried[-1].file}: its images are not in {tried[-1].root}; name their folder with --val-images."
    )


def _build(
    method: str,
    record: dict[str, Any],
    categories: Sequence[Category],
    init: str | Path | None,
    resume: bool,
) -> Any:
    """The model with its first weights; those of a resumed run come with its checkpoint."""
    config = record["model"]
    if not resume and init is None and (config["weights"], config["backbone_norm"]) == ("none", "frozen_bn"):
        raise BoxelError(
            "model.weights none with model.backbone_norm frozen_bn can't learn, since frozen norms only make sense "
            "with trained weights: set model.backbone_norm to bn or gn, or name the weights to start from."
        )
    # What a checkpoint or another run of this backbone will fill need not be fetched first.
    filled = resume or (init is not None and config["backbone"] == model_of(init).get("backbone"))
    model = model_folder.build(method, len(categories), without_weights(config) if filled else config)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster convolutions
    model.categories = categories  # type: ignore[assignment]
    model.settings = record  # type: ignore[assignment]
    if init is not None:
        loaded, new = init_from(model, init, categories)
        shown = ", ".join(new[:10]) + (f" and {len(new) - 10} more" if len(new) > 10 else "")
        say("%s: %d weights loaded; new: %s", init, len(loaded), shown or "none")
        if len(loaded) < len(new):
            log.warning(
                "%s: most weights are new; train with the settings of its config.yaml to start from it.", init
            )
    return model


def _prepare_folder(
    out: Path, record: dict[str, Any], categories: Sequence[Category], resume: bool
) -> Path | None:
    """Make the run folder, or find the checkpoint to go on from."""
    config, last = out / "config.yaml", out / "checkpoints" / "last.ckpt"
    if not resume:
        if last.exists() or (out / "model.safetensors").exists():
            raise BoxelError(f"{out} holds a run already; go on with --resume or name another --out.")
        (out / "checkpoints" / "best.ckpt").unlink(missing_ok=True)  # of a run that got no further
        model_folder.describe(out, record, categories)
        return None
    for needed, remedy in (
        (last, "leave --resume out to begin anew"),
        (config, "begin anew in another --out"),
    ):
        if not needed.is_file():
            raise BoxelError(f"{out} has no {needed.relative_to(out).as_posix()} to resume from; {remedy}.")
    before, now = yaml.safe_load(config.read_text()), yaml.safe_load(yaml.safe_dump(record))
    changed = [name for name in now if before.get(name) != now[name]]
    if model_folder.read_categories(out) != tuple(categories):
        changed.append("categories")
    if changed:
        raise BoxelError(
            f"{config}: the run began with other settings ({', '.join(changed)}); resume with the same ones, or begin "
            "a new run from its weights with --init."
        )
    return last


def _trainer(
    out: Path,
    settings: TrainConfig,
    task: type[Task],
    validation: Annotations | None,
    checkpoint: Path | None,
) -> pl.Trainer:
    folder = out / "checkpoints"
    # What a crowd's mask covers is never asked for.
    has_masks = validation is not None and bool((validation.has_mask & ~validation.iscrowd).any())
    has_masks |= issubclass(task, SemanticTask)  # or label maps
    callbacks: list[Callback] = [*progress_callbacks(), Curves(out)]
    if validation is not None:
        callbacks.append(SamplePictures(out, validation))
    if settings.ema:
        callbacks.append(EMAWeightAveraging(decay=settings.ema))
    monitor = task.measures[0 if has_masks else -1]
    if validation is not None:
        callbacks.append(
            ModelCheckpoint(
                folder, filename="best", monitor=monitor, mode="max", enable_version_counter=False
            )
        )
        if settings.patience:
            callbacks.append(EarlyStopping(monitor, patience=settings.patience, mode="max", strict=False))
    # Last, so that what the others have learned of a step is in it.
    callbacks.append(LastCheckpoint(folder / "last.ckpt", settings.checkpoint_every))
    steps = 0 if checkpoint is None else torch.load(checkpoint, weights_only=True, mmap=True)["global_step"]
    try:
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
            callbacks=callbacks,
            plugins=[AtomicCheckpoints()],
            logger=[MetricsTable(out, steps), TensorBoardLogger(out, name="", version="")],
            enable_model_summary=False,
        )
    except (ValueError, MisconfigurationException) as error:
        reason = " ".join(str(error).split())
        raise BoxelError(f"device, devices, strategy or precision can't be had here: {reason}") from error


def _summary(data: Annotations, classes: Sequence[Category]) -> str:
    """What a set has to learn from, in words."""
    learned = ~data.iscrowd
    masked = int((data.has_mask & learned).sum())
    made = int((data.has_generated_mask & learned).sum())
    of_these = f", {made} of them made" if made else ""
    parts = [f"{len(data)} images"]
    if any(data.label_maps):
        parts.append(f"{data.has_label_map.sum()} label maps")
    if len(data.labels):
        parts.append(
            f"{learned.sum()} instances ({masked} with masks{of_these}, {learned.sum() - masked} boxes only)"
        )
    return f"{', '.join(parts)} of {len(classes)} categories"


def _announce(
    out: Path, record: dict[str, Any], summary: str, unit: str, course: Plan, trainer: pl.Trainer
) -> None:
    """Say what is about to be done, and where it goes."""
    batch = record["batch_size"] * record["accumulate"] * trainer.world_size
    say("%s with %s: %s", record["method"], record["model"]["backbone"], summary)
    say(
        "%d steps of %d %s, lr %.3g, on %d x %s; everything goes to %s",
        course.steps,
        batch,
        unit,
        course.lr,
        trainer.world_size,
        trainer.strategy.root_device.type,
        out,
    )


def _finish(out: Path, model: torch.nn.Module, record: dict[str, Any], measures: Sequence[str]) -> None:
    """Write the model folder: the best weights by the first measure, where there are true masks, else the last ones.

    The second, of boxes alone, is no reason to go back: masks get better after it has stopped rising. Where it ended
    the run (`patience`), the best by it are kept.
    """
    files = [out / "checkpoints" / f"{name}.ckpt" for name in ("last", "best")]
    states = [torch.load(f, map_location="cpu", weights_only=True) for f in files if f.exists()]
    measures = measures if record["patience"] else measures[:1]
    # Where all are alike, max takes the first, which is the last.
    kept = max(states, key=lambda state: [state["metrics"].get(measure, 0.0) for measure in measures])
    model.load_state_dict(
        {name.removeprefix("model."): tensor for name, tensor in kept["state_dict"].items()}
    )
    step = kept["metrics"]["step"]
    (out / "metrics.json").write_text(json.dumps(kept["metrics"], indent=1))
    model_folder.save(model, out, record, model.categories)  # type: ignore[arg-type]
    beside = [name for name in ("curves.png", "samples", "metrics.json") if (out / name).exists()]
    say("done: the model of step %d is in %s, beside %s", step, out, ", ".join(beside))
