"""Measure hf_llm against named peers, A and B in turn in one run, one thread each, and print the ratios.

    python scripts/benchmark.py --run-clm transformers/examples/pytorch/language-modeling/run_clm.py \\
        --run-glue transformers/examples/pytorch/text-classification/run_glue.py --nanogpt nanoGPT \\
        --text input.txt --gpt2-tokenizer FOLDER --classification FOLDER --bert-tokenizer FOLDER

The peers' code is not part of this project: give the paths to it. They run unmodified, in fresh processes, with an
empty datasets cache each time. A comparison whose peer or data is not given is left out, and the table says so.

Both sides get the same files, initial weights of a classifier, seed, model configuration and TrainingArguments, from
one set of values (benchmark_comparisons.py). Both are also asked, while they run, for the values that they trained
with: what was not the same is listed below the table. "same work" in the table: the same rows, padding and order rule
on both sides; "own way": each side as it comes, which says what a user gets, and not which code is faster. A repeat
has a seed of its own. Medians, and the range over the pairs; on a shared machine read the ratio by CPU time.

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
from pathlib import Path
from typing import Any

from benchmark_comparisons import Comparison, Measurement, comparisons
from benchmark_peers import language_model_rows, numbered_labels, random_bert, tokenizer_folder
from benchmark_runs import Reading, Sample, differences, run
from rich.console import Console
from rich.table import Table

# --- running them


class Runner:
    """Runs command lines; one that two comparisons share, word for word, once a repeat."""

    def __init__(self, scratch: Path, say: Callable[[str], None]):
        self.scratch, self.say, self.number = scratch, say, 0
        self.done: dict[tuple[Any, ...], Sample] = {}

    def sample(self, comparison: Comparison, side: int, repeat: int, seed: int) -> Sample:
        key = (*comparison.commands(Path(), seed)[side], comparison.watched, repeat)
        if key not in self.done:
            self.say(f"{comparison.name}: {('hf_llm', comparison.peer)[side]}, {repeat}")
            self.number += 1
            folder = work = self.scratch / str(self.number)
            folder.mkdir()
            if side == 1:
                comparison.before(folder)
                work = comparison.peer_folder or folder
            command = comparison.commands(folder, seed)[side]
            try:
                self.done[key] = run(command, folder, work, comparison.watched)
            finally:
                shutil.rmtree(folder / "cache", ignore_errors=True)
        return self.done[key]


def compare(comparison: Comparison, repeat: int, seed: int, runner: Runner) -> None:
    """Run both sides and add to the comparison's readings. Every other time the peer runs first.

    Repeat 0 is not counted: it reads the libraries from a cold disk.
    """
    settings: list[dict[str, Any]] = [{}, {}]
    found: list[tuple[str, int, Reading]] = []
    for side in (0, 1) if repeat % 2 else (1, 0):
        try:
            sample = runner.sample(comparison, side, repeat, seed)
            settings[side] = sample.settings()
            for row in comparison.measurements:
                read = row.peer if side == 1 and row.peer else row.ours
                found.append((row.title, side, read(sample)))
        except (RuntimeError, IndexError, KeyError, OSError) as error:
            who = ("hf_llm", comparison.peer)[side]
            comparison.problem = f"{who} failed: {type(error).__name__}: {error}"
            return
    if repeat:
        for title, side, reading in found:
            comparison.readings.setdefault(title, ([], []))[side].append(reading)
        comparison.differences = differences(settings[0], settings[1])


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
    if comparison.name == "nanogpt":
        own = args.nanogpt / "data/shakespeare_char/input.txt"
        if not own.is_file() or own.read_bytes() != args.text.read_bytes():
            return f"left out: {own} is not the text of --text {args.text}"
    return None


# --- the tables


def summary(row: Measurement, comparison: Comparison) -> dict[str, Any]:
    """Medians of both sides and every reading; the ratio (hf_llm / peer) of the medians, its range over the pairs."""
    sides = comparison.readings[row.title]
    result: dict[str, Any] = {
        **{"comparison": comparison.name, "kind": comparison.kind, "peer name": comparison.peer},
        **{"setting": comparison.setting, "measurement": row.title, "unit": row.unit},
    }
    values = [[reading.value for reading in side] for side in sides]
    cpu = [[reading.cpu for reading in side if reading.cpu is not None] for side in sides]
    for clock, (ours, peer) in (("", values), ("CPU ", cpu)):
        if ours and peer:
            pairs = [a / b for a, b in zip(ours, peer, strict=True)]
            medians = [statistics.median(side) for side in (ours, peer)]
            result |= {f"{clock}hf_llm": medians[0], f"{clock}peer": medians[1], f"{clock}readings": [ours, peer]}
            result |= {f"{clock}ratio": medians[0] / medians[1], f"{clock}range": [min(pairs), max(pairs)]}
    return result


def table(comparison: Comparison) -> Table:
    unlike = "; ".join(["not the same, name: hf_llm | peer", *comparison.differences])
    drawn = Table(
        title=f"{comparison.name} ({comparison.kind}), hf_llm | {comparison.peer}: {comparison.setting}",
        caption=unlike if comparison.differences else None,
        title_justify="left",
        caption_justify="left",
    )
    drawn.add_column("measured")
    for title in ("hf_llm", comparison.peer, "hf_llm / peer", "by CPU time"):
        drawn.add_column(title, justify="right")
    for row in comparison.measurements:
        result = summary(row, comparison)
        cells = []
        for side, name in enumerate(("hf_llm", "peer")):
            low, high = min(result["readings"][side]), max(result["readings"][side])
            cells.append(
                f"{result[name]:,.{row.decimals}f} {row.unit}\n{low:,.{row.decimals}f}–{high:,.{row.decimals}f}"
            )
        for clock in ("", "CPU "):
            ratio, spread = result.get(f"{clock}ratio"), result.get(f"{clock}range", (0, 0))
            cells.append("" if ratio is None else f"{ratio:.2f}\n{spread[0]:.2f}–{spread[1]:.2f}")
        drawn.add_row(row.title, *cells)
    return drawn


def machine() -> dict[str, Any]:
    packages = ("torch", "transformers", "datasets", "tokenizers", "accelerate")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"platform": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version(), **versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run-clm", "run-glue", "nanogpt", "text", "gpt2-tokenizer", "classification", "bert-tokenizer"):
        parser.add_argument(f"--{name}", type=lambda path: Path(path).resolve(), metavar="PATH")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=42, help="of the first repeat")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="comparisons, or how their names begin: lm classifier"
    )
    parser.add_argument("--output", type=Path, help="also write every reading to this JSON file")
    args = parser.parse_args()
    console = Console() if sys.stdout.isatty() else Console(width=120)
    with tempfile.TemporaryDirectory() as folder, console.status("") as status:
        scratch = Path(folder)
        chosen = [one for one in comparisons(args, scratch) if not args.only or one.name.startswith(tuple(args.only))]
        for comparison in chosen:
            comparison.problem = missing(comparison, args)
        prepare(args, scratch, {need for one in chosen if not one.problem for need in one.needs})
        runner = Runner(scratch, status.update)
        for repeat in range(args.repeats + 1):
            for comparison in chosen:
                if not comparison.problem and (repeat or comparison.warm_up):
                    compare(comparison, repeat, args.seed + repeat - 1, runner)
            if args.output:
                write(args.output, chosen)
    for comparison in chosen:
        if comparison.problem:
            text = f"{comparison.name} ({comparison.peer}) {comparison.problem}"
            console.print(text, markup=False, soft_wrap=True)
        else:
            console.print(table(comparison))
    console.print(
        f"medians of {args.repeats} in turn, one thread, with the range below; below 1 is better for times and "
        "memory, above 1 for accuracy",
        soft_wrap=True,
    )
    if any("failed" in (comparison.problem or "") for comparison in chosen):
        sys.exit(1)


def write(path: Path, chosen: list[Comparison]) -> None:
    rows = [
        {**summary(row, comparison), "differences": comparison.differences}
        for comparison in chosen
        for row in comparison.measurements
        if row.title in comparison.readings
    ]
    path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2, ensure_ascii=False), encoding="utf-8")


def prepare(args: argparse.Namespace, scratch: Path, needs: set[str]) -> None:
    """Write what both sides read."""
    if "gpt2_tokenizer" in needs:
        tokenizer_folder(args.gpt2_tokenizer, scratch / "gpt2", "gpt2")
        language_model_rows(args.text, scratch / "rows")
    if "classification" in needs:
        numbered_labels(args.classification, scratch / "labels")
        random_bert(args.bert_tokenizer, scratch / "bert")


if __name__ == "__main__":
    main()
