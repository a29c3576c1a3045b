"""Each verb through its real command line, in a process of its own: few processes, for imports take seconds."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from toys import QUICK, SMALL, classifier, language_model, write_csv, write_text

from hf_llm import __version__, cli, compose, evaluate

PROGRAMS = Path(sys.executable).parent
MODULE = [sys.executable, "-m", "hf_llm"]
SCRIPT = [str(PROGRAMS / "hf-llm")]
ONE_CPU = ["--cpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
LAUNCH = [str(PROGRAMS / "accelerate"), "launch", *ONE_CPU, "--num_processes", "1"]
# Without a GPU, `accelerate launch --num_processes 2` starts one process (or wants MPI).
TWO_PROCESSES = [
    str(PROGRAMS / "torchrun"),
    "--nproc_per_node=2",
    "--rdzv-backend=c10d",
    "--rdzv-endpoint=localhost:0",
]


def run(command, folder, stdin="", code=0, **environment):
    """What the command wrote to standard output and standard error, run in `folder`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, cwd=folder, input=stdin, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout, done.stderr


def read_json(path):
    return json.loads(path.read_text())


def close_to(metrics):
    """Equal to 1e-6; what is no single number (the confusion matrix) exactly."""
    return {
        name: pytest.approx(value, rel=1e-6) if isinstance(value, float) else value for name, value in metrics.items()
    }


def test_help_version_and_exit_codes(tmp_path):
    out, _ = run([*SCRIPT, "--help"], tmp_path)
    assert all(word in out for word in ("train", "evaluate", "predict", "generate", "unicode_names", "wordpiece"))
    assert run(MODULE, tmp_path)[0] == out
    for verb in ("train", "evaluate", "predict", "generate"):
        text, _ = run([*MODULE, verb, "--help"], tmp_path)
        assert text.startswith(f"hf-llm {verb}")
        assert "trainer.learning_rate" in text or verb != "train"
    assert run([*MODULE, "--version"], tmp_path)[0] == f"hf_llm {__version__}\n"
    out, err = run([*MODULE, "trian"], tmp_path, code=2)
    assert (out, err) == ("", "hf-llm: trian: no such verb; did you mean train?\n")
    out, err = run([*MODULE, "train", "trainer.sed=1"], tmp_path, code=1, HF_LLM_DEBUG="1")
    assert "Traceback" in err
    assert "trainer.sed: no such key; did you mean trainer.seed?" in err
    assert not list(tmp_path.iterdir())


def test_a_command_can_be_looked_at_before_it_runs(tmp_path):
    import yaml

    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "poems.yaml").write_text("files: {train: poems.txt}\n")
    own = ["--config-dir", "mine", "data=poems"]
    job, _ = run([*MODULE, "train", *own, "experiment=shakespeare_char", "--cfg", "job"], tmp_path)
    composed = yaml.safe_load(job)
    assert composed["data"]["files"] == {"train": "poems.txt"}
    assert composed["task"]["block_size"] == 64  # the experiment's
    assert composed["trainer"]["weight_decay"] == 0.1  # the default's
    info, _ = run([*MODULE, "train", *own, "--info"], tmp_path)
    assert "file://" in info
    assert "poems" in info
    assert "poems" in run([*MODULE, "train", "--help", "--config-dir", "mine"], tmp_path)[0]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_classifier_is_trained_measured_and_used(tmp_path):
    options = [*classifier(tmp_path), "runs_dir=outputs", "data.files.train=train.csv", "run=colours"]
    out, err = run([*MODULE, "train", *options], tmp_path)
    assert "accuracy" in out
    assert "model, metrics, plots and log: outputs/colours/" in err
    metrics = read_json(tmp_path / "outputs" / "colours" / "metrics.json")["validation"]
    environment = read_json(tmp_path / "outputs" / "colours" / "environment.json")
    assert environment["command"].endswith("data.files.train=train.csv run=colours")

    out, _ = run([*MODULE, "evaluate", "run=colours", "output=again.json"], tmp_path)
    assert "colours" in out
    again = read_json(tmp_path / "again.json")
    assert again == close_to({name: metrics[name] for name in again})
    assert {"accuracy", "f1_macro", "mcc", "loss", "confusion_matrix"} <= again.keys()

    texts = ["dog", "red blue green one two three cat dog", "blue", "one two three"]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps({"id": 7, "body": text}) + "\n" for text in texts))
    asked = ["predict", "run=colours", "input=new.jsonl", "data.columns.text=body", "output=labels.jsonl"]
    out, err = run([*MODULE, *asked], tmp_path)
    assert out == ""
    assert "4 rows in labels.jsonl" in err
    rows = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == texts
    assert all(set(row["scores"]) == {"colour", "thing"} for row in rows)
    assert all(row["score"] == max(row["scores"].values()) == row["scores"][row["label"]] for row in rows)

    out, _ = run([*MODULE, "predict", "run=colours"], tmp_path, stdin="\n".join(texts) + "\n")
    piped = [json.loads(line) for line in out.splitlines()]
    assert [row["text"] for row in piped] == texts
    assert [row["label"] for row in piped] == [row["label"] for row in rows]


def test_a_language_model_is_launched_and_continues_prompts(tmp_path):
    options = [*language_model(tmp_path), "runs_dir=outputs", "data.files.train=corpus.txt", "run=lm"]
    run([*LAUNCH, str(ROOT / "scripts" / "train.py"), *options], tmp_path)
    assert (tmp_path / "outputs" / "lm" / "metrics.json").is_file()

    greedy = ["generation.max_new_tokens=5", "generation.do_sample=false"]
    out, _ = run([*SCRIPT, "generate", "run=lm", "prompt=red blue", *greedy], tmp_path)
    assert out.startswith("red blue")
    assert len(out.rstrip("\n")) == len("red blue") + 5  # a token is a character
    (tmp_path / "prompts.txt").write_text("one two\nred blue\n")
    asked = ["generate", "run=lm", "prompts=prompts.txt", "output=texts.jsonl", *greedy]
    out, err = run([*MODULE, *asked], tmp_path)
    assert "2 texts in texts.jsonl" in err
    rows = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == ["one two", "red blue"]
    assert len({len(row["text"]) for row in rows}) == 1


def test_a_sweep_gives_each_trial_a_run_directory(tmp_path):
    write_text(tmp_path)
    options = ["data.files.train=corpus.txt", "tokenizer=char", "task.block_size=16", *SMALL["fnn"], *QUICK]
    run([*MODULE, "train", *options, "run=rate", "-m", "trainer.learning_rate=0.01,0.001"], tmp_path)
    trials = sorted((tmp_path / "outputs").iterdir())
    assert [trial.name for trial in trials] == ["rate-learning_rate=0.001", "rate-learning_rate=0.01"]
    losses = [read_json(trial / "metrics.json")["validation"]["loss"] for trial in trials]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("text", ["café (1).txt", "It's.txt", "a = b.txt", "数据.txt", "back\\slash's", "trailing\\"])
def test_a_value_that_hydras_grammar_cannot_read_is_meant_as_it_stands(text):
    assert compose("train", f"data.files.train={text}").data.files == {"train": text}


@pytest.mark.parametrize(
    "text", ["To be, or not", "It's", "1 = 1", "[sic]", "true", "42", "(从前)", "{", "a: b #1", "\\"]
)
def test_a_prompt_is_any_text(text):
    assert compose("generate", "run=lm", f"prompt={text}").prompt == text


@pytest.mark.parametrize("text", ["2024_01_15", "1e3", "true", "-7", "0.10", "inf"])
def test_a_name_or_file_is_text_though_it_look_like_a_number(text):
    names = [f"run={text}", f"data.files.train={text}", f"data.files.test={text}", f"data.columns.text={text}"]
    cfg = compose("train", *names, f"tokenizer.pretrained={text}")
    assert (cfg.run, cfg.tokenizer.pretrained) == (text, text)
    assert (cfg.data.files, cfg.data.columns) == ({"train": text, "test": text}, {"text": text})
    cfg = compose("train", f"data.path={text}", f"model.pretrained={text}", f"runs_dir={text}")
    assert (cfg.data.path, cfg.model.pretrained, cfg.runs_dir) == (text, text, text)
    cfg = compose("predict", f"run={text}", f"input={text}", f"output={text}")
    assert (cfg.run, cfg.input, cfg.output) == (text, text, text)
    assert compose("generate", f"run={text}", f"++prompts={text}").prompts == text


def test_a_name_or_file_may_still_be_null_or_a_list_or_a_group():
    assert compose("train", "run=null", "data.files.train=[a.txt,b.txt]").data.files == {"train": ["a.txt", "b.txt"]}
    cfg = compose("train", "data.files={train: a.txt, test: b.txt}", "data.columns.text=[a,b]")
    assert cfg.data.files == {"train": "a.txt", "test": "b.txt"}
    assert (cfg.run, cfg.data.columns) == (None, {"text": ["a", "b"]})


@pytest.mark.parametrize(
    ("swept", "expected"),
    [
        (["data.files.train=a.txt,./a.txt"], ["sw-train=a.txt", "sw-train=._a.txt"]),
        (["data.files.train=../x/a b.txt,[a.txt]"], ["sw-train=.._x_a_b.txt", "sw-train=_a.txt_"]),
        (["run=2024_01_15,true"], ["2024_01_15", "true"]),
        (["run=q1,2", "trainer.seed=1,2"], ["q1-seed=1", "q1-seed=2", "2-seed=1", "2-seed=2"]),
        (["model=rnn,fnn"], ["sw-model=rnn", "sw-model=fnn"]),
    ],
)
def test_a_trials_name_is_a_folder_in_the_runs_directory(swept, expected, monkeypatch):
    trained = []
    monkeypatch.setattr(cli, "_handler", lambda verb: trained.append)
    cli.main(["train", "run=sw", "-m", *swept] if not swept[0].startswith("run=") else ["train", "-m", *swept])
    assert [cfg.run for cfg in trained] == expected


def test_an_architecture_by_name_has_no_fields_but_its_own():
    cfg = compose("train", "model.arch=llama", "model.config.hidden_size=256")
    assert (cfg.model.arch, cfg.model.config) == ("llama", {"hidden_size": 256})
    cfg = compose("train", "model=gpt2", "model.arch=gpt2")
    assert cfg.model.config["n_layer"] == 4


def test_a_length_that_is_asked_for_replaces_the_default_number_of_new_tokens():
    assert compose("generate", "run=x").generation["max_new_tokens"] == 100
    assert "max_new_tokens" not in compose("generate", "run=x", "generation.max_length=5").generation
    both = compose("generate", "run=x", "generation.max_length=5", "generation.max_new_tokens=3").generation
    assert (both["max_length"], both["max_new_tokens"]) == (5, 3)


@pytest.mark.parametrize("flag", [["--config-dir", "mine"], ["--config-dir=mine"], ["-cd", "mine"]])
def test_help_has_the_options_of_ones_own_and_says_what_the_default_is(flag, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "poems.yaml").write_text("files: {train: poems.txt}\n")
    monkeypatch.chdir(tmp_path)
    cli.main(["train", "--help", *flag])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "data        files, hub, poems, python_docs (default), unicode_names" in lines
    assert any(line.startswith("model ") and "gpt2 (default)" in line for line in lines)


def test_quotes_around_a_prompt_are_hydras():
    assert compose("generate", "run=lm", "prompt='red, blue'").prompt == "red, blue"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [language_model, classifier], ids=["language_model", "classifier"])
def test_two_processes_make_one_run_and_measure_as_one_does(tmp_path, kind):
    steps = ["trainer.max_steps=4", "trainer.save_strategy=steps", "trainer.save_steps=4"]
    run([*TWO_PROCESSES, str(ROOT / "scripts" / "train.py"), *kind(tmp_path), "run=two", *steps], tmp_path)
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["two"]
    folder = tmp_path / "outputs" / "two"
    assert {"config.yaml", "metrics.json", "model", "train.log"} <= {path.name for path in folder.iterdir()}
    assert not list(folder.rglob(".*"))  # nothing half written
    state = read_json(folder / "checkpoint-4" / "trainer_state.json")
    rows = 81 if kind is classifier else 469  # texts, or blocks of 16 tokens
    assert state["epoch"] == pytest.approx(4 / math.ceil(rows / 8))  # 4 on each process

    write_csv(tmp_path, "odd.csv", rows=37)  # does not divide by processes or batches
    write_text(tmp_path, "odd.txt", lines=37)
    odd = f"data.files={tmp_path / ('odd.csv' if kind is classifier else 'odd.txt')}"
    for name, where in (("own", []), ("odd", [odd])):
        asked = ["evaluate", f"run={folder}", "trainer.per_device_eval_batch_size=4", *where]
        run([*TWO_PROCESSES, "-m", "hf_llm", *asked, f"output={tmp_path / name}.json"], tmp_path)
        assert read_json(tmp_path / f"{name}.json") == close_to(evaluate(compose(*asked)))
    trained, own = read_json(folder / "metrics.json")["validation"], read_json(tmp_path / "own.json")
    assert {name: trained[name] for name in own} == close_to(own)


def test_an_error_that_quotes_a_strangers_file_prints_no_code_that_a_terminal_obeys(tmp_path, capsys):
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "model" / "config.json").write_text("{}")
    (run / "config.yaml").write_text('"\\e[2Jevil": 1\n')
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", f"run={run}", "data.files=x.txt"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "?[2Jevil: no such key" in said
    assert "\x1b" not in said
