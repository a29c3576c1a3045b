"""One file per task; `get` finds it by `task.name`, so that a new task is a new file and a new YAML, nothing else."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from hf_llm.config import InputError, ModelConfig
from hf_llm.config.declared import task_fields
from hf_llm.config.values import unknown
from hf_llm.tasks.base import Task

__all__ = ["Task", "for_architecture", "get"]


def get(options: dict[str, Any], model: ModelConfig | None = None) -> Task:
    """The task that `options["name"]` names, with the other options as its fields (`check` has validated them).

    Args:
        model: what it is to be done with, where that is known: some tasks have models of several kinds.
    """
    options = dict(options)
    name = options.pop("name")
    fields = task_fields(name)
    for key in options:
        if key not in fields:
            raise InputError(f"{unknown(key, fields, 'task.')} (task.name={name})")
    task = _class(name)(**options)
    if model is not None:
        task.choose_model(model)
    return task


def for_architecture(architecture: str) -> str:
    """The task of a saved model, by the class that its config.json names (`GPT2LMHeadModel` -> causal_lm)."""
    from hf_llm.config.declared import tasks

    for name in tasks():
        if architecture.endswith(_class(name).architecture_endings):
            return name
    raise InputError(f"{architecture} is none of this project's tasks' models: name the task, as in task=causal_lm")


def _class(name: str) -> type[Task]:
    module = importlib.import_module(f"hf_llm.tasks.{name}")
    for value in vars(module).values():
        if inspect.isclass(value) and issubclass(value, Task) and value.__module__ == module.__name__:
            return value
    raise InputError(f"hf_llm/tasks/{name}.py defines no Task")
