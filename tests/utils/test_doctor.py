"""`boxel doctor`: what it finds, and the remedy."""

import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from boxel.cli import main
from boxel.utils import doctor
from boxel.utils.doctor import Finding, examine


@pytest.fixture()
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str | None]], list[Finding]]:
    """A function that pretends other versions, None for none, and returns the findings."""

    def pretend(versions: dict[str, str | None]) -> list[Finding]:
        def find(name: str) -> str:
            found = versions.get(name, version(name) if name not in versions else None)
            if found is None:
                raise PackageNotFoundError(name)
            return found

        monkeypatch.setattr(doctor, "version", find)
        monkeypatch.setattr(doctor, "_run", lambda code: ("cpu|None" if "cuda" in code else "", False))
        return list(examine())

    return pretend


def remedies(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.remedy for finding in findings if finding.remedy}


def test_the_command_names_versions_and_devices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"Python: {sys.version.split()[0]}" in out and f"numpy {version('numpy')}" in out
    assert "import of torchvision: works" in out and out.endswith("all of this works\n")


def test_a_missing_core_package_and_an_old_one(install: Callable[..., list[Finding]]) -> None:
    found = install({"msgspec": None, "pillow": "9.0.0"})
    assert remedies(found) == dict.fromkeys(("msgspec", "pillow"), "pip install --upgrade boxel")
    assert next(one.state for one in found if one.name == "pillow") == "9.0.0, but >=11.0 is needed"


def test_an_old_package_of_an_extra(install: Callable[..., list[Finding]]) -> None:
    found = install({"pyarrow": "3.0"})
    assert remedies(found) == {"pyarrow": "pip install --upgrade 'boxel[parquet]'"}
    assert [one.name for one in found].count("pyarrow") == 1, "the extra ray needs it too"


def test_an_extra_that_is_not_installed_is_no_issue(install: Callable[..., list[Finding]]) -> None:
    found = install({"pyarrow": None})
    assert not remedies(found)
    assert Finding("without [parquet]", "pyarrow; if you need it, pip install 'boxel[parquet]'") in found


def test_packages_that_overwrite_each_other(install: Callable[..., list[Finding]]) -> None:
    found = install({"opencv-python": "4.10.0"})
    names = "opencv-python opencv-python-headless"
    remedy = f"pip uninstall {names}, then pip install opencv-python-headless"
    assert remedies(found) == {names.replace(" ", " and "): remedy}


def test_torch_and_torchvision_of_two_releases(
    install: Callable[..., list[Finding]], monkeypatch: pytest.MonkeyPatch
) -> None:
    install({})
    error = "RuntimeError: operator torchvision::nms does not exist"
    monkeypatch.setattr(
        doctor,
        "_run",
        lambda code: (error, True) if "nms" in code else ("cpu|None" if "cuda" in code else "", False),
    )
    found = {one.name: one for one in examine()}["import of torchvision"]
    assert found.state == error and found.remedy.startswith("torch and torchvision are not of one release")


def test_a_gpu_that_pytorch_does_not_see(
    install: Callable[..., list[Finding]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nvidia-smi").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert remedies(install({}))["devices"].startswith("PyTorch is a build for CPUs")


def test_a_library_that_crashes_is_a_finding() -> None:
    assert doctor._run("import os; os.abort()") == ("ended by signal 6", True)
    assert doctor._run("raise ValueError('no')") == ("ValueError: no", True)


def test_a_package_that_is_missing_is_named_once(install: Callable[..., list[Finding]]) -> None:
    found = install({"torch": None})
    assert next(one.state for one in found if one.name == "without [sam]").startswith("torch; if you need it")
