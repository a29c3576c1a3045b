"""`--help`, of the command and of each verb: written here rather than by Hydra, so that it is there in a moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

GROUPS = ("data", "tokenizer", "model", "task", "trainer", "launcher", "experiment")

# The overrides that most people want, by verb.
WANTED = {
    "train": [
        ("run=NAME", "the run's name; its directory is outputs/NAME"),
        ("data.files.train=FILE", "your own file (txt, csv, tsv, json, jsonl, parquet, …); also .validation, .test"),
        ("data.path=ID", "a Hub dataset, a folder, or builtin:python_docs"),
        ("data.columns.text=NAME", "which column is the text; data.columns.label for the label"),
        ("model=NAME", "the architecture, or model.pretrained=ID for pretrained weights"),
        ("model.config.n_layer=N", "any field of the architecture's config class"),
        ("task.block_size=N", "tokens a language model sees at once"),
        ("trainer.learning_rate=X", "any field of transformers.TrainingArguments"),
        ("trainer.max_steps=N", "stop after N steps, or trainer.num_train_epochs=N"),
        ("trainer.per_device_train_batch_size=N", "rows or blocks a step, on each device"),
        ("preflight=only", "say what would be trained on what, its size and its steps, and stop; off: say nothing"),
        ("offline=true", "ask the Hub for nothing, and say at once what is not on this machine yet"),
        ("launcher=accelerate", "several processes; launcher.num_processes=N, launcher.profile=NAME, all below"),
    ],
    "evaluate": [
        ("run=NAME", "a run in outputs/, or a path to one"),
        ("model.pretrained=ID", "in place of run: a folder or a Hub model"),
        ("split=NAME", "train, validation (the default) or test"),
        ("data.files=FILE", "another file than the run's own data"),
        ("output=FILE", "also write the metrics as JSON"),
        ("trainer.per_device_eval_batch_size=N", "the figures do not depend on it"),
    ],
    "predict": [
        ("run=NAME", "a run in outputs/, or a path to one"),
        ("model.pretrained=ID", "in place of run: a folder or a Hub model"),
        ("input=FILE", "txt (a text a line), csv, jsonl, …; without it, standard input"),
        ("output=FILE", "JSON lines; without it, standard output"),
        ("data.columns.text=NAME", "which column is the text"),
    ],
    "generate": [
        ("run=NAME", "a run in outputs/, or a path to one"),
        ("model.pretrained=ID", "in place of run: a folder or a Hub model"),
        ("prompt=TEXT", "what to continue; prompts=FILE for a file of them"),
        ("generation.max_new_tokens=N", "any field of transformers.GenerationConfig"),
        ("generation.temperature=X", "below 1: surer; generation.do_sample=false: greedy"),
        ("seed=N", "another sample"),
        ("output=FILE", "JSON lines"),
    ],
    "push": [
        ("run=NAME", "a finished run in outputs/, or a path to one"),
        ("repo=OWNER/NAME", "the model repository; made, and private, where there is none"),
        ("--dry-run", "list the files and their sizes, and send nothing"),
        ("private=false", "make it public"),
        ("overwrite=true", "replace files that are there and of no push, and a card that was edited there"),
        ("card.language=zh", "a Chinese model card; card.license and card.data_license say what the Hub shows"),
        ("include=[predictions.jsonl]", "more files of the run directory, which may hold text of the data"),
    ],
    "pull": [
        ("repo=OWNER/NAME", "the model repository"),
        ("revision=NAME", "a branch, tag or commit of it"),
        ("run=NAME", "the run it becomes in outputs/; without it, the repository's name"),
    ],
    "rerun": [
        ("run=NAME", "a run in outputs/, a path to one, or OWNER/NAME on the Hub"),
        ("--dry-run", "name what differs from then (versions, commit, data), and stop"),
        ("local_files=true", "it may read the files of this machine that it names"),
        ("data.files.train=FILE", "where its data are here, if elsewhere; they have to be the same"),
        ("name=NAME", "the new run's name; without it, NAME-rerun"),
    ],
    "demo": [
        ("run=NAME", "a run in outputs/, or a path to one"),
        ("model.pretrained=ID", "in place of run: a folder or a Hub model"),
        ("port=N", "where the page is, on this machine alone: http://127.0.0.1:N"),
        ("browser=false", "do not open it"),
        ("share=true", "by a tunnel of Gradio's, for anybody who has the address"),
    ],
}

EXAMPLES = {
    "train": "hf-llm train data=files data.files.train=book.txt trainer.max_steps=500 run=book",
    "evaluate": "hf-llm evaluate run=book data.files=another.txt",
    "predict": "hf-llm predict run=spam input=new.csv output=labels.jsonl",
    "generate": "hf-llm generate run=book prompt='It was'",
    "push": "hf-llm push run=spam repo=me/spam --dry-run",
    "pull": "hf-llm pull repo=me/spam",
    "rerun": "hf-llm rerun run=me/spam data.files.train=train.csv",
    "demo": "hf-llm demo run=book",
}

FLAGS = """\
Flags (Hydra's own):
  --cfg job             print the composed configuration and stop
  --info                what was composed from where
  -m, --multirun        sweep: trainer.learning_rate=1e-3,3e-4 trains a run for each
  --config-dir DIR      a folder with YAML files of your own, laid out as conf/
  HF_LLM_DEBUG=1        (environment) show the traceback of an error"""


def overview(verbs: Mapping[str, tuple[str, str, str]], conf: Path) -> str:
    """`hf-llm --help`."""
    lines = ["hf-llm VERB [override ...]", "", "Verbs:"]
    lines += [f"  {verb:<10} {description}" for verb, (_, _, description) in verbs.items()]
    lines += ["", "Groups, each with its options (GROUP=OPTION):", *_groups(conf, None)]
    lines += ["", "Overrides of train that most people want:", *_wanted("train")]
    lines += ["", FLAGS, "", "Examples:", *(f"  {example}" for example in EXAMPLES.values())]
    lines += ["", "hf-llm VERB --help tells more of a verb."]
    return "\n".join(lines)


def verb_help(verb: str, verbs: Mapping[str, tuple[str, str, str]], conf: Path, config_dir: str | None) -> str:
    """`hf-llm VERB --help`, with the options of the user's own `--config-dir` among the others."""
    lines = [f"hf-llm {verb} [override ...]: {verbs[verb][2]}", "", "Overrides that most people want:", *_wanted(verb)]
    if verb == "train":
        lines += ["", "Groups, each with its options (GROUP=OPTION):"]
        lines += _groups(conf, config_dir)
    return "\n".join([*lines, "", FLAGS, "", "Example:", f"  {EXAMPLES[verb]}"])


def _wanted(verb: str) -> list[str]:
    width = max(len(override) for override, _ in WANTED[verb])
    return [f"  {override:<{width}}  {meaning}" for override, meaning in WANTED[verb]]


def _groups(conf: Path, config_dir: str | None) -> list[str]:
    folders = [conf, *([Path(config_dir)] if config_dir else [])]
    default = _defaults(conf)
    return [
        f"  {group:<11} "
        + ", ".join(f"{name} (default)" if name == default.get(group) else name for name in choices(group, folders))
        for group in GROUPS
    ]


def choices(group: str, folders: Iterable[Path]) -> list[str]:
    """The options of a config group: its YAML files, in our conf/ and in the user's own folder."""
    found = {
        str(path.relative_to(folder / group).with_suffix(""))
        for folder in folders
        for path in (folder / group).rglob("*.yaml")
    }
    return sorted(found)


def _defaults(conf: Path) -> dict[str, str | None]:
    """Group -> the option that train.yaml chooses, which holds where the command names none."""
    import yaml

    chosen = yaml.safe_load((conf / "train.yaml").read_text(encoding="utf-8"))["defaults"]
    return {group: option for entry in chosen if isinstance(entry, dict) for group, option in entry.items()}
