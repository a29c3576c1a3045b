"""Trainings in processes of their own, on the CPU with gloo, and what they leave behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

from conftest import ROOT
from safetensors.torch import load_file

TORCHRUN = [str(Path(sys.executable).parent / "torchrun"), "--standalone"]  # takes a free port


def launch(folder, processes, *command, code=0):
    """Standard output of `torchrun [command]` in `folder`; one process is started without torchrun."""
    start = [*TORCHRUN, f"--nproc_per_node={processes}"] if processes > 1 else [sys.executable]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*start, *map(str, command)], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr[-4000:]
    return done.stdout


def logged(folder, name):
    """What Trainer logged of each step, from the last checkpoint."""
    (*_, last) = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    history = json.loads((last / "trainer_state.json").read_text())["log_history"]
    return [entry[name] for entry in history if name in entry]


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def furthest(found, expected):
    """The largest relative difference of two lists of numbers."""
    return max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))


def furthest_weight(found, expected):
    """The largest difference of two models' weights."""
    return max((found[name] - tensor).abs().max().item() for name, tensor in expected.items())
