"""Breaks a small training in every way we know, for real, and prints what was injected, what happened, what was lost.

    .venv/bin/python scripts/fault_drill.py            # all of it: 50 kills, about 15 minutes on two cores
    .venv/bin/python scripts/fault_drill.py --kills 3 --only killed damaged

Each training is a process of its own, `python -m hf_llm train …`. Nothing is lost if the run ends, at last, with the
very weights and logged losses of a run that nobody broke. The exit code is 1 where anything was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PATIENCE = 180  # seconds that a training, or the end of one, may take
STEPS = 120
COMMAND = [sys.executable, "-m", "hf_llm", "train"]
MODEL = ["model=gpt2", "model.config.n_layer=2", "model.config.n_embd=32", "model.config.n_head=2", "tokenizer=byte"]
TRAINING = [
    *("task.block_size=32", "trainer.per_device_train_batch_size=4", f"trainer.max_steps={STEPS}"),
    *("trainer.save_strategy=steps", "trainer.save_steps=4", "trainer.eval_strategy=steps", "trainer.eval_steps=20"),
    *("trainer.logging_steps=3", "trainer.disable_tqdm=true", "trainer.use_cpu=true"),
]


@dataclass
class Row:
    """A line of the table."""

    injected: str
    happened: str
    lost: str


@dataclass
class Drill:
    """A folder with a corpus, and the run that nobody breaks."""

    folder: Path
    kills: int
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def __post_init__(self) -> None:
        self.corpus = self.folder / "corpus.txt"
        words = [
            self.random.choice(["red", "blue", "green", "one", "two", "three", "cat", "dog"]) for _ in range(6000)
        ]
        self.corpus.write_text("\n".join(" ".join(words[i : i + 8]) for i in range(0, len(words), 8)))
        self.whole = self.finished("whole")

    def command(self, run: str, *more: str, corpus: Path | None = None) -> list[str]:
        where = [f"runs_dir={self.folder / 'runs'}", f"run={run}", f"data.files.train={corpus or self.corpus}"]
        return [*COMMAND, *where, *MODEL, *TRAINING, *more]

    def start(self, run: str, *more: str, **options: object) -> subprocess.Popen[str]:
        corpus = options.pop("corpus", None)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        settings: dict[str, object] = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(
            self.command(run, *more, corpus=corpus),  # type: ignore[arg-type]
            env={**environment, "HF_DATASETS_CACHE": str(self.folder / "cache")},
            **{**settings, **options},  # type: ignore[call-overload]
        )

    def said(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """The exit code and the last line, which is what a person reads first."""
        output, _ = process.communicate(timeout=PATIENCE)
        lines = [line for line in output.splitlines() if line.strip()]
        return process.returncode, lines[-1] if lines else ""

    def path(self, run: str) -> Path:
        return self.folder / "runs" / run

    def finished(self, run: str, *more: str) -> bytes:
        """Give the command until the run is complete, and what it ended with: weights and logged losses."""
        code, line = self.said(self.start(run, *more))
        if code:
            raise RuntimeError(f"run {run} ended with {code}: {line}")
        return self.result(run)

    def result(self, run: str) -> bytes:
        folder = self.path(run)
        last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        history = json.loads((last / "trainer_state.json").read_text())["log_history"]
        losses = [{key: entry[key] for key in ("step", "loss", "eval_loss") if key in entry} for entry in history]
        return (folder / "model" / "model.safetensors").read_bytes() + json.dumps(losses).encode()

    def lost(self, run: str, *more: str) -> str:
        """Go on with a run that was broken, to its end."""
        try:
            return "nothing" if self.finished(run, *more) == self.whole else "NOT THE SAME WEIGHTS OR LOSSES"
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            return f"THE RUN: {error}"

    def wait_for(self, process: subprocess.Popen[str], is_there: Callable[[], bool]) -> bool:
        """Whether it came before the process ended."""
        end = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < end:
            if is_there():
                return True
            time.sleep(0.001)
        return False

    def stopped_at(self, run: str, step: int, number: int = signal.SIGKILL, **options: object) -> tuple[int, str]:
        """Train until a checkpoint of `step` or later is there, then send the signal."""
        process = self.start(run, **options)
        self.wait_for(process, lambda: newest(self.path(run)) >= step)
        process.send_signal(number)
        return self.said(process)


def newest(folder: Path) -> int:
    return max((int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*")), default=0)


def killed(drill: Drill) -> Iterator[Row]:
    """kill -9, every second time in the middle of a save."""
    counts = {"while saving": 0, "elsewhere": 0}
    lost, run, number = [], "", 0
    while sum(counts.values()) < drill.kills:
        if not run:
            number, run = number + 1, f"killed-{number + 1}"
        process = drill.start(run)
        in_save = sum(counts.values()) % 2 == 0
        before = newest(drill.path(run))
        if in_save:
            wanted = before + 4 * drill.random.randint(1, 6)
            came = drill.wait_for(process, lambda: any(drill.path(run).glob(f".checkpoint-{wanted}*")))  # noqa: B023
            time.sleep(drill.random.random() * 0.02)
        else:
            came = drill.wait_for(process, lambda: newest(drill.path(run)) > before)  # noqa: B023
            time.sleep(drill.random.random() * 0.5)
        if came and process.poll() is None:
            process.kill()
            counts["while saving" if in_save else "elsewhere"] += 1
        process.communicate()
        if process.returncode == 0:
            lost.append("nothing" if drill.result(run) == drill.whole else "NOT THE SAME WEIGHTS OR LOSSES")
            run = ""
    if run:
        lost.append(drill.lost(run))
    said = f"{counts['while saving']} times while saving, {counts['elsewhere']} times elsewhere; {len(lost)} run(s)"
    yield Row(f"kill -9, {drill.kills} times", f"{said} went on each time", " / ".join(sorted(set(lost))))
    process = drill.start("killed-early")
    time.sleep(1)  # in the imports
    process.kill()
    process.communicate()
    yield Row("kill -9 before the first step", "the run begins again", drill.lost("killed-early"))


def signalled(drill: Drill) -> Iterator[Row]:
    """What a cluster sends, and what a person presses."""
    for number, wanted in ((signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)):
        run = f"signalled-{number.name}"
        code, line = drill.stopped_at(run, 8, number)
        good = code == wanted and "Traceback" not in line
        yield Row(number.name, f"exit code {code}: {line}", drill.lost(run) if good else f"EXIT CODE {code}")
    process = drill.start("twice")
    drill.wait_for(process, lambda: newest(drill.path("twice")) >= 8)
    process.send_signal(signal.SIGSTOP)  # so that both come before the step's end
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    drill.said(process)
    yield Row("Ctrl-C twice", f"exit code {process.returncode}", drill.lost("twice"))


def damaged(drill: Drill) -> Iterator[Row]:
    """Files of the newest checkpoint that are not what was written."""
    for how in ("cut short", "emptied", "one bit flipped", "gone"):
        run = f"damaged-{how.replace(' ', '-')}"
        drill.stopped_at(run, 12)
        checkpoint = drill.path(run) / f"checkpoint-{newest(drill.path(run))}"
        path = checkpoint / drill.random.choice(["model.safetensors", "optimizer.pt", "trainer_state.json"])
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        if how == "gone":
            path.unlink()
        else:
            path.write_bytes(bytes({"cut short": content[: len(content) // 3], "emptied": b""}.get(how, content)))
        process = drill.start(run)
        output, _ = process.communicate(timeout=PATIENCE)
        line = next((line for line in output.splitlines() if "passed over" in line), "NOT NOTICED")
        named = line.replace(str(drill.path(run)), "…")
        lost = "nothing" if process.returncode == 0 and drill.result(run) == drill.whole else "NOT THE SAME"
        yield Row(f"{path.name} {how}", named, lost if path.name in named else "NOT NOTICED")


def full(drill: Drill) -> Iterator[Row]:
    """No room for a checkpoint: a tmpfs where we may mount one, else a limit on the size of a file."""
    run = "full"
    drill.stopped_at(run, 8)
    size = (drill.path(run) / f"checkpoint-{newest(drill.path(run))}" / "optimizer.pt").stat().st_size

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    code, line = drill.said(drill.start(run, preexec_fn=limit))
    whole = "whole" in line and code == 2
    yield Row("no file may grow beyond half a checkpoint", shortened(line, drill), drill.lost(run) if whole else line)
    if not can_mount():
        yield Row("a full disk", "not tried: needs the right to mount a tmpfs", "—")
        return
    checkpoint = sum(path.stat().st_size for path in next(drill.path("full").glob("checkpoint-*")).iterdir())
    inside = drill.folder / "runs" / "tmpfs"
    inside.mkdir()
    script = f"mount -t tmpfs -o size={int(checkpoint * 2.4)} none {inside} && shift 0; {{ "
    script += (
        " ".join(drill.command(str(inside / "run")))
        + "; }; code=$?; ls -d "
        + str(inside)
        + "/run/checkpoint-*; exit $code"
    )
    process = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    error = next((line for line in process.stderr.splitlines() if line.startswith("hf-llm:")), process.stderr[-200:])
    kept = [line for line in process.stdout.splitlines() if "checkpoint-" in line]
    good = process.returncode == 2 and "could not be saved" in error and kept
    what = f"{shortened(error, drill)}; kept: {', '.join(Path(path).name for path in kept)}"
    yield Row(
        "a full disk (tmpfs)",
        what,
        "nothing: the checkpoints before it are whole" if good else "A TRACEBACK OR A CHECKPOINT",
    )


def can_mount() -> bool:
    if not shutil.which("unshare"):
        return False
    return (
        subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0
    )


def changed(drill: Drill) -> Iterator[Row]:
    """The data between stop and resume."""
    corpus = drill.folder / "other.txt"
    shutil.copy(drill.corpus, corpus)
    run = "data"
    drill.stopped_at(run, 8, corpus=corpus)
    original = corpus.read_bytes()
    for how, content in (
        ("changed", original + b"\none more"),
        ("emptied", b""),
        ("not UTF-8", b"\xff\xfe" + original),
    ):
        corpus.write_bytes(content)
        code, line = drill.said(drill.start(run, corpus=corpus))
        kept = newest(drill.path(run)) >= 8
        yield Row(f"data file {how}", shortened(line, drill), "nothing" if code == 2 and kept else "THE RUN")
    corpus.unlink()
    code, line = drill.said(drill.start(run, corpus=corpus))
    yield Row(
        "data file gone",
        shortened(line, drill),
        "nothing" if code == 2 and newest(drill.path(run)) >= 8 else "THE RUN",
    )
    corpus.write_bytes(original)
    process = drill.start(run, corpus=corpus)
    drill.said(process)
    same = process.returncode == 0 and drill.result(run) == drill.whole
    yield Row("data file put back", "goes on", "nothing" if same else "NOT THE SAME WEIGHTS OR LOSSES")


def infinite(drill: Drill) -> Iterator[Row]:
    """A learning rate that no model survives."""
    rate = ["trainer.learning_rate=1e30", "trainer.warmup_steps=10", "trainer.max_grad_norm=0"]
    code, line = drill.said(drill.start("nan", *rate))
    good = code == 2 and "is not finite, in block" in line
    yield Row("NaN loss", shortened(line, drill), "nothing: stopped before it was learnt" if good else "NOT NOTICED")


def out_of_memory(drill: Drill) -> Iterator[Row]:
    """As much memory as four rows at once need, and a batch that needs more."""
    big = [
        "task.block_size=512",
        "model.config.n_embd=256",
        "trainer.max_steps=2",
        "trainer.auto_find_batch_size=true",
    ]
    probe = drill.start("probe", *big, "trainer.per_device_train_batch_size=2")
    peak = 0
    while probe.poll() is None:
        with contextlib.suppress(psutil.Error):
            peak = max(peak, psutil.Process(probe.pid).memory_info().vms)
        time.sleep(0.01)
    probe.communicate()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (peak + (1 << 27),) * 2)

    process = drill.start("oom", *big, "trainer.per_device_train_batch_size=64", preexec_fn=limit)
    output, _ = process.communicate(timeout=PATIENCE)
    lines = [line for line in output.splitlines() if line.startswith("out of memory")]
    good = process.returncode == 0 and lines
    last = lines[-1] if lines else output.strip().splitlines()[-1]
    yield Row("out of memory on the first step", f"{len(lines)} times; {last}", "nothing" if good else "THE RUN")


def together(drill: Drill) -> Iterator[Row]:
    """Two in one run directory, and a lock that a dead process left."""
    first = drill.start("together")
    drill.wait_for(first, lambda: newest(drill.path("together")) >= 4)
    first.send_signal(signal.SIGSTOP)
    code, line = drill.said(drill.start("together"))
    first.send_signal(signal.SIGCONT)
    first.kill()
    first.communicate()
    refused = code == 2 and "another process" in line
    yield Row("a second start of a run at work", shortened(line, drill), "nothing" if refused else "NOT REFUSED")
    lock = (drill.path("together") / ".lock").exists()
    yield Row(
        f"a lock left by a killed process ({'there' if lock else 'none'})", "no obstacle", drill.lost("together")
    )


def read_only(drill: Drill) -> Iterator[Row]:
    """An output folder that nothing can be written to."""
    code, line = drill.said(drill.start("/proc/hf_llm/run"))
    yield Row("read-only output folder", shortened(line, drill), "nothing" if code == 2 else "A TRACEBACK")


def clock(drill: Drill) -> Iterator[Row]:
    """Checkpoints that seem to be from tomorrow."""
    drill.stopped_at("clock", 12)
    tomorrow = time.time() + 86400
    for path in drill.path("clock").rglob("*"):
        os.utime(path, (tomorrow - newest(path.parent), tomorrow))
    yield Row("clock set back by a day", "goes on; what is deleted goes by step", drill.lost("clock"))


def rank(drill: Drill) -> Iterator[Row]:
    """kill -9 of one process of two."""
    two = ["launcher=accelerate", "launcher.profile=cpu", "launcher.num_processes=2"]
    spread = [*two, "trainer.per_device_train_batch_size=2"]
    whole = drill.finished("two", *spread)
    for dead in (0, 1):
        run = f"rank-{dead}"
        process = drill.start(run, *spread)
        drill.wait_for(process, lambda: newest(drill.path(run)) >= 8)  # noqa: B023
        family = psutil.Process(process.pid).children(recursive=True)
        victim = next(child for child in family if rank_of(child) == str(dead))
        began = time.monotonic()
        victim.kill()
        code, _ = drill.said(process)
        took = time.monotonic() - began
        alive = [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        same = drill.finished(run, *spread) == whole
        orphans = f"{len(alive)} ORPHANS" if alive else "no orphan"
        lost = "nothing" if same and code and not alive else "NOT THE SAME WEIGHTS, OR PROCESSES LEFT"
        yield Row(f"kill -9 of rank {dead} of 2", f"ended after {took:.1f} s with {code}, {orphans}", lost)


def rank_of(process: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.Error):
        return process.environ().get("RANK")
    return None


def shortened(line: str, drill: Drill) -> str:
    return line.replace(f"{drill.folder}/", "").removeprefix("hf-llm: ")


FAULTS = [killed, rank, signalled, damaged, full, changed, infinite, out_of_memory, together, read_only, clock]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="how often a training is killed (default 50)")
    names = [fault.__name__ for fault in FAULTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="FAULT", help=", ".join(names))
    args = parser.parse_args()
    from rich.console import Console
    from rich.table import Table

    table = Table("injected", "what happened", "lost", show_lines=True)
    losses = 0
    with tempfile.TemporaryDirectory() as folder:
        drill = Drill(Path(folder), args.kills)
        for fault in FAULTS:
            if fault.__name__ in args.only:
                for row in fault(drill):
                    print(f"{row.injected}: {row.happened}. Lost: {row.lost}", file=sys.stderr)
                    losses += not row.lost.startswith(("nothing", "—"))
                    table.add_row(row.injected, row.happened, row.lost)
    Console(width=140).print(table)
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main())
