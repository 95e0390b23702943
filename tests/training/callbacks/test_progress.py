"""Progress bars and log lines of a run."""

import logging
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from boxel.training.callbacks.progress import (
    ProgressLines,
    ValidationLines,
    progress_callbacks,
    quiet_lightning,
)


def _trainer(step, **metrics):
    metrics = {name.replace("_", "/", 1): torch.tensor(value) for name, value in metrics.items()}
    return SimpleNamespace(global_step=step, max_steps=4, is_global_zero=True, callback_metrics=metrics)


def test_lines_are_logged_after_the_first_step_and_at_the_end(caplog):
    caplog.set_level("INFO", logger="boxel")
    progress = ProgressLines(seconds=1000)
    progress.on_train_start(_trainer(0), None)
    progress.on_train_batch_start(_trainer(0))
    for step in range(1, 5):
        progress.on_train_batch_end(_trainer(step, loss_total=1.5))
    lines = caplog.messages
    assert len(lines) == 2
    assert lines[0].startswith("step 1/4  loss 1.500")
    assert lines[1].startswith("step 4/4  loss 1.500")
    progress.seconds = 0
    progress.on_train_batch_end(_trainer(2, loss_total=1.5))
    assert caplog.messages[-1].startswith("step 2/4")


def test_a_validation_is_logged_as_one_line(caplog):
    caplog.set_level("INFO", logger="boxel")
    ValidationLines().on_validation_end(_trainer(3, val_mask_AP=0.25, loss_total=1.0), None)
    assert caplog.messages == ["step 3  mask_AP 0.250"]


def test_other_processes_log_nothing(caplog):
    caplog.set_level("INFO", logger="boxel")
    trainer = _trainer(4, val_mask_AP=0.25)
    trainer.is_global_zero = False
    progress = ProgressLines(seconds=0)
    progress.on_train_start(trainer, None)
    progress.on_train_batch_start(trainer)
    progress.on_train_batch_end(trainer)
    ValidationLines().on_validation_end(trainer, None)
    assert not caplog.messages


def test_the_bar_is_for_terminals_only(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert isinstance(progress_callbacks()[0], RichProgressBar)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert isinstance(progress_callbacks()[0], ProgressLines)


def test_lightning_is_quiet_within_the_context_only(caplog):
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    with quiet_lightning():
        assert logger.level == logging.WARNING
        rank_zero_info("GPU available: False")
        with warnings.catch_warnings(record=True) as heard:
            warnings.warn_explicit(
                "a tip", UserWarning, "x.py", 1, module="lightning.pytorch.trainer.trainer"
            )
            warnings.warn("masks fill 99% of their boxes", stacklevel=1)
    assert [str(warning.message) for warning in heard] == ["masks fill 99% of their boxes"]
    assert "GPU" not in caplog.text
    assert logger.level == level
    with pytest.warns(UserWarning, match="aloud"):
        rank_zero_warn("aloud again")
