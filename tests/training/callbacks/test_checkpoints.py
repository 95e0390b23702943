"""Checkpoints are complete or absent, and signals wait for the end of a step."""

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from boxel.training.callbacks.checkpoints import AtomicCheckpoints, LastCheckpoint, Stopped, StoppedAtOnce


def test_a_failed_write_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpoints().save_checkpoint({"step": 1}, path)

    def broken(self, checkpoint, path, storage_options=None):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(TorchCheckpointIO, "save_checkpoint", broken)
    with pytest.raises(OSError, match="disk full"):
        AtomicCheckpoints().save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}


class _Trainer(SimpleNamespace):
    """The part of a trainer that the callback uses, and a list of the steps written."""

    def __init__(self, **changes):
        defaults = {
            "accumulate_grad_batches": 1,
            "max_steps": 10,
            "val_check_batch": 100,
            "enable_validation": False,
            "should_stop": False,
            "global_step": 0,
        }
        super().__init__(**(defaults | changes), written=[])
        self.strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)

    def save_checkpoint(self, path):
        self.written.append(self.global_step)


def _batch(callback, trainer, index):
    callback.on_train_batch_start(trainer, None, None, index)
    trainer.global_step = (index + 1) // trainer.accumulate_grad_batches
    callback.on_train_batch_end(trainer, None, None, None, index)


def _run(callback, trainer, batches):
    for index in range(batches):
        _batch(callback, trainer, index)
    return trainer.written


def test_checkpoints_are_written_every_few_steps_and_at_the_end(tmp_path):
    assert _run(LastCheckpoint(tmp_path, 4), _Trainer(), 10) == [4, 8, 10]


def test_no_checkpoint_is_written_within_a_step(tmp_path):
    trainer = _Trainer(accumulate_grad_batches=3, max_steps=4)
    assert _run(LastCheckpoint(tmp_path, 2), trainer, 12) == [2, 4]


def test_checkpoints_are_written_after_a_validation(tmp_path):
    trainer, callback = _Trainer(enable_validation=True, val_check_batch=4), LastCheckpoint(tmp_path, 4)
    assert _run(callback, trainer, 4) == []
    callback.on_validation_end(trainer, None)
    assert trainer.written == [4]
    _run(callback, trainer, 10)
    assert trainer.should_stop  # so the last step is validated too
    callback.on_validation_end(trainer, None)
    assert trainer.written[-1] == 10


def test_ctrl_c_finishes_the_step_writes_and_stops(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    trainer, callback = _Trainer(accumulate_grad_batches=2), LastCheckpoint(tmp_path, 100)
    try:
        callback.on_train_start(trainer, None)
        _batch(callback, trainer, 0)
        signal.raise_signal(signal.SIGINT)
        assert trainer.written == []
        _batch(callback, trainer, 1)
        assert trainer.written == [1]
        with pytest.raises(Stopped):
            _batch(callback, trainer, 2)
        with pytest.raises(StoppedAtOnce):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])


def test_all_processes_stop_if_one_is_interrupted(tmp_path):
    trainer = _Trainer()
    trainer.strategy.reduce_boolean_decision = lambda decision, all: not all  # another one was asked
    callback = LastCheckpoint(tmp_path, 100)
    _batch(callback, trainer, 0)
    assert trainer.written == [1]
    with pytest.raises(Stopped):
        _batch(callback, trainer, 1)
