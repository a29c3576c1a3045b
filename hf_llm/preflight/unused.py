"""Options that were given and have no effect: a person who sets one expects something of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_llm.config import DataConfig, LauncherConfig, TokenizerConfig, TrainConfig

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from hf_llm.tasks import Task

WITHOUT_BETAS = ("sgd", "adagrad", "rmsprop", "adafactor")  # optimizers that read no adam_beta1 and adam_beta2
# Arguments of Trainer that a training here never reads, and why
NEVER_READ = {
    "do_eval": "trainer.eval_strategy says when the validation split is measured",
    "do_predict": "a test split is always measured",
    "do_train": "`hf-llm train` trains",
    "include_for_metrics": "the task's metrics need neither",
    "label_names": "the task knows its labels",
    "length_column_name": "the task knows the lengths",
    "prediction_loss_only": "metrics need the predictions",
    "remove_unused_columns": "the collator chooses the columns",
}


def options(cfg: TrainConfig, args: TrainingArguments, task: Task) -> Iterator[str]:
    """A line for each option that `cfg` gives and nothing reads: the option, and why."""
    yield from _precision(cfg, args)
    yield from _loss(cfg, args, task)
    yield from _evaluation(cfg.trainer, args)
    yield from _trainer(cfg.trainer, args, task)
    yield from _data(cfg.data)
    yield from _tokenizer(cfg.tokenizer)
    if cfg.launcher.name == "local" and args.world_size == 1:
        yield from _launcher(cfg.launcher)


def _precision(cfg: TrainConfig, args: TrainingArguments) -> Iterator[str]:
    if args.device.type != "cpu":
        return
    instead = "a CPU trains in float32, or in 16 bits with trainer.bf16=true"
    if args.fp16:
        yield f"trainer.fp16=true: {instead}"
    elif not args.bf16 and os.environ.get("ACCELERATE_MIXED_PRECISION") == "fp16":
        yield f"mixed_precision=fp16 of the launcher: {instead}"
    if cfg.trainer.get("dataloader_pin_memory"):
        yield "trainer.dataloader_pin_memory=true: memory is pinned for copies to a GPU, and there is none"


def _loss(cfg: TrainConfig, args: TrainingArguments, task: Task) -> Iterator[str]:
    fuses = task.auto_model == "AutoModelForCausalLM"
    if not fuses:
        if not cfg.model.fused_loss:
            yield "model.fused_loss=false: only the loss of a causal language model is fused"
    elif cfg.model.fused_loss and args.torch_compile:
        yield (
            "model.fused_loss=true: in a compiled model (trainer.torch_compile=true) the loss is not fused, so a step "
            "holds the logits of all its tokens"
        )


def _evaluation(given: dict[str, Any], args: TrainingArguments) -> Iterator[str]:
    strategies: dict[str, Any] = {
        "eval": args.eval_strategy,
        "save": args.save_strategy,
        "logging": args.logging_strategy,
    }
    for name, strategy in strategies.items():
        reads = strategy == "steps" or (name == "logging" and args.eval_strategy == "steps")  # eval_steps' default
        if not reads and (value := given.get(f"{name}_steps")) is not None and (name != "logging" or value != 10):
            yield f"trainer.{name}_steps={value:g}: trainer.{name}_strategy is {strategy.value}, and steps reads it"
    if args.eval_strategy == "no":
        for key in ("load_best_model_at_end", "metric_for_best_model", "eval_on_start", "eval_delay"):
            if given.get(key):
                yield f"trainer.{key}={_plain(given[key])}: trainer.eval_strategy=no measures nothing while training"
    better = given.get("greater_is_better")
    if better is not None and args.metric_for_best_model is None:
        yield f"trainer.greater_is_better={_plain(better)}: trainer.metric_for_best_model is not set"


def _trainer(given: dict[str, Any], args: TrainingArguments, task: Task) -> Iterator[str]:
    from transformers.training_args import OptimizerNames

    defaults = {name: field.default for name, field in args.__dataclass_fields__.items()}
    for name, why in NEVER_READ.items():
        if name in given and given[name] not in (None, [], defaults.get(name)):
            yield f"trainer.{name}={_plain(given[name])}: {why}"
    if given.get("remove_unused_columns"):
        yield f"trainer.remove_unused_columns=true: {NEVER_READ['remove_unused_columns']}"
    optimizer = OptimizerNames(args.optim).value
    if optimizer.startswith(WITHOUT_BETAS):
        for name in ("adam_beta1", "adam_beta2"):
            if name in given:
                yield f"trainer.{name}={given[name]:g}: trainer.optim={optimizer} has no such number"
    if not args.gradient_checkpointing:
        for name in ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"):
            if given.get(name):
                yield f"trainer.{name}: set trainer.{name.removesuffix('_kwargs')}=true"
    if task.unit == "blocks" and args.train_sampling_strategy in ("group_by_length", "batch_rebalance"):
        yield f"trainer.train_sampling_strategy={args.train_sampling_strategy}: all blocks have one length"


def _data(data: DataConfig) -> Iterator[str]:
    on_hub = bool(data.path) and not str(data.path).startswith("builtin:") and not Path(str(data.path)).is_dir()
    if data.num_proc and (not on_hub or data.streaming):
        yield (
            f"data.num_proc={data.num_proc}: only a dataset of the Hub is prepared by several processes; a tokenizer "
            "uses all cores by itself"
        )
    forms = _forms(data)
    they_are = f"the files are {', '.join(sorted(forms))}"
    delimited = {"delimiter": data.delimiter, "column_names": data.column_names, "quoting": data.quoting}
    if forms and not forms & {"csv", "tsv", "conll", "conllu"}:
        for name, value in delimited.items():
            if value not in (None, True):
                yield f"data.{name}={_plain(value)}: only csv and tsv have it; {they_are}"
    if data.sample_by and forms and "txt" not in forms:
        yield f"data.sample_by={data.sample_by}: only txt is cut so; {they_are}"


def _forms(data: DataConfig) -> set[str]:
    """The formats of the files that are named, by `data.format` or their endings; none where these do not tell."""
    if data.format:
        return {data.format}
    named = data.files.values() if isinstance(data.files, dict) else [data.files] if data.files else []
    files = [file for given in named for file in (given if isinstance(given, list) else [given])]
    endings = {Path(str(file).removesuffix(".gz")).suffix.lower().lstrip(".") for file in files}
    known = {"txt", "csv", "tsv", "json", "jsonl", "parquet", "arrow", "conll", "conllu"}
    return endings if endings <= known else set()


def _tokenizer(tokenizer: TokenizerConfig) -> Iterator[str]:
    usual = TokenizerConfig()
    if tokenizer.pretrained:
        for name in ("vocab_size", "min_frequency", "lowercase"):
            if (value := getattr(tokenizer, name)) != getattr(usual, name):
                yield f"tokenizer.{name}={_plain(value)}: a pretrained tokenizer is taken as it is"
    elif tokenizer.algorithm == "byte":
        if tokenizer.vocab_size not in (256, usual.vocab_size):
            yield f"tokenizer.vocab_size={tokenizer.vocab_size}: tokenizer=byte has 256 bytes and the special tokens"
    elif tokenizer.algorithm == "unigram" and tokenizer.min_frequency != usual.min_frequency:
        yield f"tokenizer.min_frequency={tokenizer.min_frequency}: tokenizer=unigram has no such limit"


def _launcher(launcher: LauncherConfig) -> Iterator[str]:
    usual = LauncherConfig()
    for name in ("profile", "num_processes", "num_machines", "nodes", "gpus_per_node", "tasks_per_node"):
        if (value := getattr(launcher, name)) not in (None, getattr(usual, name), 1):
            yield f"launcher.{name}={value}: launcher=local trains in this process; launcher=accelerate has several"


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
