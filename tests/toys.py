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


def masked_language_model(folder: Path, **options: str) -> list[str]:
    """Overrides of a masked LM run on `write_text`'s corpus."""
    given = [f"{key}={value}" for key, value in options.items()]
    files = [f"data.files.train={write_text(folder)}", f"runs_dir={folder / 'outputs'}", "tokenizer=wordpiece"]
    return [*files, "data.sample_by=line", *SMALL["bert"], "task=masked_lm", "task.block_size=32", *QUICK, *given]


TAGS = {"red": "ADJ", "blue": "ADJ", "green": "ADJ", "one": "NUM", "two": "NUM", "three": "NUM"}  # others are nouns


def write_conll(folder: Path, name: str = "train.conll", sentences: int = 60, entities: bool = False) -> Path:
    """Sentences of one to nine words with their parts of speech; or with cats and dogs as entities, with colours."""
    path, lines = folder / name, []
    for i in range(sentences):
        words = [WORDS[(i * j + i) % 8] for j in range(1 + i * 5 % 9)]
        for before, word in zip(["", *words], words, strict=False):
            kind = f"{'I' if before in COLOURS and entities else 'B'}-PET" if word in ("cat", "dog") else "O"
            if entities and word in COLOURS:
                kind = "B-PET"
            lines.append(f"{word}\t{kind if entities else TAGS.get(word, 'NOUN')}\n")
        lines.append("\n")
    path.write_text("".join(lines))
    return path


def tagger(folder: Path, arch: str = "bert", entities: bool = False, **options: str) -> list[str]:
    """Overrides of a token classification run on `write_conll`'s sentences."""
    given = [f"{key}={value}" for key, value in options.items()]
    path = write_conll(folder, entities=entities)
    files = [f"data.files.train={path}", f"runs_dir={folder / 'outputs'}", "tokenizer=wordpiece"]
    return [*files, *SMALL[arch], "task=token_classification", "task.max_length=32", *QUICK, *given]


def write_questions(folder: Path, name: str = "train.jsonl", rows: int = 60, unanswerable: bool = False) -> Path:
    """Contexts of words, and which one stands before another; of every third the answer may be none."""
    lines = []
    for i in range(rows):
        words = [WORDS[(i + j) % 8] for j in range(3 + i % 6)]
        place = 1 + i % (len(words) - 1)
        start = sum(len(word) + 1 for word in words[: place - 1])
        given = {"text": [words[place - 1]], "answer_start": [start]}
        question = f"what is before {words[place]}"
        if unanswerable and (i + i // 24) % 3 == 0:  # a context comes again after 24 rows
            question, given = "what is before horse", {"text": [], "answer_start": []}
        row = {"id": str(i), "question": question, "context": " ".join(words), "answers": given}
        lines.append(json.dumps(row) + "\n")
    (folder / name).write_text("".join(lines))
    return folder / name


def reader(folder: Path, arch: str = "bert", unanswerable: bool = False, **options: str) -> list[str]:
    """Overrides of a question answering run on `write_questions`' rows."""
    given = [f"{key}={value}" for key, value in options.items()]
    path = write_questions(folder, unanswerable=unanswerable)
    files = [f"data.files.train={path}", f"runs_dir={folder / 'outputs'}", "tokenizer=wordpiece"]
    sizes = ["task.max_length=24", "task.doc_stride=4", "task.max_query_length=8", "task.n_best_size=5"]
    return [*files, *SMALL[arch], "task=question_answering", *sizes, *QUICK, *given]


def classifier(folder: Path, arch: str = "bert", **options: str) -> list[str]:
    """Overrides of a text classification run on `write_csv`'s rows."""
    given = [f"{key}={value}" for key, value in options.items()]
    files = [f"data.files.train={write_csv(folder)}", f"runs_dir={folder / 'outputs'}", "tokenizer=word"]
    return [*files, *SMALL[arch], "task=text_classification", "task.max_length=32", *QUICK, *given]


def write_pairs(folder: Path, name: str = "pairs.jsonl", rows: int = 60, split: str = "train") -> Path:
    """`source` of one to five words, `target` the same in capitals and reversed; held-out rows have two targets."""
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


VERBS = ("sees", "hears")


def write_propositions(folder: Path, name: str = "train.conll", sentences: int = 120) -> Path:
    """Sentences of none to two clauses, `red cat sees two`: ID, word, predicate, and a column of roles for each."""
    path, lines = folder / name, ["# a comment\n"]
    for i in range(sentences):
        clauses = []
        for j in range(i % 3):
            agent = [*COLOURS[(i + j) % 3 :][: i % 2], ("cat", "dog")[(i // 2 + j) % 2]]
            clauses.append((agent, VERBS[(i // 4 + j) % 2], [WORDS[3 + (i + i // 9 + j) % 3]]))
        words = [word for agent, verb, patient in clauses for word in (*agent, verb, *patient)] or ["one", "two"]
        columns, start = [], 0
        for agent, _, patient in clauses:
            tags = ["B-A0", *["I-A0"] * (len(agent) - 1), "B-V", "B-A1", *["I-A1"] * (len(patient) - 1)]
            columns.append(["O"] * start + tags + ["O"] * (len(words) - start - len(tags)))
            start += len(tags)
        for place, word in enumerate(words):
            sense = f"{word}.01" if word in VERBS else "_"
            lines.append("\t".join([str(place + 1), word, sense, *(tags[place] for tags in columns)]) + "\n")
        lines.append("\n")
    path.write_text("".join(lines))
    return path


def role_labeller(folder: Path, arch: str = "bert", **options: str) -> list[str]:
    """Overrides of a semantic role labelling run on `write_propositions`' sentences."""
    given = [f"{key}={value}" for key, value in options.items()]
    files = [f"data.files.train={write_propositions(folder)}", f"runs_dir={folder / 'outputs'}", "tokenizer=wordpiece"]
    columns = "data.columns={words: 1, predicate: 2, tags: 3}"
    return [*files, columns, *SMALL[arch], "task=semantic_role_labelling", "task.max_length=48", *QUICK, *given]
