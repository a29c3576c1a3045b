"""What a person sees of it, what is refused and what is doubted, and that training is the same with it."""

import dataclasses
import logging
import re
from collections import namedtuple

import pytest
import torch
from safetensors.torch import load_file
from toys import classifier, language_model, write_csv

from hf_llm import InputError, compose, preflight, train
from hf_llm.cli import main
from hf_llm.preflight import disk, rows, schedule, verdict


@pytest.fixture
def said(monkeypatch):
    """What each preflight found."""
    found, real = [], preflight.look
    monkeypatch.setattr(preflight, "look", lambda *args: found.append(real(*args)) or found[-1])
    return found


@pytest.fixture(autouse=True)
def own_voice(monkeypatch):
    monkeypatch.setattr(logging.getLogger("hf_llm"), "handlers", [])  # each test's own standard error


def test_preflight_alone_prints_and_leaves_nothing(tmp_path, capsys):
    options = [*classifier(tmp_path, run="mine"), "preflight=only"]
    before = sorted(tmp_path.rglob("*"))
    main(["train", *options])
    out, err = capsys.readouterr()
    assert out == ""
    assert sorted(tmp_path.rglob("*")) == before
    for text in ("81", "colour", "27 (33.3 %)", "BertForSequenceClassification", "4 rows = 1 device x 4 x 1",
                 "4 (21 per epoch", "estimate", "checkpoint", "nothing was trained"):  # fmt: skip
        assert text in err, text


def test_preflight_alone_works_where_the_run_is_complete_and_leaves_it_as_it_is(tmp_path, capsys):
    options = language_model(tmp_path, run="mine")
    folder = train(compose(*options)).folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert train(compose(*options, "preflight=only")).metrics == {}
    assert train(compose(*options, "trainer.learning_rate=0.5", "preflight=only")).metrics == {}
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert "preflight" not in "".join(path.name for path in folder.iterdir())


def test_preflight_is_in_the_log_of_the_run_and_changes_nothing_that_the_run_is(tmp_path, capsys):
    options = language_model(tmp_path, run="mine")
    run = train(compose(*options))
    assert "58,848 parameters" in capsys.readouterr().err
    log = (run.folder / "train.log").read_text()
    assert "58,848 parameters" in log
    assert "\x1b" not in log
    again = train(compose(*options, "preflight=off"))  # no other configuration
    assert again.trainer is None
    assert again.metrics == run.metrics


@pytest.mark.parametrize("kind", [language_model, classifier])
def test_the_weights_are_the_same_with_and_without(tmp_path, kind, capsys):
    found = {}
    for word in ("on", "off"):
        run = train(compose(*kind(tmp_path, run=word), f"preflight={word}"))
        found[word] = load_file(run.folder / "model" / "model.safetensors")
        assert ("parameters;" in capsys.readouterr().err) is (word == "on")
    assert all(torch.equal(found["on"][name], found["off"][name]) for name in found["on"])


@pytest.mark.parametrize(("given", "meant"), [("on", "on"), ("off", "off"), ("true", "on"), ("false", "off")])
def test_a_bare_on_or_off_is_no_truth_value(given, meant, tmp_path):
    assert compose(f"preflight={given}").preflight == meant
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\npreflight: {given}\n")
    assert compose("train", "experiment=mine", config_dir=str(tmp_path)).preflight == meant


def test_other_processes_than_the_first_say_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    train(compose(*language_model(tmp_path), "preflight=only"))
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_two_processes_say_it_once_and_count_both(tmp_path):
    from conftest import ROOT
    from test_cli import TWO_PROCESSES, run

    _, err = run(
        [*TWO_PROCESSES, str(ROOT / "scripts" / "train.py"), *classifier(tmp_path), "preflight=only"], tmp_path
    )
    assert err.count("8 rows = 2 devices x 4 x 1 accumulated") == 1
    assert "not accounted for" not in err
    assert not (tmp_path / "outputs").exists()


def test_a_label_is_printed_as_it_stands(tmp_path, capsys):
    path = tmp_path / "odd.csv"
    path.write_text("label,text\n" + "".join(f"[red],x y {n}\n:cat:,z w {n}\n" for n in range(20)))
    train(compose(*classifier(tmp_path), f"data.files.train={path}", "preflight=only"))
    err = capsys.readouterr().err
    assert "[red]" in err
    assert ":cat:" in err


def test_a_disk_too_full_for_a_checkpoint_is_refused_before_anything_is_built(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 400_000))
    saves = ["trainer.save_strategy=steps", "trainer.save_steps=2"]
    with pytest.raises(
        InputError, match=r"runs_dir: a checkpoint takes .*KiB, and the disk has 390.6 KiB free: .*no$"
    ):
        train(compose(*language_model(tmp_path, run="full"), *saves))
    assert not (tmp_path / "outputs" / "full").exists()
    train(compose(*language_model(tmp_path, run="full")))  # without checkpoints it fits


def findings(tmp_path, said, kind=classifier, *options):
    train(compose(*kind(tmp_path), *options, "preflight=only"))
    return said[-1]


def test_a_gpu_too_small_for_weights_and_optimizer_is_refused(tmp_path, said):
    found = findings(tmp_path, said)
    found.memory = dataclasses.replace(found.memory, device="cuda:0", available=found.memory.certain - 1)
    with pytest.raises(InputError, match=r"weights, gradients and optimizer take .* cuda:0 has"):
        verdict.refuse(found, compose_args(tmp_path))
    found.memory.available += 1
    verdict.refuse(found, compose_args(tmp_path))
    args = compose_args(tmp_path)
    (room,) = [line for line in verdict.doubts(found, args) if line.startswith("memory: about")]
    assert hasattr(args, re.search(r"set trainer\.(\w+)=true", room)[1])  # transformers 5.23 renamed it


def compose_args(tmp_path, **settings):
    from transformers import TrainingArguments

    return TrainingArguments(str(tmp_path / "x"), use_cpu=True, **settings)


def test_no_batch_at_all_is_refused_with_its_reason(tmp_path):
    options = [*classifier(tmp_path), "trainer.max_steps=-1", "trainer.per_device_train_batch_size=100"]
    with pytest.raises(InputError, match=r"drop_last=true leaves no batch: the train split has 81 rows"):
        train(compose(*options, "trainer.dataloader_drop_last=true"))


def test_doubts_of_the_rows_name_what_is_doubtful(tmp_path, said):
    write_csv(tmp_path)
    held = tmp_path / "held.csv"
    held.write_text("label,text\nthing,red red dog\nthing,red red red\nthing,never seen\n")
    lines = findings(tmp_path, said, classifier, f"data.files.validation={held}", "task.max_length=4").doubts
    text = "\n".join(lines)
    # row 1 of train.csv: `colour,red red red`
    assert (
        "validation: 1 of 3 rows stand in train too, 1 of them with another label (row 2 of validation is row 1"
        in text
    )
    assert "train: 100 % of the rows are cut to task.max_length" in text
    assert "validation: no row of colour" in text
    assert "4 steps in all are few" in text


def test_a_class_of_few_rows_is_doubted(tmp_path, said):
    path = tmp_path / "rare.csv"
    path.write_text("label,text\n" + "".join(f"a,x{n}\nb,y{n}\n" for n in range(30)) + "c,z1\nc,z2\nc,z3\n")
    text = "\n".join(findings(tmp_path, said, classifier, f"data.files.train={path}", "tokenizer=byte").doubts)
    assert "train: fewer than 10 rows of c (3)" in text
    assert "no row of c" in text
    assert "stand in train" not in text
    assert "cut" not in text


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"warmup_steps": 20}, "trainer.warmup_steps=20 is not below the 20 steps in all"),
        ({"warmup_steps": 19}, None),
        ({"logging_steps": 21}, "trainer.logging_steps=21 is more than the 20 steps"),
        ({"logging_steps": 0.5}, None),
        ({"eval_strategy": "steps", "eval_steps": 30}, "trainer.eval_steps=30 is more than the 20 steps"),
    ],
)
def test_doubts_of_the_steps_name_the_setting(tmp_path, said, settings, expected):
    found = findings(tmp_path, said)
    args = compose_args(tmp_path, **{"max_steps": 20, "logging_steps": 5, **settings})
    found.schedule = schedule.of(args, 1000, 10)
    lines = [line for line in verdict.doubts(found, args) if "steps" in line]
    assert [expected in line for line in lines] == ([True] if expected else [])


def test_more_checkpoints_than_the_disk_has_room_for_are_doubted(tmp_path, said):
    found = findings(tmp_path, said)
    found.disk = disk.Disk(checkpoint=100, model=50, saves=9, kept=3, free=349)
    args = compose_args(tmp_path)
    assert any("disk: 3 checkpoints and the model take 350 bytes" in line for line in verdict.doubts(found, args))
    verdict.refuse(found, args)
    found.disk.there = 1  # of an earlier start: it goes when a new one is there
    assert not any("disk" in line for line in verdict.doubts(found, args))


def test_a_count_of_rows_in_common_that_is_not_of_all_rows_has_a_plus(tmp_path, said, monkeypatch, capsys):
    monkeypatch.setattr(rows, "LIMIT", 10)
    path = tmp_path / "many.csv"
    path.write_text("label,text\n" + "".join(f"{'ab'[n % 2]},x{n}\n" for n in range(3000)))
    findings(tmp_path, said, classifier, f"data.files.train={path}", "tokenizer=byte")
    assert "0+" in capsys.readouterr().err
