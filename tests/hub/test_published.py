"""What of a run goes out: what a user of the model needs, and nothing that names this machine or opens a door."""

import json
import shutil

import pytest
import toys

from hf_llm import InputError, compose, push, train
from hf_llm.hub.published import requirements
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
    for name in ("model/optimizer.bin", "model/train.csv", "model/adapter_model.safetensors", "model/helper.py"):
        (run / name).write_text("a text")
    for name in ("model/data", "model/checkpoint-5"):
        (run / name).mkdir()
        (run / name / "config.json").write_text("{}")
    (run / "face.png").write_text("a picture")
    (run / "model" / "vocab.txt").symlink_to("/etc/hostname")
    (run / "confusion_matrix.png").symlink_to("/etc/hostname")
    pushed = push(compose("push", f"run={run}", "repo=me/book", "dry_run=true"))
    assert pushed.left_out == [
        *("model/adapter_model.safetensors", "model/checkpoint-5/", "model/data/", "model/helper.py"),
        *("model/optimizer.bin", "model/train.csv", "model/vocab.txt", "confusion_matrix.png", "face.png"),
    ]
    assert [file.path for file in pushed.files] == [
        "README.md",
        "config.json",
        "generation_config.json",
        "heads.py",
        "keywords.py",
        "loss_curve.png",
        "model.safetensors",
        "requirement.py",
        "requirements.txt",
        "rnn.py",
        "run/config.yaml",
        "run/environment.json",
        "run/metrics.json",
        "run/pushed.json",
        "sequence.py",
        "state.py",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_nothing_that_goes_out_names_a_folder_of_this_machine(run, trained):
    for file in dry(run):
        content = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
        assert str(trained.parent).encode() not in content, file.path
        assert str(run).encode() not in content, file.path


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
    (run / "link.txt").symlink_to("/etc/hostname")
    for name in (
        "../other",
        "nothing.txt",
        "../book/train.log",
        "model/config.json",
        "link.txt",
        str(run / "train.log"),
    ):
        with pytest.raises(InputError, match="has no file"):
            dry(run, f"include=[{name}]")


def test_a_file_that_is_asked_for_takes_the_place_of_none_that_was_cleaned(run):
    (run / "pushed.json").write_text("{}")
    for names in ("environment.json", "config.yaml", "README.md", "pushed.json", "train.log,train.log"):
        with pytest.raises(InputError, match="goes out anyway"):
            dry(run, f"include=[{names}]")


def test_weights_in_pieces_go_out_with_their_index_and_no_others(run):
    model = run / "model"
    (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")
    (model / "model-00001-of-00003.safetensors").write_bytes(b"of another time")
    record = json.loads((run / "environment.json").read_text())
    digest = record["weights"].pop("model.safetensors")
    record["weights"]["model-00001-of-00001.safetensors"] = digest
    (run / "environment.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"model/model-00001-of-00001\.safetensors is not there"):  # no index names it
        dry(run)
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors", "b": "training_args.bin"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [file.path for file in dry(run) if file.path.startswith("model")] == [
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
    ]


def test_a_link_in_place_of_a_file_that_has_to_go_out_is_refused(run):
    (run / "metrics.json").rename(run / "elsewhere.json")
    (run / "metrics.json").symlink_to("elsewhere.json")
    with pytest.raises(InputError, match="a link to elsewhere"):
        dry(run)


def test_the_origin_of_a_model_is_in_no_part_of_its_configuration(run):
    path = run / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "encoder": {"_name_or_path": "/data/ann/bert"}}))
    (content,) = [file.content for file in dry(run) if file.path == "config.json"]
    assert json.loads(content)["encoder"] == {}


def test_requirements_are_names_and_versions_whatever_the_record_holds():
    packages = {
        "torch": "2.13.0+cpu",
        "evil @ http://evil/e.whl #": "1",
        "numpy": "1\n--index-url http://evil",
        "x": None,
    }
    record = {"packages": packages, "python": "3.11\nevil", "hf_llm": "0.1.0"}
    assert requirements(record) == "# Python ?, hf_llm 0.1.0\ntorch==2.13.0\n"
    assert requirements({"packages": ["evil"]}) == "# Python ?, hf_llm ?\n"


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
