"""Sessions of onnxruntime."""

import subprocess
import sys

import pytest

from boxel.models.pretrained import model_folder

CODE = """
import onnxruntime
from boxel.labeling import BoxSegmenter

calls = []
onnxruntime.disable_telemetry_events = lambda: calls.append(1)
BoxSegmenter()
print(len(calls))
"""


@pytest.mark.slow
def test_telemetry_is_off_before_there_is_a_session():
    assert (model_folder("boxcaseg") / "model.onnx").is_file()
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 1
