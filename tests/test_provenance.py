"""What a run's record says of where its numbers came from."""

import sys

import pytest
import toys

from hf_llm import InputError, compose, provenance, rerun, train
from hf_llm.runs import read_json, write_json


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/venv/bin/hf-llm", "train", "run=x"], "hf-llm train run=x"),
        (["/site-packages/hf_llm/__main__.py", "train", "run=a b"], "python -m hf_llm train 'run=a b'"),
        (["scripts/train.py", "model=gpt2"], "train.py model=gpt2"),
    ],
)
def test_the_command_is_what_a_person_would_type_again(argv, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    assert provenance.environment(1, None)["command"] == expected


@pytest.mark.parametrize(
    ("settings", "blocks"),
    [
        (["trainer.max_steps=1"], lambda epoch: 4),  # one step, whatever share of an epoch that is
        (["trainer.num_train_epochs=2", "trainer.max_steps=-1"], lambda epoch: 2 * epoch),  # the last step is shorter
        (["trainer.max_steps=3", "trainer.gradient_accumulation_steps=2"], lambda epoch: 24),
    ],
)
def test_the_tokens_are_those_of_the_blocks_that_were_trained_on(settings, blocks, tmp_path):
    size = ["trainer.per_device_train_batch_size=4", "task.block_size=16", "data.limits.train=20"]
    run = train(compose("train", *toys.language_model(tmp_path), *size, *settings))
    lengths = [sum(target != -100 for target in row) for row in _targets(run.trainer.train_dataset)]
    assert len(lengths) % 4  # so that an epoch's last step is shorter
    mean = sum(lengths) / len(lengths)
    assert read_json(run.folder / "environment.json")["tokens"] == pytest.approx(mean * blocks(len(lengths)), rel=0.02)


def _targets(dataset):
    from hf_llm.tasks import packing

    return [packing.collate([dataset[index]])["shift_labels"][0].tolist() for index in range(len(dataset))]


def test_a_repetition_names_what_differs_of_machine_and_versions(tmp_path):
    run = train(compose("train", *toys.language_model(tmp_path), "run=first"))
    path = run.folder / "environment.json"
    record = read_json(path)
    record["hardware"] = {**record["hardware"], "processor": "Abacus\x1b[2J " + 100 * "x", "threads": 999}
    record["packages"]["torch"] = "1.0"
    write_json(path, record)
    found = rerun(compose("rerun", f"run={run.folder}", "dry_run=true")).differences
    here = provenance.environment(1, None)
    assert f"threads: 999 then, {here['hardware']['threads']} now" in found
    assert f"torch 1.0 then, {here['packages']['torch']} now" in found
    (processor,) = [line for line in found if line.startswith("processor")]
    assert processor.endswith(f"then, {here['hardware']['processor']} now")
    assert "\x1b" not in processor


@pytest.fixture(scope="module")
def with_test_file(tmp_path_factory):
    """A classifier with a test file, and a validation split that was made from train."""
    folder = tmp_path_factory.mktemp("rerun")
    test = toys.write_csv(folder, "test.csv", 30)
    return folder, train(compose("train", *toys.classifier(folder, "rnn"), f"data.files.test={test}", "run=spam"))


def refused(run, *options):
    with pytest.raises(InputError) as error:
        rerun(compose("rerun", f"run={run.folder}", "name=again", *options))
    return str(error.value)


def test_a_repetition_names_the_split_that_is_missing_or_too_many(with_test_file):
    folder, run = with_test_file
    train_file, test_file = f"data.files.train={folder / 'train.csv'}", f"data.files.test={folder / 'test.csv'}"
    said = refused(run, train_file)
    assert said.endswith("not those of then: the test split of then (30 rows) is missing: give data.files.test=FILE")
    said = refused(run, train_file, test_file, f"data.files.validation={folder / 'test.csv'}")
    assert said.endswith("not those of then: the run had no validation split: leave it out")
    again = rerun(compose("rerun", f"run={run.folder}", f"runs_dir={folder}", train_file, test_file))
    assert again.same_weights


def test_a_repetition_names_the_split_that_has_other_rows(with_test_file):
    folder, run = with_test_file
    train_file = f"data.files.train={folder / 'train.csv'}"
    fewer = toys.write_csv(folder, "fewer.csv", 29)
    said = refused(run, train_file, f"data.files.test={fewer}")
    assert said.endswith("the test split has 29 rows, and had 30 rows then")
    other = folder / "other.csv"
    other.write_text((folder / "train.csv").read_text().replace("cat", "cow"))
    said = refused(run, f"data.files.train={other}", f"data.files.test={folder / 'test.csv'}")
    assert said.endswith("not those of then: the train split has other rows, or in another order")
    path = run.folder / "environment.json"
    record = read_json(path)
    write_json(path, {"data_fingerprint": record["data_fingerprint"], "read": 3, "split_fingerprints": ["x"]})
    assert refused(run, f"data.files.train={other}").endswith("their content has another fingerprint")
    write_json(path, record)
