"""Generated pages are those that their scripts write now."""

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("script", ["benchmarks/tables.py", "docs/generate.py"])
def test_generated_pages_are_up_to_date(script: str) -> None:
    done = subprocess.run([sys.executable, REPO / script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
