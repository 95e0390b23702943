"""The pages of docs/benchmarks are those that benchmarks/tables.py makes from the recorded results."""

import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def test_benchmark_pages_are_up_to_date() -> None:
    command = [sys.executable, REPO / "benchmarks" / "tables.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
