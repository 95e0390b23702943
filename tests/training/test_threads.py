"""How many threads a training uses, and how they wait: seen from outside, since OpenMP reads its environment once."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import os, sys
from boxel.cli import main
assert "torch" not in sys.modules  # with which OpenMP is loaded
main(["--version"])
import torch
from boxel.training.engine import start_processes
from boxel.training.settings import resolve_run
counts = [torch.get_num_threads()]
for settings in ({}, {"threads": 3}):
    start_processes(resolve_run("boxinst", None, None, None, {"device": "cpu", **settings}).settings)
    counts.append(torch.get_num_threads())
print(os.environ["OMP_WAIT_POLICY"])
print(counts)
"""


@pytest.mark.parametrize("policy", ["passive", "active"])
def test_threads_sleep_unless_the_user_chose_and_their_number_is_the_setting(policy):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_DISPLAY_ENV": "verbose"}
    environment.pop("OMP_WAIT_POLICY", None)
    if policy == "active":
        environment["OMP_WAIT_POLICY"] = policy
    words = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == [policy, "[1, 1, 3]"]
    if "GOMP_SPINCOUNT" in done.stderr:  # GNU's OpenMP, of PyTorch on Linux, reports how long threads spin
        assert ("GOMP_SPINCOUNT = '0'" in done.stderr) == (policy == "passive")
