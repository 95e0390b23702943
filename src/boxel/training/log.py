"""Loggers that speak for all processes of a run."""

from __future__ import annotations

import logging
import os
import sys


def rank_zero_logger(name: str) -> logging.Logger:
    """Return the logger of a module, silent in every process but the first."""
    logger = logging.getLogger(name)
    logger.addFilter(is_first_process)
    return logger


def is_first_process(record: logging.LogRecord | None = None) -> bool:
    """Return whether this is the first process of a run, or the only one; also a filter of log records."""
    if "lightning" not in sys.modules:  # while the data is prepared
        return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    from lightning.pytorch.utilities import rank_zero_only

    return not getattr(rank_zero_only, "rank", 0)
