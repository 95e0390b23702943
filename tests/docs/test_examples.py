"""Every public function and class has an example in its docstring; `pytest --doctest-modules` runs them."""

import runpy
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FunctionType

import pytest

from boxel.utils.config import Config

REPO = Path(__file__).resolve().parents[2]

WITHOUT_EXAMPLE = {
    "Calibration": "of `fit_calibration`, whose example shows it",
    "Comparison": "of `compare`, which evaluates models",
    "Crops": "of `extract_crops`, whose example shows it",
    "Detector": "a base class; its subclasses have one",
    "DrawSummary": "of `draw_dataset`, which writes files",
    "Evaluation": "of `evaluate`, whose example shows it",
    "LabelResult": "of `label_data`, whose example shows it",
    "LabeledImage": "of `label_image`, whose example shows it",
    "MergedTasks": "of `merge_tasks`, whose example shows it",
    "ModelServeConfig": "settings of `serve_model`",
    "NextMask": "of `choose_next`, whose example shows it",
    "OperatingPoint": "of `best_threshold`, whose example shows it",
    "PredictionSummary": "of `predict`, which writes files",
    "Push": "of `push_to_hub`, which uploads",
    "RepairRecord": "of `repair_with_record`, whose example shows it",
    "ReviewConfig": "settings of `serve_review`",
    "ServeConfig": "settings of `serve_tool`",
    "Segmenter": "a base class; its subclasses have one",
    "Teacher": "a protocol; the page on labels shows how to write one",
    "serve_model": "of `boxel serve`, which waits for requests",
    "serve_review": "of `boxel review`, which waits for a browser",
    "serve_tool": "of `boxel serve`, which waits for an annotation tool",
    "write_evaluation_report": "of `boxel evaluate --report`, which gathers what it takes",
}


def names_without_example() -> Iterator[str]:
    """Public functions, and classes other than errors and settings, whose attributes are all there is to them."""
    for package in runpy.run_path(str(REPO / "docs" / "generate.py"))["PACKAGES"]:
        module = import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            if not isinstance(value, type | FunctionType) or not value.__module__.startswith("boxel."):
                continue  # a constant or an alias of a type
            exempt = isinstance(value, type) and issubclass(value, Config | Exception)
            if not exempt and ">>>" not in (value.__doc__ or ""):
                yield name


@pytest.mark.slow
def test_every_public_function_and_class_has_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPO / "docs"))  # for the modules that generate.py imports
    assert set(names_without_example()) == set(WITHOUT_EXAMPLE)
