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
TRAIN = "transformers.trainer:Trainer.train"


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

    def step_marks(self) -> list[dict[str, Any]]:
        """Each optimizer step of the training.

        Where Trainer trains, a step outside Trainer.train is none of them: hf_llm's preflight takes one on torch's
        meta device, to count the bytes of the optimizer's state.
        """
        trainings = self.calls(TRAIN)
        return [
            mark
            for mark in self.marks
            if mark["name"] == "step"
            and (not trainings or any(call["start"][0] <= mark["end"][0] <= call["end"][0] for call in trainings))
        ]

    def steps(self) -> list[list[float]]:
        """[wall, cpu] at the end of each optimizer step of the training."""
        return [mark["end"] for mark in self.step_marks()]

    def calls(self, function: str) -> list[dict[str, Any]]:
        return [mark for mark in self.marks if mark["name"] == function.partition(":")[2]]

    def spent_in(self, function: str) -> Reading:
        """Seconds in all calls of a watched function."""
        calls = self.calls(function)
        if not calls:
            raise RuntimeError(f"{function} was never called")
        return Reading(*(sum(mark["end"][clock] - mark["start"][clock] for mark in calls) for clock in (0, 1)))

    def settings(self) -> dict[str, Any]:
        """The optimizer, the arguments and the model of the training."""
        found: dict[str, Any] = {}
        for mark in [*self.step_marks()[:1], *self.calls(TRAIN)]:
            found |= mark.get("settings", {})
        return found


# Settings that decide no work and no result: where things are written, and what a model is called. The type of the
# weights is read off the optimizer, which has them.
IDLE = (
    "output_dir",
    "run_name",
    "do_train",
    "do_eval",
    "log_level",
    "local_rank",
    "project",
    "trackio",
    "hub_",
    "push",
)
IDLE_OF_MODEL = ("_name_or_path", "transformers_version", "architectures", "id2label", "label2id", "dtype")


def differences(ours: dict[str, Any], peer: dict[str, Any]) -> list[str]:
    """`name: ours | the peer's` of each setting that both sides have, and not the same."""
    idle = (*(f"trainer.{name}" for name in IDLE), *(f"model.{name}" for name in IDLE_OF_MODEL))
    names = [name for name in ours if name in peer and ours[name] != peer[name] and not name.startswith(idle)]
    return [f"{name}: {ours[name]} | {peer[name]}" for name in names]


def whole_process(sample: Sample) -> Reading:
    return Reading(sample.wall, sample.cpu)


def first_step(sample: Sample) -> Reading:
    """From the command to the end of the first optimizer step of the training."""
    wall, cpu = sample.steps()[0]
    return Reading(wall - sample.started, cpu)


def trained(sample: Sample) -> Reading:
    """From the command to the end of the training: imports, reading, tokenising and all."""
    wall, cpu = sample.calls(TRAIN)[-1]["end"]
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
    clock = [] if watched is None else [str(SCRIPTS / "step_clock.py"), str(marks), ",".join((*watched, TRAIN))]
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
