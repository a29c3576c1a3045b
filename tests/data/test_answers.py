"""Questions with answers: SQuAD's nested JSON, rows, Parquet; and answers that do not stand where they say."""

import json
import logging

import pytest
from datasets import Dataset

from hf_llm import data
from hf_llm.config import DataConfig, InputError

COLUMNS = {"id": "id?", "question": "text", "context": "text", "answers": "answers"}
CONTEXT = "The cat sat on the mat. The dog did not."


def load(folder, content, name="train.json", **options):
    text = content if isinstance(content, str) else "\n".join(map(json.dumps, content))
    (folder / name).write_text(text)
    cfg = DataConfig(files={"train": str(folder / name)}, validation_fraction=0, **options)
    return data.load(cfg, COLUMNS, seed=1)["train"]


def asked(text="the mat", start=15, **more):
    given = {"text": [text], "answer_start": [start]}
    return {"id": "1", "question": "Where?", "context": CONTEXT, "answers": given, **more}


def test_squads_articles_become_questions(tmp_path):
    answers = [{"text": "the mat", "answer_start": 15}, {"text": "mat", "answer_start": 19}]
    questions = [
        {"id": "a", "question": "Where?", "answers": answers},
        {"id": "b", "question": "Who flew?", "answers": [], "is_impossible": True, "plausible_answers": answers},
    ]
    articles = {"version": "2", "data": [{"title": "x", "paragraphs": [{"context": CONTEXT, "qas": questions}]}]}
    rows = load(tmp_path, json.dumps(articles, indent=1))
    assert rows["id"] == ["a", "b"]
    assert rows["answers"][0] == {"text": ["the mat", "mat"], "answer_start": [15, 19]}
    assert rows["answers"][1] == {"text": [], "answer_start": []}


def test_rows_of_every_form_say_the_same(tmp_path):
    forms = [
        {"text": ["the mat"], "answer_start": [15]},
        {"text": "the mat", "answer_start": 15},
        [{"text": "the mat", "answer_start": 15}],
        ["the mat"],
        "the mat",
    ]
    rows = load(tmp_path, [asked(answers=form) for form in forms], "train.jsonl")
    assert rows["answers"] == [{"text": ["the mat"], "answer_start": [15]}] * 5
    Dataset.from_list([asked()]).to_parquet(tmp_path / "train.parquet")
    cfg = DataConfig(files={"train": str(tmp_path / "train.parquet")}, validation_fraction=0)
    assert data.load(cfg, COLUMNS, seed=1)["train"]["answers"] == rows["answers"][:1]


def test_an_answer_is_mended_where_it_stands_once_nearby_and_else_left_out_with_the_row_named(tmp_path, caplog):
    far = CONTEXT + " x" * 200 + " the hat the hat"
    rows = [
        asked(start=14),  # once nearby
        asked("the hat", 0, context=far),  # twice, nowhere near
        asked("nothing", 3),
        {**asked(), "answers": {"text": ["nothing", "dog"], "answer_start": [3, 28]}},
    ]
    with caplog.at_level(logging.INFO):
        kept = load(tmp_path, rows, "train.jsonl")
    assert [answers["answer_start"] for answers in kept["answers"]] == [[15], [-1, 28]]
    assert "train: 1 rows: an answer does not stand where answer_start says; found once, and mended" in caplog.text
    assert "train.jsonl, row 1" in caplog.text
    assert "train.jsonl, row 2" in caplog.text
    assert "2 used; left out: 2 answer that does not stand in its context" in caplog.text


def test_held_out_rows_stay_for_they_are_scored_by_text(tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps(asked()))
    (tmp_path / "dev.jsonl").write_text(json.dumps(asked("nothing", 3)))
    splits = data.load(DataConfig(path=str(tmp_path)), COLUMNS, seed=1)
    assert splits["validation"]["answers"][0] == {"text": ["nothing"], "answer_start": [-1]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"data": [{"paragraphs": [{"qas": []}, {"qas": [{"id": 1}]}]}]}', "article 1: not as in SQuAD"),
        (
            [asked(answers={"text": ["a", "b"], "answer_start": [1]})],
            "row 1: another number of texts than of answer_start in column 'answers'",
        ),
        ([asked(), asked(answers=[3])], "row 2: no {text: [...], answer_start: [...]} in"),
        ([asked(), asked(answers=None)], "row 2: null in column 'answers'"),
        ([asked(), asked(answers={"text": [""], "answer_start": [0]})], "row 2: an empty answer in column 'answers'"),
        ([asked(), asked(context=["a"])], "row 2: column 'context' holds list, not text"),
        ([asked(), asked(question=" ")], "row 2: empty text in column 'question'"),
        ([{"question": "a", "context": "b"}], "no column 'answers'"),
        ('{"question": "a"\n{}', "row 1: not valid JSON"),
    ],
)
def test_what_is_wrong_is_said_with_the_file_and_the_row(tmp_path, content, said):
    with pytest.raises(InputError) as refused:
        load(tmp_path, content, "bad.jsonl")
    assert said in str(refused.value)
    assert "bad.jsonl" in str(refused.value)


def test_answers_of_a_csv_are_json_or_a_text(tmp_path):
    given = json.dumps(asked()["answers"]).replace('"', '""')
    rows = load(tmp_path, f'question,context,answers\na,{CONTEXT},"{given}"\nb,{CONTEXT},the mat\n', "train.csv")
    assert rows["answers"] == [{"text": ["the mat"], "answer_start": [15]}] * 2
    with pytest.raises(InputError, match=r"row 1 \(line 2\): no \{text: "):
        load(tmp_path, 'question,context,answers\na,b,"{text: c}"\n', "bad.csv")


def test_cmrcs_own_articles_become_questions(tmp_path):
    asked_here = [{"query_id": "q", "query_text": "Where?", "answers": ["the mat", "mat"]}]
    (row,) = load(tmp_path, json.dumps([{"context_id": "c", "context_text": CONTEXT, "qas": asked_here}]))
    answers = {"text": ["the mat", "mat"], "answer_start": [15, 19]}
    assert row == {"id": "q", "question": "Where?", "context": CONTEXT, "answers": answers}


def from_parquet(folder, answers, **options):
    path = folder / "train.parquet"
    Dataset.from_list([asked(answers=given) for given in answers]).to_parquet(path)
    cfg = DataConfig(files={"train": str(path)}, validation_fraction=0, **options)
    return data.load(cfg, COLUMNS, seed=1)["train"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"text": ["a", "b"], "answer_start": [1]}, "row 1: another number of texts than of answer_start"),
        ({"text": [None], "answer_start": [1]}, "row 1: no {text: "),
        ({"text": ["the mat"], "answer_start": ["15"]}, "row 1: no {text: "),
    ],
)
def test_a_bad_row_of_a_table_is_named(tmp_path, wrong, said):
    with pytest.raises(InputError) as refused:
        from_parquet(tmp_path, [wrong])
    assert f"train.parquet, {said}" in str(refused.value)


def test_a_bad_row_is_left_out_where_that_is_asked_for(tmp_path, caplog):
    good, bad = asked()["answers"], {"text": ["a", "b"], "answer_start": [1]}
    with caplog.at_level(logging.INFO):
        assert from_parquet(tmp_path, [good, bad], bad_rows="skip")["answers"] == [good]
    assert "left out: 1 another number of texts than of answer_start in column 'answers'" in caplog.text


def test_a_table_may_have_pairs_numbers_as_ids_and_places_left_open(tmp_path, caplog):
    path = tmp_path / "train.parquet"
    forms = [[{"text": "the mat", "answer_start": 15}], [{"text": "the mat", "answer_start": None}], []]
    Dataset.from_list([asked(answers=form) | {"id": 7} for form in forms]).to_parquet(path)
    rows = data.load(DataConfig(files={"train": str(path)}, validation_fraction=0), COLUMNS, seed=1)["train"]
    assert rows["id"] == ["7"] * 3
    assert rows["answers"] == [asked()["answers"]] * 2 + [{"text": [], "answer_start": []}]
    assert "does not stand" not in caplog.text  # where no place is given, none is wrong


def test_a_test_split_without_answers_is_left_out(tmp_path):
    train = [asked(), asked(context="It sat.", answers=[])]
    for name, rows in {"train": train, "test": [{"question": "Where?", "context": CONTEXT}]}.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert "test" not in data.load(DataConfig(path=str(tmp_path)), COLUMNS, seed=1)
