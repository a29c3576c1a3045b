"""What a person can get wrong, through the command line: one line that says what, where and what would be right."""

import io
import logging
import shlex
import sys
from pathlib import Path

import datasets  # noqa: F401  before a test captures the standard error that its log handler would keep
import pytest
import transformers  # noqa: F401  likewise
from toys import QUICK, classifier, language_model, write_csv, write_text

from hf_llm.cli import main

LM = "train tokenizer=char data.files.train="
CLASSIFIER = "train model=bert tokenizer=word task=text_classification data.files.train="
RNN = "train model=rnn tokenizer=char task.block_size=16 data.files.train=corpus.txt"

GOOD = "text,label\n" + "red cat,a\nblue dog,b\n" * 20
# What lies in the folder that each command runs in, beside toys' corpus.txt and train.csv.
FILES = {
    "empty.txt": "",
    "white.txt": "  \n\n",
    "bytes.txt": b"a good line\nand \xff a bad one\n",
    "notes.dat": "words",
    "good.csv": GOOD,
    "lable.csv": "text,lable\nx,a\ny,b\n",
    "null_text.csv": "text,label\nx,a\n,b\n",
    "null_label.csv": "text,label\nx,a\ny,\n",
    "unseen.csv": "text,label\nx,a\ny,c\n",
    "one_class.csv": "text,label\n" + "x,a\n" * 20,
    "long_row.csv": "text,label\nx,a\ny,b,c\n",
    "short_row.csv": "text,label\nx,a\ny\n",
    "quote.csv": 'text,label\n"x,a\ny,b\n',
    "header.csv": "text,label\n",
    "latin.csv": b"text,label\nx,a\ncaf\xe9,b\n",
    "null.jsonl": '{"text": "x", "label": "a"}\n{"text": null, "label": "b"}\n',
    "broken.jsonl": '{"text": "x", "label": "a"}\n{"text": "y", "label":}\n',
    "sound.csv": "label,text\nsound,red cat\n",
    "bare/README.txt": "no model, no tokenizer",
    "weightless/config.json": '{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}',
    "outputs/foreign/thesis.tex": "mine",
    "outputs/in_the_way": "a file",
    "conf/data/tabs.yaml": "files:\n\ttrain: corpus.txt\n",
    "conf/data/unknown.yaml": "pth: corpus.txt\n",
    "conf/data/code.yaml": "_target_: os.system\n",
    "conf/experiment/number.yaml": "# @package _global_\ndata: 5\n",
}

# name: (command, what the message says: fragments in this order, with " … " between them).
# LM, SPAM: the paths of two trained runs, a causal language model and a classifier of colour and thing.
CASES = {
    # verbs and flags
    "misspelt verb": ("trian", "trian: no such verb; did you mean train?"),
    "unknown verb": ("deploy", "deploy: no such verb; one of train, evaluate, predict, generate"),
    "unknown flag": ("train --fast", "--fast"),
    "flag without value": ("train --cfg", "--cfg"),
    "config-dir not there": ("train --config-dir nowhere", "--config-dir nowhere: no such folder"),
    # keys of the configuration
    "misspelt key": (
        "train trainer.learning_rat=1",
        "trainer.learning_rat: no such key; did you mean trainer.learning_rate?",
    ),
    "misspelt key by +": ("train +data.pth=x", "data.pth: no such key; did you mean data.path?"),
    "misspelt key by ++": (
        "train ++model.config.n_layr=2",
        "model.config.n_layr: no such key; did you mean model.config.n_layer? (model.arch=gpt2)",
    ),
    "misspelt key before --cfg": ("train trainer.sed=1 --cfg job", "trainer.sed: no such key; did you mean trainer.seed?"),
    "misspelt key of a sweep": ("train -m trainer.seed=1,2 trainer.sed=3", "trainer.sed: no such key; did you mean"),
    "key of the other task": ("train task.max_length=8", "task.max_length: no such key; task has block_size, name"),
    "renamed key": ("train trainer.evaluation_strategy=no", "transformers 5 has no such argument; write trainer.eval_strategy"),
    "derived key": ("train model.config.num_labels=3", "model.config.num_labels: not set by hand: … data.labels"),
    "no such group": ("train modle=gpt2", "modle: no such key; did you mean model?"),
    "deleted key not there": ("train ~trainer.sed", "trainer.sed"),
    # values of the configuration
    "wrong type": ("train trainer.max_steps=many", "trainer.max_steps: 'many' is not a whole number"),
    "wrong type of a config field": ("train model.config.n_embd=big", "model.config.n_embd: 'big' is not a whole number"),
    "not a group": ("train model.config=3", "model.config: 3 is not a group of keys"),
    "wrong choice": ("train trainer.lr_scheduler_type=cosin", "'cosin' is not one of linear, … did you mean cosine?"),
    "group option": ("train tokenizer=bp", "tokenizer=bp: no such option; did you mean tokenizer=bpe?"),
    "group option null": ("train data=null", "data=null: … files, hub, python_docs, unicode_names"),
    "experiment": ("train experiment=shakespear", "experiment=shakespear: no such option; did you mean"),
    "task": ("train task.name=causal", "task.name: 'causal' is not one of causal_lm, text_classification"),
    "unfinished list": ("train data.labels=[a,b", "data.labels=[a,b"),
    "two values without -m": ("train trainer.seed=1,2", "trainer.seed=1,2 … multirun"),
    "no equals sign": ("train model", "model … EQUAL"),
    "interpolation": ("train run=${nothing}", "'nothing' not found"),
    "value left open: data": ("train data=hub", "data.path: missing"),
    "value left open: tokenizer": ("train tokenizer=pretrained", "tokenizer.pretrained: missing"),
    "value left open: model": ("train model=pretrained", "model.pretrained: missing"),
    "no model": ("train ~model", "model: neither arch nor pretrained; choose one, as in model=gpt2"),
    "yaml of one's own: syntax": ("train --config-dir conf data=tabs", "tabs.yaml … line 2"),
    "yaml of one's own: key": ("train --config-dir conf data=unknown", "data.pth: no such key; did you mean data.path?"),
    "yaml of one's own: code": ("train --config-dir conf data=code", "data._target_: no such key"),
    "yaml of one's own: shape": ("train --config-dir conf experiment=number", "data: a group of keys, not 5"),
    # data
    "no such file": (LM + "corpus.tx", "data.files.train=corpus.tx: no such file; . has 'corpus.txt'"),
    "no such test file": (LM + "corpus.txt data.files.test=no.txt", "data.files.test=no.txt: no such file"),
    "no such split": (LM + "corpus.txt data.files.tset=corpus.txt", "data.files.tset: … did you mean … test"),
    "empty file": (LM + "empty.txt", "empty.txt: the file is empty"),
    "white space": (LM + "white.txt", "white.txt: the file is empty"),
    "undecodable text": (LM + "bytes.txt", "bytes.txt, line 2: byte 17 of the file (0xff) is not utf-8; set data.encoding"),
    "unknown encoding": (LM + "corpus.txt data.encoding=utf-99", "data.encoding=utf-99: no such encoding; utf-8"),
    "unknown ending": (LM + "notes.dat", "notes.dat: the name's ending tells no format; set data.format to one of txt"),
    "unknown format": (LM + "notes.dat data.format=doc", "data.format: 'doc' is not one of txt, csv"),
    "path and files": (LM + "corpus.txt data.path=builtin:python_docs", "both data.path=builtin:python_docs and data.files"),
    "neither path nor files": ("train ~data", "give data.path … or data.files"),
    "built-in": ("train data.path=builtin:python_doc", "data.path=builtin:python_doc: … there are 'python_docs'"),
    "Hub offline": ("train data.path=nobody/nothing", "data.path=nobody/nothing: … the Hub cannot be reached"),
    "folder not there": ("train data.path=./nowhere", "data.path=./nowhere: no such folder"),
    "limit": (LM + "corpus.txt data.limits.train=0", "data.limits.train=0: give a whole number of rows, at least 1"),
    "label of a language model": (LM + "corpus.txt data.columns.label=x", "data.columns.label: this task has no such column"),
    "missing column": (CLASSIFIER + "lable.csv", "lable.csv: no column 'label' for data.columns.label; it has 'lable', 'text'"),
    "no text": (CLASSIFIER + "null_text.csv", "null_text.csv, row 2 (line 3): empty text in column 'text' … data.bad_rows=skip"),
    "null text": (CLASSIFIER + "null.jsonl", "null.jsonl, row 2: null in column 'text' … data.bad_rows=skip"),
    "no label": (CLASSIFIER + "null_label.csv", "null_label.csv, row 2 (line 3): empty label in column 'label'"),
    "label only in validation": (
        CLASSIFIER + "good.csv data.files.validation=unseen.csv",
        "unseen.csv, row 2 (line 3): label 'c' is not one of the train split: 'a', 'b'",
    ),
    "label not named": (CLASSIFIER + "good.csv data.labels=[a]", "good.csv, row 2 (line 3): label 'b' is not one of data.labels"),
    "one class": (CLASSIFIER + "one_class.csv", "one_class.csv: every row of the train split has the label 'a'"),
    "row too long": (CLASSIFIER + "long_row.csv", "long_row.csv, row 2 (line 3): 3 fields, not 2 (y,b,c); quote"),
    "row too short": (CLASSIFIER + "short_row.csv", "short_row.csv, row 2 (line 3): 1 fields, not 2 (y)"),
    "open quote": (CLASSIFIER + "quote.csv", "quote.csv, line 2: a double quote is opened that is never closed"),
    "header only": (CLASSIFIER + "header.csv", "header.csv: the file has a header line and no rows"),
    "undecodable csv": (CLASSIFIER + "latin.csv", "latin.csv, line 3: byte 19 of the file (0xe9) is not utf-8"),
    "invalid json": (CLASSIFIER + "broken.jsonl", "broken.jsonl, row 2: not valid JSON"),
    "text file for a classifier": (CLASSIFIER + "corpus.txt", "corpus.txt: no column 'label' … a text file has no other"),
    # tokenizer
    "no tokenizer there": (LM + "corpus.txt tokenizer.pretrained=./nowhere", "tokenizer.pretrained=./nowhere: there is no such folder"),
    "folder without tokenizer": (LM + "corpus.txt tokenizer.pretrained=bare", "tokenizer.pretrained=bare holds no tokenizer"),
    "algorithm": ("train tokenizer.algorithm=bpe", "tokenizer.algorithm: 'bpe' is not one of byte_level_bpe, wordpiece"),
    "vocabulary too small": (
        "train tokenizer=bpe tokenizer.vocab_size=99 data.files.train=corpus.txt",
        "tokenizer.vocab_size=99 is too small for byte_level_bpe: … at least 258",
    ),
    # model
    "bert as a language model": (
        LM + "corpus.txt model=bert model.config.num_hidden_layers=1",
        "bert reads in both directions … set model.config.is_decoder=true, or use it for text_classification",
    ),
    "architecture": ("train model.arch=gtp2", "model.arch: 'gtp2' is not one of … did you mean gpt2?"),
    "architecture of another kind": (LM + "corpus.txt ~model +model.arch=vit", "vit has no form as a causal language model"),
    "heads that do not divide": (LM + "corpus.txt model.config.n_head=5", "model.config: gpt2 cannot be built … divisible"),
    "no heads": (LM + "corpus.txt model.config.n_head=0", "model.config: gpt2 cannot be built"),
    "too few positions": (LM + "corpus.txt model.config.n_positions=8", "model.config.n_positions: 8 makes room for 8 tokens"),
    "no weights": (LM + "corpus.txt model.pretrained=weightless", "model.pretrained: the folder weightless has no weights"),
    "no config": (LM + "corpus.txt model.pretrained=bare", "model.pretrained: the folder bare has no config.json"),
    "weights not there": (LM + "corpus.txt model.pretrained=./nowhere", "model.pretrained: ./nowhere is not a folder here"),
    "fewer positions than the block": (
        LM + "corpus.txt model.pretrained=LM/model task.block_size=2048",
        "has 1024 positions, fewer than the 2048 tokens … set task.block_size … at most 1024",
    ),
    "no block": (LM + "corpus.txt task.block_size=0", "task.block_size: 0 … at least 1"),
    # trainer
    "saved and measured at different times": (
        LM + "corpus.txt trainer.load_best_model_at_end=true trainer.eval_strategy=steps trainer.save_strategy=epoch",
        "trainer: --load_best_model_at_end requires the save and eval strategy to match",
    ),
    "scheduler without its option": (RNN + " trainer.lr_scheduler_type=cosine_with_min_lr", "trainer: … min_lr"),
    "two precisions": (LM + "corpus.txt trainer.bf16=true trainer.fp16=true", "trainer: At most one of fp16 and bf16"),
    "warm-up": (LM + "corpus.txt trainer.warmup_steps=-1", "trainer: Got warmup_steps = -1.0"),
    "batch of nothing": (RNN + " trainer.per_device_train_batch_size=0", "trainer.per_device_train_batch_size: 0 … at least 1"),
    "tracker": (RNN + " trainer.report_to=tensorbord", "trainer: tensorbord is not supported, only … tensorboard"),
    "best by an unknown metric": (
        RNN + " trainer.metric_for_best_model=f1",
        "trainer.metric_for_best_model=f1: not one of loss, perplexity",
    ),
    "stopping early without measuring": (RNN + " early_stopping_patience=2", "early_stopping_patience: … trainer.eval_strategy"),
    "positive label": (CLASSIFIER + "good.csv task.positive_label=spam", "task.positive_label=spam: the labels are a, b"),
    "metric": (CLASSIFIER + "good.csv task.metrics=[acuracy]", "acuracy is unknown; did you mean accuracy?"),
    # run directory
    "name taken": (
        RNN + " run=LM task.block_size=8",
        "holds a run with another configuration ( … task.block_size: 16 there, 8 now … run=NAME",
    ),
    "folder of something else": (RNN + " run=foreign", "outputs/foreign is not empty and holds no run: choose another name"),
    "file in the way": (RNN + " run=in_the_way", "cannot make the run directory outputs/in_the_way: File exists"),
    "folder that cannot be": (RNN + " run=x runs_dir=corpus.txt", "cannot make the run directory corpus.txt/x: Not a directory"),
    "name too long": (RNN + " run=" + "x" * 300, "cannot make the run directory … File name too long"),
    # evaluate
    "no run named": ("evaluate", "run: missing; name a trained run (run=NAME) or a model (model.pretrained="),
    "run and model": ("evaluate run=LM model.pretrained=x", "and model.pretrained=x: give one of them"),
    "no such run": ("evaluate run=lmm runs_dir=RUNS", "run=lmm: no finished run at … has lm, spam"),
    "no such split of the data": ("evaluate run=LM split=test", "no test split; there are train, validation"),
    "unknown label": (
        "evaluate run=SPAM data.files=sound.csv",
        "sound.csv, row 1 (line 2): label 'sound' is not one of the model's labels: 'colour', 'thing'",
    ),
    "nothing to evaluate on": ("evaluate model.pretrained=LM/model", "data: missing; name what to evaluate on, as in data.files=FILE"),
    "run folder as a model": ("evaluate model.pretrained=LM data.files=corpus.txt", "has no config.json; its model/ sub-folder has one"),
    "model on no Hub": ("evaluate model.pretrained=nobody/x data.files=corpus.txt", "model.pretrained … HF_HUB_OFFLINE"),
    "option of the other task": ("evaluate run=LM task.max_length=3", "task.max_length: no such key; … block_size"),
    "metrics to nowhere": ("evaluate run=LM output=nowhere/metrics.json", "output=nowhere/metrics.json: no such folder"),
    "longer blocks than the model's": (
        "evaluate run=LM split=train task.block_size=2048",
        "has 1024 positions, fewer than the 2048 tokens",
    ),
    # predict
    "no input": ("predict run=SPAM input=new.csv", "input=new.csv: no such file"),
    "nothing on standard input": ("predict run=SPAM", "standard input is empty: pipe a text a line into it"),
    "column to predict on": ("predict run=SPAM input=good.csv data.columns.text=txt", "good.csv: no column 'txt' … it has 'text'"),
    "language model as a classifier": ("predict run=LM input=corpus.txt", "predicts tokens, not labels: use `hf-llm generate`"),
    "classes that were never trained": (
        "predict run=LM task=text_classification input=corpus.txt",
        "lm/model is no trained GPT2ForSequenceClassification: it lacks score.weight",
    ),
    "labels to nowhere": ("predict run=SPAM input=corpus.txt output=nowhere/x.jsonl", "output=nowhere/x.jsonl: no such folder"),
    # generate
    "classifier as a language model": ("generate run=SPAM prompt=red", "predicts labels, not tokens: use `hf-llm predict`"),
    "prompt too long": (
        "generate run=LM prompt=" + "red_" * 300,
        "the prompt's 1200 tokens and generation.max_new_tokens=100 exceed the model's 1024 positions",
    ),
    "misspelt generation key": (
        "generate run=LM prompt=red generation.max_new_token=4",
        "generation.max_new_token: no such key; did you mean generation.max_new_tokens?",
    ),
    "generation value": ("generate run=LM prompt=red generation.temperature=-1", "generation: … temperature"),
    "prompts file empty": ("generate run=LM prompts=empty.txt", "prompts=empty.txt: empty; a prompt per line is wanted"),
    "prompts file not there": ("generate run=LM prompts=no.txt", "prompts=no.txt: no such file"),
    "prompts undecodable": ("generate run=LM prompts=bytes.txt", "bytes.txt, line 2: … utf-8"),
    "prompt and prompts": ("generate run=LM prompt=red prompts=corpus.txt", "prompt and prompts: give one of them"),
    "device": ("generate run=LM prompt=red device=cudaa", "device=cudaa"),
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with two finished runs: `lm` and `spam`."""
    folder = tmp_path_factory.mktemp("trained")
    main(["train", *language_model(folder, run="lm")])
    main(["train", *classifier(folder, run="spam")])
    return folder / "outputs"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder that commands run in, with FILES in it and nothing to read on standard input."""
    write_text(tmp_path)
    write_csv(tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.setattr(logging.getLogger("hf_llm"), "handlers", [])  # each test's own standard error
    return tmp_path


def refused(argv, capsys) -> str:
    """What the command says of itself on standard error, when it refuses."""
    with pytest.raises(SystemExit) as stop:
        main(argv)
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert "Traceback" not in err
    lines = err.splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith("hf-llm: ")]
    return "\n".join(lines[start:])


def quick(words):
    """A training that is not refused after all is over soon."""
    return [*words[:1], *(QUICK if words[:1] == ["train"] else []), *words[1:]]


def holds(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_that_says_what_is_right_and_leaves_nothing_behind(name, here, runs, capsys):
    command, expected = CASES[name]
    for word, path in (("LM", runs / "lm"), ("SPAM", runs / "spam"), ("RUNS", runs)):
        command = command.replace(f"={word}", f"={path}")
    before = holds(here) | holds(runs)
    capsys.readouterr()  # what training the runs said
    message = refused(quick(shlex.split(command)), capsys)
    assert len(message.splitlines()) == 1
    place = 0
    for fragment in expected.split(" … "):
        place = message.find(fragment, place)
        assert place >= 0, f"{fragment!r} is not in {message!r}"
    assert holds(here) | holds(runs) == before


def test_there_are_many():
    assert len(CASES) >= 40


def test_every_mistake_is_listed_on_a_line_of_its_own(here, capsys):
    command = "train model=gtp2 ++data.pth=x trainer.learning_rat=1 trainer.max_steps=many +task.blocksize=3"
    heading, *lines = refused(command.split(), capsys).splitlines()
    assert heading == "hf-llm: 5 mistakes in the configuration:"
    assert all(line.startswith("  ") for line in lines)
    assert sorted(line.split(":")[0].strip() for line in lines) == [
        "data.pth", "model=gtp2", "task.blocksize", "trainer.learning_rat", "trainer.max_steps",
    ]  # fmt: skip


def test_a_mended_command_may_keep_the_name_of_the_run(here, capsys):
    small = ["model.config.n_layer=1", "model.config.n_embd=16", "model.config.n_head=2", "run=mine"]
    refused([*quick((LM + "corpus.tx").split()), *small], capsys)
    assert not (here / "outputs" / "mine").exists()
    main([*quick((LM + "corpus.txt").split()), *small])
    assert (here / "outputs" / "mine" / "metrics.json").is_file()
