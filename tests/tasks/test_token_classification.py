"""Tags of words: how sentences become windows, what a model is measured by, and what it predicts."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from toys import tagger, write_conll
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

import hf_llm.models  # noqa: F401  registers rnn and fnn
from hf_llm import compose, evaluate, predict, train
from hf_llm import tokenizer as tokenizers
from hf_llm.config import TokenizerConfig
from hf_llm.data.fingerprint import fingerprint
from hf_llm.tasks.tag_baselines import most_frequent_tags, seen_names
from hf_llm.tasks.token_classification import TokenClassification
from hf_llm.tasks.words import WordEncoder

SENTENCE = ["an", "antidisestablishmentarian", "\u200b", "hippopotamus", "said", ":", "``", "Hi,", "there", "''", "."]


def vocabulary(shared_data, name):
    source = TokenizerConfig(pretrained=str(shared_data / "tokenizers" / name))
    return tokenizers.load(source, None, special_tokens=TokenClassification.special_tokens)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run for each kind of tags, its folder with the file that it was trained on."""
    folders = {}
    for entities in (False, True):
        folder = tmp_path_factory.mktemp("tags")
        options = {"trainer.max_steps": "30", "trainer.learning_rate": "3e-3", "task.baseline": "true"}
        folders[entities] = train(compose(*tagger(folder, entities=entities, run="tags", **options)))
    return folders


@pytest.mark.parametrize("name", ["bert-base-uncased", "gpt2"])
def test_every_word_has_one_place_even_one_of_which_a_tokenizer_leaves_nothing(shared_data, name):
    tokenizer = vocabulary(shared_data, name)
    ((window,),) = WordEncoder(tokenizer, 64)([SENTENCE])
    assert window.words == list(range(len(SENTENCE)))
    assert window.first == sorted(set(window.first))
    visible = " ".join(word for word in SENTENCE if word != "\u200b")
    if name == "bert-base-uncased":
        assert window.input_ids[window.first[2]] == tokenizer.unk_token_id
        window.input_ids.pop(window.first[2])
        assert window.input_ids == tokenizer(visible)["input_ids"]
    else:
        assert window.input_ids == tokenizer(" ".join(SENTENCE))["input_ids"]


def test_a_long_sentence_is_read_in_windows_each_word_once_with_context(shared_data):
    tokenizer = vocabulary(shared_data, "bert-base-uncased")
    words = [f"word{i}" for i in range(200)]
    (windows,) = WordEncoder(tokenizer, 32)([words])
    assert len(windows) > 5
    assert sorted(word for window in windows for word in window.words) == list(range(200))
    for window in windows:
        assert len(window.input_ids) <= 32
        assert (window.input_ids[0], window.input_ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        for word, first in zip(window.words, window.first, strict=True):
            assert window.input_ids[first] == tokenizer(words[word], add_special_tokens=False)["input_ids"][0]
            assert word - window.shown.start >= 2 or window.shown.start == 0
            assert window.shown.stop - 1 - word >= 2 or window.shown.stop == 200


def by_hand(run, path):
    """Of each sentence the tags that a model gives, read off one sentence at a time; and its mean loss."""
    model = AutoModelForTokenClassification.from_pretrained(run.folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "model")
    predicted, total, count = [], 0.0, 0
    for block in path.read_text().strip().split("\n\n"):
        words, tags = zip(*(line.split("\t") for line in block.splitlines()), strict=True)
        encoded = tokenizer(" ".join(words), return_tensors="pt", return_offsets_mapping=True)
        starts = np.cumsum([0, *(len(word) + 1 for word in words)])[:-1]
        offsets = encoded.pop("offset_mapping")[0].tolist()
        first = [next(i for i, (a, b) in enumerate(offsets) if a == start and b > a) for start in starts]
        with torch.no_grad():
            logits = model(**encoded).logits[0, first]
        labels = torch.tensor([model.config.label2id[tag] for tag in tags])
        total += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        count += len(labels)
        predicted.append([model.config.id2label[int(i)] for i in logits.argmax(-1)])
    return predicted, total / count


@pytest.mark.parametrize("entities", [False, True])
def test_evaluate_and_predict_are_those_of_one_sentence_at_a_time(runs, entities, tmp_path):
    run = runs[entities]
    path = write_conll(tmp_path, "held_out.conll", sentences=23, entities=entities)
    expected, loss = by_hand(run, path)
    asked = [f"run={run.folder}", "trainer.use_cpu=true"]
    for size in (1, 5):
        batch = f"trainer.per_device_eval_batch_size={size}"
        rows = predict(compose("predict", *asked, batch, f"input={path}"))
        assert [row["tags"] for row in rows] == expected
        metrics = evaluate(compose("evaluate", *asked, batch, f"data.files={path}"))
        assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    lines = (run.folder / "predictions.jsonl").read_text().splitlines()
    reference = [json.loads(line)["reference"] for line in lines]
    assert len(reference) == 6  # the validation rows, carved from 60
    flat = [tag for tags in expected for tag in tags]
    true = [line.split("\t")[1] for line in path.read_text().splitlines() if line]
    assert metrics["accuracy"] == pytest.approx(np.mean([a == b for a, b in zip(flat, true, strict=True)]))
    assert ("f1_PET" in metrics) is entities
    assert ("confusion_matrix" in metrics) is not entities


def test_the_pipeline_of_transformers_says_the_same(runs, tmp_path):
    run = runs[True]
    path = write_conll(tmp_path, sentences=5, entities=True)
    rows = predict(compose("predict", f"run={run.folder}", f"input={path}", "trainer.use_cpu=true"))
    tag = pipeline("token-classification", model=str(run.folder / "model"), ignore_labels=[])
    for row in rows:
        text, starts = " ".join(row["words"]), np.cumsum([0, *(len(word) + 1 for word in row["words"])])[:-1]
        theirs = {piece["start"]: piece["entity"] for piece in tag(text)}
        assert [theirs[start] for start in starts] == row["tags"]


def test_a_short_window_gives_the_figures_of_all_words(runs, tmp_path):
    run = runs[False]
    path = write_conll(tmp_path, sentences=30)
    words = sum(1 for line in path.read_text().splitlines() if line)
    asked = [f"run={run.folder}", "trainer.use_cpu=true", "task.max_length=5", f"input={path}"]
    rows = predict(compose("predict", *asked))
    assert sum(len(row["tags"]) for row in rows) == words
    assert all(len(row["tags"]) == len(row["words"]) for row in rows)


def test_plain_text_is_split_at_white_space(runs, tmp_path):
    (tmp_path / "in.txt").write_text("red cat\n\none  dog two\n")
    asked = [f"run={runs[False].folder}", f"input={tmp_path / 'in.txt'}", "trainer.use_cpu=true", "data.bad_rows=skip"]
    assert [row["words"] for row in predict(compose("predict", *asked))] == [["red", "cat"], ["one", "dog", "two"]]


def test_baselines_are_those_of_the_train_split():
    train_rows = [(["New", "York", "is", "big"], ["B-LOC", "I-LOC", "O", "O"]), (["York"], ["B-PER"])]
    sentences = [["York", "and", "New", "York"], ["big"]]
    assert seen_names(train_rows, sentences) == [["B-PER", "O", "B-LOC", "I-LOC"], ["O"]]
    assert most_frequent_tags(train_rows, sentences) == [["I-LOC", "O", "B-LOC", "I-LOC"], ["O"]]


def test_both_baselines_are_reported(runs):
    assert "validation, most frequent tags" in runs[False].metrics
    assert "validation, names seen in training" in runs[True].metrics
    assert runs[False].metrics["validation, most frequent tags"]["accuracy"] == 1  # a toy's tag goes by its word


@pytest.mark.parametrize("arch", ["gpt2", "rnn", "fnn"])
def test_every_architecture_learns_to_tag(arch, tmp_path):
    options = {"trainer.max_steps": "60", "trainer.learning_rate": "1e-2", "run": "tags"}
    run = train(compose(*tagger(tmp_path, arch, **options)))
    assert run.metrics["validation"]["accuracy"] > 0.9


def test_the_fingerprint_tells_lists_apart():
    from datasets import Dataset

    one, other = ([["a", "b"], ["c"]], [["a"], ["b", "c"]])
    assert fingerprint(Dataset.from_dict({"words": one})) != fingerprint(Dataset.from_dict({"words": other}))
    assert fingerprint(Dataset.from_dict({"words": one})) == fingerprint(Dataset.from_dict({"words": one}))


def test_the_documented_command_names_options_that_there_are():
    page = (ROOT / "docs" / "token_classification.md").read_text()
    assert page.splitlines()[2].strip().startswith("hf-llm train task=token_classification")
