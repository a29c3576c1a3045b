"""`launcher=slurm`: the training as a Slurm job, through submitit (the optional extra `slurm`).

What submitit pickles is a `Job`: a few strings, and no object of the training. On the cluster each of the job's tasks
starts one `python -m hf_llm.worker`, with the environment of torch.distributed. Told by Slurm that its time is over,
or that it has to make room, the job has its workers save, and is queued again: the run directory is where it goes on.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_llm import console, runs
from hf_llm.config import InputError, LauncherConfig, TrainConfig
from hf_llm.interruption import PREEMPTED

if TYPE_CHECKING:
    from submitit import AutoExecutor
    from submitit import Job as SubmittedJob
    from submitit.core.utils import DelayedSubmission

WORKER = (sys.executable, "-m", "hf_llm.worker")
SAVING_TIME = 120  # seconds before the end of its time at which a job is told to save


@dataclasses.dataclass
class Job:
    """One task of the Slurm job: `job` is the text of a worker's file (`worker.job_text`)."""

    job: str
    launcher: LauncherConfig
    command: tuple[str, ...]

    def __call__(self) -> None:
        """Train to the end, or until the job is told to make room. Exits with the worker's code where it failed."""
        from submitit.core.job_environment import JobEnvironment

        number = JobEnvironment._usr_sig()
        queue_again: Any = signal.getsignal(number)  # submitit's: on rank 0 it calls checkpoint(), and exits
        told: list[int] = []
        with tempfile.TemporaryDirectory(prefix="hf_llm-") as folder:
            path = Path(folder) / "job.yaml"
            path.write_text(self.job, encoding="utf-8")
            worker = subprocess.Popen([*self.command, str(path)], env=self._environment(), start_new_session=True)

            def save(number: int, frame: Any) -> None:
                told.append(number)
                worker.send_signal(signal.SIGTERM)

            signal.signal(number, save)  # on every rank: all of them have to save before one has the job ended
            code = worker.wait()
        signal.signal(number, queue_again)
        if told and code in (PREEMPTED, -signal.SIGTERM):  # saved, or not yet ready to
            if callable(queue_again):
                queue_again(number, None)
        elif code:
            sys.exit(code if code > 0 else 128 - code)

    def checkpoint(self) -> DelayedSubmission:
        """What submitit queues again: the same, for the run directory has all that there is to go on from."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _environment(self) -> dict[str, str]:
        from submitit.helpers import TorchDistributedEnvironment

        task = TorchDistributedEnvironment()
        if task.world_size == 1 and not self.launcher.profile:
            return {**os.environ, "HF_LLM_PARENT": str(os.getpid())}
        variables: dict[str, str] = dict(os.environ)
        if self.launcher.profile:
            from hf_llm.accelerate_profiles import arguments, environment

            one = dataclasses.replace(self.launcher, num_processes=task.world_size, num_machines=1)
            variables = environment(arguments(one))
        return {
            **variables,
            "MASTER_ADDR": task.master_addr,
            "MASTER_PORT": str(task.master_port),
            "RANK": str(task.rank),
            "WORLD_SIZE": str(task.world_size),
            "LOCAL_RANK": str(task.local_rank),
            "LOCAL_WORLD_SIZE": str(task.local_world_size),
            "HF_LLM_PARENT": str(os.getpid()),
        }


def submit_command(cfg: TrainConfig, launcher: LauncherConfig) -> None:
    """`hf-llm train launcher=slurm`: queue the job, and say where it writes."""
    job = submit(cfg, launcher)
    console.say(f"job {job.job_id}: run {runs.directory(cfg)}/, log {job.paths.stderr}")


def submit(cfg: TrainConfig, launcher: LauncherConfig) -> SubmittedJob[None]:
    """Queue the training as a Slurm job; `launcher` is `cfg.launcher`, its profile a path.

    Raises:
        InputError: submitit or Slurm is not there, or refuses the settings.
    """
    from hf_llm.worker import job_text

    chosen = executor(cfg)
    from submitit.core.utils import FailedJobError

    try:
        return chosen.submit(Job(job_text(cfg), launcher, WORKER))
    except FailedJobError as error:
        said = str(error).strip().splitlines()  # the last line is sbatch's own
        raise InputError(f"launcher=slurm: Slurm refuses the job: {said[-1] if said else error!r}") from error


def executor(cfg: TrainConfig) -> AutoExecutor:
    """submitit's executor, with the settings of `cfg.launcher`."""
    try:
        import submitit
    except ImportError as error:
        raise InputError("launcher=slurm needs the package submitit: pip install 'hf_llm[slurm]'") from error
    launcher = cfg.launcher
    folder = Path(launcher.folder or f"{cfg.runs_dir}/.submitit/%j").absolute()
    given = {
        "name": runs.directory(cfg).name,
        "timeout_min": launcher.timeout_min,
        "nodes": launcher.nodes,
        "gpus_per_node": launcher.gpus_per_node,
        "tasks_per_node": launcher.tasks_per_node or launcher.gpus_per_node or 1,
        "cpus_per_task": launcher.cpus_per_task,
        "mem_gb": launcher.mem_gb,
        "slurm_partition": launcher.partition,
        "slurm_account": launcher.account,
        "slurm_additional_parameters": launcher.additional_parameters or None,
        "slurm_signal_delay_s": SAVING_TIME,
        "slurm_srun_args": ["--kill-on-bad-exit=1"],  # one that fails ends the job, on all nodes
    }
    try:
        chosen = submitit.AutoExecutor(folder=folder, cluster=launcher.cluster, slurm_max_num_timeout=1000)
        chosen.update_parameters(**{key: value for key, value in given.items() if value is not None})
    except (RuntimeError, ValueError, NameError, TypeError, OSError) as error:
        text = " ".join(str(error).split())
        if "srun" in text:
            text = "there is no Slurm on this machine (no srun): run the command where jobs are submitted from"
        raise InputError(f"launcher=slurm: {text}") from error
    return chosen
