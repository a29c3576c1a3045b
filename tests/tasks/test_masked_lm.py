"""Masked language modelling: which tokens are masked, what a model is measured by, and what it fills in."""

import json
import math

import numpy as np
import pytest
import torch
from toys import masked_language_model
from transformers import AutoModelForMaskedLM, pipeline

from hf_llm import compose, evaluate, predict, train
from hf_llm import tokenizer as tokenizers
from hf_llm.config import TokenizerConfig
from hf_llm.tasks.masked_lm import MaskedLM
from hf_llm.tasks.sampling import IGNORE_INDEX

CHINESE = "我们是中国人，住在北京。hello world"


def blocks_of(texts, tokenizer, **options):
    from datasets import Dataset

    return MaskedLM(**options).encode({"train": Dataset.from_dict({"text": texts})}, tokenizer)["train"]


def vocabulary(shared_data, name):
    source = TokenizerConfig(pretrained=str(shared_data / "tokenizers" / name))
    return tokenizers.load(source, None, special_tokens=MaskedLM.special_tokens)


@pytest.fixture(scope="module")
def bert(shared_data):
    return vocabulary(shared_data, "bert-base-uncased")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, whose validation split is its last lines."""
    return train(compose(*masked_language_model(tmp_path_factory.mktemp("masked"), run="masked")))


def test_masks_are_of_one_token_in_seven_and_mostly_hidden(bert):
    blocks = blocks_of(["the quick brown fox jumps over the lazy dog " * 50] * 200, bert, block_size=128)
    items = [blocks[index] for index in range(len(blocks))]
    shown = np.concatenate([item["input_ids"] for item in items])
    labels = np.concatenate([item["labels"] for item in items])
    chosen = labels != IGNORE_INDEX
    ordinary = ~np.isin(np.where(chosen, labels, shown), bert.all_special_ids)
    assert chosen.sum() / ordinary.sum() == pytest.approx(0.15, abs=0.005)
    assert not (chosen & ~ordinary).any()
    fates = shown[chosen]
    assert np.mean(fates == bert.mask_token_id) == pytest.approx(0.8, abs=0.02)
    assert np.mean(fates == labels[chosen]) == pytest.approx(0.1, abs=0.02)
    assert not np.isin(fates[fates != bert.mask_token_id], bert.all_special_ids).any()


def test_no_token_of_the_corpus_is_lost_and_those_not_chosen_stay(bert):
    texts = ["the cat sat", "on an antidisestablishmentarian mat " * 20, "x"]
    blocks = blocks_of(texts, bert, block_size=16)
    corpus = [
        token for text in texts for token in [*bert(text, add_special_tokens=False).input_ids, bert.sep_token_id]
    ]
    restored = []
    for item in (blocks[index] for index in range(len(blocks))):
        ids = [
            shown if label == IGNORE_INDEX else label
            for shown, label in zip(item["input_ids"], item["labels"], strict=True)
        ]
        assert (ids[0], ids[-1]) == (bert.cls_token_id, bert.sep_token_id)
        restored += ids[1:-1]
    assert restored == corpus


def test_a_mask_goes_by_the_seed_the_epoch_and_the_block_alone(bert):
    one, other = (blocks_of(["the cat sat on the mat " * 40], bert, block_size=64) for _ in range(2))
    assert [one[i] for i in range(len(one))] == [other[i] for i in range(len(other))]
    assert one[0] != one[len(one)]  # the same block in the next epoch
    assert one[0]["row"] == one[len(one)]["row"] == 0
    other.seed = 1
    assert one[0]["labels"] != other[0]["labels"]


def whole_words(blocks, words_of):
    """(words masked in part, words masked as a whole) over 50 epochs of a corpus of one block."""
    part = whole = 0
    for epoch in range(50):
        chosen = [label != IGNORE_INDEX for label in blocks[epoch * len(blocks)]["labels"][1:-1]]
        for word in words_of:
            masked = [chosen[index] for index in word]
            part += any(masked) and not all(masked)
            whole += all(masked)
    return part, whole


def test_whole_words_are_masked_or_left(bert):
    text = "an antidisestablishmentarian hippopotamus"  # words of 1, 8 and 4 tokens
    ids = bert(text, add_special_tokens=False).word_ids()
    words = [[i for i, word in enumerate(ids) if word == number] for number in range(3)]
    assert max(map(len, words)) > 3
    part, whole = whole_words(blocks_of([text], bert, whole_word=True, block_size=32, mlm_probability=0.3), words)
    assert part == 0
    assert 20 < whole < 70  # of 150
    part, _ = whole_words(blocks_of([text], bert, block_size=32, mlm_probability=0.3), words)
    assert part > 20


def test_chinese_words_are_those_of_a_segmentation(shared_data):
    pytest.importorskip("rjieba")
    tokenizer = vocabulary(shared_data, "bert-base-chinese")
    options = {"whole_word": True, "segmentation": "jieba", "block_size": 32, "mlm_probability": 0.3}
    words = [[0, 1], [2], [3, 4], [5], [6], [7], [8], [9, 10]]  # 我们 是 中国 人 ， 住 在 北京
    part, whole = whole_words(blocks_of([CHINESE], tokenizer, **options), words)
    assert part == 0
    assert whole > 60
    part, _ = whole_words(blocks_of([CHINESE], tokenizer, **{**options, "segmentation": None}), words)
    assert part > 10  # of its own a BERT takes each character for a word


def test_an_evaluation_is_a_mean_over_masked_tokens_whatever_the_batch_size(run):
    model = AutoModelForMaskedLM.from_pretrained(run.folder / "model").eval()
    blocks = run.trainer.eval_dataset
    total, masked, found = 0.0, 0, 0
    for index in range(len(blocks)):
        item = blocks[index]
        labels = torch.tensor(item["labels"])
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([item["input_ids"]])).logits[0]
        chosen = labels != IGNORE_INDEX
        total += torch.nn.functional.cross_entropy(logits[chosen], labels[chosen], reduction="sum").item()
        masked += int(chosen.sum())
        found += int((logits.argmax(-1)[chosen] == labels[chosen]).sum())
    reported = run.metrics["validation"]
    assert masked > 10
    assert reported["loss"] == pytest.approx(total / masked, rel=1e-6)
    assert reported["perplexity"] == pytest.approx(math.exp(total / masked), rel=1e-6)
    assert reported["accuracy"] == found / masked
    for size in (1, 3):
        asked = [f"run={run.folder}", "trainer.use_cpu=true", f"trainer.per_device_eval_batch_size={size}"]
        again = evaluate(compose("evaluate", *asked))
        assert again == pytest.approx({name: reported[name] for name in again}, rel=1e-6)


def test_a_training_step_has_the_mean_over_its_masked_tokens(run):
    rows = [run.trainer.train_dataset[index] for index in range(3)]
    batch = run.trainer.data_collator(rows)
    counts = [sum(label != IGNORE_INDEX for label in row["labels"]) for row in rows]
    apart = [run.trainer.mean_loss(run.model.eval(), run.trainer.data_collator([row]), None).item() for row in rows]
    together = run.trainer.mean_loss(run.model, batch, None).item()
    assert together == pytest.approx(np.average(apart, weights=counts), rel=1e-5)
    assert run.trainer.mean_loss(run.model, batch, 7).item() == pytest.approx(together * sum(counts) / 7, rel=1e-5)


def test_predict_fills_in_as_the_pipeline_of_transformers(run, tmp_path):
    texts = ["red [MASK] green", "[MASK] two three [MASK] dog"]
    (tmp_path / "in.txt").write_text("\n".join(texts))
    asked = [f"run={run.folder}", f"input={tmp_path / 'in.txt'}", "task.top_k=3", "trainer.use_cpu=true"]
    rows = predict(compose("predict", *asked))
    fill = pipeline("fill-mask", model=str(run.folder / "model"))
    for row, text, number in zip(rows, texts, (1, 2), strict=True):
        assert row["text"] == text
        assert len(row["masks"]) == number
        theirs = fill(text, top_k=3)
        first = theirs[0] if number > 1 else theirs
        assert [c["token"] for c in row["masks"][0]] == [c["token_str"] for c in first]
        assert [c["score"] for c in row["masks"][0]] == pytest.approx([c["score"] for c in first], abs=1e-5)
    json.dumps(rows)
