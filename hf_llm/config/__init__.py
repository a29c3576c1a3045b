"""The configuration: its schema (`schema`), and the one check that a composed configuration passes (`check`)."""

from hf_llm.config.check import check, nearest
from hf_llm.config.schema import (
    VERBS,
    DataConfig,
    EvaluateConfig,
    GenerateConfig,
    InputError,
    LauncherConfig,
    ModelConfig,
    PredictConfig,
    SavedModel,
    TokenizerConfig,
    TrainConfig,
)

__all__ = [
    "VERBS",
    "DataConfig",
    "EvaluateConfig",
    "GenerateConfig",
    "InputError",
    "LauncherConfig",
    "ModelConfig",
    "PredictConfig",
    "SavedModel",
    "TokenizerConfig",
    "TrainConfig",
    "check",
    "nearest",
]
