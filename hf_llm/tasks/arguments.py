"""The trainer's settings -> transformers' own TrainingArguments.

transformers finds some mistakes only once the data and the model are there, in words that name no key. They are looked
for here, before: files that are to be read, the optimizer, the schedule and the trackers are tried.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_llm.config import InputError

if TYPE_CHECKING:
    from transformers import TrainingArguments

FILES = ("accelerator_config", "deepspeed", "fsdp_config")  # settings that may be the path of a JSON file


def training_arguments(settings: Mapping[str, Any]) -> TrainingArguments:
    """The arguments that `settings` describe.

    Raises:
        InputError: naming the key that cannot be used, and what would be right.
    """
    from transformers import TrainingArguments
    from transformers.utils import is_liger_kernel_available

    for key in FILES:
        _check_file(key, settings.get(key))
    if settings.get("deepspeed"):
        _check_deepspeed()
    with complaints_as_input_errors():
        args = TrainingArguments(**settings)
    if args.dataloader_persistent_workers and not args.dataloader_num_workers:
        raise InputError(
            "trainer.dataloader_persistent_workers=true: there are no workers; give trainer.dataloader_num_workers"
        )
    if args.use_liger_kernel and not is_liger_kernel_available():
        raise InputError("trainer.use_liger_kernel=true: needs the package liger-kernel; `pip install liger-kernel`")
    _try_optimizer(args)
    _try_trackers(args)
    return args


@contextlib.contextmanager
def complaints_as_input_errors(key: str = "trainer") -> Iterator[None]:
    """What transformers refuses among the trainer's settings was the user's to give."""
    try:
        yield
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{key}: {' '.join(str(error).split())}") from error


def _check_file(key: str, value: Any) -> None:
    if not isinstance(value, str) or value.lstrip().startswith("{"):  # the settings themselves
        return
    here = f"trainer.{key}={value}"
    right = f"give a JSON file, or the settings themselves, as in trainer.{key}={{name: value}}"
    try:
        content = json.loads(Path(value).expanduser().read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{here}: no such file; {right}") from error
    except OSError as error:
        raise InputError(f"{here}: cannot be read ({error.strerror}); {right}") from error
    except ValueError as error:
        raise InputError(f"{here}: not JSON ({error}); {right}") from error
    if not isinstance(content, dict):
        raise InputError(f"{here}: holds no JSON object; {right}")


def _check_deepspeed() -> None:
    from transformers.integrations import is_deepspeed_available

    if not is_deepspeed_available():
        raise InputError("trainer.deepspeed: needs the package deepspeed; `pip install deepspeed`, or leave it out")


def _try_optimizer(args: TrainingArguments) -> None:
    """A toy's optimizer and schedule: the true ones would complain only once the data and the model are there."""
    import torch
    from transformers import SchedulerType, Trainer, get_scheduler
    from transformers.trainer_optimizer import is_optimizer_factory
    from transformers.training_args import OptimizerNames

    given = args.optim_args
    if given and not all(part.count("=") == 1 for part in given.split(",")):
        raise InputError(f"trainer.optim_args={given}: give NAME=VALUE, with commas between, as in 'momentum=0.9'")
    toy: Any = torch.nn.utils.skip_init(torch.nn.Linear, 1, 1, device=args.device)  # draws no random number
    trial = copy.copy(args)
    if trial.optim_target_modules:  # those of the true model are not there
        trial.optim_target_modules = "all-linear"
    key = f"trainer.optim={OptimizerNames(args.optim).value}" + (f" with optim_args={given}" if given else "")
    with complaints_as_input_errors(key):
        optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(trial, toy)
        if not is_optimizer_factory(optimizer_class):
            optimizer_class(**{"params": toy.parameters(), **options})
    settings: Any = args.lr_scheduler_kwargs
    key = f"trainer.lr_scheduler_type={SchedulerType(args.lr_scheduler_type).value}"
    with complaints_as_input_errors(key + (f" with lr_scheduler_kwargs={settings}" if settings else "")):
        idle = torch.optim.SGD(toy.parameters())
        get_scheduler(args.lr_scheduler_type, idle, 0, 1, scheduler_specific_kwargs=settings)


def _try_trackers(args: TrainingArguments) -> None:
    from transformers.integrations import get_reporting_integration_callbacks

    for name in args.report_to or []:
        with complaints_as_input_errors(f"trainer.report_to={name}"):
            for callback in get_reporting_integration_callbacks([name]):
                # making one, as Trainer will, finds a missing package; MLflow's __del__ would end a run of the user's
                type("Trial", (callback,), {"__del__": lambda self: None})()
