"""The shape of the code that CONTRIBUTING.md promises: short functions, short parameter lists, small files."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "boxel"
MAX_FUNCTION_LINES = 80
MAX_PARAMETERS = 10
MAX_CLI_FILE_LINES = 300
MAX_SOURCE_LINES = 58_419

# "file:function" -> why it may be longer or take more.
EXCEPTIONS = {
    "exporting/onnx.py:_deform_conv2d": "its signature is that of the torchvision operator that it translates",
    "data/formats/builder.py:add": "one parameter per column of the instances",
}


def functions() -> Iterator[tuple[str, int, int]]:
    """Every function as "file:name" with its lines and its number of parameters, `self` and `cls` apart."""
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [arg.arg for arg in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
                count = len([name for name in names if name not in ("self", "cls")])
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield f"{file.relative_to(SOURCE).as_posix()}:{node.name}", lines, count


@pytest.mark.slow
def test_functions_are_short_and_take_few_parameters() -> None:
    long = {
        name: f"{lines} lines, {parameters} parameters"
        for name, lines, parameters in functions()
        if lines > MAX_FUNCTION_LINES or parameters > MAX_PARAMETERS
    }
    unexpected = {name: found for name, found in long.items() if name not in EXCEPTIONS}
    assert not unexpected, f"at most {MAX_FUNCTION_LINES} lines and {MAX_PARAMETERS} parameters"


@pytest.mark.slow
def test_exceptions_are_still_needed() -> None:
    long = {
        name
        for name, lines, parameters in functions()
        if lines > MAX_FUNCTION_LINES or parameters > MAX_PARAMETERS
    }
    assert not EXCEPTIONS.keys() - long


def line_count(folder: Path) -> dict[str, int]:
    return {
        file.relative_to(SOURCE).as_posix(): len(file.read_text(encoding="utf-8").splitlines())
        for file in folder.rglob("*.py")
    }


def test_files_of_the_command_line_are_small() -> None:
    assert {name: n for name, n in line_count(SOURCE / "cli").items() if n > MAX_CLI_FILE_LINES} == {}


def test_the_source_does_not_grow() -> None:
    assert sum(line_count(SOURCE).values()) <= MAX_SOURCE_LINES
