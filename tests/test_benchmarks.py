"""What the scripts of `benchmarks/` import exists, and so do the scripts that results name."""

import ast
import json
import re
from importlib import import_module
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(BENCHMARKS.glob("*.py")), ids=lambda script: script.stem)
def test_what_a_script_imports_exists(script: Path) -> None:
    missing = []
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("boxel"):
            module = import_module(node.module)
            missing += [f"{node.module}.{name.name}" for name in node.names if not hasattr(module, name.name)]
    assert not missing


@pytest.mark.parametrize("file", sorted(BENCHMARKS.glob("results/*.json")), ids=lambda file: file.stem)
def test_the_scripts_that_results_name_exist(file: Path) -> None:
    named = set(re.findall(r"benchmarks/(\w+\.py)", json.dumps(json.loads(file.read_text(encoding="utf-8")))))
    assert not [name for name in named if not (BENCHMARKS / name).exists()]
