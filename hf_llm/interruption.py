"""Signals that ask a training to stop: Ctrl-C, and what a cluster sends before it takes the machine away.

While a step is at work a signal is only noted, and the training stops at the step's end with a checkpoint; at any
other time it stops at once, for nothing would be lost.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator

logger = logging.getLogger(__name__)

PREEMPTED = 75  # the exit code: sysexits.h's EX_TEMPFAIL, "try again later"; a batch script may requeue on it

SIGNALS = [signal.SIGINT, signal.SIGTERM]
if hasattr(signal, "SIGUSR1"):  # not on Windows
    SIGNALS.append(signal.SIGUSR1)  # what `#SBATCH --signal=USR1@120` sends


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run; the same command goes on with it.

    Args:
        number: of the signal.
        step: of the checkpoint that was saved for it; None where it stopped between steps.
    """

    def __init__(self, number: int, step: int | None = None):
        self.number, self.step = signal.Signals(number), step
        at = f"step {step}, saved; the same command goes on from there"
        between = "the same command goes on from the last checkpoint, if there is one"
        super().__init__(f"interrupted by {self.number.name}: {between if step is None else at}")

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, as a shell has it; `PREEMPTED` for what a cluster sends."""
        return 130 if self.number == signal.SIGINT else PREEMPTED


class Watch:
    """Which signal has come, if any; `deferring` says that it is to be noted and no more."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.is_deferred = False

    @contextlib.contextmanager
    def deferring(self) -> Iterator[None]:
        """Only note signals in here: the caller looks at `number` where it can stop without loss."""
        self.is_deferred = True
        try:
            yield
        finally:
            self.is_deferred = False

    def notice(self, number: int, frame: object = None) -> None:
        """The handler of every signal in `SIGNALS`."""
        if number == signal.SIGINT and "ipykernel" not in sys.modules:  # whose process is more than this training
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C quits at once
        if not self.is_deferred:
            raise Interrupted(number)
        if self.number is None:
            self.number = number
            again = " (Ctrl-C again quits without saving)" if number == signal.SIGINT else ""
            logger.warning("%s: saving a checkpoint at the end of this step%s", signal.Signals(number).name, again)


WATCH = Watch()  # signals are the process's own, so there is one


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """Handle `SIGNALS` in here, then leave them as they were. Outside the main thread Python lets nobody do so."""
    WATCH.number = None
    if threading.current_thread() is not threading.main_thread():
        yield WATCH
        return
    before = {number: signal.signal(number, WATCH.notice) for number in SIGNALS}
    try:
        yield WATCH
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
