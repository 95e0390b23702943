"""The loggers of a run by name: those of Lightning, which import their packages when they are built."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from boxel.training.settings import Run


def build_loggers(run: Run) -> list[Logger]:
    """Build the loggers that a run names.

    Weights & Biases and MLflow also get the settings of the run, under the name of its folder, and keep all of it where
    their environment variables say.
    """
    out, loggers = run.out, list[Logger]()
    for name in dict.fromkeys(run.settings.loggers):
        if name == "tensorboard":
            loggers.append(TensorBoardLogger(out, name="", version=""))
            continue
        if name == "wandb":
            project = os.environ.get("WANDB_PROJECT", "boxel")
            logger: Logger = WandbLogger(out.name, save_dir=out, project=project)
        else:
            experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "boxel")
            logger = MLFlowLogger(experiment, out.name, import_module("mlflow").get_tracking_uri())
        logger.log_hyperparams(run.record)
        loggers.append(logger)
    return loggers


def finish_loggers(loggers: Sequence[Logger]) -> None:
    """Finish the run of Weights & Biases, which the next training of the process would continue otherwise."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
