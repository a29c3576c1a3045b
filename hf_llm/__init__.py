"""hf_llm: compose a run from small YAML files, train it with Hugging Face's Trainer, measure it honestly.

    from hf_llm import compose, evaluate, generate, launch, predict, pull, push, rerun, train

    run = train(compose("train", "model=gpt2", "trainer.max_steps=200"))

Importing the package loads neither torch nor transformers: each name is fetched when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "InputError": "hf_llm.config",
    "compose": "hf_llm.cli",
    "evaluate": "hf_llm.evaluation",
    "generate": "hf_llm.generation",
    "launch": "hf_llm.launching",
    "predict": "hf_llm.prediction",
    "pull": "hf_llm.publishing",
    "push": "hf_llm.publishing",
    "rerun": "hf_llm.rerunning",
    "train": "hf_llm.training",
}

__all__ = [
    "InputError",
    "__version__",
    "compose",
    "evaluate",
    "generate",
    "launch",
    "predict",
    "pull",
    "push",
    "rerun",
    "train",
]

if TYPE_CHECKING:
    from hf_llm.cli import compose
    from hf_llm.config import InputError
    from hf_llm.evaluation import evaluate
    from hf_llm.generation import generate
    from hf_llm.launching import launch
    from hf_llm.prediction import predict
    from hf_llm.publishing import pull, push
    from hf_llm.rerunning import rerun
    from hf_llm.training import train


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
