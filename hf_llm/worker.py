"""One of the processes that a launcher starts: `python -m hf_llm.worker FILE` trains what the file describes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import yaml

from hf_llm.cli import one_line_errors
from hf_llm.config import TrainConfig
from hf_llm.distributed import as_text, from_text
from hf_llm.processes import end_with_parent


def job_text(cfg: TrainConfig) -> str:
    """A checked configuration, and the command that it came from: what the file for `main` holds."""
    return yaml.safe_dump({"command": sys.argv, "config": as_text(cfg)}, allow_unicode=True)


def main(path: str) -> None:
    """Train what `job_text` wrote to `path`; the exit code is that of `hf-llm train`."""
    if "SUBMITIT_EXECUTOR" in os.environ:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm's, meant for the process that started this one
    with one_line_errors():
        job = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        sys.argv = job["command"]  # what environment.json will say
        from hf_llm.training import train_command

        train_command(from_text(job["config"]))


if __name__ == "__main__":
    end_with_parent()
    main(sys.argv[1])
