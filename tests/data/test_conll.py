"""Sentences with tags: CoNLL's columns, JSON lines, Parquet; and what is said of bad ones."""

import logging

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from hf_llm import data
from hf_llm.config import DataConfig, InputError

COLUMNS = {"words": "words", "tags": "tags"}
CONLLU = """# sent_id = 1
# text = Don't go
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\tVBP\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\t_
3\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\t_
3.1\tgone\tgo\tVERB\tVB\t_\t_\t_\t_\t_

# text = # 1
1\t#\t#\tSYM\t#\t_\t0\troot\t_\t_
2\t1\t1\tNUM\tCD\t_\t1\tdep\t_\t_
"""


def load(folder, content, name="train.conll", columns=None, **options):
    (folder / name).write_text(content)
    cfg = DataConfig(files={"train": str(folder / name)}, columns=columns or {}, validation_fraction=0, **options)
    return data.load(cfg, COLUMNS, seed=1)["train"]


def tagged(rows):
    names = rows.features["tags"].feature.names
    return [
        list(zip(words, [names[tag] for tag in tags], strict=True))
        for words, tags in zip(rows["words"], rows["tags"], strict=True)
    ]


def test_conllu_has_its_words_and_universal_tags(tmp_path):
    rows = load(tmp_path, CONLLU, "train.conllu")
    assert tagged(rows) == [[("Do", "AUX"), ("n't", "PART"), ("go", "VERB")], [("#", "SYM"), ("1", "NUM")]]
    assert tagged(load(tmp_path, CONLLU, "train.conllu", {"tags": "xpos", "words": "lemma"}))[1] == [
        ("#", "#"),
        ("1", "CD"),
    ]


@pytest.mark.parametrize("separator", ["\t", " ", "   "])
def test_other_columns_are_named_by_number_and_the_last_is_the_tag(tmp_path, separator):
    lines = ["-DOCSTART- -X- O", "", "# NN O", "hash NN B-X", "", "", "# a comment, not a word", "EU NNP B-ORG"]
    content = "\n".join(separator.join(line.split()) if line[:3] != "# a" else line for line in lines)
    assert tagged(load(tmp_path, content)) == [[("#", "O"), ("hash", "B-X")], [("EU", "B-ORG")]]
    assert tagged(load(tmp_path, content, columns={"tags": "1"}))[1] == [("EU", "NNP")]
    named = load(tmp_path, content, columns={"tags": "pos", "words": "token"}, column_names=["token", "pos", "ner"])
    assert tagged(named)[1] == [("EU", "NNP")]


def test_json_lines_and_parquet_say_the_same(tmp_path):
    lines = '{"tokens": ["a", "b"], "ner": ["O", "B-X"]}\n{"tokens": ["c"], "ner": ["O"]}\n'
    columns = {"words": "tokens", "tags": "ner"}
    expected = [[("a", "O"), ("b", "B-X")], [("c", "O")]]
    assert tagged(load(tmp_path, lines, "train.jsonl", columns)) == expected
    features = Features({"tokens": List(Value("string")), "ner": List(ClassLabel(names=["O", "B-X"]))})
    rows = Dataset.from_dict({"tokens": [["a", "b"], ["c"]], "ner": [[0, 1], [0]]}, features=features)
    rows.to_parquet(tmp_path / "train.parquet")
    cfg = DataConfig(files={"train": str(tmp_path / "train.parquet")}, columns=columns, validation_fraction=0)
    loaded = data.load(cfg, COLUMNS, seed=1)["train"]
    assert tagged(loaded) == expected
    assert loaded.features["tags"].feature.names == ["O", "B-X"]  # in its own order


def test_a_tag_that_only_a_held_out_split_has_is_counted_in_with_a_warning(tmp_path, caplog):
    (tmp_path / "train.conll").write_text("a\tX\nb\tY\n")
    (tmp_path / "valid.conll").write_text("a\tZ\n")
    cfg = DataConfig(path=str(tmp_path))
    with caplog.at_level(logging.WARNING):
        splits = data.load(cfg, COLUMNS, seed=1)
    assert splits["train"].features["tags"].feature.names == ["X", "Y", "Z"]
    assert "validation: tags that no row of train has cannot be learnt, and count as missed: Z" in caplog.text


def test_bad_rows_are_left_out_where_asked_and_counted(tmp_path, caplog):
    lines = '{"words": ["a", "b"], "tags": ["X"]}\n{"words": [], "tags": []}\n{"words": ["c"], "tags": ["Y"]}\n'
    lines += '{"words": ["d", ""], "tags": ["X", "Y"]}\n{"words": ["e"], "tags": ["X"]}\n'
    with caplog.at_level(logging.INFO):
        rows = load(tmp_path, lines, "train.jsonl", bad_rows="skip")
    assert tagged(rows) == [[("c", "Y")], [("e", "X")]]
    assert "5 rows read, 2 used" in caplog.text
    assert "1 another number of tags than of words in column 'tags'" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.conll", "a\tX\nb\n", "a.conll, line 2: 1 columns where the first word has 2: 'b'"),
        ("a.conll", "# only a comment, and a long one\n", "a.conll: no sentence; give a word a line"),
        ("a.conllu", "1\ta\tb\n", "a.conllu, line 1: 3 columns, and CoNLL-U has 10"),
        ("a.conll", "a\tX\n\nb\tX\n", "a.conll: every word has the tag 'X'"),
        ("a.jsonl", '{"words": "a b", "tags": "X Y"}\n', "a.jsonl, row 1: column 'words' holds string, not array"),
        ("a.jsonl", '{"words": ["a", "b"], "tags": ["X"]}\n', "a.jsonl, row 1: another number of tags than of words"),
        ("a.jsonl", '{"words": ["a"], "tags": ["X"]}\n{"words": [], "tags": []}\n', "a.jsonl, row 2: no words"),
        (
            "a.jsonl",
            '{"words": ["a"], "tags": ["X"]}\n{"words": null, "tags": []}\n',
            "a.jsonl, row 2: null in column",
        ),
        ("a.csv", "words,tags\na b,X Y\n", "a.csv: column 'words' holds string, not a list of words"),
        ("a.txt", "a b\n", "a.txt: no column 'tags'"),
    ],
)
def test_what_is_wrong_is_said_with_the_file_and_the_place(tmp_path, name, content, said):
    with pytest.raises(InputError) as refused:
        load(tmp_path, content, name)
    assert said in str(refused.value)


def test_such_rows_are_not_streamed(tmp_path):
    with pytest.raises(InputError, match="words cannot be streamed"):
        load(tmp_path, "a\tX\n", streaming=True)


@pytest.mark.parametrize("separator", ["\t", " "])
@pytest.mark.parametrize("character", ["\u2028", "\x85", "\x0c", "\x1c"])
def test_a_line_ends_at_a_line_feed_alone(tmp_path, separator, character):
    word = f"a{character}b"
    assert tagged(load(tmp_path, f"{word}{separator}X\r\nc{separator}O\r\n")) == [[(word, "X"), ("c", "O")]]


def columns_of(*sentences):
    """Lines of CoNLL, with an empty one after each sentence; fields are parted by a blank."""
    return "".join("".join("\t".join(word.split()) + "\n" for word in sentence) + "\n" for sentence in sentences)


UD = CONLLU + "\n" + CONLLU
NER = columns_of(["1 EU B-ORG", "2 rejects O", "3 it O"], ["1 A O", "2 German B-MISC"])
DOCUMENTS = columns_of(*[[f"bc/{n} 0 {i} w{n}{i} {tag}" for i, tag in enumerate(("NN", "VB"))] for n in range(3)])


@pytest.mark.parametrize(
    ("name", "content", "columns", "said"),
    [
        ("t.conll", UD, {}, r"column 0 counts the words .*data.columns={words: 1, tags: 3}, or data.format=conllu"),
        ("t.conll", UD, {"tags": 4}, r"give data.columns={words: 1, tags: 4}, or"),
        ("t.conll", UD, {"words": 1}, r"column 9 has the remarks of CoNLL-U's .*MISC.*{words: 1, tags: 3}"),
        (
            "t.conll",
            NER,
            {},
            r"t.conll: column 0 counts the words .*{words: 1, tags: 2} \(columns are numbered",
        ),
        ("t.conll", "-DOCSTART- -X- O\n\n".replace(" ", "\t") + NER, {}, r"{words: 1, tags: 2}"),
        ("t.conll", NER.replace("1\t", "0\t").replace("2\t", "1\t").replace("3\t", "2\t"), {}, "counts the words"),
        ("t.conll", columns_of(["x 1 a N", "x 2 b V"], ["y 1 c N", "y 2 d V"]), {"words": 1}, r"{words: 2, tags: 3}"),
        ("t.conll", DOCUMENTS, {}, r"column 0 has the same value for each word .*'bc/0'.*{words: 3, tags: 4}"),
        ("t.txt", UD, {}, "t.txt: the lines are CoNLL's, a word a line in 10 columns, .* set data.format=conllu$"),
        ("t.txt", NER, {}, "set data.format=conll and data.columns.words=1"),
        ("t.txt", "EU B-ORG\n", {}, "a text file has no other .*a word a line is data.format=conll"),
    ],
)
def test_a_column_that_counts_the_words_is_not_taken_for_them(tmp_path, name, content, columns, said):
    with pytest.raises(InputError, match=said):
        load(tmp_path, content, name, columns)


def test_the_columns_that_are_proposed_are_read_without_ranges_and_empty_nodes(tmp_path):
    expected = tagged(load(tmp_path, CONLLU, "t.conllu"))
    assert tagged(load(tmp_path, CONLLU, "t.conll", {"words": 1, "tags": 3})) == expected
    assert tagged(load(tmp_path, CONLLU, "t.txt", format="conllu")) == expected
    assert tagged(load(tmp_path, NER, "t.conll", {"words": 1}))[1] == [("A", "O"), ("German", "B-MISC")]


def test_numbers_that_count_nothing_are_words(tmp_path):
    content = columns_of(["1 NUM", "2 NUM", "apples NOUN"], ["7 NUM", "8 NUM"], ["1 NUM"])
    assert [len(row) for row in tagged(load(tmp_path, content))] == [3, 2, 1]
    numbered = "1 it is\n2 they are\n"
    (tmp_path / "new.txt").write_text(numbered)
    assert data.read(str(tmp_path / "new.txt"), DataConfig(), {"words": "words"})["words"][0] == ["1", "it", "is"]


def test_conll_to_predict_on_may_be_named_in_the_same_way(tmp_path):
    (tmp_path / "new.conll").write_text(NER)
    with pytest.raises(InputError, match=r"column 0 counts the words .*; give data.columns={words: 1} \("):
        data.read(str(tmp_path / "new.conll"), DataConfig(), {"words": "words"})


def test_sentences_of_one_document_stay_on_one_side(tmp_path):
    (tmp_path / "t.conll").write_text(columns_of(*[[f"d{n % 7} w{n} X", f"d{n % 7} x{n * n} Y"] for n in range(70)]))
    cfg = DataConfig(files=str(tmp_path / "t.conll"), columns={"words": 1}, group_by="0", validation_fraction=0.2)
    splits = data.load(cfg, COLUMNS, seed=1)
    documents = [{int(words[0][1:]) % 7 for words in split["words"]} for split in splits.values()]
    assert not documents[0] & documents[1]
    assert len(documents[1]) == 1
    assert splits["train"].column_names == ["words", "tags"]
