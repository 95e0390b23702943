"""metrics.csv over several processes of one run."""

import csv

from boxel.training.callbacks.metrics_csv import MetricsTable


def _log(table, steps):
    for step in steps:
        table.log_metrics({"loss": step / 10, "val/AP": step} if step % 2 else {"loss": step / 10}, step)


def _rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_written_at_once(tmp_path):
    table = MetricsTable(tmp_path)
    _log(table, [0])
    assert _rows(tmp_path) == [{"loss": "0.0", "step": "0"}]
    _log(table, [1])  # a new column
    assert _rows(tmp_path)[1] == {"loss": "0.1", "step": "1", "val/AP": "1"}


def test_a_resumed_run_keeps_the_rows_of_its_checkpoint(tmp_path):
    _log(MetricsTable(tmp_path), range(5))
    whole = _rows(tmp_path)
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("0.5")  # killed in the middle of a row
    table = MetricsTable(tmp_path, steps=3)
    assert table.experiment.metrics == []
    assert _rows(tmp_path) == whole[:3]  # on disk again before anything else happens
    _log(table, range(3, 5))
    assert _rows(tmp_path) == whole


def test_a_new_run_starts_an_empty_table(tmp_path):
    _log(MetricsTable(tmp_path), range(5))
    _log(MetricsTable(tmp_path), [0])
    assert len(_rows(tmp_path)) == 1
