"""A small part of the fault matrix (`python -m tests.bench.fault_matrix` plays all of it)."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.server, pytest.mark.slow]

CHECKOUT = Path(__file__).parents[2]


def test_runs_that_were_killed_lose_nothing_and_double_nothing():
    stages = ["serve_waiting", "gate_candidates"]
    command = [sys.executable, "-m", "tests.bench.fault_matrix", "--only", "kill", "--times", "1", "--stages"]
    done = subprocess.run([*command, *stages], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert "2 faults: 2 with nothing lost, nothing doubled and one clear line; 0 not" in done.stdout, (
        done.stdout + done.stderr[-2000:]
    )
