"""`scripts/benchmark.py` compares like with like: the same rows, settings and events on both sides."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from transformers import TrainingArguments

sys.path.insert(0, str(ROOT / "scripts"))
import benchmark
import benchmark_comparisons
import benchmark_models
import benchmark_peers
import benchmark_runs
from benchmark_runs import Reading, Sample

FIELDS = {field for field in TrainingArguments.__dataclass_fields__ if field != "output_dir"}
SPLITS = ("train", "validation")


@pytest.fixture
def comparisons(tmp_path):
    names = ("run_clm", "run_glue", "nanogpt", "text", "gpt2_tokenizer", "classification", "bert_tokenizer")
    args = argparse.Namespace(**{name: tmp_path / name for name in names})
    return {one.name: one for one in benchmark_comparisons.comparisons(args, tmp_path / "prepared")}


def commands(comparison, tmp_path, seed=7):
    """Our overrides, and the peer's options, as dictionaries."""
    ours, peer = comparison.commands(tmp_path, seed)
    overrides = dict(word.split("=", 1) for word in ours if "=" in word)
    words = [word for word in peer if word not in ("--do_train", "--do_eval")][1:]
    return overrides, {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}


def scripts(comparisons):
    """Those whose peer is an example script of transformers."""
    return [one for one in comparisons.values() if one.peer in ("run_clm.py", "run_glue.py") and one.name != "help"]


def test_both_sides_train_with_the_same_arguments(comparisons, tmp_path):
    for comparison in scripts(comparisons):
        overrides, options = commands(comparison, tmp_path)
        ours = {name.removeprefix("trainer."): value for name, value in overrides.items() if "trainer." in name}
        peer = {name: value for name, value in options.items() if name in FIELDS}
        if comparison.kind == "own way":
            for side in (ours, peer):
                side.pop("train_sampling_strategy")
        assert ours == peer
        assert {"optim", "max_grad_norm", "logging_steps", "seed", "eval_strategy", "learning_rate"} < set(ours)


def test_both_sides_read_the_same_files_and_build_the_same_model(comparisons, tmp_path):
    for comparison in scripts(comparisons):
        ours, peer = commands(comparison, tmp_path)
        assert [ours[f"data.files.{name}"] for name in SPLITS] == [peer[f"{name}_file"] for name in SPLITS]
        if comparison.peer == "run_glue.py":
            assert ours["model.pretrained"] == ours["tokenizer.pretrained"] == peer["model_name_or_path"]
            assert ours["task.max_length"] == peer["max_seq_length"]
        else:
            config = {name.removeprefix("model.config."): ours[name] for name in ours if "model.config." in name}
            assert config == dict(pair.split("=") for pair in peer["config_overrides"].split(","))
            assert "activation_function" in config
            assert ours["task.block_size"] == peer["block_size"]


def test_run_glue_is_compared_padded_unpadded_grouped_and_at_the_same_work(comparisons, tmp_path):
    found = {}
    for name, comparison in comparisons.items():
        if comparison.peer == "run_glue.py":
            ours, peer = commands(comparison, tmp_path)
            order = (ours["trainer.train_sampling_strategy"], peer["train_sampling_strategy"])
            found[name] = (*order, peer["pad_to_max_length"], comparison.kind)
            assert any("accuracy" in row.title for row in comparison.measurements)
    assert found == {
        "classifier-padded": ("group_by_length", "random", "True", "own way"),
        "classifier-unpadded": ("group_by_length", "random", "False", "own way"),
        "classifier-grouped": ("group_by_length", "group_by_length", "False", "same work"),
        "classifier-random": ("random", "random", "False", "same work"),
    }


def test_nanogpt_and_ours_compute_the_same(comparisons, tmp_path):
    ours, peer = comparisons["nanogpt"].commands(tmp_path, 7)
    overrides = dict(word.split("=", 1) for word in ours if "=" in word)
    options = dict(word.removeprefix("--").split("=", 1) for word in peer if "=" in word)
    assert options["bias"] == "True"  # as GPT-2, and so ours, has them
    assert overrides["model.config.activation_function"] == "gelu"  # nanoGPT's nn.GELU
    assert overrides["trainer.optim"] == "adamw_torch"  # nanoGPT fuses on CUDA alone
    assert overrides["trainer.logging_steps"] == options["log_interval"]
    assert int(options["eval_interval"]) > int(options["max_iters"]) == int(overrides["trainer.max_steps"])
    for name in ("n_layer", "n_head", "n_embd"):
        assert overrides[f"model.config.{name}"] == options[name]


def test_both_sides_of_a_language_model_get_the_same_rows(tmp_path):
    text = "first\n\n  \nsecond “quoted”\nthird"
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    benchmark_peers.language_model_rows(tmp_path / "text.txt", tmp_path / "rows")

    def rows(name):
        return [json.loads(line)["text"] for line in (tmp_path / "rows" / f"{name}.json").read_text().splitlines()]

    assert rows("lines") == ["first\n", "second “quoted”\n", "third"]
    assert rows("document") == [text]
    assert rows("validation") == [text]


def test_the_first_step_is_one_of_the_training_and_not_preflights(tmp_path):
    corpus = tmp_path / "text.txt"
    corpus.write_text("to be or not to be that is the question\n" * 40)
    settings = ["data=files", f"data.files.train={corpus}", "data.validation_fraction=0", "tokenizer=char"]
    settings += ["model=rnn", "model.config.hidden_size=8", "task.block_size=16", "trainer.max_steps=2"]
    settings += ["trainer.use_cpu=true", "trainer.save_strategy=no", "trainer.logging_steps=1"]
    command = ["-m", "hf_llm", "train", "run=run", f"runs_dir={tmp_path}", *settings]
    sample = benchmark_runs.run(command, tmp_path, tmp_path, ())
    (training,) = sample.calls(benchmark_runs.TRAIN)
    assert len([mark for mark in sample.marks if mark["name"] == "step"]) == 3  # preflight's, on the meta device, too
    assert len(sample.steps()) == 2
    assert all(training["start"][0] < wall < training["end"][0] for wall, _ in sample.steps())
    assert benchmark_runs.first_step(sample).value > training["start"][0] - sample.started
    found = sample.settings()
    assert found["trainer.max_steps"] == 2
    assert found["rows"] > 10
    assert found["model.hidden_size"] == 8
    assert found["optimizer"] == "AdamW"
    assert found["dtype"] == "torch.float32"
    assert found["parameters"] > 0


def test_steps_count_everywhere_where_no_trainer_trains():
    marks = [{"name": "step", "start": [at, at], "end": [at, at]} for at in (1.0, 2.0)]
    assert sample_of(marks).steps() == [[1.0, 1.0], [2.0, 2.0]]


def sample_of(marks):
    return Sample(started=0.0, wall=9.0, cpu=9.0, peak_memory=1.0, folder=Path("."), marks=marks)


def test_settings_that_are_not_the_same_are_named():
    ours = {"trainer.optim": "adamw_torch", "model.activation_function": "gelu", "parameters": 10}
    ours |= {"trainer.output_dir": "a", "model.transformers_version": "5", "trainer.only_ours": 1}
    peer = {**ours, "model.activation_function": "gelu_new", "trainer.output_dir": "b", "parameters": 11}
    del peer["trainer.only_ours"]
    found = benchmark_runs.differences(ours, peer)
    assert found == ["model.activation_function: gelu | gelu_new", "parameters: 10 | 11"]


def test_a_row_has_medians_and_the_range_over_the_pairs(comparisons):
    comparison = comparisons["lm"]
    (title, *_) = [row.title for row in comparison.measurements]
    ours, peer = ([Reading(value, value / 2) for value in values] for values in ((1, 2, 4), (2, 2, 2)))
    comparison.readings[title] = (ours, peer)
    found = benchmark.summary(comparison.measurements[0], comparison)
    assert (found["hf_llm"], found["peer"], found["ratio"]) == (2, 2, 1)
    assert found["range"] == [0.5, 2]
    assert found["CPU range"] == [0.5, 2]
    assert found["setting"] == comparison.setting


def test_every_comparison_says_what_both_sides_do(comparisons):
    for comparison in comparisons.values():
        assert comparison.kind in ("same work", "own way")
        assert len(comparison.setting) > 40


def test_a_command_that_two_comparisons_share_runs_once_a_repeat(comparisons, tmp_path, monkeypatch):
    started = []

    def run(command, folder, work, watched):
        started.append(command)
        (folder / "cache").mkdir()
        return sample_of([{"name": "Trainer.train", "start": [1.0, 1.0], "end": [2.0, 2.0]}])

    monkeypatch.setattr(benchmark, "run", run)
    classifiers = [one for one in comparisons.values() if one.peer == "run_glue.py"]
    for comparison in classifiers:
        comparison.measurements = comparison.measurements[:2]  # no accuracy
    (tmp_path / "scratch").mkdir()
    runner = benchmark.Runner(tmp_path / "scratch", say=lambda text: None)
    for repeat in (1, 2):
        for comparison in classifiers:
            benchmark.compare(comparison, repeat, seed=40 + repeat, runner=runner)
    assert [one.problem for one in classifiers] == [None] * 4
    assert len(started) == 2 * 5  # ours in two orders; run_glue.py unpadded in two orders, and padded
    assert {len(side) for one in classifiers for pair in one.readings.values() for side in pair} == {2}


def test_a_warm_up_is_not_counted(comparisons, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "run", lambda *_: sample_of([]))
    runner = benchmark.Runner(tmp_path, say=lambda text: None)
    benchmark.compare(comparisons["help"], 0, seed=42, runner=runner)
    assert comparisons["help"].readings == {}
    benchmark.compare(comparisons["help"], 1, seed=42, runner=runner)
    assert comparisons["help"].readings == {"command to exit": ([Reading(9.0, 9.0)], [Reading(9.0, 9.0)])}


def test_models_take_turns_after_a_call_of_each_that_does_not_count():
    calls = []
    comparison = benchmark_models.Comparison("x", 1, lambda: calls.append("a"), lambda: calls.append("b"), repeats=3)
    assert [len(times) for times in benchmark_models.measure(comparison)] == [3, 3]
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"


def test_an_fnn_and_gpt2_are_compared_with_one_loss(monkeypatch):
    fused = []
    monkeypatch.setattr(benchmark_models, "training_step", lambda model, ids, is_fused: fused.append(is_fused))
    titles = [comparison.title for comparison in benchmark_models.fnn(repeats=1)]
    assert fused == [True, True, False, False]
    assert [title.rpartition(", ")[2] for title in titles] == ["both with the fused loss", "both with logits"]


def test_a_comparison_without_its_peer_is_left_out():
    command = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), "--only", "lm", "nanogpt"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "lm (run_clm.py) left out: --run-clm not given" in done.stdout
    assert "nanogpt (nanoGPT train.py) left out: --nanogpt not given" in done.stdout
