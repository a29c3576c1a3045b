"""Splits that are made from train: nothing stands on two sides, and the sizes are those that were asked for."""

import json
import logging
from collections import Counter

import numpy as np
import pytest
from datasets import ClassLabel, Dataset

from hf_llm import data
from hf_llm.config import DataConfig, InputError, ModelConfig
from hf_llm.data.carving import carve
from hf_llm.data.duplicates import groups
from hf_llm.data.format_1 import carve as carve_as_then
from hf_llm.preflight.rows import seen_in_train
from hf_llm.tasks import get

ROWS = {"text": "text", "label": "label"}
TEXT = {"text": "text"}
BOTH = {"validation": 0.1, "test": 0.2}


def rows(texts, labels=None, **columns):
    dataset = Dataset.from_dict({"text": list(texts), **columns, **({} if labels is None else {"label": labels})})
    return dataset if labels is None else dataset.cast_column("label", ClassLabel(names=["a", "b", "c"]))


def write_csv(folder, lines, header="text,label", name="t.csv"):
    (folder / name).write_text("\n".join([header, *lines]) + "\n")
    return str(folder / name)


def load(path, wanted=ROWS, **options):
    return data.load(DataConfig(files=path, **options), wanted, seed=3)


def shared(splits, column="text"):
    """Values of a column that stand in more than one split."""
    where = Counter(value for split in splits.values() for value in set(split[column][:]))
    return {value for value, count in where.items() if count > 1}


def test_equal_texts_stay_on_one_side_and_classes_keep_their_shares():
    drawn = np.random.default_rng(0)
    texts = [f"t{n}" for n in drawn.integers(0, 400, 1000)]
    labels = drawn.choice(3, 1000, p=[0.7, 0.2, 0.1]).tolist()
    train = rows(texts, labels)
    splits = carve(train, BOTH, seed=1)
    assert not shared(splits)
    assert seen_in_train(splits)["validation"].rows == seen_in_train(splits)["test"].rows == 0
    assert sum(map(len, splits.values())) == 1000
    for name, fraction in BOTH.items():
        expected = {label: round(fraction * count) for label, count in Counter(labels).items()}
        found = Counter(splits[name]["label"][:])
        assert all(abs(found[label] - count) <= 2 for label, count in expected.items())
    assert carve(train, BOTH, seed=1)["test"]["text"][:] == splits["test"]["text"][:]
    assert carve(train, BOTH, seed=2)["test"]["text"][:] != splits["test"]["text"][:]
    assert carve(train, {"validation": 0.1}, seed=1)["validation"]["text"][:] == splits["validation"]["text"][:]


@pytest.mark.parametrize("fraction", [0.1, 0.25])
def test_without_equal_texts_the_split_is_that_of_the_first_format(fraction):
    train = rows([f"t{n}" for n in range(120)], [n % 3 for n in range(120)])
    now, then = carve(train, {"validation": fraction}, seed=5), carve_as_then(train, fraction, 5)
    assert (now["train"]["text"][:], now["validation"]["text"][:]) == tuple(split["text"][:] for split in then)


def test_a_run_of_the_first_format_gets_its_split_and_its_first_rows_again(tmp_path):
    path = write_csv(tmp_path, [f"t{n % 40},{'ab'[n % 2]}" for n in range(120)])
    cfg = DataConfig(files=path, limits={"train": 10})
    then = data.load(cfg, ROWS, seed=3, run_format=1)
    whole = load(path, validation_fraction=0)["train"]
    train, validation = carve_as_then(whole, 0.1, 3)
    assert then["validation"]["text"][:] == validation["text"][:]
    assert then["train"]["text"][:] == train["text"][:10]
    assert shared({"train": train, "validation": validation})
    with pytest.raises(InputError, match=r"data.group_by: the run was begun before there was such an option"):
        data.load(DataConfig(files=path, group_by="label"), ROWS, seed=3, run_format=1)


def test_a_pair_is_one_text_only_where_both_are_equal(tmp_path):
    lines = [f"a{n % 7},b{n % 11},{'ab'[n % 2]}" for n in range(154)]
    columns = {"text": ["one", "two"]}
    splits = load(write_csv(tmp_path, lines, "one,two,label"), columns=columns)
    pairs = [set(zip(split["text"][:], split["text_pair"][:], strict=True)) for split in splits.values()]
    assert not pairs[0] & pairs[1]
    assert shared(splits)


def test_questions_on_one_context_stay_on_one_side(tmp_path):
    asked = [
        {"id": str(n), "question": f"q{n}", "context": f"c{n % 23}", "answers": {"text": [], "answer_start": []}}
        for n in range(200)
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, asked)))
    task = get({"name": "question_answering"}, ModelConfig(arch="bert"))
    splits = load(str(tmp_path / "t.jsonl"), task.columns, test_fraction=0.2)
    assert not shared(splits, "context")
    assert abs(len(splits["validation"]) - 20) <= 5
    assert abs(len(splits["test"]) - 40) <= 5


GROUPED = [f"t{n},{'ab'[n % 2]},u{n % 17}" for n in range(170)]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_groups_that_the_user_names_stay_on_one_side(tmp_path, ending):
    table = [dict(zip(("text", "label", "user"), line.split(","), strict=True)) for line in GROUPED]
    user_of = {row["text"]: row["user"] for row in table}
    path = tmp_path / f"t.{ending}"
    if ending == "csv":
        write_csv(tmp_path, GROUPED, "text,label,user")
    elif ending == "jsonl":  # groups may be numbers
        path.write_text("".join(json.dumps({**row, "user": int(row["user"][1:])}) + "\n" for row in table))
    else:
        Dataset.from_list(table).to_parquet(path)
    splits = load(str(path), group_by="user", test_fraction=0.2)
    users = [{user_of[text] for text in split["text"]} for split in splits.values()]
    assert users[0] | users[1] | users[2] == set(user_of.values())
    assert sum(map(len, users)) == 17
    assert [split.column_names for split in splits.values()] == [["text", "label"]] * 3
    assert (len(splits["validation"]), len(splits["test"])) == (20, 30)  # whole users of 10 rows, nearest to 17 and 34


def test_a_group_may_be_a_column_that_is_read_anyway(tmp_path):
    path = write_csv(tmp_path, [f"a{n % 9},b{n},{'ab'[n % 2]}" for n in range(90)], "one,two,label")
    splits = load(path, columns={"text": ["one", "two"]}, group_by="one")
    assert not shared(splits)
    assert splits["train"].column_names == ["text", "text_pair", "label"]


def test_rows_are_one_group_where_texts_and_groups_join_them():
    chain = rows(["x", "x", "y", "z", "z", "w"], user=["1", "2", "2", "3", "4", "5"])
    found = groups(chain, "user")
    assert found[0] == found[1] == found[2]
    assert found[3] == found[4]
    assert len(set(found.tolist())) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group_by": "usr"}, r"t.csv: no column 'usr' for data.group_by; it has 'user'"),
        ({"test_fraction": 1.0}, r"data.test_fraction=1.0: give a number from 0 to below 1"),
        ({"test_fraction": 0.5, "validation_fraction": 0.5}, r"data.test_fraction=0.5 leave train no rows"),
        ({"streaming": True, "labels": ["a", "b"], "group_by": "user"}, r"data.group_by=user: no split is made from"),
        ({"streaming": True, "labels": ["a", "b"], "test_fraction": 0.1}, r"data.test_fraction=0.1: no split is made"),
        ({"group_by": "one"}, r"all 170 rows of train are one group, and no validation split can be made"),
    ],
)
def test_what_cannot_be_split_is_refused(tmp_path, options, said):
    path = write_csv(tmp_path, [f"{line},1" for line in GROUPED], "text,label,user,one")
    with pytest.raises(InputError, match=said):
        load(path, **options)


def test_a_text_file_has_no_column_to_group_by(tmp_path):
    (tmp_path / "t.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match=r"t.txt: no column 'user' for data.group_by; .*a text file has no other"):
        load(str(tmp_path / "t.txt"), TEXT, group_by="user", sample_by="line")


def test_a_test_split_is_made_only_where_there_is_none_with_labels(tmp_path):
    train = write_csv(tmp_path, GROUPED, "text,label,user")
    test = write_csv(tmp_path, ["t,a"], name="test.csv")
    with pytest.raises(InputError, match=r"data.test_fraction=0.1: there is a test split already"):
        load({"train": train, "test": test}, test_fraction=0.1)
    bare = write_csv(tmp_path, ["t", "u"], "text", name="bare.csv")
    assert len(load({"train": train, "test": bare}, test_fraction=0.1)["test"]) == 17


def test_a_group_or_limit_without_effect_is_said(tmp_path, caplog):
    path = write_csv(tmp_path, GROUPED, "text,label,user")
    load({"train": path, "validation": path}, group_by="user", limits={"test": 5})
    assert "data.group_by has no effect: no split is made from train" in caplog.text
    assert "data.limits.test has no effect: there is no test split" in caplog.text


def test_a_group_larger_than_the_split_stays_in_train_and_is_said(caplog):
    texts = ["the same"] * 60 + [f"t{n}" for n in range(40)]
    splits = carve(rows(texts, [n % 3 for n in range(100)]), {"validation": 0.1}, seed=1)
    assert abs(len(splits["validation"]) - 10) <= 1
    assert "the same" not in splits["validation"]["text"]
    assert "asked for 10 rows, and 60 stay together in one group: row 1 of train ('the same')" in caplog.text


def test_where_every_group_is_too_large_the_smallest_is_taken_and_said(caplog):
    texts = [f"t{n}" for n in (0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2)]
    splits = carve(rows(texts, user=["x"] * 12), {"validation": 0.1}, seed=1)
    assert splits["validation"]["text"][:] == ["t0"] * 3
    assert "validation: 3 rows, and not the 1 asked for, as groups are not divided" in caplog.text


def test_documents_are_held_out_whole(tmp_path, caplog):
    sizes = [900, 5000, 1100, 2000, 700]
    for n, size in enumerate(sizes):
        (tmp_path / f"{n}.txt").write_text(f"{n}" * size)
    with caplog.at_level(logging.INFO):
        splits = load(str(tmp_path / "*.txt"), TEXT, sample_by="document", validation_fraction=0.1)
    assert [text[0] * len(text) for text in splits["validation"]["text"]] == splits["validation"]["text"][:]
    assert not {text[0] for text in splits["train"]["text"]} & {text[0] for text in splits["validation"]["text"]}
    assert sum(map(len, splits["validation"]["text"])) in (900, 1100, 700)
    assert "of the characters)" in caplog.text


def test_one_document_or_one_that_is_as_good_as_all_is_cut_and_that_is_said(caplog):
    text = "".join(chr(97 + n % 26) for n in range(10_000))
    with caplog.at_level(logging.INFO):
        splits = carve(rows([text]), BOTH, seed=1)
    assert [split["text"][:] for split in splits.values()] == [[text[:7000]], [text[7000:8000]], [text[8000:]]]
    assert "validation: made from train: the only document is cut" in caplog.text
    with caplog.at_level(logging.INFO):
        splits = carve(rows(["short", text]), {"validation": 0.1}, seed=1)
    assert splits["train"]["text"][0] == "short"
    assert splits["train"]["text"][1] + splits["validation"]["text"][0] == text
    assert len(splits["validation"]["text"][0]) == 1001
    assert "document 2 of 2 (whole ones make no split of this size) is cut" in caplog.text


@pytest.mark.parametrize(
    ("texts", "held_out"),
    [
        (["the same line"] * 95 + ["a", "b", "c"], {"a", "b", "c"}),  # a line is no document to cut
        (["x" * 1000, "x" * 1000, "short"], {"short"}),  # nor one that stands in train once more
    ],
)
def test_a_text_is_not_cut_where_its_rest_would_stand_in_train(texts, held_out, caplog):
    splits = carve(rows(texts), {"validation": 0.1}, seed=1)
    assert set(splits["validation"]["text"]) == held_out
    assert "asked for, as groups are not divided" in caplog.text


def test_a_split_has_its_size_where_each_class_has_few_rows():
    labels = [n % 60 for n in range(240)]
    train = Dataset.from_dict({"text": [f"t{n}" for n in range(240)], "label": labels})
    train = train.cast_column("label", ClassLabel(names=[f"c{n}" for n in range(60)]))
    splits = carve(train, {"validation": 0.1, "test": 0.5}, seed=1)
    assert (len(splits["validation"]), len(splits["test"])) == (24, 120)
    assert max(Counter(splits["validation"]["label"][:]).values()) == 1
    assert set(Counter(splits["test"]["label"][:]).values()) == {2}
    assert set(splits["train"]["label"][:]) == set(range(60))


def test_a_class_keeps_a_row_in_train():
    splits = carve(rows(["x", "x", *"abcdefgh"], [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]), {"validation": 0.5}, seed=1)
    assert set(splits["train"]["label"][:]) == {0, 1}
    assert set(splits["validation"]["text"][:]) <= set("abcdefgh")


@pytest.mark.parametrize("name", ["classification/sms_spam", "qa/squadshifts_new_wiki", "srl/propbank_ewt"])
def test_nothing_leaks_from_real_data(shared_data, name):
    folder = shared_data / name
    task = {"classification": "text_classification", "qa": "question_answering", "srl": "semantic_role_labelling"}
    columns = get({"name": task[name.split("/")[0]]}, ModelConfig(arch="bert")).columns
    places = {"columns": {"words": 1, "predicate": 4, "tags": 5}} if name.startswith("srl") else {}
    (path,) = folder.glob("train.*")
    splits = load(str(path), columns, test_fraction=0.1, **places)
    assert [seen.rows for seen in seen_in_train(splits).values()] == [0, 0]
    whole = sum(map(len, splits.values()))
    assert len(splits["validation"]) == len(splits["test"]) == round(whole / 10)
    assert "context" not in splits["train"].column_names or not shared(splits, "context")


def test_of_two_documents_of_like_size_one_is_cut_for_a_tenth_of_it_cannot_be_had_whole():
    texts = ["a b c d e " * 100, "f g h i j " * 90]
    made = carve(Dataset.from_dict({"text": texts}), {"validation": 0.1}, seed=42)
    assert sum(map(len, made["validation"]["text"])) == pytest.approx(0.1 * sum(map(len, texts)), abs=1)
    assert "".join([*made["train"]["text"][:1], *made["validation"]["text"]]) == texts[0]
