"""The schema of every verb, as dataclasses. `check()` turns what Hydra composed into one of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

# The number of today's defaults and rules, which each new run records in its config.yaml.
# 1: a config.yaml without a number. Its learning rate is 1e-3 whatever is trained, its validation split is of any rows
#    and data.limits takes the first ones.
# 2: defaults by what is trained; equal texts stay on one side of a split; data.limits draws a sample.
FORMAT = 2


class InputError(ValueError):
    """What the user gave is wrong. The message is for them: one line that names the thing, where it is, what is right.

    The command line prints it without a traceback and exits with 2.
    """


@dataclass
class DataConfig:
    """Where the documents or rows come from: `path` or `files`, never both."""

    path: str | None = None  # a Hub dataset id, a folder, or builtin:NAME
    files: Any = None  # {split: file, glob or URL, or a list of them}; a bare file or list is the train split
    format: Literal["txt", "csv", "tsv", "json", "jsonl", "parquet", "arrow", "conll", "conllu"] | None = (
        None  # null: by the ending
    )
    subset: str | None = None  # a Hub dataset's configuration name
    revision: str | None = None  # branch, tag or commit of a Hub dataset
    splits: dict[str, str] = field(default_factory=dict)  # {validation: dev}: what a split of ours is called there
    columns: dict[str, Any] = field(default_factory=dict)  # {text: sentence, label: y}; a pair: {text: [s1, s2]}
    column_names: list[str] | None = None  # names for the columns of a header-less csv or tsv
    labels: list[str] | None = None  # the label names in id order; null: those of the train split, sorted
    encoding: str = "utf-8"
    delimiter: str | None = None  # null: "," for csv, a tab for tsv
    quoting: bool = True  # false: a double quote in a csv is an ordinary character
    sample_by: Literal["line", "paragraph", "document"] | None = None  # txt: one text per …; null: the task decides
    validation_fraction: float = 0.1  # of train, where there is no validation split; 0: none
    test_fraction: float | None = None  # of train, where there is no test split; null: none
    group_by: str | None = None  # a column: rows with the same value stay in one split, where splits are made
    limits: dict[str, int] = field(default_factory=dict)  # {train: 1000}: a random sample of so many rows of a split
    bad_rows: Literal["error", "skip"] = "error"  # skip: leave out rows with null text or label, and say which
    streaming: bool = False  # read and check rows as training goes, for corpora larger than the memory or the disk
    num_proc: int | None = None  # processes that prepare a dataset of the Hub


@dataclass
class TokenizerConfig:
    """A pretrained tokenizer, or an algorithm to train one on the train split."""

    pretrained: str | None = None  # a Hub id or a folder; the fields below are then unused
    revision: str | None = None
    # null: the tokenizer of model.pretrained where that is given, else byte_level_bpe
    algorithm: Literal["byte_level_bpe", "wordpiece", "unigram", "word", "char", "byte"] | None = None
    vocab_size: int = 8192  # an upper bound; special tokens included
    min_frequency: int = 2  # rarer pairs or words are not learnt
    lowercase: bool = False


@dataclass
class ModelConfig:
    """An architecture with random weights, or pretrained weights."""

    arch: str | None = None  # a transformers model_type (gpt2, bert, llama, …), rnn or fnn
    pretrained: str | None = None  # a Hub id or a folder with weights
    revision: str | None = None
    config: dict[str, Any] = field(default_factory=dict)  # fields of the architecture's own config class
    fused_loss: bool = True  # never hold the (tokens x vocabulary) logits of a causal LM in memory while training


@dataclass
class CardConfig:
    """What a person has to say for the model card; the rest of it is the run's own."""

    language: Literal["en", "zh"] | None = None  # null: English
    license: str | None = None  # of the model, by the Hub's identifier: apache-2.0, cc-by-4.0, …
    data_license: str | None = None  # of the data, likewise
    description: str | None = None  # a sentence or two, instead of the card's own first line


@dataclass
class LauncherConfig:
    """Which processes train; it says nothing about what a run is. Names are accelerate's, and submitit's for Slurm."""

    name: Literal["local", "accelerate", "slurm"] = "local"  # local: this process
    profile: str | None = None  # one of conf/accelerate, or a file of accelerate's; null: by the machine's GPUs
    num_processes: int | None = None  # on all machines together; null: the profile's, else one per GPU
    num_machines: int | None = None
    machine_rank: int | None = None  # which of the machines this is, from 0
    main_process_ip: str | None = None  # the address of machine 0
    main_process_port: int | None = None
    shutdown_timeout: int = 120  # seconds that processes have to save when they are told to stop
    nodes: int = 1  # Slurm's, from here on
    gpus_per_node: int | None = None
    tasks_per_node: int | None = None  # processes; null: one per GPU
    cpus_per_task: int | None = None
    mem_gb: float | None = None  # of each node
    timeout_min: int = 60  # then the job saves and is queued again
    partition: str | None = None
    account: str | None = None
    additional_parameters: dict[str, Any] = field(default_factory=dict)  # any other of sbatch's: {constraint: a100}
    folder: str | None = None  # submitit's job files and logs; null: <runs_dir>/.submitit/<job>
    cluster: Literal["slurm", "local"] = "slurm"  # local: submitit without Slurm, to try it


@dataclass
class SavedModel:
    """A trained model, where a verb takes one in place of a run."""

    pretrained: str | None = None  # a Hub id or a folder
    revision: str | None = None


@dataclass
class TrainConfig:
    """`hf-llm train`."""

    run: str | None = None  # the run's name, or a path; null: named after the model and the data
    runs_dir: str = "outputs"  # where runs live
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    task: dict[str, Any] = field(default_factory=dict)  # name, and the options that the task's class declares
    trainer: dict[str, Any] = field(default_factory=dict)  # transformers.TrainingArguments, field by field
    least_steps: int | None = (
        None  # epochs that nobody gave are raised, to 20 at most, until they come to so many steps
    )
    nonfinite_loss: Literal["stop", "skip"] = "stop"  # what a step does whose loss or gradient is NaN or infinite
    early_stopping_patience: int | None = None  # stop after so many evaluations without a better metric_for_best_model
    preflight: Literal["on", "only", "off"] = "on"  # say what is to be trained on what before; only: and stop there
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    card: CardConfig = field(default_factory=CardConfig)
    offline: bool = False  # ask the Hub for nothing: what is not on this machine yet is named
    format: int = FORMAT  # of config.yaml; a run of an earlier one keeps the defaults and rules of its time


@dataclass
class EvaluateConfig:
    """`hf-llm evaluate`: a saved run, or any saved model, measured on a split."""

    run: str | None = None
    runs_dir: str = "outputs"
    model: SavedModel = field(default_factory=SavedModel)  # in place of run
    offline: bool = False  # ask the Hub for nothing: what is not on this machine yet is named
    split: str = "validation"
    output: str | None = None  # also write the metrics to this JSON file
    data: dict[str, Any] = field(default_factory=dict)  # DataConfig's fields; those not given are the run's own
    task: dict[str, Any] = field(default_factory=dict)  # likewise
    trainer: dict[str, Any] = field(default_factory=dict)


@dataclass
class PredictConfig:
    """`hf-llm predict`: what a model makes of every row of a file or of standard input."""

    run: str | None = None
    runs_dir: str = "outputs"
    model: SavedModel = field(default_factory=SavedModel)
    offline: bool = False  # ask the Hub for nothing: what is not on this machine yet is named
    input: str = "-"  # a file; "-": standard input
    output: str = "-"  # a JSONL file; "-": standard output
    data: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)


@dataclass
class GenerateConfig:
    """`hf-llm generate`: continue a prompt, or every prompt of a file."""

    run: str | None = None
    runs_dir: str = "outputs"
    model: SavedModel = field(default_factory=SavedModel)
    offline: bool = False  # ask the Hub for nothing: what is not on this machine yet is named
    prompt: str | None = None
    prompts: str | None = None  # a file, a prompt per line; "-": standard input
    output: str = "-"  # "-": standard output, else a JSONL file
    batch_size: int = 8
    seed: int = 42
    device: str | None = None  # null: a GPU where there is one
    generation: dict[str, Any] = field(default_factory=dict)  # transformers.GenerationConfig, field by field


@dataclass
class PushConfig:
    """`hf-llm push`: a finished run to a model repository of the Hub."""

    run: str | None = None
    runs_dir: str = "outputs"
    repo: str | None = None  # OWNER/NAME
    private: bool = True  # of a repository that is made; one that is public already wants private=false
    dry_run: bool = False  # list the files and their sizes, and send nothing
    overwrite: bool = False  # files of a repository that no run was pushed to, and a card that was edited there
    include: list[str] = field(default_factory=list)  # more files of the run directory, such as predictions.jsonl
    message: str | None = None  # of the commit
    card: CardConfig = field(default_factory=CardConfig)  # what is given goes before the run's own


@dataclass
class PullConfig:
    """`hf-llm pull`: a run that was pushed, as a run directory of this machine."""

    repo: str | None = None
    revision: str | None = None  # branch, tag or commit
    run: str | None = None  # null: the repository's name
    runs_dir: str = "outputs"


@dataclass
class RerunConfig:
    """`hf-llm rerun`: train a run again from what it left behind, and compare."""

    run: str | None = None  # a run in runs_dir, a path to one, or a Hub repository
    runs_dir: str = "outputs"
    revision: str | None = None
    offline: bool = False  # ask the Hub for nothing: what is not on this machine yet is named
    name: str | None = None  # of the new run; null: NAME-rerun
    dry_run: bool = False  # name what differs, and stop
    local_files: bool = False  # true: the run may read the files of this machine that it names
    data: dict[str, Any] = field(default_factory=dict)  # where its data are here: data.files.train=FILE
    trainer: dict[str, Any] = field(default_factory=dict)  # laid over the run's own; some of those are not taken


@dataclass
class DemoConfig:
    """`hf-llm demo`: a page in the browser on which to try a trained model."""

    run: str | None = None
    runs_dir: str = "outputs"
    model: SavedModel = field(default_factory=SavedModel)
    offline: bool = False  # ask the Hub for nothing: what is not on this machine yet is named
    task: dict[str, Any] = field(default_factory=dict)
    port: int | None = None  # null: the first free one from 7860 on
    browser: bool = True  # open the page
    share: bool = False  # true: by a tunnel of Gradio's, for anybody who has the address
    device: str | None = None  # null: a GPU where there is one


VERBS = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "generate": GenerateConfig,
    "push": PushConfig,
    "pull": PullConfig,
    "rerun": RerunConfig,
    "demo": DemoConfig,
}
