"""Processes that end together, with stand-ins for a training: what each does is told by its rank."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

# Starts two of the program that it is given, as `hf-llm train launcher=accelerate` does.
LAUNCHER = """
import os, sys
from hf_llm.processes import run_together
environments = [{**os.environ, "RANK": str(rank)} for rank in range(2)]
sys.exit(run_together([sys.executable, "-c", sys.argv[1]], environments, shutdown_timeout=float(sys.argv[2])))
"""
# What a program of a rank may use. A rank is there once its file is.
PRELUDE = """
import os, pathlib, signal, sys, time
from hf_llm.processes import end_with_parent
end_with_parent()
rank = int(os.environ["RANK"])
def note(text): pathlib.Path(f"rank-{rank}").write_text(f"{os.getpid()} {text}")
"""


def start(folder: Path, program: str, shutdown_timeout: float = 60, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", LAUNCHER, PRELUDE + program, str(shutdown_timeout)]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True, **options)


def noted(folder: Path, rank: int, text: str) -> int:
    """The process id that a rank noted with `text`, once it has."""
    for _ in range(600):
        words = path.read_text().split() if (path := folder / f"rank-{rank}").exists() else []
        if words[1:] == [text]:
            return int(words[0])
        time.sleep(0.05)
    raise AssertionError(f"rank {rank} never noted {text!r}")


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ended(pid: int) -> bool:
    for _ in range(200):
        if not is_alive(pid):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("code", [0, 1, 2, 75, 130])
def test_the_exit_code_is_that_of_the_process_that_failed(tmp_path, code):
    launcher = start(tmp_path, f"sys.exit({code} if rank == 1 else 0)")
    assert launcher.communicate()[1] == ""  # no traceback, no word of our own
    assert launcher.returncode == code


def test_a_process_that_failed_ends_the_others_which_would_wait_for_it(tmp_path):
    launcher = start(tmp_path, "note('there')\nif rank == 1: sys.exit(2)\ntime.sleep(600)")
    assert launcher.communicate()[1] == ""
    assert launcher.returncode == 2
    assert ended(noted(tmp_path, 0, "there"))


def test_a_process_that_was_killed_ends_the_others_and_is_told_of(tmp_path):
    launcher = start(tmp_path, "note('there'); time.sleep(600)")
    noted(tmp_path, 0, "there")
    os.kill(noted(tmp_path, 1, "there"), signal.SIGKILL)
    said = launcher.communicate()[1]
    assert said.startswith("hf-llm: process 1 was ended by SIGKILL")
    assert len(said.splitlines()) == 1
    assert launcher.returncode == 137
    assert ended(noted(tmp_path, 0, "there"))


SAVES = """
def save(number, frame):
    time.sleep(1 + rank)
    note(signal.Signals(number).name)
    sys.exit(75)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1): signal.signal(number, save)
note('there')
while True: time.sleep(1)
"""


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGINT"), ("SIGUSR1", "SIGUSR1"), ("SIGHUP", "SIGTERM")],
)
def test_a_signal_reaches_every_process_which_has_time_to_save(tmp_path, sent, arrives):
    launcher = start(tmp_path, SAVES)
    for rank in (0, 1):
        noted(tmp_path, rank, "there")
    os.kill(launcher.pid, signal.Signals[sent])
    assert launcher.communicate()[1] == ""
    assert launcher.returncode == 75
    for rank in (0, 1):  # the later one, too
        noted(tmp_path, rank, arrives)


def test_ctrl_c_in_a_terminal_reaches_each_process_once(tmp_path):
    counts = SAVES.replace("sys.exit(75)", "global count; count += 1; note(count)")
    program = f"count = 0\n{counts}"
    launcher = start(tmp_path, program, shutdown_timeout=4)
    for rank in (0, 1):
        noted(tmp_path, rank, "there")
    os.killpg(launcher.pid, signal.SIGINT)  # all of the terminal's foreground processes
    said = launcher.communicate()[1]
    assert said == "hf-llm: ended 4 s after it was told to stop, before it had saved\n"
    assert launcher.returncode == 137
    assert [noted(tmp_path, rank, "1") > 0 for rank in (0, 1)] == [True, True]


def test_no_process_outlives_a_launcher_that_was_killed(tmp_path):
    child = "import time; time.sleep(600)"  # as a dataloader's worker
    program = f"import subprocess\nchild = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
    program += "pathlib.Path(f'child-{rank}').write_text(str(child.pid)); note('there')\ntime.sleep(600)"
    launcher = start(tmp_path, program)
    workers = [noted(tmp_path, rank, "there") for rank in (0, 1)]
    workers += [int((tmp_path / f"child-{rank}").read_text()) for rank in (0, 1)]
    launcher.kill()
    launcher.communicate()
    assert [ended(pid) for pid in workers] == [True] * 4
