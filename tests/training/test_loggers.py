"""Loggers by name, with stand-ins for the packages that they need."""

import csv
import json
import sys
from types import ModuleType
from unittest.mock import MagicMock

import pytest

from boxel.training import train
from boxel.training.settings import resolve_run
from boxel.utils.errors import BoxelError, MissingExtraError


@pytest.fixture
def wandb(monkeypatch) -> MagicMock:
    """A stand-in for the package, whose runs are `wandb.init.return_value`."""
    package, lib, runs = MagicMock(run=None), ModuleType("lib"), ModuleType("runs")
    lib.RunDisabled, runs.Run = type("RunDisabled", (), {}), type("Run", (), {})
    modules = {
        "wandb": package,
        "wandb.sdk": ModuleType("sdk"),
        "wandb.sdk.lib": lib,
        "wandb.wandb_run": runs,
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", True)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return package


@pytest.fixture
def mlflow(monkeypatch) -> MagicMock:
    """A stand-in for the client of the package."""
    package = MagicMock()
    for name in ("", ".tracking", ".tracking.context", ".entities", ".utils", ".utils.mlflow_tags"):
        monkeypatch.setitem(sys.modules, f"mlflow{name}", package)
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE", True)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    package.get_tracking_uri.return_value = "sqlite:///mlflow.db"
    client = package.MlflowClient.return_value
    client.get_experiment_by_name.return_value = None
    return client


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_package_that_is_missing_is_named_at_once(monkeypatch, name) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError) as error:
        resolve_run("boxinst", None, None, None, {"loggers": [name]})
    reason = f"import of {name} halted; None in sys.modules"
    remedy = f"pip install {name}, or leave it out."
    assert str(error.value) == f"`loggers` has {name}, which is missing ({reason}); {remedy}"


def test_an_unknown_logger_is_refused() -> None:
    with pytest.raises(BoxelError, match=r"loggers.*tensorboard, wandb or mlflow"):
        resolve_run("boxinst", None, None, None, {"loggers": ["csv"]})


def test_packages_that_are_not_asked_for_are_not_imported(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert resolve_run("boxinst", None, None, None, {}).settings.loggers == ["tensorboard"]


@pytest.mark.slow
def test_a_run_logs_to_all_that_are_named(scenes, tiny, run_folder, wandb, mlflow) -> None:
    train("boxinst", scenes, out=run_folder, config=tiny | {"steps": 2}, loggers=["wandb", "mlflow"])
    assert not list(run_folder.glob("events.out.tfevents*"))
    with open(run_folder / "metrics.csv", newline="") as file:
        table = [row["loss/total"] for row in csv.DictReader(file) if row["loss/total"]]

    given = wandb.init.call_args.kwargs
    assert (given["project"], given["name"], given["dir"]) == ("boxel", "run", str(run_folder))
    experiment = wandb.init.return_value
    assert experiment.config.update.call_args.args[0]["optim"]["lr"] == 0.001
    logged = [call.args[0] for call in experiment.log.call_args_list]
    assert [row["loss/total"] for row in logged if "loss/total" in row] == pytest.approx(
        [float(x) for x in table]
    )
    assert any("val/mask_fill" in row or "val/box_AP" in row for row in logged)
    experiment.finish.assert_called_once()

    sys.modules["mlflow"].MlflowClient.assert_called_with("sqlite:///mlflow.db")
    assert mlflow.create_experiment.call_args.kwargs["name"] == "boxel"
    metrics = [call.kwargs["metrics"] for call in mlflow.log_batch.call_args_list if "metrics" in call.kwargs]
    assert len(metrics) == len(logged)


@pytest.mark.slow
def test_a_run_may_resume_with_other_loggers(scenes, tiny, run_folder) -> None:
    train("boxinst", scenes, out=run_folder, config=tiny | {"steps": 1}, loggers=[])
    (run_folder / "model.safetensors").unlink()
    assert train("boxinst", scenes, out=run_folder, config=tiny | {"steps": 1}, resume=True) is not None
    assert json.loads((run_folder / "metrics.json").read_text())["step"] == 1
