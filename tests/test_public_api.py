"""The public names of boxel, and what they import."""

import subprocess
import sys

import pytest

import boxel


def test_every_public_name_is_listed_and_importable():
    assert {"read", "label", "BoxSegmenter", "train", "evaluate", "BoxelError"} <= set(dir(boxel))
    assert set(boxel.__all__) == set(dir(boxel))
    for name in boxel.__all__:
        assert getattr(boxel, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        boxel.nothing  # noqa: B018


@pytest.mark.slow
def test_importing_label_loads_no_heavy_package():
    code = """
import sys
import boxel
boxel.label
heavy = {"torch", "scipy", "onnxruntime", "matplotlib", "supervision", "skimage", "joblib"}
print(sorted(heavy & set(sys.modules)))
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
