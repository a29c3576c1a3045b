"""Measure hf_llm against named peers, A and B in turn in one run, one thread each, and print the ratios.

    python scripts/benchmark.py --run-clm transformers/examples/pytorch/language-modeling/run_clm.py \\
        --run-glue transformers/examples/pytorch/text-classification/run_glue.py --nanogpt nanoGPT \\
        --text input.txt --gpt2-tokenizer FOLDER --classification FOLDER --bert-tokenizer FOLDER

The peers' code is not part of this project: give the paths to it. They run unmodified, in fresh processes, with an
empty datasets cache each time. A comparison whose peer or data is not given is left out, and the table says so.

--text            a text file of about 1 MB (tiny Shakespeare: what nanoGPT's data/shakespeare_char/prepare.py gets)
--gpt2-tokenizer  a folder with GPT-2's vocab.json and merges.txt (50,257 tokens)
--classification  a folder with train.csv and validation.csv, columns label and text (SMS Spam)
--bert-tokenizer  a folder with the vocab.txt of bert-base-uncased
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark_peers import numbered_labels, offline_accuracy, random_bert, tokenizer_folder
from benchmark_runs import Reading, Sample, first_step, peak_memory, rate, run, step_time, whole_process
from rich.console import Console
from rich.table import Table

TOKENISE_OURS, TOKENISE_RUN_CLM = "hf_llm.tasks.causal_lm:CausalLM.encode", "datasets.dataset_dict:DatasetDict.map"
TRAIN = "transformers.trainer:Trainer.train"


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
    commands: Callable[[Path], tuple[list[str], list[str]]]  # a run's empty folder -> (ours, the peer's)
    measurements: list[Measurement]
    needs: list[str] = field(default_factory=list)  # the arguments without which it is left out
    watched: tuple[str, ...] | None = ()  # what step_clock.py watches; None: run without it
    peer_folder: Path | None = None  # where the peer must be started, if not in the run's empty folder
    before: Callable[[Path], None] = lambda folder: None  # puts what the peer expects into the run's folder
    readings: dict[str, tuple[list[Reading], list[Reading]]] = field(default_factory=dict)
    problem: str | None = None


# --- the comparisons


def comparisons(args: argparse.Namespace, prepared: Path) -> list[Comparison]:
    gpt2 = ["model=gpt2", "model.config.n_layer=4", "model.config.n_head=4", "model.config.n_embd=128"]
    no_extras = [f"trainer.{setting}" for setting in ("use_cpu=true", "eval_strategy=no", "save_strategy=no")]
    # the same, said in run_clm's and run_glue's way
    hf_no_extras = ["--do_train", "--use_cpu", "--save_strategy", "no", "--report_to", "none", "--disable_tqdm", "1"]

    def hf_llm(folder: Path, *overrides: Any) -> list[str]:
        return [
            "-m",
            "hf_llm",
            "train",
            "run=run",
            f"runs_dir={folder}",
            *no_extras,
            "trainer.report_to=[]",
            *map(str, overrides),
        ]

    def language_model(steps: int) -> Callable[[Path], tuple[list[str], list[str]]]:
        def commands(folder: Path) -> tuple[list[str], list[str]]:
            ours = hf_llm(
                folder,
                *("data=files", f"data.files.train={args.text}", "data.validation_fraction=0"),
                *("tokenizer=pretrained", f"tokenizer.pretrained={args.gpt2_tokenizer}", *gpt2),
                # GPT-2's own defaults, which run_clm trains with: the same work on both sides
                *(f"model.config.{name}_pdrop=0.1" for name in ("embd", "resid", "attn")),
                *("task.block_size=256", "trainer.per_device_train_batch_size=8", f"trainer.max_steps={steps}"),
            )
            peer = [str(args.run_clm), "--train_file", str(args.text), "--model_type", "gpt2"]
            peer += ["--tokenizer_name", str(prepared / "gpt2"), "--config_overrides", "n_layer=4,n_embd=128,n_head=4"]
            peer += ["--block_size", "256", "--per_device_train_batch_size", "8", "--max_steps", str(steps)]
            return ours, [*peer, "--output_dir", str(folder / "run"), *hf_no_extras]

        return commands

    def nanogpt(folder: Path) -> tuple[list[str], list[str]]:
        ours = hf_llm(
            folder,
            *("data=files", f"data.files.train={args.text}", "tokenizer=char", *gpt2),
            *(f"model.config.{name}_pdrop=0.0" for name in ("embd", "resid", "attn")),
            *("task.block_size=64", "trainer.per_device_train_batch_size=12", "trainer.max_steps=300"),
        )
        peer = "train.py config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=1 --block_size=64"
        peer += (
            " --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=300 --lr_decay_iters=300 --dropout=0.0"
        )
        return ours, [*peer.split(), f"--out_dir={folder / 'run'}"]

    def classifier(folder: Path) -> tuple[list[str], list[str]]:
        splits = {split: Path(args.classification or ".") / f"{split}.csv" for split in ("train", "validation")}
        ours = hf_llm(
            folder,
            *(
                "task=text_classification",
                "data=files",
                *(f"data.files.{name}={file}" for name, file in splits.items()),
            ),
            *("tokenizer=pretrained", f"tokenizer.pretrained={args.bert_tokenizer}", "model=bert"),
            *("model.config.num_hidden_layers=4", "model.config.hidden_size=128"),
            *("model.config.num_attention_heads=4", "model.config.intermediate_size=512", "task.max_length=128"),
            *("trainer.num_train_epochs=1", "trainer.per_device_train_batch_size=16", "trainer.learning_rate=5e-4"),
            *("trainer.lr_scheduler_type=linear", "trainer.warmup_steps=0", "trainer.weight_decay=0"),
        )
        peer = [str(args.run_glue), "--model_name_or_path", str(prepared / "bert")]
        peer += [f"--{name}_file={prepared / 'labels' / f'{name}.csv'}" for name in splits]
        peer += ["--num_train_epochs", "1", "--per_device_train_batch_size", "16", "--learning_rate", "5e-4"]
        return ours, [*peer, "--do_eval", "--output_dir", str(folder / "run"), *hf_no_extras]

    # both sides get through the same text, so that tokens/s compare however each cuts it
    tokens = count_tokens(args.text, args.gpt2_tokenizer)
    language_model_data = ["run_clm", "text", "gpt2_tokenizer"]
    return [
        Comparison(
            "help",
            "run_clm.py --help",
            lambda folder: (["-m", "hf_llm", "--help"], [str(args.run_clm), "--help"]),
            [Measurement("start-up: --help", "s", whole_process)],
            needs=["run_clm"],
            watched=None,
        ),
        Comparison(
            "start",
            "run_clm.py",
            language_model(steps=1),
            [
                Measurement("command to first step, 1.1 MB of text", "s", first_step),
                Measurement(
                    "tokenise and pack, GPT-2 tokenizer",
                    "k tokens/s",
                    lambda sample: rate(tokens / 1000, sample.spent_in(TOKENISE_OURS)),
                    lambda sample: rate(tokens / 1000, sample.spent_in(TOKENISE_RUN_CLM)),
                    decimals=0,
                ),
            ],
            needs=language_model_data,
            watched=(TOKENISE_OURS, TOKENISE_RUN_CLM),
        ),
        Comparison(
            "lm",
            "run_clm.py",
            language_model(steps=12),
            [
                Measurement("LM step, 4×128, 50,257 tokens, 8×256", "ms", step_time, decimals=0),
                Measurement("LM peak memory, same", "MB", peak_memory, decimals=0),
            ],
            needs=language_model_data,
        ),
        Comparison(
            "nanogpt",
            "nanoGPT train.py",
            nanogpt,
            [Measurement("LM step, 4×128, characters, 12×64", "ms", step_time, decimals=1)],
            needs=["nanogpt", "text"],
            peer_folder=args.nanogpt,
        ),
        Comparison(
            "classifier",
            "run_glue.py",
            classifier,
            [
                Measurement(
                    "classifier epoch, BERT 4×128, batch 16", "s", lambda sample: sample.spent_in(TRAIN), decimals=1
                ),
                Measurement("classifier validation accuracy", "", our_accuracy, run_glue_accuracy, decimals=4),
            ],
            needs=["run_glue", "classification", "bert_tokenizer"],
            watched=(TRAIN,),
            before=offline_accuracy,
        ),
    ]


def training_time(sample: Sample) -> Reading:
    return sample.spent_in(TRAIN)


def our_accuracy(sample: Sample) -> Reading:
    return Reading(json.loads((sample.folder / "run" / "metrics.json").read_text())["validation"]["accuracy"])


def run_glue_accuracy(sample: Sample) -> Reading:
    return Reading(json.loads((sample.folder / "run" / "eval_results.json").read_text())["eval_accuracy"])


def count_tokens(text: Path | None, tokenizer: Path | None) -> int:
    from tokenizers import Tokenizer
    from tokenizers.implementations import ByteLevelBPETokenizer

    if text is None or tokenizer is None or not (text.is_file() and tokenizer.is_dir()):
        return 0
    if (tokenizer / "tokenizer.json").is_file():
        loaded: Any = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    else:
        loaded = ByteLevelBPETokenizer(str(tokenizer / "vocab.json"), str(tokenizer / "merges.txt"))
    return len(loaded.encode(text.read_text(encoding="utf-8")).ids)


# --- running them


def compare(comparison: Comparison, repeats: int, scratch: Path, say: Callable[[str], None]) -> None:
    """Fill in the comparison's readings: both sides `repeats` times, in turn, the one first and then the other."""
    for repeat in range(repeats):
        for side in (0, 1) if repeat % 2 == 0 else (1, 0):
            who = ("hf_llm", comparison.peer)[side]
            say(f"{comparison.name}: {who}, {repeat + 1} of {repeats}")
            folder = scratch / f"{comparison.name}-{repeat}-{side}"
            folder.mkdir()
            work = folder
            if side == 1:
                comparison.before(folder)
                work = comparison.peer_folder or folder
            try:
                sample = run(comparison.commands(folder)[side], folder, work, comparison.watched)
                for row in comparison.measurements:
                    read = row.peer if side == 1 and row.peer else row.ours
                    comparison.readings.setdefault(row.title, ([], []))[side].append(read(sample))
            except (RuntimeError, IndexError, KeyError, OSError) as error:
                comparison.problem = f"{who} failed: {type(error).__name__}: {error}"
                return
            finally:
                shutil.rmtree(folder / "cache", ignore_errors=True)


def missing(comparison: Comparison, args: argparse.Namespace) -> str | None:
    """Why the comparison cannot be made, if so."""
    for need in comparison.needs:
        option, path = f"--{need.replace('_', '-')}", getattr(args, need)
        if path is None:
            return f"left out: {option} not given"
        if not path.exists():
            return f"left out: {option} {path} does not exist"
    if comparison.name == "nanogpt" and not (args.nanogpt / "data/shakespeare_char/train.bin").is_file():
        return "left out: in nanoGPT, first run python data/shakespeare_char/prepare.py"
    return None


# --- the table


def ratios(row: Measurement, comparison: Comparison) -> dict[str, Any]:
    """Medians of both sides, their ratio (hf_llm / peer), its spread over the pairs, and the ratio by CPU time."""
    ours, peer = comparison.readings[row.title]
    pairs = [a.value / b.value for a, b in zip(ours, peer, strict=True)]
    medians = [statistics.median(reading.value for reading in side) for side in (ours, peer)]
    cpu = [statistics.median(r.cpu for r in side if r.cpu is not None) for side in (ours, peer) if side[0].cpu]
    return {
        **{"measurement": row.title, "unit": row.unit, "peer name": comparison.peer},
        **{"hf_llm": medians[0], "peer": medians[1], "ratio": medians[0] / medians[1]},
        **{"ratio min": min(pairs), "ratio max": max(pairs), "CPU ratio": cpu[0] / cpu[1] if len(cpu) == 2 else None},
    }


def table(done: list[Comparison], repeats: int) -> tuple[Table, list[dict[str, Any]]]:
    drawn = Table(title=f"hf_llm against its peers: medians of {repeats}, in turn, one thread")
    for title in ("measurement", "peer"):
        drawn.add_column(title)
    for title in ("hf_llm", "peer", "ratio", "pairs", "by CPU time"):
        drawn.add_column(title, justify="right", no_wrap=True)
    rows = []
    for comparison in done:
        for row in comparison.measurements:
            if comparison.problem:
                continue
            result = ratios(row, comparison)
            rows.append(result)
            drawn.add_row(
                row.title,
                comparison.peer,
                f"{result['hf_llm']:,.{row.decimals}f} {row.unit}",
                f"{result['peer']:,.{row.decimals}f} {row.unit}",
                f"{result['ratio']:.3f}",
                f"{result['ratio min']:.3f}–{result['ratio max']:.3f}",
                "" if result["CPU ratio"] is None else f"{result['CPU ratio']:.3f}",
            )
    return drawn, rows


def machine() -> dict[str, Any]:
    packages = ("torch", "transformers", "datasets", "tokenizers", "accelerate")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"platform": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version(), **versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run-clm", "run-glue", "nanogpt", "text", "gpt2-tokenizer", "classification", "bert-tokenizer"):
        parser.add_argument(f"--{name}", type=lambda path: Path(path).resolve(), metavar="PATH")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of: help start lm nanogpt classifier")
    parser.add_argument("--output", type=Path, help="also write the figures to this JSON file")
    args = parser.parse_args()
    console = Console() if sys.stdout.isatty() else Console(width=120)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if args.gpt2_tokenizer and args.gpt2_tokenizer.is_dir():
            tokenizer_folder(args.gpt2_tokenizer, scratch / "gpt2", "gpt2")
        chosen = [one for one in comparisons(args, scratch) if not args.only or one.name in args.only]
        for comparison in chosen:
            comparison.problem = missing(comparison, args)
            if comparison.problem is None:
                if comparison.name == "classifier":
                    random_bert(args.bert_tokenizer, scratch / "bert")
                    numbered_labels(args.classification, scratch / "labels")
                with console.status("") as status:
                    compare(comparison, args.repeats, scratch, status.update)
    drawn, rows = table(chosen, args.repeats)
    console.print(drawn)
    for comparison in chosen:
        if comparison.problem:
            console.print(f"{comparison.name} ({comparison.peer}) {comparison.problem}", markup=False, soft_wrap=True)
    console.print("ratio: hf_llm / peer; below 1 is better for times and memory, above 1 for rates and accuracy")
    if args.output:
        args.output.write_text(json.dumps({"machine": machine(), "repeats": args.repeats, "rows": rows}, indent=2))
    if any(comparison.problem and "failed" in comparison.problem for comparison in chosen):
        sys.exit(1)


if __name__ == "__main__":
    main()
