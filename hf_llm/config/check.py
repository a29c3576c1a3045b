"""`check()`: a composed configuration -> a typed one, or one message with every mistake in it.

Hydra stops at the first mistake, and lets `+key=…` and `++key=…` pass; so Hydra only composes, and the checking is
done here. Torch and transformers are never imported: their dataclasses are read from source (`declared`).
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from hf_llm.config import declared
from hf_llm.config.known import AT_LEAST, AT_MOST, DERIVED_MODEL_KEYS, MAY_BE_INFINITE, REFUSED, RENAMED, SIZES
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

Schema = TypeVar("Schema")

LEFT_OPEN = "???"  # Hydra's word in a YAML for a value that the user has to give
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


def nearest(word: str, options: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The option most like `word`, if any is: of likeness `cutoff` at least, between 0 and 1."""
    found = difflib.get_close_matches(word, list(options), n=1, cutoff=cutoff)
    return found[0] if found else None


def unknown(key: str, options: Iterable[str], prefix: str = "") -> str:
    """The message for a key that is none of `options`."""
    options = sorted(options)
    hint = nearest(key, options)
    if hint:
        return f"{prefix}{key}: no such key; did you mean {prefix}{hint}?"
    listed = ", ".join(options) if len(options) <= 20 else f"{len(options)} keys, such as {', '.join(options[:8])}"
    return f"{prefix}{key}: no such key; {prefix.rstrip('.') or 'the configuration'} has {listed}"


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
    if isinstance(trainer := values.get("trainer", {}), dict):
        _trainer(trainer, mistakes)
    if isinstance(task := values.get("task", {}), dict):
        _task(task, mistakes, required=schema.__name__ == "TrainConfig")
    from hf_llm.config.generation import check_settings  # which uses what is below

    check_settings(values, mistakes)
    if isinstance(values.get("model"), ModelConfig):
        _model(values["model"], mistakes)
    if values.get("early_stopping_patience") and not mistakes and trainer.get("eval_strategy", "no") == "no":
        mistakes.append("early_stopping_patience: nothing is measured while training; set trainer.eval_strategy=epoch")
    if schema.__name__ in ("EvaluateConfig", "PredictConfig", "RerunConfig"):
        partial = _dataclass(DataConfig, values.get("data") or {}, "data.", mistakes)
        values["data"] = {key: partial[key] for key in values.get("data") or {} if key in partial}
    if "model" in annotations and schema.__name__ != "TrainConfig" and not mistakes:
        _one_model(values, mistakes)
    mistakes += [line for key, line in NEEDED.get(schema.__name__, {}).items() if not values.get(key)]
    if mistakes:
        raise InputError(message(mistakes))
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


def message(mistakes: list[str]) -> str:
    """One line for one mistake; else a heading and a line for each."""
    if len(mistakes) == 1:
        return mistakes[0]
    return f"{len(mistakes)} mistakes in the configuration:\n" + "\n".join(f"  {line}" for line in mistakes)


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


def _trainer(trainer: dict[str, Any], mistakes: list[str]) -> None:
    fields = declared.trainer_fields()
    for key, value in trainer.items():
        if key in REFUSED and value not in REFUSED[key][0]:
            mistakes.append(f"trainer.{key}: {REFUSED[key][1]}")
        elif key in fields:
            trainer[key] = _typed(fields[key], value, f"trainer.{key}", mistakes)
        elif key in RENAMED:
            mistakes.append(f"trainer.{key}: transformers 5 has no such argument; write {RENAMED[key]}")
        else:
            mistakes.append(unknown(key, fields, "trainer."))


def _task(task: dict[str, Any], mistakes: list[str], *, required: bool) -> None:
    name = task.get("name")
    if name is None:
        if required:
            mistakes.append(f"task: missing; choose one of {', '.join(declared.tasks())}, as in task=causal_lm")
        return
    if name not in declared.tasks():
        mistakes.append(f"task.name: {_not_an_option(name, declared.tasks())}")
        return
    fields = declared.task_fields(name)
    for key, value in task.items():
        if key in fields:
            task[key] = _typed(fields[key], value, f"task.{key}", mistakes)
        else:
            mistakes.append(unknown(key, fields, "task.") + f" (task.name={name})")


def _model(model: ModelConfig, mistakes: list[str]) -> None:
    for key, value in model.config.items() if isinstance(model.config, dict) else ():
        if key in SIZES and isinstance(value, (int, float)) and not value >= 1:
            mistakes.append(f"model.config.{key}: {value!r} is too small; it is at least 1")
    if not model.arch and not model.pretrained and not any(line.startswith("model.") for line in mistakes):
        mistakes.append("model: neither arch nor pretrained; choose one, as in model=gpt2 or model.pretrained=FOLDER")
        return
    if not isinstance(model.config, dict) or not model.arch or model.pretrained:
        return  # a pretrained model's config class is known only once its config.json is read
    if model.arch not in declared.architectures() and model.arch not in declared.registered():
        mistakes.append(f"model.arch: {_not_an_option(model.arch, declared.architectures())}")
        return
    fields = declared.model_fields(model.arch)
    for key, value in model.config.items():
        if key in DERIVED_MODEL_KEYS:
            mistakes.append(f"model.config.{key}: not set by hand: {DERIVED_MODEL_KEYS[key]}")
        elif fields is None:
            continue  # models.build asks the class itself
        elif key in fields:
            model.config[key] = _typed(fields[key], value, f"model.config.{key}", mistakes)
        else:
            mistakes.append(unknown(key, fields, "model.config.") + f" (model.arch={model.arch})")


def _one_model(values: dict[str, Any], mistakes: list[str]) -> None:
    run, model = values.get("run"), values.get("model") or SavedModel()
    if run and model.pretrained:
        mistakes.append(f"run={run} and model.pretrained={model.pretrained}: give one of them")
    elif not run and not model.pretrained:
        mistakes.append("run: missing; name a trained run (run=NAME) or a model (model.pretrained=FOLDER_OR_HUB_ID)")


def _not_an_option(value: Any, options: Iterable[str]) -> str:
    options = list(options)
    hint = nearest(str(value), options)
    listed = ", ".join(options) if len(options) <= 20 else f"{len(options)}, such as {', '.join(options[:6])}"
    return f"{value!r} is not one of {listed}" + (f"; did you mean {hint}?" if hint else "")


def _alternatives(annotation: str) -> list[ast.expr]:
    """`int | None`, `Optional[int]` and `Union[int, None]` -> the parts."""

    def parts(node: ast.expr) -> list[ast.expr]:
        if isinstance(node, ast.BinOp):
            return parts(node.left) + parts(node.right)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith(("Optional", "Union")):
            inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            none: list[ast.expr] = [ast.Constant(None)] if ast.unparse(node.value).endswith("Optional") else []
            return [part for item in inner for part in parts(item)] + none
        if isinstance(node, ast.Constant) and isinstance(node.value, str):  # a quoted annotation
            return parts(ast.parse(node.value, mode="eval").body)
        return [node]

    return parts(ast.parse(annotation, mode="eval").body)


def _typed(annotation: str, value: Any, key: str, mistakes: list[str]) -> Any:
    """`value` as the annotated type, with the conversions that no one doubts (3 -> 3.0, 1e3 -> 1000, 7 -> "7")."""
    if value == LEFT_OPEN:
        mistakes.append(f"{key}: missing; give it, as in {key}=VALUE")
        return value
    nodes = _alternatives(annotation)
    names = {ast.unparse(node).split("[")[0] for node in nodes}
    options = [option for name in names for option in declared.trainer_options().get(name, [])]
    for node in nodes:
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Literal"):
            options += [ast.literal_eval(item) for item in getattr(node.slice, "elts", [node.slice])]
    if options:
        if isinstance(value, bool):  # YAML 1.1 reads a bare `no` or `off` as false, and `on` as true
            value = next((word for word in _BOOLEAN_WORDS[value] if word in options), value)
        if value in options or (value is None and "None" in names):
            return value
        mistakes.append(f"{key}: {_not_an_option(value, [str(option) for option in options])}")
        return value
    for name in ("None", "bool", "int", "float", "str", "list", "dict"):
        if name in names and (converted := _convert(name, value, names)) is not _MISFIT:
            if name in ("int", "float"):
                _in_range(key, converted, mistakes)
            return converted
    if names <= _PLAIN:
        mistakes.append(f"{key}: {value!r} is not {_in_words(names)}")
    return value  # a type that only its own library knows, or Any


def _in_range(key: str, number: float, mistakes: list[str]) -> None:
    if math.isnan(number) or (math.isinf(number) and key not in MAY_BE_INFINITE):
        mistakes.append(f"{key}: {number} is not a number to work with")
    elif key in AT_LEAST and number < AT_LEAST[key]:
        mistakes.append(f"{key}: {number!r} is too small; it is at least {AT_LEAST[key]}")
    elif key in AT_MOST and number > AT_MOST[key]:
        mistakes.append(f"{key}: {number!r} is too large; it is at most {AT_MOST[key]}")


_MISFIT = object()
_BOOLEAN_WORDS = {True: ("yes", "on"), False: ("no", "off")}
_PLAIN = {"None", "bool", "int", "float", "str", "list", "dict"}


def _convert(name: str, value: Any, names: set[str]) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "None" and value is None:
        return None
    if name == "bool" and isinstance(value, bool):
        return value
    if name == "int" and number and float(value).is_integer() and not ("float" in names and isinstance(value, float)):
        return int(value)
    if name == "float" and number:
        return float(value)
    if name == "str" and (isinstance(value, str) or number):
        return str(value)
    if name == "list" and isinstance(value, (list, tuple)):
        return list(value)
    if name == "dict" and isinstance(value, Mapping):
        return dict(value)
    return _MISFIT


def _in_words(names: set[str]) -> str:
    words = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "text"}
    words |= {"list": "a list", "dict": "a group of keys", "None": "null"}
    return " or ".join(words[name] for name in words if name in names)
