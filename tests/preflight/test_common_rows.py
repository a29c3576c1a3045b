"""Lengths, labels and rows in common, against a count by hand."""

import math

import numpy as np
import pytest
from datasets import ClassLabel, Dataset
from toys import classifier

from hf_llm import compose, train
from hf_llm.preflight import rows


def dataset(texts, labels=None, **columns):
    data = Dataset.from_dict({"text": texts, **columns, **({} if labels is None else {"label": labels})})
    return data if labels is None else data.cast_column("label", ClassLabel(names=["a", "b", "c"]))


def test_percentiles_are_lengths_that_so_many_rows_do_not_exceed():
    tokens = np.random.default_rng(0).integers(1, 500, 137)
    found = rows.lengths(tokens, kept=np.minimum(tokens, 300))
    by_hand = sorted(tokens.tolist())
    assert found.percentiles == tuple(by_hand[math.ceil(share / 100 * 137) - 1] for share in (50, 90, 99, 100))
    assert found.tokens == sum(min(length, 300) for length in by_hand)
    assert found.cut == sum(length > 300 for length in by_hand)


def test_rows_in_common_are_counted_with_those_of_another_label():
    generator = np.random.default_rng(1)
    train = [str(number) for number in generator.integers(0, 40, 60)]
    held = [str(number) for number in generator.integers(0, 80, 50)]
    train_labels, held_labels = (generator.integers(0, 3, count).tolist() for count in (60, 50))
    found = rows.seen_in_train({"train": dataset(train, train_labels), "test": dataset(held, held_labels)})["test"]
    assert found.rows == sum(text in train for text in held)
    assert found.other_label == sum(
        any(other == text and theirs != label for other, theirs in zip(train, train_labels, strict=True))
        for text, label in zip(held, held_labels, strict=True)
    )
    row, place = found.example
    assert train[place - 1] == held[row - 1]
    assert not any(text in train for text in held[: row - 1])
    assert found.compared == (50, 60)


def test_a_pair_is_the_same_only_where_both_texts_are():
    train = dataset(["ab", "x", "é"], text_pair=["c", "y", "z"])
    held = dataset(["a", "x", "x", "é"], text_pair=["bc", "y", "z", "z"])
    found = rows.seen_in_train({"train": train, "validation": held})["validation"]
    assert (found.rows, found.other_label, found.example) == (2, None, (2, 2))


def test_many_rows_are_compared_as_far_as_the_limit(monkeypatch):
    monkeypatch.setattr(rows, "LIMIT", 1000)
    train = dataset([str(number) for number in range(2500)])
    found = rows.seen_in_train({"train": train, "test": dataset(["7", "2400"])})["test"]
    assert (found.rows, found.compared) == (1, (2, 1000))


def test_a_streamed_train_split_tells_nothing_of_rows_in_common():
    assert rows.seen_in_train({"train": dataset(["a"]).to_iterable_dataset(), "test": dataset(["a"])}) == {}


def test_labels_are_counted_by_split():
    raw = {"train": dataset(["x"] * 5, [0, 2, 2, 0, 2]), "test": dataset(["x"] * 2, [1, 1])}
    assert rows.label_counts(raw, "label", ["a", "b", "c"]) == {
        "train": {"a": 2, "b": 0, "c": 3},
        "test": {"a": 0, "b": 2, "c": 0},
    }


@pytest.mark.parametrize("pair", [False, True])
def test_lengths_of_a_classifiers_rows_are_those_before_they_are_cut(tmp_path, pair):
    rows = [(f"{'red ' * (n % 7 + 1)}", f"{'dog cat ' * (n % 5 + 1)}") for n in range(40)]
    lines = [f"{'yn'[n % 2]},{a},{b}" for n, (a, b) in enumerate(rows)]
    (tmp_path / "pairs.csv").write_text("\n".join(["label,a,b", *lines]))
    columns = f"data.columns.text={'[a,b]' if pair else 'a'}"
    options = [*classifier(tmp_path), f"data.files.train={tmp_path / 'pairs.csv'}", columns, "tokenizer=wordpiece"]
    run = train(compose(*options, "task.max_length=6", "data.validation_fraction=0"))
    encoded, special = run.trainer.train_dataset, 3 if pair else 2  # [CLS] and [SEP]
    by_hand = [len(a.split()) + pair * len(b.split()) + special for a, b in rows]
    assert encoded["full_length"] == by_hand
    assert encoded["length"] == [min(length, 6) for length in by_hand] == [len(ids) for ids in encoded["input_ids"]]
