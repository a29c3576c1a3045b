"""Where the numbers of a run come from: the command, the versions, the source and the machine."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any


def environment(seed: int, data_fingerprint: str | None) -> dict[str, Any]:
    """What a run's environment.json has from its start; `runs.record` adds to it."""
    packages = ("torch", "transformers", "datasets", "tokenizers", "accelerate", "evaluate", "hydra-core", "numpy")
    return {
        "command": _command_line(),
        "seed": seed,
        "num_processes": int(os.environ.get("WORLD_SIZE", 1)),
        "data_fingerprint": data_fingerprint,
        "git_commit": _git_commit(),
        "hf_llm": importlib.metadata.version("hf_llm"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "hardware": _hardware(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }


def _hardware() -> dict[str, Any]:
    import psutil
    import torch

    if torch.cuda.is_available():
        accelerators = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    else:
        accelerators = [str(torch.accelerator.current_accelerator())] if torch.accelerator.is_available() else []
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "accelerators": accelerators,
    }


def _processor() -> str:
    """The processor's name, which Python's own platform module does not know on Linux."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def _command_line() -> str:
    """The command as a person would type it again."""
    program = [os.path.basename(sys.argv[0]) if sys.argv else "python"]
    if program == ["__main__.py"]:
        program = ["python", "-m", Path(sys.argv[0]).parent.name]
    return shlex.join([*program, *(arg for arg in sys.argv[1:] if not arg.startswith("hydra"))])


def _git_commit() -> str | None:
    """The commit of the folder the command ran in, with `-dirty` where files differ from it; None outside git."""
    try:
        described = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(described, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
