"""The package as it is shipped."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import boxel

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel as `make wheel` builds it."""
    pytest.importorskip("hatchling", reason="the extra `dev` brings hatchling, which builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=REPO, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("boxel-*.whl")))


def test_the_package_says_the_version_of_its_metadata() -> None:
    text = (REPO / "pyproject.toml").read_text(encoding="utf-8")
    assert re.findall(r'^version = "(.+)"$', text, re.MULTILINE) == [boxel.__version__]


@pytest.mark.slow
def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    source = REPO / "src"
    package = {
        path.relative_to(source).as_posix()
        for path in (source / "boxel").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert shipped == package
    assert "boxel/py.typed" in shipped


@pytest.mark.slow
def test_the_wheel_brings_the_command_and_the_license(wheel: zipfile.ZipFile) -> None:
    info = f"boxel-{boxel.__version__}.dist-info"
    assert "boxel = boxel.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert "Apache License" in wheel.read(f"{info}/licenses/LICENSE").decode()
    assert "License-Expression: Apache-2.0" in wheel.read(f"{info}/METADATA").decode()


def test_import_is_light() -> None:
    """`import boxel` and what merely reads annotations should not wait seconds for torch."""
    code = "import sys, boxel; print({'torch', 'lightning', 'timm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
