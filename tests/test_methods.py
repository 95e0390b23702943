"""The table of methods: what it names exists."""

from dataclasses import fields

import pytest
from torch import nn

from boxel.methods import METHODS, SEMANTIC, get_method, resolve
from boxel.training.config import TrainConfig
from boxel.training.lit_module import Task
from boxel.utils.errors import UsageError


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_all_parts_of_a_method_exist(method) -> None:
    assert issubclass(resolve(method.training), TrainConfig)
    assert issubclass(resolve(method.task), Task)
    assert issubclass(resolve(method.model), nn.Module)
    assert callable(resolve(method.samples)) and callable(resolve(method.check))
    model = next(entry for entry in fields(resolve(method.training)) if entry.name == "model")
    assert model.default_factory is resolve(method.config)
    if method.exporter is not None:
        assert {"outputs", "runtime", "check"} <= set(vars(resolve(method.exporter)))


def test_semantic_methods_are_the_segmenters() -> None:
    assert SEMANTIC == ("fcrn", "boxsup")


def test_unknown_method_names_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"there is no method 'boxints'; .*Did you mean 'boxinst'\?"):
        get_method("boxints")
