"""An accelerate config file (conf/accelerate) -> the environment of each process that it asks for.

accelerate's own code reads the file and says what it means, as for `accelerate launch`; only the starting is ours.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from hf_llm.config import InputError, LauncherConfig
from hf_llm.config.paths import CONF
from hf_llm.distributed import FAILED

OURS = ("num_processes", "num_machines", "machine_rank", "main_process_ip", "main_process_port")
Plan = tuple[list[dict[str, str]], Callable[[], bool], Callable[[], Any]]


def default_profile() -> str:
    """The profile for the GPUs that are here."""
    import torch

    name = ("cpu", "single_gpu", "ddp")[min(torch.cuda.device_count(), 2)]
    return str(CONF / "accelerate" / f"{name}.yaml")


@contextlib.contextmanager
def plan(launcher: LauncherConfig) -> Iterator[Plan]:
    """The environments of this machine's processes; whether another machine's failed; and how to say that ours did.

    While it is open this process hosts the store that the processes meet at (that of machine 0 does).

    Raises:
        InputError: the profile, or what it needs, does not fit this machine.
    """
    args = arguments(launcher)
    machines, machine = int(args.num_machines or 1), int(args.machine_rank or 0)
    total = int(args.num_processes)
    local, rest = divmod(total, machines)
    if rest or not local:
        raise InputError(
            f"launcher.num_processes={total}: of all machines together, the same number on each of {machines}"
        )
    if not 0 <= machine < machines:
        raise InputError(f"launcher.machine_rank={machine}: machines are counted from 0, and there are {machines}")
    _check_devices(args, launcher, local)
    shared = environment(args)
    if total == 1 and not (args.use_fsdp or args.use_deepspeed):
        yield [_one_gpu(shared)], lambda: False, lambda: None
        return
    store = _store(args, machines, machine)
    met = {
        "MASTER_ADDR": args.main_process_ip if machines > 1 else "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(total),
        "LOCAL_WORLD_SIZE": str(local),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # torch's word for: the launcher hosts the store
    }
    ranks = [{"RANK": str(machine * local + index), "LOCAL_RANK": str(index)} for index in range(local)]

    def failed_elsewhere() -> bool:
        with contextlib.suppress(RuntimeError):
            return machines > 1 and store.check(["hf_llm/machine_failed"])
        return True  # the store has gone, and machine 0 with it

    def on_failure() -> None:
        with contextlib.suppress(RuntimeError):
            store.set("hf_llm/machine_failed", "1")
            store.add(FAILED, 1)  # what its peers say from now on is about its going

    yield [{**shared, **met, **rank} for rank in ranks], failed_elsewhere, on_failure
    if machines > 1:
        _leave_together(store, machines, machine)


def _leave_together(store: Any, machines: int, machine: int) -> None:
    """Machine 0 hosts the store to the end of all: of the others' last words, too."""
    import time

    with contextlib.suppress(RuntimeError):
        store.add("hf_llm/left", 1)
        end = time.monotonic() + 60
        while machine == 0 and store.add("hf_llm/left", 0) < machines and time.monotonic() < end:
            time.sleep(0.2)


def arguments(launcher: LauncherConfig) -> argparse.Namespace:
    """What `accelerate launch` makes of the profile and of what `launcher` overrides in it.

    Raises:
        InputError: the file is no config file of accelerate's, or asks for what cannot be.
    """
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    profile = launcher.profile or default_profile()
    here = f"launcher.profile={Path(profile).stem if Path(profile).parent == CONF / 'accelerate' else profile}"
    given = [f"--{name}={getattr(launcher, name)}" for name in OURS if getattr(launcher, name) is not None]
    settings = _read(profile, here)
    if launcher.num_processes is None and "num_processes" not in settings:
        given.append(f"--num_processes={_as_many_as_gpus(launcher, settings)}")
    if settings.get("num_machines", 1) == 1 and launcher.num_machines in (None, 1) and not launcher.main_process_port:
        given.append("--main_process_port=0")  # any that is free
    if settings.get("use_cpu") and "OMP_NUM_THREADS" not in os.environ:
        wanted = launcher.num_processes or settings.get("num_processes", 1)
        given.append(f"--num_cpu_threads_per_process={max(1, (os.cpu_count() or 1) // wanted)}")
    parser = launch_command_parser()
    try:
        args, defaults, precision_from_file = _validate_launch_command(
            parser.parse_args([f"--config_file={profile}", *given, "-m", "hf_llm.worker"])
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{here}: accelerate refuses it: {' '.join(str(error).split())}") from error
    fields = [*(defaults.deepspeed_config or {}), *(["mixed_precision"] if precision_from_file else [])]
    args.deepspeed_fields_from_accelerate_config = ",".join(fields)
    if int(args.num_machines or 1) > 1 and not (args.main_process_ip and args.main_process_port):
        raise InputError(
            f"{here} on {args.num_machines} machines: where do they meet? Give launcher.main_process_ip=ADDRESS and "
            "launcher.main_process_port=PORT of machine 0, and launcher.machine_rank=N, another on each"
        )
    return args


def _read(profile: str, here: str) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(Path(profile).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{here}: cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or "distributed_type" not in content:
        raise InputError(f"{here}: no config file of accelerate's (`accelerate config` writes one)")
    return content


def _as_many_as_gpus(launcher: LauncherConfig, settings: dict[str, Any]) -> int:
    import torch

    return max(1, torch.cuda.device_count()) * (launcher.num_machines or settings.get("num_machines", 1))


def environment(args: argparse.Namespace) -> dict[str, str]:
    """The variables by which accelerate tells its processes of the profile; on top of this process's own."""
    from accelerate.utils.launch import (
        prepare_deepspeed_cmd_env,
        prepare_multi_gpu_env,
        prepare_simple_launcher_cmd_env,
    )

    try:
        if args.use_deepspeed:
            args.deepspeed_multinode_launcher = "standard"  # each machine starts its own processes
            return prepare_deepspeed_cmd_env(args)[1]
        if args.use_fsdp or args.multi_gpu:
            return prepare_multi_gpu_env(args)
        return prepare_simple_launcher_cmd_env(args)[1]
    except (ValueError, ConnectionError) as error:
        raise InputError(f"launcher: {' '.join(str(error).split())}") from error


def _one_gpu(variables: dict[str, str]) -> dict[str, str]:
    """The first of the GPUs that the user left visible: Trainer would spread over all (DataParallel)."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible and "CUDA_VISIBLE_DEVICES" in variables:
        return {**variables, "CUDA_VISIBLE_DEVICES": visible.split(",")[0]}
    return variables


def _check_devices(args: argparse.Namespace, launcher: LauncherConfig, local: int) -> None:
    import importlib.util

    import torch

    name = Path(launcher.profile or default_profile()).stem
    if args.use_deepspeed and not importlib.util.find_spec("deepspeed"):
        raise InputError(f"launcher.profile={name} needs the package deepspeed: pip install deepspeed")
    needs_gpus = (args.multi_gpu or args.use_fsdp or args.use_deepspeed) and not args.use_cpu
    if needs_gpus and not torch.accelerator.is_available():
        raise InputError(f"launcher.profile={name}: torch finds no GPU here; launcher.profile=cpu needs none")
    if needs_gpus and torch.accelerator.device_count() < local:
        raise InputError(
            f"launcher.num_processes={args.num_processes}: {local} processes on this machine, which has "
            f"{torch.accelerator.device_count()} GPUs; one process per GPU"
        )


def _store(args: argparse.Namespace, machines: int, machine: int) -> Any:
    """The store that all processes meet at. This process hosts it, or that of machine 0.

    A port that the system chose and this process holds is no one else's, and outlives rank 0.
    """
    from torch.distributed import TCPStore

    host, port = (args.main_process_ip, int(args.main_process_port)) if machines > 1 else ("127.0.0.1", 0)
    where = f"launcher.main_process_ip={host} launcher.main_process_port={port}"
    try:
        return TCPStore(host, port, is_master=machine == 0, wait_for_workers=False, timeout=timedelta(minutes=30))
    except (RuntimeError, ValueError) as error:
        why = "the port is in use" if "EADDRINUSE" in str(error) else "machine 0 cannot be reached there"
        raise InputError(f"{where}: {why}") from error
