"""Where the processes of a training come from: `launcher=accelerate` on the command line, `launch()` in a notebook.

The configuration is composed and checked once, before any process starts, and handed to all of them. What a profile of
conf/accelerate means for a process is accelerate's to say (the environment that `accelerate launch` would set).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_llm import processes, runs
from hf_llm.config import InputError, LauncherConfig, TrainConfig, nearest
from hf_llm.config.paths import CONF

if TYPE_CHECKING:
    from hf_llm.training import Run

WORKER = ("-m", "hf_llm.worker")


def launch(cfg: TrainConfig, num_processes: int | None = None, **launcher: Any) -> Run:
    """Train in processes of their own, and wait: for notebooks, where the kernel is to touch no GPU.

    Args:
        num_processes: how many; None: one per GPU of this machine, or what the profile says.
        launcher: other fields of `cfg.launcher`, such as `profile="fsdp2"`.

    Returns:
        The run's folder and metrics; the model is in `folder/model`.

    Raises:
        InputError: as of `train`.
        RuntimeError: the training failed; what it said is above.
    """
    given = {"num_processes": num_processes, **launcher}
    name = "accelerate" if cfg.launcher.name == "local" else cfg.launcher.name
    settings = {"name": name, **{key: value for key, value in given.items() if value is not None}}
    cfg = dataclasses.replace(cfg, launcher=dataclasses.replace(cfg.launcher, **settings))
    if cfg.launcher.name != "accelerate":
        raise InputError(f"launcher={cfg.launcher.name}: launch() waits, and a queue would not; use hf-llm train")
    profile_of(cfg.launcher)
    with _job_file(cfg) as path:
        code, said = _shown([sys.executable, "-m", "hf_llm.launching", str(path)])
    if code == 2:
        raise InputError(said.rpartition("hf-llm: ")[2].strip() or "the training refused its input")
    if code:
        raise RuntimeError(f"the training ended with exit code {code}; what it said is above")
    folder = runs.directory(cfg)
    from hf_llm.training import Run

    return Run(folder, runs.read_json(folder / runs.METRICS))


def launch_command(cfg: TrainConfig, config_dir: str | None = None) -> None:
    """`hf-llm train launcher=accelerate`: exits with the code of the process that failed first."""
    launcher = dataclasses.replace(cfg.launcher, profile=profile_of(cfg.launcher, config_dir))
    if launcher.name == "slurm":
        from hf_llm.slurm import submit_command

        return submit_command(cfg, launcher)
    with _job_file(cfg) as path:
        code = start(launcher, path)
    if code:
        sys.exit(code)


@contextlib.contextmanager
def _job_file(cfg: TrainConfig) -> Iterator[Path]:
    from hf_llm.worker import job_text

    with tempfile.TemporaryDirectory(prefix="hf_llm-") as folder:
        path = Path(folder) / "job.yaml"
        path.write_text(job_text(cfg), encoding="utf-8")
        yield path


def profile_of(launcher: LauncherConfig, config_dir: str | None = None) -> str | None:
    """The path of the accelerate config file that `launcher.profile` names; None where it names none.

    Raises:
        InputError: there is no such file.
    """
    profile = launcher.profile
    if profile is None or Path(profile).is_file():
        return profile and os.path.abspath(profile)
    folders = [Path(folder) / "accelerate" for folder in (config_dir, CONF) if folder]
    for folder in folders:
        if (folder / f"{profile}.yaml").is_file():
            return str((folder / f"{profile}.yaml").resolve())
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    hint = f"did you mean {near}? " if (near := nearest(profile, known)) else ""
    raise InputError(f"launcher.profile={profile}: no such profile or file; {hint}there are {', '.join(known)}")


def start(launcher: LauncherConfig, job: Path) -> int:
    """Run this machine's share of the processes that `launcher` describes; their exit code.

    Raises:
        InputError: the profile, or what it needs, does not fit this machine.
    """
    from hf_llm.accelerate_profiles import plan

    with plan(launcher) as (environments, failed_elsewhere, on_failure):
        return processes.run_together(
            [sys.executable, *WORKER, str(job)],
            environments,
            shutdown_timeout=launcher.shutdown_timeout,
            failed_elsewhere=failed_elsewhere,
            on_failure=on_failure,
        )


def _shown(command: list[str]) -> tuple[int, str]:
    """Run `command`, showing what it says as it says it; its exit code and the end of what it said.

    A notebook shows what is written to sys.stdout, not what a child process writes to its own.
    """
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        env={**os.environ, "HF_LLM_PARENT": str(os.getpid())},
    )  # fmt: skip
    said, stream = "", child.stdout
    assert stream is not None
    while True:
        try:
            if not (chunk := os.read(stream.fileno(), 65536)):
                return child.wait(), said
        except KeyboardInterrupt:  # once to the training, which saves; its exit code says the rest
            child.send_signal(2)
            continue
        text = decoder.decode(chunk)
        sys.stdout.write(text)
        sys.stdout.flush()
        said = (said + text)[-10000:]


if __name__ == "__main__":
    from hf_llm.cli import one_line_errors
    from hf_llm.distributed import from_text

    processes.end_with_parent()
    with one_line_errors():
        import yaml

        settings = from_text(yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))["config"]).launcher
        exit_code = start(dataclasses.replace(settings, profile=profile_of(settings)), Path(sys.argv[1]))
    sys.exit(exit_code)
