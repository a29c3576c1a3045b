"""`check()`: a composed configuration -> a typed one, or one message with every mistake in it.

Hydra stops at the first mistake, and lets `+key=…` and `++key=…` pass; so Hydra only composes, and the checking is
done here. Torch and transformers are never imported: their dataclasses are read from source (`declared`).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from hf_llm.config import declared
from hf_llm.config.generation import check_settings
from hf_llm.config.known import ANY_NUMBER, DERIVED_MODEL_KEYS, OPTIONS, RANGES, REFUSED, RENAMED, model_range
from hf_llm.config.schema import (
    CardConfig,
    DataConfig,
    InputError,
    LauncherConfig,
    ModelConfig,
    SavedModel,
    TokenizerConfig,
    TrainConfig,
)
from hf_llm.config.values import LEFT_OPEN, message, not_an_option, typed, unknown

Schema = TypeVar("Schema")

_RUN = "run: missing; name a trained run (run=NAME)"
_REPO = "repo: missing; name a repository of the Hub (repo=OWNER/NAME)"
NEEDED = {
    "PushConfig": {"run": _RUN, "repo": _REPO},
    "PullConfig": {"repo": _REPO},
    "RerunConfig": {"run": _RUN.replace("NAME)", "NAME or run=OWNER/NAME)")},
}
NESTED = {
    cls.__name__: cls for cls in (CardConfig, DataConfig, TokenizerConfig, ModelConfig, LauncherConfig, SavedModel)
}


def check(composed: Mapping[str, Any], schema: type[Schema], known_mistakes: Iterable[str] = ()) -> Schema:
    """Validate `composed` (a plain mapping) against `schema`, one of `schema.VERBS`.

    Args:
        known_mistakes: lines found before (a config group's missing option, say) to list with those found here.

    Raises:
        InputError: listing every unknown key, wrong type and missing choice, each with the nearest valid one.
    """
    mistakes = list(known_mistakes)
    annotations = {field.name for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    values = _dataclass(schema, composed, "", mistakes)
    strict = values.get("format") != 1  # a run of that time keeps the numbers that were taken then
    if isinstance(trainer := values.get("trainer", {}), dict):
        _trainer(trainer, mistakes, strict)
    if isinstance(task := values.get("task", {}), dict):
        _task(task, mistakes, strict, required=schema.__name__ == "TrainConfig")
    check_settings(values, mistakes)
    if isinstance(values.get("model"), ModelConfig):
        _model(values["model"], mistakes, strict)
    if values.get("early_stopping_patience") and not mistakes and trainer.get("eval_strategy", "no") == "no":
        mistakes.append("early_stopping_patience: nothing is measured while training; set trainer.eval_strategy=epoch")
    if schema.__name__ in ("EvaluateConfig", "PredictConfig", "RerunConfig"):
        partial = _dataclass(DataConfig, values.get("data") or {}, "data.", mistakes)
        values["data"] = {key: partial[key] for key in values.get("data") or {} if key in partial}
    if "model" in annotations and schema.__name__ != "TrainConfig" and not mistakes:
        _one_model(values, mistakes)
    mistakes += [line for key, line in NEEDED.get(schema.__name__, {}).items() if not values.get(key)]
    if mistakes:
        raise InputError(message(list(dict.fromkeys(mistakes))))
    cfg = schema(**values)
    if isinstance(cfg, TrainConfig):
        _settle(cfg)
    return cfg


def _settle(cfg: TrainConfig) -> None:
    """Write out what follows from other keys, so that config.yaml says what was done."""
    if not cfg.tokenizer.pretrained and not cfg.tokenizer.algorithm:
        if cfg.model.pretrained:
            cfg.tokenizer.pretrained, cfg.tokenizer.revision = cfg.model.pretrained, cfg.model.revision
        else:
            cfg.tokenizer.algorithm = "byte_level_bpe"
    if cfg.trainer.get("output_dir"):
        cfg.run = os.path.abspath(cfg.trainer.pop("output_dir"))  # where run= finds it again
    if cfg.early_stopping_patience is not None:
        cfg.trainer = {"load_best_model_at_end": True, "metric_for_best_model": "loss", **cfg.trainer}


def _dataclass(cls: type, given: Mapping[str, Any], prefix: str, mistakes: list[str]) -> dict[str, Any]:
    """The given values of `cls`'s fields, typed; nested dataclasses are built."""
    annotations = {field.name: str(field.type) for field in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in annotations:
            mistakes.append(unknown(str(key), annotations, prefix))
        elif annotations[key] in NESTED and value != LEFT_OPEN:
            if not isinstance(value, Mapping):
                wrong = "missing; choose one" if value is None else f"a group of keys, not {value!r}"
                mistakes.append(f"{prefix}{key}: {wrong}")
                continue
            nested = NESTED[annotations[key]]
            values[key] = nested(**_dataclass(nested, value, f"{prefix}{key}.", mistakes))
        else:
            values[key] = _typed(annotations[key], value, f"{prefix}{key}", mistakes)
    return values


def _typed(annotation: str, value: Any, key: str, mistakes: list[str], strict: bool = True) -> Any:
    return typed(annotation, value, key, mistakes, RANGES.get(key, ANY_NUMBER) if strict else ANY_NUMBER)


def _trainer(trainer: dict[str, Any], mistakes: list[str], strict: bool) -> None:
    fields = declared.trainer_fields()
    for key, value in trainer.items():
        if key in REFUSED and value not in REFUSED[key][0]:
            mistakes.append(f"trainer.{key}: {REFUSED[key][1]}")
        elif key in fields:
            trainer[key] = _typed(fields[key], value, f"trainer.{key}", mistakes, strict)
            if strict:
                _choices(key, trainer[key], mistakes)
        elif key in RENAMED:
            mistakes.append(f"trainer.{key}: transformers 5 has no such argument; write {RENAMED[key]}")
        else:
            mistakes.append(unknown(key, fields, "trainer."))


def _choices(key: str, value: Any, mistakes: list[str]) -> None:
    """An argument whose type is text, or a list, and whose values are a few words all the same."""
    options = declared.trainer_choices().get(key) or OPTIONS.get(f"trainer.{key}")
    for one in value if isinstance(value, list) else [value]:
        if options and one not in (*options, LEFT_OPEN):
            mistakes.append(f"trainer.{key}: {not_an_option(one, map(_as_yaml, options))}")


def _as_yaml(value: Any) -> str:
    return {None: "null", True: "true", False: "false"}.get(value, str(value))


def _task(task: dict[str, Any], mistakes: list[str], strict: bool, *, required: bool) -> None:
    name = task.get("name")
    if name is None:
        if required:
            mistakes.append(f"task: missing; choose one of {', '.join(declared.tasks())}, as in task=causal_lm")
        return
    if name not in declared.tasks():
        mistakes.append(f"task.name: {not_an_option(name, declared.tasks())}")
        return
    fields = declared.task_fields(name)
    for key, value in task.items():
        if key in fields:
            task[key] = _typed(fields[key], value, f"task.{key}", mistakes, strict)
        else:
            mistakes.append(unknown(key, fields, "task.") + f" (task.name={name})")


def _model(model: ModelConfig, mistakes: list[str], strict: bool) -> None:
    for key, value in model.config.items() if isinstance(model.config, dict) else ():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and strict and (wrong := model_range(key).wrong(value)):
            mistakes.append(f"model.config.{key}: {value!r} {wrong}")
    if not model.arch and not model.pretrained and not any(line.startswith("model.") for line in mistakes):
        mistakes.append("model: neither arch nor pretrained; choose one, as in model=gpt2 or model.pretrained=FOLDER")
        return
    if not isinstance(model.config, dict) or not model.arch or model.pretrained:
        return  # a pretrained model's config class is known only once its config.json is read
    if model.arch not in declared.architectures() and model.arch not in declared.registered():
        mistakes.append(f"model.arch: {not_an_option(model.arch, declared.architectures())}")
        return
    fields = declared.model_fields(model.arch)
    for key, value in model.config.items():
        if key in DERIVED_MODEL_KEYS:
            mistakes.append(f"model.config.{key}: not set by hand: {DERIVED_MODEL_KEYS[key]}")
        elif fields is None:
            continue  # models.build asks the class itself
        elif key in fields:
            model.config[key] = typed(fields[key], value, f"model.config.{key}", mistakes)
        else:
            mistakes.append(unknown(key, fields, "model.config.") + f" (model.arch={model.arch})")


def _one_model(values: dict[str, Any], mistakes: list[str]) -> None:
    run, model = values.get("run"), values.get("model") or SavedModel()
    if run and model.pretrained:
        mistakes.append(f"run={run} and model.pretrained={model.pretrained}: give one of them")
    elif not run and not model.pretrained:
        mistakes.append("run: missing; name a trained run (run=NAME) or a model (model.pretrained=FOLDER_OR_HUB_ID)")
