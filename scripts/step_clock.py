"""Run a Python program as it is, and write down when each optimizer step ends and when chosen functions run.

    python scripts/step_clock.py MARKS.jsonl WATCHED program.py [argument …]
    python scripts/step_clock.py MARKS.jsonl WATCHED -m module [argument …]

WATCHED is a comma-separated list of module:function, such as datasets.dataset_dict:DatasetDict.map, or empty. The
same clock runs hf_llm and its peers. It imports nothing that the program would not import, and nothing earlier: it
waits for the modules to be imported. Each line of MARKS is {"name": "step" or the function, "start": [wall, cpu],
"end": [wall, cpu]} in seconds: wall of CLOCK_MONOTONIC, the same clock in every process, and cpu of this process with
all its threads. The first step of each optimizer, and each call of Trainer.train, also has "settings": what the
optimizer, the arguments and the model are, so that two programs can be compared in them.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import json
import os
import runpy
import sys
import time
from types import ModuleType
from typing import Any, TextIO
from weakref import WeakSet

OPTIMIZER = "torch.optim.optimizer"


def now() -> list[float]:
    return [time.monotonic(), time.process_time()]


def of_optimizer(optimizer: Any) -> dict[str, Any]:
    """What decides an optimizer's work: its class, its options, and how many numbers of which type it updates."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    return {
        "optimizer": type(optimizer).__name__,
        **{f"optimizer.{name}": bool(optimizer.defaults.get(name)) for name in ("fused", "foreach")},
        "dtype": ", ".join(sorted({str(weight.dtype) for weight in weights})),
        "parameters": sum(weight.numel() for weight in weights),
    }


def of_trainer(trainer: Any, *_: Any, **__: Any) -> dict[str, Any]:
    """A Trainer's arguments, its model's configuration, how attention is computed, and how many rows there are."""
    config, rows = trainer.model.config, trainer.train_dataset
    return {
        "rows": len(rows) if hasattr(rows, "__len__") else None,
        **{f"trainer.{name}": value for name, value in json.loads(trainer.args.to_json_string()).items()},
        **{f"model.{name}": value for name, value in json.loads(config.to_json_string(use_diff=False)).items()},
        "model.attention": getattr(config, "_attn_implementation", None),
    }


DESCRIBED = {"Trainer.train": of_trainer}


class Clock(importlib.abc.MetaPathFinder):
    """Attaches itself to the watched modules as soon as the program has imported them."""

    def __init__(self, marks: TextIO, watched: list[str]):
        self.marks = marks
        self.functions: dict[str, list[str]] = {OPTIMIZER: []}
        self.stepped: WeakSet[Any] = WeakSet()  # optimizers
        for function in watched:
            module, _, path = function.partition(":")
            self.functions.setdefault(module, []).append(path)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.functions:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_attach(module: ModuleType) -> None:
                execute(module)
                self.attach(fullname, module)

            spec.loader.exec_module = execute_and_attach  # type: ignore[method-assign]
        return spec

    def attach(self, name: str, module: ModuleType) -> None:
        if name == OPTIMIZER:
            module.register_optimizer_step_post_hook(lambda optimizer, *_: self.step(optimizer))
        for path in self.functions[name]:
            *owners, function = path.split(".")
            owner = functools.reduce(getattr, owners, module)
            setattr(owner, function, self.timed(path, getattr(owner, function)))

    def timed(self, name: str, function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            start = now()
            try:
                return function(*args, **kwargs)
            finally:
                end = now()
                settings = DESCRIBED[name](*args, **kwargs) if name in DESCRIBED else None
                self.mark(name, start, end, settings)

        return call

    def step(self, optimizer: Any) -> None:
        end = now()
        first = optimizer not in self.stepped
        self.stepped.add(optimizer)
        self.mark("step", end, end, of_optimizer(optimizer) if first else None)

    def mark(self, name: str, start: list[float], end: list[float], settings: dict[str, Any] | None) -> None:
        line = {"name": name, "start": start, "end": end, **({"settings": settings} if settings else {})}
        self.marks.write(json.dumps(line) + "\n")


def main() -> None:
    marks, watched, program, *arguments = sys.argv[1:]
    with open(marks, "w", encoding="utf-8") as file:
        sys.meta_path.insert(0, Clock(file, [name for name in watched.split(",") if name]))
        if program == "-m":
            program, *arguments = arguments
            sys.argv = [program, *arguments]
            sys.path[0] = os.getcwd()  # as python -m does
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            sys.argv = [program, *arguments]
            sys.path[0] = os.path.dirname(os.path.abspath(program))
            runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
