"""Slurm: through submitit, and with scripts/train.slurm; what there is no cluster for is played by stubs on PATH."""

import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
import submitit  # noqa: F401  not in a test: importing it closes the log handlers that are not of the standard error
from conftest import ROOT
from toys import language_model

from hf_llm import InputError, cli, compose, slurm


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A folder in front of PATH; called with a program's name and its shell script, it puts one there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def add(name, script):
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)

    return add


# As srun does for the process of rank 1, then for that of rank 0; the exit code is the highest.
SRUN = """
echo "srun $1" >>calls; shift
worst=0
for rank in 1 0; do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NTASKS=2 SLURM_NNODES=1 "$@"
    code=$?
    ((code > worst)) && worst=$code
done
exit $worst
"""
PYTHON = """
echo "$RANK of $WORLD_SIZE at $MASTER_ADDR:$MASTER_PORT, $LOCAL_RANK of $LOCAL_WORLD_SIZE:" "$@" >>calls
exit $CODE
"""


@pytest.mark.parametrize("code", [0, 1, 2, 75])
def test_the_script_starts_a_process_per_gpu_and_queues_again_only_what_saved(code, programs, tmp_path):
    programs("srun", SRUN)
    programs("python", PYTHON)
    programs("scontrol", 'if [ "$1" = show ]; then echo node-7; echo node-8; else echo "scontrol $*" >>calls; fi')
    variables = {"SLURM_JOB_ID": "41", "SLURM_JOB_NODELIST": "node-[7-8]", "CODE": str(code), "LAST_WORDS": "0"}
    command = ["bash", str(ROOT / "scripts" / "train.slurm"), "model=gpt2", "data.files.train=my book.txt"]
    environment = {**os.environ, **variables}
    environment.pop("PYTHON", None)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, "")
    calls = (tmp_path / "calls").read_text().splitlines()
    asked = "-m hf_llm train model=gpt2 data.files.train=my book.txt"
    assert calls[:3] == [
        "srun --kill-on-bad-exit=1",
        f"1 of 2 at node-7:20041, 1 of 2: {asked}",
        f"0 of 2 at node-7:20041, 0 of 2: {asked}",
    ]
    assert calls[3:] == (["scontrol requeue 41"] if code == 75 else [])


def test_the_script_asks_slurm_for_time_to_save_and_to_be_queued_again():
    text = (ROOT / "scripts" / "train.slurm").read_text()
    for option in ("--signal=USR1@120", "--requeue", "--open-mode=append"):
        assert f"\n#SBATCH {option}\n" in text
    subprocess.run(["bash", "-n", ROOT / "scripts" / "train.slurm"], check=True)


def test_the_command_queues_a_batch_script_with_what_was_asked_for(programs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    programs("srun", "exit 1")
    programs("sbatch", 'cp "$1" script; echo "Submitted batch job 17"')
    asked = ["launcher=slurm", "launcher.nodes=2", "launcher.gpus_per_node=4", "launcher.partition=gpu"]
    asked += ["launcher.account=1e3", "launcher.timeout_min=90", "launcher.additional_parameters={constraint: a100}"]
    cli.main(["train", *language_model(tmp_path), "runs_dir=outputs", "run=book", *asked])
    assert "job 17: run outputs/book/, log" in capsys.readouterr().err
    lines = (tmp_path / "script").read_text().splitlines()
    wanted = "job-name=book nodes=2 gpus-per-node=4 ntasks-per-node=4 partition=gpu account=1e3 time=90"
    for option in [*wanted.split(), "constraint=a100", "signal=USR2@120", "open-mode=append"]:
        assert f"#SBATCH --{option}" in lines
    (srun,) = [line for line in lines if line.startswith("srun")]
    assert "--kill-on-bad-exit=1" in srun
    assert re.search(r"-m submitit\.core\._submit", srun)
    assert not (tmp_path / "outputs" / "book").exists()  # nothing has begun


def test_where_there_is_no_slurm_or_no_submitit_one_line_says_so(tmp_path, monkeypatch):
    cfg = compose(*language_model(tmp_path), "launcher=slurm")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"^launcher=slurm: there is no Slurm on this machine \(no srun\)"):
        slurm.executor(cfg)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"pip install 'hf_llm\[slurm\]'"):
        slurm.executor(cfg)


def test_what_slurm_refuses_is_said_in_its_words(programs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    programs("srun", "exit 1")
    programs("sbatch", "echo 'sbatch: error: invalid partition specified: gup' >&2; exit 1")
    cfg = compose(*language_model(tmp_path), "launcher=slurm", "launcher.partition=gup")
    with pytest.raises(InputError, match=r"^launcher=slurm: Slurm refuses the job: .*invalid partition") as refused:
        slurm.submit(cfg, cfg.launcher)
    assert "\n" not in str(refused.value)


# A worker that saves when it is told to, and is done at its second start.
WORKER = """
import os, pathlib, signal, sys, time
def save(number, frame):
    pathlib.Path("saved").write_text("1")
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
if pathlib.Path("saved").exists():
    pathlib.Path("done").write_text(os.environ["RANK"] + os.environ["WORLD_SIZE"])
    sys.exit(0)
pathlib.Path("begun").write_text("1")
time.sleep(600)
"""


def test_a_preempted_job_saves_and_is_started_again_with_the_same_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "worker.py").write_text(WORKER)
    asked = ["launcher=slurm", "launcher.cluster=local", "launcher.gpus_per_node=0", "launcher.profile=cpu"]
    cfg = compose(*language_model(tmp_path), "runs_dir=outputs", *asked)
    profile = str(ROOT / "conf" / "accelerate" / "cpu.yaml")
    monkeypatch.setattr(slurm, "WORKER", (sys.executable, str(tmp_path / "worker.py")))
    job = slurm.submit(cfg, cfg.launcher.__class__(**{**vars(cfg.launcher), "profile": profile}))
    for _ in range(600):
        if (tmp_path / "begun").exists():
            break
        time.sleep(0.1)
    (task,) = psutil.Process(int(job.job_id)).children()  # as Slurm, which tells each task
    task.send_signal(signal.SIGUSR2)
    job.result()
    assert (tmp_path / "done").read_text() == "01"


@pytest.mark.slow
def test_a_job_trains_to_the_end_in_two_tasks(tmp_path):
    asked = ["launcher=slurm", "launcher.cluster=local", "launcher.gpus_per_node=0", "launcher.tasks_per_node=2"]
    cfg = compose(*language_model(tmp_path), "run=queued", *asked)
    slurm.submit(cfg, cfg.launcher).results()
    folder = tmp_path / "outputs" / "queued"
    assert (folder / "metrics.json").is_file()
    assert '"num_processes": 2' in (folder / "environment.json").read_text()
