"""Measures the trainer's defaults (conf/defaults): nothing is set but data, task, tokenizer and model.

    .venv/bin/python scripts/defaults.py --data FOLDER --minilm FOLDER results.jsonl    # all that is not there yet
    .venv/bin/python scripts/defaults.py --data FOLDER results.jsonl --only 'novel_words/bert'    # those that match
    .venv/bin/python scripts/defaults.py results.jsonl --report    # the matrix, in Markdown

A cell is a set of data, a model, a size (small: 500 rows to train on) and a mode: `seed N`, the defaults; `rate X`, a
sweep of the learning rate with all else as it is; `transformers N`, the same rows, tokens, weights and settings with
transformers' own Trainer, in random order. Each writes one JSON line, and a line that is there is not trained again.
FOLDER has the corpora that the README's recipes name. `novel_words` is made of gutenberg_en: 77 classes of 120 short
passages each, by the word that all passages of a class have, in any inflection.
"""

from __future__ import annotations

import argparse
import collections
import csv
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SEEDS = (1, 2, 3)
RATES = ("1e-5", "3e-5", "1e-4", "3e-4", "1e-3")
SMALL = 500
HOUR = 3600
# Which figure a task is judged by, and whether more of it is better
PRINCIPAL = {
    "text_classification": ("accuracy", True),
    "token_classification": ("f1", True),
    "question_answering": ("f1", True),
    "causal_lm": ("loss", False),
}
CLASSIFIERS, TAGGERS, WRITERS = ("bert", "gpt2", "rnn", "fnn", "minilm"), ("bert", "rnn", "minilm"), ("gpt2", "rnn")


class Source(NamedTuple):
    """A set of data: overrides that name it, its task, the models that are tried on it, and whether it is English."""

    overrides: tuple[str, ...]
    task: str
    models: tuple[str, ...]
    english: bool = True


class Cell(NamedTuple):
    source: str
    model: str
    size: str  # small or full
    mode: str  # "seed 1", "rate 1e-4" or "transformers 1"

    @property
    def name(self) -> str:
        return "/".join(self)


def sources(data: Path, made: Path) -> dict[str, Source]:
    """Name -> what is trained on; `made` is a folder with the set that is made here."""
    chinese = tuple(model for model in CLASSIFIERS if model != "minilm")
    found = {
        "sms_spam": Source((f"data.path={data}/classification/sms_spam",), "text_classification", CLASSIFIERS),
        "csl_category": Source(
            (f"data.path={data}/classification/csl_category",), "text_classification", chinese, False
        ),
        "unicode_names": Source(("data=unicode_names",), "text_classification", CLASSIFIERS),
        "novel_words": Source((f"data.path={made}",), "text_classification", CLASSIFIERS),
        "squadshifts": Source((f"data.path={data}/qa/squadshifts_new_wiki",), "question_answering", ("minilm",)),
        "tiny_shakespeare": Source((f"data.files.train={data}/lm/tiny_shakespeare/input.txt",), "causal_lm", WRITERS),
    }
    for name in ("ud_english_ewt", "wnut17"):
        found[name] = Source((f"data.path={data}/token_classification/{name}",), "token_classification", TAGGERS)
    for name, english in (("gutenberg_en", True), ("chinese_sanguo", False)):
        files = (f"data.files.train={data}/lm/{name}/train.txt", f"data.files.validation={data}/lm/{name}/valid.txt")
        found[name] = Source(files, "causal_lm", WRITERS, english)
    return found


def cells(known: dict[str, Source]) -> Iterator[Cell]:
    """All of them, the defaults of full size first: they say most."""
    for size in ("full", "small"):
        modes = [*(f"seed {seed}" for seed in SEEDS), *(f"rate {rate}" for rate in RATES)]
        modes += [f"transformers {seed}" for seed in SEEDS]
        for mode in modes:
            for name, source in known.items():
                if mode.startswith("transformers") and source.task != "text_classification":
                    continue
                yield from (Cell(name, model, size, mode) for model in source.models)


def overrides(cell: Cell, source: Source, minilm: Path | None) -> list[str]:
    """What a user would type, with the seed or the learning rate of the cell."""
    given = [*source.overrides, f"task={source.task}"]
    if cell.model == "minilm":
        given.append(f"model.pretrained={minilm}")
    elif source.english or source.task == "causal_lm":
        tokenizer = "bpe" if cell.model == "gpt2" else "wordpiece"
        given += [f"model={cell.model}", f"tokenizer={tokenizer if source.english else 'char'}"]
    else:
        given += [f"model={cell.model}", "tokenizer=char"]
    if cell.size == "small":
        given.append(f"data.limits.train={SMALL}")
    if source.task == "text_classification":
        given.append("task.baseline=" + ("word" if source.english else "char"))  # beside it, of no effect on it
    mode, value = cell.mode.split()
    return [*given, f"trainer.learning_rate={value}" if mode == "rate" else f"trainer.seed={value}"]


def novel_words(text: str, folder: Path, classes: int = 77, rows: int = 120) -> None:
    """train, validation and test .csv of passages of 5 to 19 words around a word; its first letters are the label."""
    words = re.findall(r"[A-Za-z']+|[.,;:!?]", text)
    places: dict[str, list[int]] = collections.defaultdict(list)
    for index, word in enumerate(words):
        if len(word) >= 5:
            places[word.lower()[:5]].append(index)
    draw = random.Random(3)
    frequent = sorted((stem for stem in places if len(places[stem]) >= 200), key=lambda stem: -len(places[stem]))
    passages = []
    for stem in draw.sample(frequent[150:400], classes):
        for index in draw.sample(places[stem], rows + 30):
            start, end = max(0, index - draw.randint(2, 9)), index + draw.randint(2, 9) + 1
            passages.append((stem, " ".join(words[start:end])))
    draw.shuffle(passages)
    tenth = len(passages) // 10
    parts = {"validation": passages[:tenth], "test": passages[tenth : 2 * tenth], "train": passages[2 * tenth :]}
    for name, part in parts.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("label", "text"), *part])


def measured(cell: Cell, given: list[str], task: str) -> dict[str, Any]:
    """Train the cell in a process of its own; its figures, or what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        quiet = [f"run={run}", "trainer.save_strategy=no", "trainer.disable_tqdm=true"]
        command = [sys.executable, "-m", "hf_llm", "train", *given, *quiet]
        if cell.mode.startswith("transformers"):
            command = [sys.executable, __file__, str(run), "--peer", *given, *quiet]
        begun = time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=2 * HOUR, check=False)
        except subprocess.TimeoutExpired:
            return {"error": "two hours were not enough"}
        if done.returncode:
            return {"error": done.stderr.strip().splitlines()[-1][:300]}
        metrics = json.loads((run / "metrics.json").read_text())
    name = PRINCIPAL[task][0]
    figures = {split: values.get(name) for split, values in metrics.items() if split != "train"}
    return {"metric": name, "seconds": round(time.monotonic() - begun), "steps": metrics["train"]["steps"], **figures}


def peer(given: list[str]) -> None:
    """The same training by transformers' own Trainer: random order, the model's own loss, batches padded alike."""
    import numpy as np
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, set_seed

    from hf_llm import compose, data, models, runs, tasks
    from hf_llm import tokenizer as tokenizers
    from hf_llm.preflight import schedule
    from hf_llm.tasks.base import texts_of

    cfg = compose(*given)
    folder = Path(str(cfg.run))
    folder.mkdir(parents=True)
    task = tasks.get(cfg.task, cfg.model)
    settings = {key: value for key, value in cfg.trainer.items() if key != "train_sampling_strategy"}
    args = TrainingArguments(output_dir=str(folder), report_to=[], **settings)
    set_seed(args.seed)
    rows = data.load(cfg.data, task.columns, seed=args.seed, sample_by=task.sample_by)
    tokenizer = tokenizers.load(cfg.tokenizer, texts_of(rows), special_tokens=task.special_tokens)
    splits = task.encode(rows, tokenizer)
    if cfg.least_steps:
        schedule.lengthen(args, cfg.least_steps, len(splits["train"]))
    model = models.build(
        cfg.model,
        auto_model=task.auto_model,
        tokenizer=tokenizer,
        labels=task.labels(rows),
        max_length=task.longest_input(),
    )
    trainer = Trainer(
        model,
        args,
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda found: {
            "accuracy": float(np.mean(np.argmax(found.predictions, -1) == found.label_ids))
        },
    )
    trainer.train()
    metrics: dict[str, Any] = {"train": {"steps": trainer.state.global_step}}
    for split in ("validation", "test"):
        if split in splits:
            metrics[split] = {"accuracy": trainer.evaluate(splits[split])["eval_accuracy"]}
    runs.write_json(folder / runs.METRICS, metrics)


def report(lines: list[dict[str, Any]]) -> None:
    """A row for each set, size and model: validation figures of the defaults, the sweep, transformers' own Trainer."""
    columns = ("data", "size", "model", "defaults, by seed", *RATES, "of the best", "Trainer's own", "TF-IDF")
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = collections.defaultdict(list)
    for line in lines:
        groups[line["source"], line["size"], line["model"]].append(line)
    for group, found in sorted(groups.items()):
        ours, theirs = _figures(found, "seed"), _figures(found, "transformers")
        sweep = [_figures(found, f"rate {rate}") for rate in RATES]
        less_is_better = any(line.get("metric") == "loss" for line in found)
        best = (min if less_is_better else max)((figure for figures in sweep for figure in figures), default=None)
        share = f"{statistics.mean(ours) / best:.2f}" if ours and best else ""
        baselines = [line[key] for line in found for key in line if key.startswith("validation, ")]
        print(
            "| " + " | ".join([*group, *map(_text, (ours, *sweep)), share, _text(theirs), _text(baselines[:1])]) + " |"
        )
    for line in lines:
        if "error" in line:
            print(f"\nfailed: {line['source']}/{line['model']}/{line['size']}/{line['mode']}: {line['error']}")


def _figures(lines: list[dict[str, Any]], mode: str) -> list[float]:
    return [
        line["validation"] for line in lines if line["mode"].startswith(mode) and line.get("validation") is not None
    ]


def _text(figures: list[float]) -> str:
    return " ".join(f"{figure:.3f}" for figure in figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="JSON lines; those that are there are not measured again")
    parser.add_argument("--data", type=Path, help="the folder of the corpora")
    parser.add_argument("--minilm", type=Path, help="a folder with a small pretrained BERT; else without its cells")
    parser.add_argument("--only", default="", help="a regular expression for SOURCE/MODEL/SIZE/MODE")
    parser.add_argument("--hours", type=float, default=8.0, help="start no cell after so many")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--peer", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        return peer(args.peer)
    text = args.results.read_text(encoding="utf-8") if args.results.exists() else ""
    lines = [json.loads(line) for line in text.splitlines()]
    if args.report:
        return report(lines)
    if args.data is None or not args.data.is_dir():
        parser.error("--data: give the folder of the corpora")
    done = {Cell(line["source"], line["model"], line["size"], line["mode"]) for line in lines}
    end = time.monotonic() + args.hours * HOUR
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as made:
        novel_words((args.data / "lm/gutenberg_en/train.txt").read_text(encoding="utf-8"), Path(made))
        known = sources(args.data.resolve(), Path(made))
        for cell in cells(known):
            wanted = re.search(args.only, cell.name) and cell not in done and (cell.model != "minilm" or args.minilm)
            if not wanted or time.monotonic() > end:
                continue
            source = known[cell.source]
            figures = measured(cell, overrides(cell, source, args.minilm), source.task)
            with args.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**cell._asdict(), **figures}) + "\n")
            print(cell.name, figures, flush=True)


if __name__ == "__main__":
    main()
