"""The processes of one machine: started together, told to stop together, ended together.

torch's elastic agent is not used for it: it ends with 1 whatever its workers end with, gives them 30 seconds to save,
does not hand SIGUSR1 on, and shows a traceback of its own for each of these.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hf_llm.interruption import PREEMPTED

STOPPED = (PREEMPTED, 130)  # ended as they were told to: the others are about to
# What the launching process is sent -> what each worker is sent. Their terminal has gone, too.
FORWARDED = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGUSR1,
    signal.SIGHUP: signal.SIGTERM,
}
LAST_WORDS = 5  # seconds in which the peers of a process that failed may end by themselves


def run_together(
    command: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    *,
    shutdown_timeout: float = 120,
    failed_elsewhere: Callable[[], bool] = lambda: False,
    on_failure: Callable[[], Any] = lambda: None,
) -> int:
    """Run `command` once with each environment, until all have ended or one has failed.

    Args:
        environments: of each process; rank order.
        shutdown_timeout: seconds from a signal, or from the first process that obeyed one, to SIGKILL.
        failed_elsewhere: asked twice a second, whether the processes of another machine failed.
        on_failure: called once, when a process here has failed.

    Returns:
        0, or the exit code of the process that failed first; 128 and the signal's number where one killed it.
    """
    workers: list[subprocess.Popen[bytes]] = []
    failed: subprocess.Popen[bytes] | None = None
    elsewhere = told = False
    deadline = float("inf")
    with _received_signals() as received:
        try:
            for environment in environments:
                workers.append(_start(command, environment))
            asked = time.monotonic()
            while _running(workers):
                now = time.monotonic()
                while received:
                    told, deadline = True, now + shutdown_timeout
                    _send(workers, FORWARDED[signal.Signals(received.pop(0))])
                if failed is None and (failed := _first_failed(workers)) is not None:
                    on_failure()
                    patience = shutdown_timeout if told or failed.returncode in STOPPED else LAST_WORDS
                    deadline = min(deadline, now + patience)
                if failed is None and not elsewhere and now - asked > 0.5:
                    asked = now
                    if elsewhere := failed_elsewhere():
                        deadline = min(deadline, now + LAST_WORDS)
                if now > deadline:
                    break
                time.sleep(0.1)
            failed = failed or _first_failed(workers)
        finally:
            late = _kill(workers)
    if failed is not None and failed.returncode < 0:
        if not told:
            _tell_of_killed(workers.index(failed), environments, failed.returncode)
        return 128 - failed.returncode
    if failed is not None:
        return int(failed.returncode)
    if late and not elsewhere:
        print(f"hf-llm: ended {shutdown_timeout:g} s after it was told to stop, before it had saved", file=sys.stderr)
        return 128 + signal.SIGKILL
    return 1 if elsewhere else 0


def _start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C in a terminal reaches the launching process alone, which hands it on, once.
    environment = {**environment, "HF_LLM_PARENT": str(os.getpid())}
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)


@contextlib.contextmanager
def _received_signals() -> Iterator[list[int]]:
    """A list that grows by each signal to be forwarded. Only a main thread can listen to them."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    ours = [number for number in FORWARDED if signal.getsignal(number) != signal.SIG_IGN]  # as nohup has SIGHUP
    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in ours}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _running(workers: Sequence[subprocess.Popen[bytes]]) -> list[subprocess.Popen[bytes]]:
    return [worker for worker in workers if worker.poll() is None]


def _send(workers: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for worker in _running(workers):
        worker.send_signal(number)


def _first_failed(workers: Sequence[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes] | None:
    """Of those that have failed by now; one that was killed has not failed because of another."""
    return min((worker for worker in workers if worker.returncode), key=lambda worker: worker.returncode, default=None)


def _kill(workers: Sequence[subprocess.Popen[bytes]]) -> bool:
    """End what is left, with its own children (dataloader workers). Whether there was any."""
    left = _running(workers)
    for worker in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.kill()
        worker.wait()
    return bool(left)


def _tell_of_killed(index: int, environments: Sequence[Mapping[str, str]], code: int) -> None:
    """No one else can: it had no time to say a word."""
    rank = environments[index].get("RANK", index)
    name = signal.Signals(-code).name
    cause = " (the system does that where memory runs out)" if name == "SIGKILL" else ""
    print(f"hf-llm: process {rank} was ended by {name}{cause}", file=sys.stderr)


def end_with_parent() -> None:
    """Have this process end when the one that started it has gone, with the children of its own.

    Portable, where Linux's PR_SET_PDEATHSIG would be tied to the thread that started it.
    """
    parent = int(os.environ.get("HF_LLM_PARENT") or 0)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.killpg(os.getpgid(0), signal.SIGKILL)

    if parent and os.getpgid(0) == os.getpid():  # a session of our own, lest others be ended
        threading.Thread(target=watch, name="end_with_parent", daemon=True).start()
