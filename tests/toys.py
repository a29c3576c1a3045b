"""Tiny data and tiny runs, for the tests that train."""

import json
from pathlib import Path

WORDS = ["red", "blue", "green", "one", "two", "three", "cat", "dog"]
COLOURS = ("red", "blue", "green")


def write_text(folder: Path, name: str = "corpus.txt", lines: int = 300) -> Path:
    """Lines with a pattern that a two-layer model finds in a few steps."""
    path = folder / name
    path.write_text("".join(f"{' '.join(WORDS[(i + j) % 8] for j in range(6))}\n" for i in range(lines)))
    return path


def write_csv(folder: Path, name: str = "train.csv", rows: int = 90) -> Path:
    """`label,text`: whether a colour is named first. Two thirds are `thing`."""
    path = folder / name
    lines = ["label,text"]
    for i in range(rows):
        word = COLOURS[i % len(COLOURS)] if i % 3 == 0 else WORDS[3 + i % 5]
        lines.append(f"{'colour' if i % 3 == 0 else 'thing'},{word} {WORDS[i % 8]} {WORDS[(i * 3) % 8]}")
    path.write_text("\n".join(lines) + "\n")
    return path


SMALL = {
    "gpt2": ["model=gpt2", "model.config.n_layer=2", "model.config.n_embd=32", "model.config.n_head=2"],
    "bert": [
        "model=bert",
        "model.config.num_hidden_layers=2",
        "model.config.hidden_size=32",
        "model.config.num_attention_heads=2",
        "model.config.intermediate_size=64",
    ],
    "rnn": ["model=rnn", "model.config.hidden_size=32", "model.config.embedding_size=32"],
    "fnn": ["model=fnn", "model.config.hidden_size=32", "model.config.embedding_size=16"],
    "t5": ["model=t5", "model.config.d_model=32", "model.config.num_layers=2", "model.config.d_ff=32"],
    **{
        arch: [
            f"model={arch}",
            "model.config.d_model=32",
            "model.config.encoder_layers=2",
            "model.config.decoder_layers=2",
            "model.config.encoder_ffn_dim=64",
            "model.config.decoder_ffn_dim=64",
        ]
        for arch in ("bart", "marian")
    },
}
QUICK = [
    "trainer.max_steps=4",
    "trainer.per_device_train_batch_size=4",
    "trainer.eval_strategy=no",
    "trainer.save_strategy=no",
    "trainer.disable_tqdm=true",
    "trainer.use_cpu=true",
]


def language_model(folder: Path, arch: str = "gpt2", **options: str) -> list[str]:
    """Overrides of a causal LM run on `write_text`'s corpus."""
    given = [f"{key}={value}" for key, value in options.items()]
    files = [f"data.files.train={write_text(folder)}", f"runs_dir={folder / 'outputs'}", "tokenizer=char"]
    return [*files, *SMALL[arch], "task.block_size=16", *QUICK, *given]


def classifier(folder: Path, arch: str = "bert", **options: str) -> list[str]:
    """Overrides of a text classification run on `write_csv`'s rows."""
    given = [f"{key}={value}" for key, value in options.items()]
    files = [f"data.files.train={write_csv(folder)}", f"runs_dir={folder / 'outputs'}", "tokenizer=word"]
    return [*files, *SMALL[arch], "task=text_classification", "task.max_length=32", *QUICK, *given]


def write_pairs(folder: Path, name: str = "pairs.jsonl", rows: int = 60, split: str = "train") -> Path:
    """`source` of one to five words, `target` the same in capitals, in reverse; of rows not trained on two targets."""
    path = folder / name
    lines = []
    for i in range(rows):
        words = [WORDS[(i * 3 + j * (1 + i % 3)) % 8] for j in range(1 + i % 5)]
        target = " ".join(reversed(words)).upper()
        targets = target if split == "train" else [target, " ".join(words)]
        lines.append(json.dumps({"source": " ".join(words), "target": targets}))
    path.write_text("\n".join(lines) + "\n")
    return path


def translator(folder: Path, arch: str = "marian", **options: str) -> list[str]:
    """Overrides of a translation run on `write_pairs`' rows."""
    given = [f"{key}={value}" for key, value in options.items()]
    train, held = write_pairs(folder), write_pairs(folder, "held.jsonl", 11, "validation")
    files = [f"data.files.train={train}", f"data.files.validation={held}", f"runs_dir={folder / 'outputs'}"]
    lengths = ["task.max_source_length=16", "task.max_target_length=12"]
    return [*files, "tokenizer=word", *SMALL[arch], "task=translation", *lengths, *QUICK, *given]
