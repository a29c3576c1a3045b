"""The configuration: its schema (`schema`), and the one check that a composed configuration passes (`check`)."""

from hf_llm.config.check import check
from hf_llm.config.printable import plain, printable
from hf_llm.config.schema import (
    FORMAT,
    VERBS,
    CardConfig,
    DataConfig,
    DemoConfig,
    EvaluateConfig,
    GenerateConfig,
    InputError,
    LauncherConfig,
    ModelConfig,
    PredictConfig,
    PullConfig,
    PushConfig,
    RerunConfig,
    SavedModel,
    TokenizerConfig,
    TrainConfig,
)
from hf_llm.config.values import nearest

__all__ = [
    "FORMAT",
    "VERBS",
    "CardConfig",
    "DataConfig",
    "DemoConfig",
    "EvaluateConfig",
    "GenerateConfig",
    "InputError",
    "LauncherConfig",
    "ModelConfig",
    "PredictConfig",
    "PullConfig",
    "PushConfig",
    "RerunConfig",
    "SavedModel",
    "TokenizerConfig",
    "TrainConfig",
    "check",
    "nearest",
    "plain",
    "printable",
]
