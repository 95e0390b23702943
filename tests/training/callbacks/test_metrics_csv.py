"""metrics.csv over several processes of one run."""

import csv
from types import SimpleNamespace

import torch

from boxel.training.callbacks.metrics_csv import MetricsTable


class _Trainer(SimpleNamespace):
    """The part of a trainer that the callback uses."""

    def __init__(self, **changes):
        defaults = {
            "accumulate_grad_batches": 1,
            "max_steps": 5,
            "log_every_n_steps": 1,
            "is_global_zero": True,
            "callback_metrics": {},
        }
        super().__init__(**(defaults | changes))


def _log(table, steps, **changes):
    """Log some steps, which count from 0; after each odd one comes a validation."""
    trainer = _Trainer(global_step=min(steps), **changes)
    table.on_train_start(trainer, None)
    for step in steps:
        trainer.callback_metrics["loss"] = torch.tensor(step / 8)
        trainer.global_step = step + 1
        table.on_train_batch_end(trainer, None, None, None, step)
        if step % 2:
            trainer.callback_metrics["val/AP"] = torch.tensor(step)
            table.on_validation_end(trainer, None)


def _rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_written_at_once(tmp_path):
    table = MetricsTable(tmp_path)
    _log(table, [0])
    assert _rows(tmp_path) == [{"loss": "0.0", "step": "0"}]
    _log(table, [1])  # a new column
    trained, validated = _rows(tmp_path)[1:]
    assert trained == {"loss": "0.125", "step": "1", "val/AP": ""}
    assert validated == {"loss": "", "step": "1", "val/AP": "1.0"}


def test_a_resumed_run_keeps_the_rows_of_its_checkpoint(tmp_path):
    _log(MetricsTable(tmp_path), range(5))
    whole = (tmp_path / "metrics.csv").read_bytes()
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("0.5")  # killed in the middle of a row
    table = MetricsTable(tmp_path, steps=3)
    assert (tmp_path / "metrics.csv").read_bytes() == whole + b"0.5"  # nothing has happened yet
    table.on_train_start(_Trainer(), None)
    assert [row["step"] for row in _rows(tmp_path)] == ["0", "1", "1", "2"]
    _log(table, range(3, 5))
    assert (tmp_path / "metrics.csv").read_bytes() == whole


def test_a_new_run_starts_an_empty_table(tmp_path):
    _log(MetricsTable(tmp_path), range(5))
    _log(MetricsTable(tmp_path), [0])
    assert len(_rows(tmp_path)) == 1


def test_every_few_steps_and_the_last_one_have_a_row(tmp_path):
    table, trainer = MetricsTable(tmp_path), _Trainer(log_every_n_steps=2, accumulate_grad_batches=2)
    for batch in range(10):
        trainer.callback_metrics["loss"] = torch.tensor(1.0)
        trainer.global_step = (batch + 1) // 2
        table.on_train_batch_end(trainer, None, None, None, batch)
    assert [row["step"] for row in _rows(tmp_path)] == ["1", "3", "4"]


def test_one_process_writes_the_table(tmp_path):
    _log(MetricsTable(tmp_path), range(2), is_global_zero=False)
    assert not (tmp_path / "metrics.csv").exists()
