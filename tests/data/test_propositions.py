"""Predicates and roles: CoNLL's columns side by side, JSON lines, text; and what is said of bad ones."""

import io
import json
import logging

import pytest
from datasets import Dataset

from hf_llm import data
from hf_llm.config import DataConfig, InputError
from hf_llm.data.predicates import sentences
from hf_llm.data.words import split

COLUMNS = {"words": "words", "predicate": "predicate?", "tags": "roles"}
PLACES = {"words": 1, "predicate": 2, "tags": 3}
CONLL = """# sent_id = 1
# text = By Juan
1\tHe\t_\tB-A0\tB-A0
2\twas\tbe.03\tB-V\tO
3\tseen\tsee.01\tO\tB-V

# text = By Juan
1\tBy\t_
2\tJuan\t_

1\tGo\tgo.01\tB-V
"""
BRACKETS = """#begin document (a); part 000
a 0 He - (A0*) * -
a 1 saw see (V*) (A0*) (2)
a 2 the - (A1* * -
a 3 dog - *) * -
a 4 go go * (V*) -

#end document
"""


def load(folder, content, name="train.conll", columns=PLACES, **options):
    (folder / name).write_text(content)
    cfg = DataConfig(files={"train": str(folder / name)}, columns=columns, validation_fraction=0, **options)
    return data.load(cfg, COLUMNS, seed=1)["train"]


def rows(dataset):
    names = dataset.features["tags"].feature.names
    return [(row["words"], row["predicate"], [names[tag] for tag in row["tags"]]) for row in dataset]


EXPECTED = [
    (["He", "was", "seen"], 1, ["B-A0", "B-V", "O"]),
    (["He", "was", "seen"], 2, ["B-A0", "O", "B-V"]),
    (["By", "Juan"], None, ["O", "O"]),
    (["Go"], 0, ["B-V"]),
]


def test_each_column_of_roles_is_a_row_with_its_predicate(tmp_path):
    assert rows(load(tmp_path, CONLL)) == EXPECTED


def test_columns_may_have_names(tmp_path):
    named = {"words": "word", "predicate": "sense", "tags": "roles"}
    assert rows(load(tmp_path, CONLL, columns=named, column_names=["id", "word", "sense", "roles"])) == EXPECTED


def test_the_brackets_of_conll_2012_become_bio_and_its_last_column_stays_out(tmp_path):
    found = rows(load(tmp_path, BRACKETS, columns={"words": 2, "predicate": 3, "tags": "4:-1"}))
    words = ["He", "saw", "the", "dog", "go"]
    assert found == [
        (words, 1, ["B-A0", "B-V", "B-A1", "I-A1", "O"]),
        (words, 4, ["O", "B-A0", "O", "O", "B-V"]),
    ]


def test_json_lines_and_parquet_say_the_same(tmp_path):
    lines = [{"words": words, "predicate": predicate, "tags": tags} for words, predicate, tags in EXPECTED]
    content = "".join(json.dumps(line) + "\n" for line in lines)
    assert rows(load(tmp_path, content, "train.jsonl")) == EXPECTED  # which has no column "1"
    Dataset.from_list(lines).to_parquet(tmp_path / "train.parquet")
    cfg = DataConfig(files=str(tmp_path / "train.parquet"), validation_fraction=0)
    assert rows(data.load(cfg, COLUMNS, seed=1)["train"]) == EXPECTED


def test_what_is_predicted_on_may_be_text_with_or_without_predicates():
    asked = {name: kind for name, kind in COLUMNS.items() if name != "tags"}

    def read(text, **options):
        cfg = DataConfig(columns={"words": 1, "predicate": 2}, **options)
        found = data.read(io.StringIO(text), cfg, asked)
        return list(zip(found["words"], found["predicate"], strict=True))

    assert read("He said no.\nYes\n") == [(["He", "said", "no", "."], None), (["Yes"], None)]
    assert read("\nYes\n\n", bad_rows="skip") == [(["Yes"], None)]
    with pytest.raises(InputError, match=r"^standard input, line 1: blank \(2 such lines\)"):
        read("\nYes\n\n")
    assert read('{"text": "He said no.", "predicate": "said"}\n{"words": ["a b", "c"], "predicate": 1}') == [
        (["He", "said", "no", "."], 1),
        (["a b", "c"], 1),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("He didn't say “no”...", ["He", "did", "n't", "say", "“", "no", "”", "..."]),
        ("it's 3,000.50 (or so)!?", ["it", "'s", "3,000.50", "(", "or", "so", ")", "!", "?"]),
        ("Al-Ani's  E\tmail", ["Al", "-", "Ani", "'s", "E", "mail"]),
        ("Él fué.", ["Él", "fué", "."]),
    ],
)
def test_white_space_and_punctuation_part_words(text, words):
    assert split(text) == words


def test_a_carved_validation_split_has_whole_sentences(tmp_path):
    (tmp_path / "train.conll").write_text("".join(CONLL.replace("He", f"w{i}") + "\n" for i in range(20)))
    cfg = DataConfig(files=str(tmp_path / "train.conll"), columns=PLACES, validation_fraction=0.3)
    splits = data.load(cfg, COLUMNS, seed=1)
    for name in ("train", "validation"):
        found = list(sentences(splits[name]["words"], splits[name]["predicate"]))
        assert {len(one.predicates) for one in found if one.words[0].startswith("w")} == {2}
    assert len(splits["train"]) + len(splits["validation"]) == 80


def test_bad_sentences_are_left_out_where_asked_and_counted(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        found = rows(load(tmp_path, CONLL + "\n1\tNo\tno.01\n", bad_rows="skip"))
    assert found == EXPECTED
    assert "1 another number of columns of roles than of predicates" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.conll", "1\ta\t_\tO\n", "a.conll, line 1: another number of columns of roles than of predicates: 1 from"),
        ("a.conll", "1\ta\tx\tB-V\n2\tb\t_\n", "a.conll, line 2: a word with another number of columns: 3, not 4"),
        ("a.conll", "1\ta\n", "a.conll, line 1: a word with another number of columns: 2, not 3 at least"),
        ("a.conll", "1\ta\tx\tO\n2\tb\t_\tB-V\n", "a.conll, line 2: a column of roles whose V is another word"),
        ("a.conll", "1\ta\tx\tV\n", "a.conll, line 1: a role that is neither BIO nor a bracket: 'V'"),
        ("a.jsonl", '{"words": ["a"], "predicate": 1, "tags": ["O"]}', "a.jsonl, row 1: a number that no word has"),
        ("a.jsonl", '{"words": ["a"], "predicate": "b", "tags": ["O"]}', "row 1: predicate 'b' does not stand there"),
        ("a.jsonl", '{"words": ["a", "a"], "predicate": "a"}', "row 1: predicate 'a' stands there 2 times: give its"),
        ("a.jsonl", '{"words": ["a"], "predicate": [0]}', "row 1: predicate [0]: give the number of a word"),
        ("a.jsonl", '{"words": ["a"], "predicate": 0, "tags": ["A0"]}', "row 1: a tag that is none of O, B-ROLE and"),
        ("a.jsonl", '{"words": ["a"], "predicate": 0, "tags": []}', "row 1: no words in column"),
        (
            "a.jsonl",
            '{"words": ["a"], "predicate": 0, "tags": "O"}',
            "row 1: column '3' holds \"O\", not a list of tags",
        ),
        ("a.jsonl", '{"wrods": ["a"], "predicate": 0}', "a.jsonl, row 1: no column"),
        ("a.jsonl", '{"words": ["a"], "predicate": 0}', "a.jsonl: no column"),
        ("a.csv", "words,predicate,tags\na,0,O\n", "a.csv: no column"),
    ],
)
def test_what_is_wrong_is_said_with_the_file_and_the_place(tmp_path, name, content, said):
    with pytest.raises(InputError) as refused:
        load(tmp_path, content, name)
    assert said in str(refused.value)


def test_columns_have_to_be_numbered(tmp_path):
    with pytest.raises(InputError, match=r"which column is data.columns.predicate=predicate\? Number them from 0"):
        load(tmp_path, CONLL, columns={"words": 1, "tags": 3})


def test_a_line_separator_in_a_text_ends_no_row(tmp_path):
    (tmp_path / "new.txt").write_text("it\u2028ran\x85off\nand sat\n", encoding="utf-8")
    columns = {"words": "words", "predicate": "predicate?"}
    rows = data.read(str(tmp_path / "new.txt"), DataConfig(), columns)
    assert len(rows) == 2
    assert rows["words"][1] == ["and", "sat"]


def conllu(*sentences):
    """Universal PropBank 1.0: CoNLL-U's ten columns, the senses, and the roles of each predicate at head words."""
    lines = []
    for sentence in sentences:
        lines += ["# text = x", "1-2\tIt'll" + "\t_" * (9 + len(sentence[0]) - 1)]
        for number, (word, *more) in enumerate(sentence, 1):
            lines.append("\t".join([str(number), word, word, "VERB", "VB", "_", "0", "root", "_", "_", *more]))
        lines += ["2.1\tx" + "\t_" * 8, ""]
    return "\n".join(lines) + "\n"


UP = conllu(
    [("He", "_", "A0", "A0"), ("was", "be.03", "_", "_"), ("seen", "see.01", "A1", "V")],
    [("By", "_"), ("Juan", "_")],
)


def test_universal_propbank_is_read_without_naming_its_columns(tmp_path):
    expected = [
        (["He", "was", "seen"], 1, ["B-A0", "B-V", "B-A1"]),
        (["He", "was", "seen"], 2, ["B-A0", "O", "B-V"]),
        (["By", "Juan"], None, ["O", "O"]),
    ]
    assert rows(load(tmp_path, UP, "train.conllu", columns={})) == expected
    given = {"words": 1, "predicate": 10, "tags": 11}
    assert rows(load(tmp_path, UP, "train.conllu", columns=given)) == expected


def test_what_is_predicted_on_may_be_plain_conllu(tmp_path):
    (tmp_path / "new.conllu").write_text(conllu([("Go",), ("now",)]))
    asked = {name: kind for name, kind in COLUMNS.items() if name != "tags"}
    found = data.read(str(tmp_path / "new.conllu"), DataConfig(), asked)
    assert (found["words"][:], found.column_names) == ([["Go", "now"]], ["words", "predicate"])
    assert found["predicate"][:] == [None]


@pytest.mark.parametrize(
    ("name", "content", "columns", "said"),
    [
        ("a.conll", UP.replace("V\n", "B-V\n"), {}, "Number them from 0, as in .*words: 1, predicate: 10, tags: 11}"),
        ("a.conllu", conllu([("Go",)] * 9), {}, "a.conllu: CoNLL-U's ten columns, without predicates and roles"),
        (
            "a.conllu",
            conllu([("Go", "go.01"), *[("on", "_")] * 25]),
            {"words": 1, "predicate": 4, "tags": 10},
            "column 4 is no column of predicates: 26 of 26 words .*; give data.columns={words: 1, predicate: 10,",
        ),
        (
            "a.conllu",
            conllu([("Go", "go.01", "A1:2|A2:3", "A1:2-2|A2:3-4"), ("on", "_", "_", "_")]),
            {},
            r"column 11 has all arguments of a predicate \('A1:2\|A2:3'\), as Universal PropBank 2",
        ),
        (
            "a.conll",
            CONLL,
            {"predicate": 2, "tags": 3},
            r"column 0 counts the words .*; give .*words: 1, predicate: 2",
        ),
        ("a.txt", CONLL, {}, "the lines are CoNLL's, a word a line"),
    ],
)
def test_columns_that_cannot_be_are_named_with_those_that_may(tmp_path, name, content, columns, said):
    if name == "a.txt":
        content = "".join(f"{n % 3 + 1}\tw{n}\tX\tO\n" + "\n" * (n % 3 == 2) for n in range(9))
    with pytest.raises(InputError, match=said):
        load(tmp_path, content, name, columns=columns)
