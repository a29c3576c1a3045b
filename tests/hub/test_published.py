"""What of a run goes out: what a user of the model needs, and nothing that names this machine or opens a door."""

import json
import shutil

import pytest
import toys

from hf_llm import InputError, compose, push, train
from hf_llm.hub.published import public
from hf_llm.publishing import push_command


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    options = toys.language_model(folder, "rnn", run="book", **{"trainer.save_strategy": "steps"})
    return train(compose("train", *options, "trainer.save_steps=2")).folder


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "book")


def dry(run, *options):
    return push(compose("push", f"run={run}", "repo=me/book", "dry_run=true", *options)).files


def test_only_what_a_user_of_the_model_needs_goes_out(run):
    (run / "model" / "training_args.bin").write_bytes(b"a pickle")
    (run / "model" / "optimizer.pt").write_bytes(b"a pickle")
    assert [file.path for file in dry(run)] == [
        "README.md",
        "config.json",
        "generation_config.json",
        "heads.py",
        "loss_curve.png",
        "model.safetensors",
        "requirements.txt",
        "rnn.py",
        "run/config.yaml",
        "run/environment.json",
        "run/metrics.json",
        "sequence.py",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_nothing_that_goes_out_names_a_folder_of_this_machine(run, trained):
    for file in dry(run):
        content = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
        assert str(trained.parent).encode() not in content, file.path
        assert str(run).encode() not in content, file.path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ann/data/train.csv", "train.csv"),
        ("~/data/train.csv", "train.csv"),
        (r"C:\Users\ann\train.csv", "train.csv"),
        ("../../ann/train.csv", "train.csv"),
        ("hf-llm train data.files.train=/home/ann/a.csv run=/tmp/x/y", "hf-llm train data.files.train=a.csv run=y"),
        ("data.files.train=[/home/ann/a.csv,/home/ann/b.csv]", "data.files.train=[a.csv,b.csv]"),
        ("data/train.csv", "data/train.csv"),
        ("stanfordnlp/imdb", "stanfordnlp/imdb"),
        ("https://example.org/a/b.csv", "https://example.org/a/b.csv"),
        ("and/or, 1/2 and / alone", "and/or, 1/2 and / alone"),
        ({"train": ["/a/b/c.txt"], "n": 3}, {"train": ["c.txt"], "n": 3}),
    ],
)
def test_absolute_paths_are_cut_to_their_last_part(text, expected):
    assert public(text) == expected


@pytest.mark.parametrize(
    ("name", "leak", "message"),
    [
        ("README.md", "token hf_" + "a1B2" * 9, "README.md: holds what looks like an access token"),
        ("README.md", "{home}/notes", "README.md: names a folder of this machine"),
        ("model/tokenizer_config.json", "{folder}", "tokenizer_config.json: names a folder of this machine"),
    ],
)
def test_a_last_look_finds_what_would_leak(name, leak, message, run, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    path = run / name
    leak = leak.format(home="/home/ann", folder=run)
    if name.endswith(".json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "note": leak}))
    else:
        path.write_text(path.read_text() + leak)
    with pytest.raises(InputError, match=message):
        dry(run)


def test_more_files_go_out_where_they_are_asked_for_and_none_from_elsewhere(run):
    (run / "predictions.jsonl").write_text("{}\n")
    assert "run/predictions.jsonl" not in [file.path for file in dry(run)]
    assert "run/predictions.jsonl" in [file.path for file in dry(run, "include=[predictions.jsonl]")]
    for name in ("../other", "nothing.txt"):
        with pytest.raises(InputError, match="has no file"):
            dry(run, f"include=[{name}]")


def test_a_dry_run_lists_every_file_with_its_size(run, capsys):
    push_command(compose("push", f"run={run}", "repo=me/book", "dry_run=true"))
    said = capsys.readouterr()
    size = (run / "model" / "model.safetensors").stat().st_size
    assert any(line.split() == ["model.safetensors", f"{size:,}", "bytes"] for line in said.out.splitlines())
    assert "nothing was sent" in said.err


def test_a_run_that_is_not_finished_is_not_pushed(run):
    (run / "metrics.json").unlink()
    with pytest.raises(InputError, match="the run is not finished"):
        dry(run)
