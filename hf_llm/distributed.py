"""What the processes of one training agree on before they have a process group: the configuration, and who speaks.

They do so over the store that torch.distributed itself starts from (`env://`: MASTER_ADDR, MASTER_PORT, RANK and
WORLD_SIZE, which torchrun, accelerate, `hf-llm train launcher=…` and scripts/train.slurm all set).
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import yaml

from hf_llm.config import InputError, TrainConfig, check

# Rank 0 may be long in coming: its machine may start after the others. And it reads the data while they wait.
PATIENCE = timedelta(minutes=30)
FAILED = "hf_llm/failed"  # a counter: the process that takes it from 0 to 1 is the one to tell why
_calls = itertools.count()  # each process asks for the same things in the same order


def world_size() -> int:
    """The number of processes that train together, by the launcher's own variable."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def as_text(cfg: TrainConfig) -> str:
    """A checked configuration, to be handed to another process; `from_text` reads it."""
    return yaml.safe_dump(dataclasses.asdict(cfg), sort_keys=False, allow_unicode=True)


def from_text(text: str) -> TrainConfig:
    """Raises InputError where `text` is no configuration of this version."""
    return check(yaml.safe_load(text), TrainConfig)


def agreed(cfg: TrainConfig) -> TrainConfig:
    """Rank 0's configuration, on every rank: what one composes from another environment does not matter."""
    if world_size() == 1:
        return cfg
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # each rank warns of what DDP need not have looked for
    _use_the_cpu_where_there_is_no_accelerator()
    return from_text(of_rank_0(lambda: as_text(cfg)))


def of_rank_0(make: Callable[[], str]) -> str:
    """What `make` returns on rank 0, on every rank; only rank 0 calls it. The others wait."""
    if world_size() == 1:
        return make()
    store, key = _store(), f"hf_llm/{next(_calls)}"
    if os.environ.get("RANK") == "0":
        text = make()
        store.set(key, text)
        return text
    return store.get(key).decode()


def may_speak(error: BaseException) -> bool:
    """Whether this process is the one to tell what ended the training: the first that failed, of all.

    The others fail because it has gone. Where that shows in `error`, they give it, or the launcher, time to say so.
    """
    if world_size() == 1:
        return True
    if not isinstance(error, InputError) and any(sign in str(error) for sign in LOST_PEER):
        time.sleep(2)
    try:
        return _store(timedelta(seconds=20)).add(FAILED, 1) == 1
    except Exception:  # there is no store, or it has gone with rank 0
        return os.environ.get("RANK") == "0"


# In the errors of gloo, NCCL and the store when another process has gone.
LOST_PEER = ("Connection closed by peer", "Connection reset by peer", "gloo", "NCCL", "recvValue failed", "sendBytes")


_opened: list[Any] = []


def _store(timeout: timedelta = PATIENCE) -> Any:
    """The store, opened once.

    Raises:
        InputError: the launcher did not say where it is.
    """
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise InputError(
            f"WORLD_SIZE={world_size()} without {' and '.join(missing)}: a launcher sets all of them (torchrun, "
            "accelerate launch, `hf-llm train launcher=accelerate`); for one process unset WORLD_SIZE"
        )
    if not _opened:
        import torch.distributed

        # Rank 0 hosts it, unless the launcher does; the process group will share it, or be another client of it.
        _opened.append(next(torch.distributed.rendezvous("env://", timeout=timeout))[0])
    return _opened[0]


def _use_the_cpu_where_there_is_no_accelerator() -> None:
    """Else accelerate would find neither GPU nor word of the CPU, and let each process train on its own."""
    import torch

    if not torch.accelerator.is_available():
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
