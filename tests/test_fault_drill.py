"""Faults of the real world, on real processes: `scripts/fault_drill.py`."""

import subprocess
import sys

import pytest
from conftest import ROOT


def drill(*arguments):
    command = [sys.executable, str(ROOT / "scripts" / "fault_drill.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_a_training_that_is_killed_signalled_or_has_no_numbers_left_loses_nothing():
    done = drill("--kills", "2", "--only", "killed", "signalled", "infinite")
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stderr.splitlines() if "Lost:" in line]
    assert len(lines) == 7
    assert all("Lost: nothing" in line for line in lines)


@pytest.mark.slow  # about 20 minutes on two cores
def test_no_fault_that_we_know_loses_anything():
    done = drill()
    assert done.returncode == 0, done.stderr[-3000:]
