"""Tiny data and tiny runs, for the tests that train."""

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


VERBS = ("sees", "hears")


def write_propositions(folder: Path, name: str = "train.conll", sentences: int = 120) -> Path:
    """Sentences of none to two clauses, `red cat sees two`: ID, word, predicate, and a column of roles for each."""
    path, lines = folder / name, ["# a comment\n"]
    for i in range(sentences):
        clauses = []
        for j in range(i % 3):
            agent = [*COLOURS[(i + j) % 3 :][: i % 2], ("cat", "dog")[(i // 2 + j) % 2]]
            clauses.append((agent, VERBS[(i // 4 + j) % 2], [WORDS[3 + (i + j) % 3]]))
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


def classifier(folder: Path, arch: str = "bert", **options: str) -> list[str]:
    """Overrides of a text classification run on `write_csv`'s rows."""
    given = [f"{key}={value}" for key, value in options.items()]
    files = [f"data.files.train={write_csv(folder)}", f"runs_dir={folder / 'outputs'}", "tokenizer=word"]
    return [*files, *SMALL[arch], "task=text_classification", "task.max_length=32", *QUICK, *given]
