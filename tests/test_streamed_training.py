"""Trainings on streams, and what a finished run says of data that changed."""

import importlib
import json
from collections import Counter

import numpy as np
import pytest
from torch.utils.data import DataLoader
from toys import classifier, language_model, write_csv

from hf_llm import InputError, compose, data, evaluate, tokenizer, train, training
from hf_llm.config import DataConfig, TokenizerConfig
from hf_llm.tasks.causal_lm import CausalLM
from hf_llm.tasks.packing import IGNORE_INDEX

LABELS = "data.labels=[colour,thing]"


def said_of_train(run):
    """What train.log has to say of the train split's rows."""
    lines = (run.folder / "train.log").read_text().splitlines()
    return [line.split(" hf_llm.data.rows: ")[1] for line in lines if "hf_llm.data.rows: train:" in line]


def rows(count, first=0):
    return "".join(f"{'colour' if i % 3 == 0 else 'thing'},red {i}\n" for i in range(first, first + count))


def test_a_streamed_training_says_what_it_left_out(tmp_path):
    (tmp_path / "a.csv").write_text("label,text\n" + rows(3000) + "thing,\nthing\n")
    (tmp_path / "b.csv").write_text("label,text\n" + rows(3000, 3000))
    options = [option for option in classifier(tmp_path) if not option.startswith("data.files")]
    files = [f"data.files.train=[{tmp_path / 'a.csv'},{tmp_path / 'b.csv'}]", "data.streaming=true", LABELS]
    whole = train(compose(*options, *files, "data.bad_rows=skip", "run=whole"))
    assert said_of_train(whole) == [
        "train: 6,002 rows read, 6,000 used; left out: 1 empty text in column 'text', 1 wrong number of fields"
    ]
    options = [option for option in options if not option.startswith("tokenizer")]
    options.append(f"tokenizer.pretrained={whole.folder / 'model'}")  # no pass over the stream to learn words from it
    part = train(compose(*options, *files, "run=part"))  # 16 rows: the bad ones are not reached
    (line,) = said_of_train(part)
    assert "(not to the end)" in line


def test_a_streamed_split_is_evaluated(tmp_path):
    held_out = f"data.files.test={write_csv(tmp_path, 'held.csv')}"
    run = train(compose(*classifier(tmp_path), held_out, "data.streaming=true", LABELS))
    found = evaluate(compose("evaluate", f"run={run.folder}", "split=test"))
    assert np.sum(found["confusion_matrix"]) == 90
    assert found["f1"] == run.metrics["test"]["f1"]


def test_a_finished_run_whose_data_changed_is_not_taken_for_this_one(tmp_path, monkeypatch):
    options = language_model(tmp_path, run="r")
    corpus = (tmp_path / "corpus.txt").read_text()
    run = train(compose(*options))
    (tmp_path / "corpus.txt").write_text(corpus.replace("cat", "cow"))
    with pytest.raises(
        InputError, match=r"data changed since this run began \(splits train, validation\); start another"
    ):
        train(compose(*options))
    (tmp_path / "corpus.txt").unlink()
    said = []
    monkeypatch.setattr(training.logger, "warning", lambda text, *args: said.append(text % args))
    assert train(compose(*options)).metrics == json.loads((run.folder / "metrics.json").read_text())
    assert "the data that it was trained on cannot be read any more" in said[0]
    (tmp_path / "corpus.txt").write_text(corpus)
    assert train(compose(*options)).model is None  # complete, and nothing trained


def test_the_content_of_a_split_is_gone_through_once_for_cache_and_record(tmp_path, monkeypatch):
    module = importlib.import_module("hf_llm.data.fingerprint")  # the name in hf_llm.data is the function
    seen = []
    original = module._of_content
    monkeypatch.setattr(module, "_of_content", lambda rows: seen.append(rows) or original(rows))
    train(compose(*language_model(tmp_path)))
    assert len(seen) == 2  # train and validation


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_every_dataloader_worker_reads_its_share_of_a_streamed_corpus(workers, tmp_path):
    words = ("red", "blue", "green")
    files = [tmp_path / f"{word}.txt" for word in words]
    for file, word in zip(files, words, strict=True):
        file.write_text(f"{word} one two\n" * 7)
    cfg = DataConfig(files={"train": list(map(str, files))}, streaming=True, validation_fraction=0)
    raw = data.load(cfg, CausalLM.columns, seed=0, sample_by="line")
    task = CausalLM(block_size=16)
    byte = tokenizer.load(TokenizerConfig(algorithm="byte"), None, special_tokens=task.special_tokens)
    loader = DataLoader(task.encode(raw, byte)["train"], batch_size=None, num_workers=workers)
    targets = [token for block in loader for token in block["shift_labels"] if token != IGNORE_INDEX]
    expected = Counter("".join(f"{word} one two" * 7 for word in words))  # workers take turns block by block
    assert Counter(byte.decode([token for token in targets if token != byte.eos_token_id])) == expected
    assert targets.count(byte.eos_token_id) == 21
