"""Start the processes of a run, and build its model and its trainer."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric import Fabric
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from boxel.data import Annotations
from boxel.data.annotations import Category
from boxel.methods import resolve
from boxel.models import io as model_io
from boxel.training.callbacks.averaging import AveragedWeights
from boxel.training.callbacks.checkpoints import AtomicCheckpoints, LastCheckpoint, Stopped, StoppedAtOnce
from boxel.training.callbacks.metrics_csv import MetricsTable
from boxel.training.callbacks.pictures import Curves, SamplePictures
from boxel.training.callbacks.progress import progress_callbacks, quiet_lightning
from boxel.training.config import TrainConfig
from boxel.training.finetune import find_frozen, init_from, name_layers
from boxel.training.lit_module import Task
from boxel.training.loader import ResumableLoader, Samples, Stream
from boxel.training.log import rank_zero_logger
from boxel.training.loggers import build_loggers, finish_loggers
from boxel.training.prepare import TrainingData, summarize
from boxel.training.run_folder import BEST, check_weights, count_steps
from boxel.training.schedule import Plan, make_plan
from boxel.training.settings import LAST, Run
from boxel.training.start_weights import read_start_settings, read_start_weights
from boxel.utils.errors import BoxelError, UsageError, one_line
from boxel.utils.files import not_written
from boxel.utils.printable import count_noun, name_some

logger = rank_zero_logger(__name__)

_UNSUPPORTED = "this combination of `device`, `devices`, `strategy` and `precision` is not available"


def start_processes(settings: TrainConfig) -> Fabric:
    """Start all processes of a run, each of which runs the same program, and connect them."""
    try:
        with quiet_lightning():
            processes = Fabric(**settings.hardware)
            processes.launch()
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)  # after `launch`, in which Lightning sets its own number
    except TypeError as error:  # Fabric refuses to fork or spawn without a function to run
        raise UsageError(
            f"`strategy` {settings.strategy} forks or spawns its processes here, which would all get the same batches; "
            "set `devices` to 1, or train from the command line with `strategy` ddp."
        ) from error
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise UsageError(f"{_UNSUPPORTED} ({one_line(error)}).") from error
    return processes


def run_on_first_process(processes: Fabric, work: Callable[[], None]) -> None:
    """Run a function in the first process while the others wait, however long; if it fails, all processes end."""
    failure: Exception | None = None
    with processes.rank_zero_first():
        if processes.global_rank == 0:
            try:
                work()
            except Exception as error:  # the others would wait forever
                failure = error
    report = None if failure is None else (one_line(failure, 500), isinstance(failure, UsageError))
    report = processes.strategy.broadcast(report)
    if failure is not None:
        raise failure
    if report is not None:
        message, usage = report
        raise (UsageError if usage else BoxelError)(f"{message}.")


def build_model(run: Run, classes: Sequence[Category], resume: bool) -> Any:
    """Build the model of a run with the weights to start from; a checkpoint will fill all of them on `resume`."""
    record = run.record
    config = record["model"]
    init = None if resume else run.init
    if not resume and init is None and (config["weights"], config["backbone_norm"]) == ("none", "frozen_bn"):
        raise BoxelError(
            "`model.weights` none with `model.backbone_norm` frozen_bn cannot learn, since frozen norms need trained "
            "weights; set `model.backbone_norm` to bn or gn, or name weights to start from."
        )
    # Weights that a checkpoint or another run with this backbone will fill need not be downloaded first.
    filled = resume or (
        init is not None and config["backbone"] == read_start_settings(init)[1].get("backbone")
    )
    pl.seed_everything(run.settings.seed, verbose=False)
    config = model_io.without_weights(config) if filled else config
    model: Any = model_io.build(run.method.name, len(classes), config)
    model = model.to(memory_format=torch.channels_last)  # faster convolutions
    model.categories, model.settings = tuple(classes), record
    if init is not None:
        _initialize(model, init, classes, config["weights"] == "none")
    if "semantic" in run.inputs and not resume:
        semantic: Any = model_io.load(run.inputs["semantic"])
        model.semantic.load_state_dict(semantic.network.state_dict())
    return model


def _build_trainer(run: Run, plan: Plan, validation: Annotations | None, start: int) -> pl.Trainer:
    """Build the trainer of a run that has done `start` steps already."""
    settings, out = run.settings, run.out
    loggers = build_loggers(run)
    try:
        return pl.Trainer(
            default_root_dir=out,
            **settings.hardware,
            precision=settings.precision,
            accumulate_grad_batches=settings.accumulate,
            gradient_clip_val=settings.optim.clip or None,
            # To Lightning the whole run is one epoch: schedules count steps, and any batch can be resumed from.
            max_epochs=1,
            max_steps=plan.steps,
            check_val_every_n_epoch=None,
            val_check_interval=plan.validation_interval * settings.accumulate,
            limit_val_batches=0 if validation is None else 1.0,
            num_sanity_val_steps=0,
            log_every_n_steps=min(10, max(plan.steps // 20, 1)),
            use_distributed_sampler=False,
            callbacks=_build_callbacks(run, validation, start),
            plugins=[AtomicCheckpoints()],
            logger=loggers or False,
            enable_model_summary=False,
        )
    except (ValueError, MisconfigurationException) as error:
        raise UsageError(f"{_UNSUPPORTED} ({one_line(error)}).") from error


def _build_callbacks(run: Run, validation: Annotations | None, start: int) -> list[Callback]:
    """Build what accompanies a run: progress, metrics, pictures, averaged weights and checkpoints."""
    settings, out = run.settings, run.out
    callbacks: list[Callback] = [*progress_callbacks(), MetricsTable(out, start), Curves(out)]
    if settings.ema:
        callbacks.append(AveragedWeights(settings.ema))
    if validation is not None:
        callbacks.append(SamplePictures(out, validation))
        task, best = resolve(run.method.task), out / BEST
        highest = {"monitor": task.select_measure(validation), "mode": "max"}
        callbacks.append(ModelCheckpoint(best.parent, best.stem, **highest, enable_version_counter=False))
        if settings.patience:
            callbacks.append(EarlyStopping(**highest, patience=settings.patience, strict=False))
    # Last, so that it keeps what the other callbacks have learned of a step.
    return [*callbacks, LastCheckpoint(out / LAST, settings.checkpoint_every)]


def fit(run: Run, data: TrainingData, model: Any, processes: Fabric, checkpoint: Path | None) -> bool:
    """Train a model, from a checkpoint if there is one; return whether the run got to its end."""
    settings, rank, world_size = run.settings, processes.global_rank, processes.world_size
    samples: Samples = resolve(run.method.samples)(run, data, model)
    batches = samples.batches(rank, world_size)
    plan = make_plan(settings, samples.per_epoch, world_size, len(batches))
    with quiet_lightning():
        trainer = _build_trainer(run, plan, data.validation, count_steps(checkpoint))
        task: Task = resolve(run.method.task)(model, settings, plan, data.validation, samples.dataset)
        stream = Stream(batches, plan.steps * settings.accumulate)
        check_weights(checkpoint, task.state_dict())
        loader = ResumableLoader(samples.dataset, stream, settings.data.workers)
        validation = data.validation
        val_loader = None if validation is None else task.val_loader(validation, world_size, rank)
        _log_start(run, data, plan, samples, processes)
        try:
            trainer.fit(task, loader, val_loader, ckpt_path=checkpoint)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
                raise
            raise not_written(run.out, error) from error
        except Stopped:
            message = "stopped at step %d of %d; its state is in %s, and the same command with `resume` continues it"
            logger.info(message, trainer.global_step, plan.steps, run.out)
            return False
        except StoppedAtOnce:
            _log_stop(run, trainer.global_step, plan.steps)
            return False
        finally:
            finish_loggers(trainer.loggers)
    return True


def _log_stop(run: Run, step: int, steps: int) -> None:
    """Log what is left of a run that was stopped within a step."""
    last = run.out / LAST
    done = count_steps(last) if last.is_file() else 0
    state = (
        f"its state of step {done} is in {run.out}, and the same command with `resume` continues from there"
    )
    logger.info(
        "stopped at once after step %d of %d; %s", step, steps, state if done else "none of it is kept"
    )


def _log_start(run: Run, data: TrainingData, plan: Plan, samples: Samples, processes: Fabric) -> None:
    """Log what the run is about to do."""
    settings, count, device = run.settings, processes.world_size, processes.device.type
    logger.info("%s with %s: %s", run.method.name, settings.model.backbone, summarize(data))
    size = settings.batch_size * settings.accumulate * count
    message = "%s of %d %s, lr %.3g, on %d x %s; everything goes to %s"
    logger.info(message, count_noun(plan.steps, "step"), size, samples.unit, plan.lr, count, device, run.out)


def _initialize(model: Any, init: str | Path, classes: Sequence[Category], random: bool) -> None:
    """Load weights to start from, and report which ones stay new; frozen ones must not if they are random."""
    loaded, new, unused, shared = init_from(model, read_start_weights(init), classes)
    layers = [name_layers(names, loaded) or "none" for names in (new, unused)]
    logger.info("%s: %d weights loaded; new: %s; not used: %s", init, len(loaded), *layers)
    if shared:
        others = [category.name for category in classes if category.name not in shared]
        named = [name_some(names, 20) or "none" for names in (shared, others)]
        logger.info("%s: classes taken over: %s; new: %s", init, *named)
    frozen = find_frozen(model, new) if random else []
    if frozen:
        raise BoxelError(
            f"{init}: it has no weights that fit {name_some(frozen, 3)}, which are frozen and would stay random; set "
            "`model.frozen_stages` to 0 and `model.backbone_norm` to bn, or start from a run with the same backbone."
        )
    if len(loaded) < len(new):
        logger.warning(
            "%s: most weights are new; train with the settings of its model to start from it.", init
        )
