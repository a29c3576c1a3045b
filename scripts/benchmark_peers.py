"""What the peers of benchmark.py need beside them to run offline and from scratch; their own code stays as it is."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

# run_glue.py calls evaluate.load("accuracy"), which looks for accuracy/accuracy.py before it asks the Hub.
ACCURACY = """
import datasets
import evaluate


class Accuracy(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("int32"), "references": datasets.Value("int32")})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references):
        return {"accuracy": sum(a == b for a, b in zip(predictions, references)) / len(references)}
"""

# run_glue.py starts from saved weights: here random ones. hf_llm starts from the same.
RANDOM_BERT = """
import sys
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, set_seed

tokenizer_folder, folder = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
sizes = dict(num_hidden_layers=4, hidden_size=128, num_attention_heads=4, intermediate_size=512)
set_seed(42)
names = {"id2label": {0: "0", 1: "1"}, "label2id": {"0": 0, "1": 1}}  # as numbered_labels() has them
BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **sizes, **names)).save_pretrained(folder)
tokenizer.save_pretrained(folder)
"""


def tokenizer_folder(vocabulary: Path, folder: Path, model_type: str) -> None:
    """Copy a tokenizer to `folder`; bare vocabulary files get the config.json by which AutoTokenizer knows them."""
    shutil.copytree(vocabulary, folder)
    if not any((folder / name).is_file() for name in ("config.json", "tokenizer_config.json", "tokenizer.json")):
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))


def random_bert(vocabulary: Path, folder: Path) -> None:
    """A BERT with random weights, 4 layers × 128, and the tokenizer of the folder `vocabulary`, saved in `folder`."""
    tokenizer = folder.with_name("bert-tokenizer")
    tokenizer_folder(vocabulary, tokenizer, "bert")
    subprocess.run([sys.executable, "-c", RANDOM_BERT, str(tokenizer), str(folder)], check=True, capture_output=True)


def offline_accuracy(folder: Path) -> None:
    """Put evaluate's accuracy, as a local metric script, where evaluate.load("accuracy") finds it."""
    (folder / "accuracy").mkdir()
    (folder / "accuracy" / "accuracy.py").write_text(ACCURACY)


def language_model_rows(text: Path, folder: Path) -> None:
    """Write the text as rows that both sides read alike: its lines, and once whole. Blank lines are left out.

    run_clm.py makes a row of each line of a .txt, hf_llm one of the file, so neither gets a .txt. run_clm.py takes 5 %
    for validation unless it is given some; that would be work and memory on its side alone, so both get one short row.
    """
    whole = text.read_text(encoding="utf-8")
    lines = [line for line in whole.splitlines(keepends=True) if line.strip()]
    folder.mkdir()
    for name, rows in (("lines", lines), ("document", [whole]), ("validation", [whole[:2000]])):
        written = "".join(json.dumps({"text": row}, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.json").write_text(written, encoding="utf-8")


def numbered_labels(source: Path, folder: Path) -> None:
    """Copy train.csv and validation.csv with labels 0, 1, … for names: run_glue.py dies on names.

    Both sides read the copy.
    """
    tables = {}
    for split in ("train", "validation"):
        with (source / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            tables[split] = list(csv.DictReader(file))
    names = sorted({row["label"] for row in tables["train"]})
    folder.mkdir()
    for split, rows in tables.items():
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["label", "text"])
            writer.writeheader()
            writer.writerows({"label": names.index(row["label"]), "text": row["text"]} for row in rows)
