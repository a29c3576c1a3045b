"""What benchmark.py compares: for each comparison the two command lines, from one set of values, and what is read."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmark_peers import offline_accuracy
from benchmark_runs import TRAIN, Reading, Sample, first_step, peak_memory, step_time, trained, whole_process

TOKENISE_OURS, TOKENISE_RUN_CLM = "hf_llm.tasks.causal_lm:CausalLM.encode", "datasets.dataset_dict:DatasetDict.map"
GPT2 = {"n_layer": 4, "n_head": 4, "n_embd": 128}
# What both sides are told, so that no default of either decides: TrainingArguments, by their own names
ARGUMENTS = {
    **{"use_cpu": True, "eval_strategy": "no", "save_strategy": "no", "report_to": "none", "disable_tqdm": True},
    **{"optim": "adamw_torch_fused", "max_grad_norm": 1.0, "logging_steps": 10, "dataloader_num_workers": 0},
    **{"per_device_eval_batch_size": 8, "gradient_accumulation_steps": 1},
}
LANGUAGE_MODEL = {
    **{"per_device_train_batch_size": 8, "learning_rate": 1e-3, "weight_decay": 0.1, "lr_scheduler_type": "cosine"},
    **{"warmup_steps": 0.05, "train_sampling_strategy": "random"},
}
CLASSIFIER = {
    **{"per_device_train_batch_size": 16, "num_train_epochs": 1, "learning_rate": 5e-4, "weight_decay": 0.0},
    **{"lr_scheduler_type": "linear", "warmup_steps": 0},
}

Commands = tuple[list[str], list[str]]
# same work: the same rows, order rule, padding, model and optimizer. own way: each side as it is made.
Kind = Literal["same work", "own way"]


@dataclass
class Measurement:
    """A row of the table. `ours` and `peer` read the figure off a run of either side."""

    title: str
    unit: str
    ours: Callable[[Sample], Reading]
    peer: Callable[[Sample], Reading] | None = None  # None: as ours
    decimals: int = 2


@dataclass
class Comparison:
    """Two command lines, run in turn, and what to read off them."""

    name: str
    peer: str  # what the table calls it
    setting: str  # what both sides do, and where they differ
    kind: Kind
    commands: Callable[[Path, int], Commands]  # a run's empty folder, the seed -> (ours, the peer's)
    measurements: list[Measurement]
    needs: list[str] = field(default_factory=list)  # the arguments without which it is left out
    watched: tuple[str, ...] | None = ()  # what step_clock.py watches beside Trainer.train; None: run without it
    warm_up: bool = False  # whether a first pair is run that does not count
    peer_folder: Path | None = None  # where the peer must be started, if not in the run's empty folder
    before: Callable[[Path], None] = lambda folder: None  # puts what the peer expects into the run's folder
    readings: dict[str, tuple[list[Reading], list[Reading]]] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)  # settings that were not the same when it ran
    problem: str | None = None


def hf_llm(folder: Path, arguments: Mapping[str, Any], *overrides: Any) -> list[str]:
    settings = [f"trainer.{name}={value}" for name, value in {**ARGUMENTS, **arguments}.items()]
    return ["-m", "hf_llm", "train", "run=run", f"runs_dir={folder}", *settings, *map(str, overrides)]


def example_script(script: Path, folder: Path, arguments: Mapping[str, Any], *options: Any) -> list[str]:
    """run_clm.py or run_glue.py, told the same as `hf_llm` in its own way."""
    settings = [word for name, value in {**ARGUMENTS, **arguments}.items() for word in (f"--{name}", str(value))]
    return [str(script), "--do_train", "--output_dir", str(folder / "run"), *settings, *map(str, options)]


def comparisons(args: argparse.Namespace, prepared: Path) -> list[Comparison]:
    return [
        Comparison(
            "help",
            "run_clm.py",
            "print --help; ours shows its verbs and loads no torch, run_clm.py shows every option and loads it",
            "own way",
            lambda folder, seed: (["-m", "hf_llm", "--help"], [str(args.run_clm), "--help"]),
            [Measurement("command to exit", "s", whole_process)],
            needs=["run_clm"],
            watched=None,
            warm_up=True,
        ),
        *language_models(args, prepared),
        nanogpt(args),
        *classifiers(args, prepared),
    ]


# --- language models


def language_models(args: argparse.Namespace, prepared: Path) -> list[Comparison]:
    # conf/model/gpt2.yaml's activation and GPT-2's own dropout, on both sides
    config = {**GPT2, "activation_function": "gelu_pytorch_tanh", "embd_pdrop": 0.1, "resid_pdrop": 0.1}
    config |= {"attn_pdrop": 0.1, "n_positions": 256}

    def commands(rows: str, steps: int) -> Callable[[Path, int], Commands]:
        def both(folder: Path, seed: int) -> Commands:
            arguments = {**LANGUAGE_MODEL, "max_steps": steps, "seed": seed}
            train, validation = (prepared / "rows" / f"{name}.json" for name in (rows, "validation"))
            ours = hf_llm(
                folder,
                arguments,
                *("data=files", f"data.files.train={train}", f"data.files.validation={validation}"),
                *("tokenizer=pretrained", f"tokenizer.pretrained={prepared / 'gpt2'}", "model=gpt2"),
                *(f"model.config.{name}={value}" for name, value in config.items()),
                "task.block_size=256",
            )
            peer = example_script(
                args.run_clm,
                folder,
                arguments,
                *("--train_file", train, "--validation_file", validation, "--model_type", "gpt2"),
                *("--tokenizer_name", prepared / "gpt2", "--block_size", 256),
                *("--config_overrides", ",".join(f"{name}={value}" for name, value in config.items())),
            )
            return ours, peer

        return both

    tokenise = Measurement(
        "tokenise and pack these rows",
        "s",
        lambda sample: sample.spent_in(TOKENISE_OURS),
        lambda sample: sample.spent_in(TOKENISE_RUN_CLM),
    )
    started = Measurement("command to the end of the first training step", "s", first_step)
    needs = ["run_clm", "text", "gpt2_tokenizer"]
    model = "GPT-2 4 × 128, 50,257 tokens, 8 blocks of 256"
    return [
        Comparison(
            name,
            "run_clm.py",
            f"{what}, the same JSON lines; {model}. Ours also adds an end of text to each row and counts words; "
            "it cuts blocks out while it trains",
            "same work",
            commands(rows, steps=1),
            [tokenise, started],
            needs=needs,
            watched=(TOKENISE_OURS, TOKENISE_RUN_CLM),
            warm_up=True,
        )
        for name, rows, what in (
            ("start-lines", "lines", "the text's lines, a row each"),
            ("start-document", "document", "the text as one row"),
        )
    ] + [
        Comparison(
            "lm",
            "run_clm.py",
            f"{model}, float32, dropout 0.1, fused AdamW. Ours never holds the logits (fused loss), and predicts 256 "
            "tokens of a block, run_clm.py 255",
            "same work",
            commands("document", steps=12),
            [
                Measurement("a training step, next batch included", "ms", step_time, decimals=0),
                Measurement("peak memory of the process", "MB", peak_memory, decimals=0),
            ],
            needs=needs,
        )
    ]


def nanogpt(args: argparse.Namespace) -> Comparison:
    def commands(folder: Path, seed: int) -> Commands:
        # as nanoGPT has it: erf GELU, no dropout, AdamW that is not fused (its own is on CUDA alone)
        config = {**GPT2, "activation_function": "gelu", "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0}
        arguments = {**LANGUAGE_MODEL, "per_device_train_batch_size": 12, "max_steps": 300, "seed": seed}
        ours = hf_llm(
            folder,
            {**arguments, "optim": "adamw_torch"},
            *("data=files", f"data.files.train={args.text}", "tokenizer=char", "model=gpt2", "task.block_size=64"),
            *(f"model.config.{name}={value}" for name, value in config.items()),
        )
        peer = "train.py config/train_shakespeare_char.py --device=cpu --compile=False --block_size=64 --batch_size=12"
        peer += " --n_layer=4 --n_head=4 --n_embd=128 --dropout=0.0 --bias=True --log_interval=10"
        peer += " --max_iters=300 --lr_decay_iters=300 --eval_interval=1000 --eval_iters=1"
        return ours, [*peer.split(), f"--out_dir={folder / 'run'}"]

    return Comparison(
        "nanogpt",
        "nanoGPT train.py",
        "GPT-2 4 × 128 with biases, characters, 12 × 64, float32, no dropout, GELU by erf, AdamW not fused. nanoGPT "
        "draws windows at random places, ours shuffles blocks",
        "same work",
        commands,
        [Measurement("a training step, next batch included", "ms", step_time, decimals=1)],
        needs=["nanogpt", "text"],
        peer_folder=args.nanogpt,
    )


# --- classifiers


def classifiers(args: argparse.Namespace, prepared: Path) -> list[Comparison]:
    def commands(ours_order: str, peer_order: str, pad: bool) -> Callable[[Path, int], Commands]:
        def both(folder: Path, seed: int) -> Commands:
            files = {name: prepared / "labels" / f"{name}.csv" for name in ("train", "validation")}
            ours = hf_llm(
                folder,
                {**CLASSIFIER, "seed": seed, "train_sampling_strategy": ours_order},
                *("task=text_classification", "task.max_length=128", "data=files"),
                *(f"data.files.{name}={file}" for name, file in files.items()),
                *("tokenizer=pretrained", f"tokenizer.pretrained={prepared / 'bert'}"),
                *("model=pretrained", f"model.pretrained={prepared / 'bert'}"),
            )
            peer = example_script(
                args.run_glue,
                folder,
                {**CLASSIFIER, "seed": seed, "train_sampling_strategy": peer_order},
                *("--do_eval", "--model_name_or_path", prepared / "bert", "--max_seq_length", 128),
                *(word for name, file in files.items() for word in (f"--{name}_file", file)),
                *("--pad_to_max_length", pad),
            )
            return ours, peer

        return both

    grouped, random = "group_by_length", "random"
    model = "BERT 4 × 128, batch 16, one epoch, the same initial weights and rows"
    same: Kind = "same work"
    own: Kind = "own way"
    variants = [
        ("classifier-random", same, random, random, False, "both pad to the longest of a batch, rows in random order"),
        (
            *("classifier-grouped", same, grouped, grouped, False),
            "both pad to the longest of a batch and group by length; ours then shuffles the batches",
        ),
        (
            *("classifier-unpadded", own, grouped, random, False),
            "ours groups by length, run_glue.py draws at random (--pad_to_max_length False)",
        ),
        (
            *("classifier-padded", own, grouped, random, True),
            "ours groups by length, run_glue.py pads each row to 128, its default",
        ),
    ]
    return [
        Comparison(
            name,
            "run_glue.py",
            f"{model}; {what}",
            kind,
            commands(ours_order, peer_order, pad),
            [
                Measurement("Trainer.train, an epoch", "s", training_time, decimals=1),
                Measurement("command to the end of the training", "s", trained, decimals=1),
                Measurement("validation accuracy", "", our_accuracy, run_glue_accuracy, decimals=4),
            ],
            needs=["run_glue", "classification", "bert_tokenizer"],
            before=offline_accuracy,
        )
        for name, kind, ours_order, peer_order, pad, what in variants
    ]


def training_time(sample: Sample) -> Reading:
    return sample.spent_in(TRAIN)


def our_accuracy(sample: Sample) -> Reading:
    return Reading(json.loads((sample.folder / "run" / "metrics.json").read_text())["validation"]["accuracy"])


def run_glue_accuracy(sample: Sample) -> Reading:
    return Reading(json.loads((sample.folder / "run" / "eval_results.json").read_text())["eval_accuracy"])
