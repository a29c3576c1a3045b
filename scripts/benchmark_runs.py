"""Run one side of a comparison as a process of its own, and read figures off it."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

SCRIPTS = Path(__file__).resolve().parent


class Reading(NamedTuple):
    """One figure of one run, and where it is a time the CPU time beside it, which a busy machine disturbs less."""

    value: float
    cpu: float | None = None


@dataclass
class Sample:
    """One finished process. Wall times are CLOCK_MONOTONIC seconds; `marks` is what step_clock.py wrote."""

    started: float
    wall: float
    cpu: float
    peak_memory: float  # MB, of the whole process
    folder: Path
    marks: list[dict[str, Any]]

    def steps(self) -> list[list[float]]:
        """[wall, cpu] at the end of each optimizer step."""
        return [mark["end"] for mark in self.marks if mark["name"] == "step"]

    def spent_in(self, function: str) -> Reading:
        """Seconds in all calls of a watched function."""
        name = function.partition(":")[2]
        calls = [mark for mark in self.marks if mark["name"] == name]
        if not calls:
            raise RuntimeError(f"{function} was never called")
        return Reading(*(sum(mark["end"][clock] - mark["start"][clock] for mark in calls) for clock in (0, 1)))


def whole_process(sample: Sample) -> Reading:
    return Reading(sample.wall, sample.cpu)


def first_step(sample: Sample) -> Reading:
    """From the command to the end of the first optimizer step."""
    wall, cpu = sample.steps()[0]
    return Reading(wall - sample.started, cpu)


def step_time(sample: Sample) -> Reading:
    """Milliseconds a step, data loading and all: the median, without the first tenth of the steps (at least two)."""
    steps = sample.steps()[max(2, len(sample.steps()) // 10) :]
    pairs = list(itertools.pairwise(steps))
    return Reading(*(1000 * statistics.median(b[clock] - a[clock] for a, b in pairs) for clock in (0, 1)))


def peak_memory(sample: Sample) -> Reading:
    return Reading(sample.peak_memory)


def rate(amount: float, time: Reading) -> Reading:
    return Reading(amount / time.value, None if time.cpu is None else amount / time.cpu)


def run(command: list[str], folder: Path, work: Path, watched: tuple[str, ...] | None) -> Sample:
    """Run `python COMMAND` in `work`, and wait. What it prints goes to a log in `folder`.

    Raises:
        RuntimeError: it failed; with the last line of its log.
    """
    marks, log = folder / "marks.jsonl", folder / "log"
    clock = [] if watched is None else [str(SCRIPTS / "step_clock.py"), str(marks), ",".join(watched)]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        **{"PYTHONPATH": str(SCRIPTS.parent), "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"},
        **{"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"},
    }
    with log.open("w") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *clock, *command], cwd=work, env=environment, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)  # waited for here, so that Popen need not
    if process.returncode:
        lines = log.read_text(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
        raise RuntimeError(lines[-1])
    per_mb = 1e6 if sys.platform == "darwin" else 1e3  # ru_maxrss is in bytes there, in kB on Linux
    return Sample(
        started=started,
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        peak_memory=usage.ru_maxrss / per_mb,
        folder=folder,
        marks=[json.loads(line) for line in marks.read_text().splitlines()] if marks.is_file() else [],
    )
