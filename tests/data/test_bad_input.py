"""What a user can get wrong: each is one line that names the file, row and column or key, and what is right."""

import gzip
import io
import logging
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from datasets import ClassLabel, Dataset, Features, Value

from hf_llm import data
from hf_llm.config import DataConfig, InputError
from hf_llm.data.labels import unlisted

ROWS = {"text": "text", "label": "label"}
TEXT = {"text": "text"}
GOOD = "text,label\nfine,a\nbad,b\nfine,a\nbad,b\n"


def zipped(name, content):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, content)
    return archive.getvalue()


# name: (files to write, configuration, columns, what the line must say)
CASES = {
    "missing column": ({"t.csv": "text,lable\nx,a\n"}, {}, ROWS, "t.csv: no column 'label' .*it has 'lable', 'text'"),
    "missing header": ({"t.csv": "x,a\ny,b\n"}, {}, ROWS, "no column 'text'.*give data.column_names"),
    "header given twice": (
        {"t.csv": GOOD},
        {"column_names": ["text", "label"]},
        ROWS,
        "has a header .text, label.; leave data.column_names out",
    ),
    "column twice": ({"t.csv": "text,text,label\nx,y,a\n"}, {}, ROWS, "2 columns are called 'text'"),
    "empty file": ({"t.csv": ""}, {}, ROWS, "t.csv: the file is empty"),
    "white space only": ({"t.txt": "\n \n\t\n"}, {}, TEXT, "t.txt: the file is empty"),
    "byte order mark only": ({"t.txt": b"\xef\xbb\xbf \n"}, {}, TEXT, "t.txt: the file is empty but for white space"),
    "header only": ({"t.csv": "text,label\n"}, {}, ROWS, "t.csv: the file has a header line and no rows"),
    "empty text": ({"t.csv": "text,label\nx,a\n ,b\n"}, {}, ROWS, r"t.csv, row 2 \(line 3\): empty text .* 'text'"),
    "empty label": (
        {"t.csv": "text,label\n\nx,a\ny,\n"},
        {},
        ROWS,
        r"row 2 \(line 4\): empty label in column 'label'",
    ),
    "null text": ({"t.jsonl": '{"text":"x","label":1}\n{"text":null,"label":2}\n'}, {}, ROWS, "row 2: null .* 'text'"),
    "null label": ({"t.jsonl": '{"text":"x","label":1}\n{"text":"y"}\n'}, {}, ROWS, "row 2: null in column 'label'"),
    "too many fields": (
        {"t.csv": 'text,label\n"x\ny",a\ny,z,b\n'},
        {},
        ROWS,
        r"t.csv, row 2 \(line 4\): 3 fields, not 2 \(y,z,b\); quote a field that holds the delimiter",
    ),
    "too few fields": ({"t.csv": "text,label\nx,a\ny\n"}, {}, ROWS, r"row 2 \(line 3\): 1 fields, not 2 \(y\)"),
    "every row too long": (
        {"t.csv": "text,label\nx,y,a\ny,z,b\n"},
        {},
        ROWS,
        r"row 1 \(line 2\): 3 fields.*2 such rows",
    ),
    "ragged without header": (
        {"t.csv": "x,a\ny\n"},
        {"column_names": ["text", "label"]},
        ROWS,
        r"row 2 \(line 2\): 1 f",
    ),
    "quote never closed": ({"t.csv": 'text,label\nx,a\n"y,b\nz,a\nw,b\n'}, {}, ROWS, "line 3: .*data.quoting=false"),
    "undecodable csv": (
        {"t.csv": "text,label\nx,a\ncaf\xe9 y,b\n".encode("latin-1")},
        {},
        ROWS,
        r"line 3: byte 19 .*0xe9",
    ),
    "undecodable txt": ({"t.txt": "x\n三国".encode("gb18030")}, {}, TEXT, r"line 2: .*data.encoding \(gb18030 would"),
    "utf-16": ({"t.txt": "x".encode("utf-16")}, {}, TEXT, r"\(utf-16 would read it\)"),
    "unknown encoding": ({"t.txt": "x"}, {"encoding": "klingon"}, TEXT, "data.encoding=klingon: no such encoding"),
    "broken json": ({"t.jsonl": '{"text":"x"}\n{"text":\n'}, {}, TEXT, "t.jsonl, row 2: not valid JSON"),
    "key twice": (
        {"t.jsonl": '{"text":"x","label":"a"}\n{"text":"x","text":"y","label":"b"}\n'},
        {},
        ROWS,
        "t.jsonl, row 2: key 'text' is there twice",
    ),
    "list for label": (
        {"t.jsonl": '{"text":"x","label":["a"]}\n{"text":"y","label":["b"]}\n'},
        {},
        ROWS,
        "t.jsonl, row 1: column 'label' holds array; a label is text, a whole number, or true or false",
    ),
    "object for label": (
        {"t.jsonl": '{"text":"x","label":{"a":1}}\n{"text":"y","label":{"a":1}}\n'},
        {},
        ROWS,
        "t.jsonl, row 1: column 'label' holds object; a label is text, a whole number, or true or false",
    ),
    "number for text": ({"t.jsonl": '{"text":"x"}\n{"text":3}\n'}, {}, TEXT, "row 2: column 'text' holds number"),
    "labels of two types": (
        {"t.jsonl": '{"text":"x","label":1}\n{"text":"y","label":"b"}\n'},
        {},
        ROWS,
        "row [12]: column 'label' holds",
    ),
    "json of numbers": ({"t.json": "[1, 2]"}, {}, TEXT, "t.json, row 1: 1 is not an object"),
    "json column missing": ({"t.jsonl": '{"txt":"x"}\n{"id":1}\n'}, {}, TEXT, "no column 'text' .*it has 'txt', 'id'"),
    "real label": (
        {"t.jsonl": '{"text":"x","label":0.5}\n{"text":"y","label":1}\n'},
        {},
        ROWS,
        "row 1: label 0.5 is a real",
    ),
    "one class": ({"t.csv": "text,label\nx,a\ny,a\n"}, {}, ROWS, "has the label 'a'; a classifier needs two"),
    "label only in validation": (
        {"t.csv": GOOD, "v.csv": "text,label\nx,a\ny,c\n"},
        {"files": {"train": "t.csv", "valid": "v.csv"}},
        ROWS,
        r"v.csv, row 2 \(line 3\): label 'c' is not one of the train split: 'a', 'b'",
    ),
    "label with a space": (
        {"t.csv": GOOD, "v.csv": "text,label\nx,a\ny,b \n"},
        {"files": {"train": "t.csv", "valid": "v.csv"}},
        ROWS,
        r"v.csv, row 2 .*: label 'b ' is not one of .*: 'b', 'a'; it differs from 'b' only in white space$",
    ),
    "label not listed": (
        {"t.csv": GOOD},
        {"labels": ["a", "B"]},
        ROWS,
        "row 2 .*label 'b' is not one of data.labels: 'B'",
    ),
    "label listed twice": ({"t.csv": GOOD}, {"labels": ["a", "a"]}, ROWS, "data.labels: 'a' is there twice"),
    "labels from a txt": ({"t.txt": "x\n"}, {}, ROWS, "t.txt: no column 'label'.*a text file has no other"),
    "no such file": (
        {"train.csv": GOOD},
        {"files": "trian.csv"},
        ROWS,
        "data.files.train=trian.csv: no such file.*'train.csv'",
    ),
    "glob of nothing": (
        {"t.csv": GOOD},
        {"files": "*.tsv"},
        ROWS,
        r"data.files.train=\*.tsv: the glob matches no file",
    ),
    "folder as a file": ({"d/t.csv": GOOD}, {"files": "d"}, ROWS, "data.files.train=d is a folder: give data.path=d"),
    "file as a path": (
        {"t.csv": GOOD},
        {"path": "t.csv"},
        ROWS,
        "data.path=t.csv is a file: give data.files.train=t.csv",
    ),
    "no such folder": ({}, {"path": "./nowhere"}, ROWS, "data.path=./nowhere: no such folder"),
    "folder without data": ({"d/x.png": "x"}, {"path": "d"}, ROWS, "data.path=d: no data file in the folder"),
    "two validation splits": (
        {"d/train.csv": GOOD, "d/val.csv": GOOD},
        {"files": {"train": "d/train.csv", "val": "d/val.csv", "dev": "d/val.csv"}},
        ROWS,
        "'val' and 'dev' are both the validation split",
    ),
    "split not there": (
        {"t.csv": GOOD},
        {"splits": {"test": "tset"}},
        ROWS,
        "data.splits.test=tset: no such split; .*'train'",
    ),
    "both path and files": (
        {"t.csv": GOOD},
        {"path": "builtin:python_docs"},
        TEXT,
        "both data.path=.* and data.files",
    ),
    "neither": ({}, {"files": None}, TEXT, "no data: give data.path"),
    "unknown built-in": ({}, {"path": "builtin:python_doc"}, TEXT, "builtin:python_doc: .*'python_docs'"),
    "unknown ending": (
        {"t.dat": "x"},
        {"files": "t.dat"},
        TEXT,
        "t.dat: the name's ending tells no format; set data.format",
    ),
    "unknown format": ({"t.csv": GOOD}, {"format": "cvs"}, ROWS, "data.format=cvs: not one of 'csv'"),
    "long delimiter": (
        {"t.csv": GOOD},
        {"delimiter": "||"},
        ROWS,
        "data.delimiter='||': give a single character".replace("|", r"\|"),
    ),
    "column of no use": ({"t.csv": GOOD}, {"columns": {"lable": "y"}}, ROWS, "data.columns.lable: .*it has 'label'"),
    "column used twice": ({"t.csv": GOOD}, {"columns": {"text": "label"}}, ROWS, "column 'label' is used twice"),
    "another delimiter": ({"t.csv": "text;label\nx;a\n"}, {}, ROWS, "set data.delimiter=';'?"),
    "label beyond 64 bits": (
        {"t.jsonl": '{"text":"x","label":12345678901234567890}\n{"text":"y","label":1}\n'},
        {},
        ROWS,
        "t.jsonl: a label is a number beyond 64 bits",
    ),
    "url as a path": ({}, {"path": "https://example.org/t.csv"}, ROWS, "is a URL: .*data.files.train"),
    "too few of each class to carve": (
        {"t.csv": "text,label\nx,a\ny,b\n"},
        {},
        ROWS,
        r"as many values as rows \(2\); set",
    ),
    "numbers to predict": (
        {"t.csv": "text,label\n" + "".join(f"x,0.{n}\n" for n in range(100, 160))},
        {},
        ROWS,
        r"t.csv: the labels \(60 different ones: '0.100', .*\) are numbers to predict .*data.labels=\[…\]$",
    ),
    "limit on no split": (
        {"t.csv": GOOD},
        {"limits": {"foo": 5}},
        ROWS,
        "data.limits.foo: no such split; there are train, validation$",
    ),
    "three texts": (
        {"t.csv": GOOD},
        {"columns": {"text": ["a", "b", "c"]}},
        ROWS,
        "data.columns.text=.*a list of two",
    ),
    "limit to one class": (
        {"t.csv": "text,label\n" + "x,a\n" * 30 + "y,b\n" * 30},
        {"limits": {"train": 1}, "validation_fraction": 0},
        ROWS,
        "data.limits.train=1: all 1 rows of the sample have the label '[ab]'; .*: give a higher limit",
    ),
    "limit of nothing": ({"t.csv": GOOD}, {"limits": {"train": 0}}, ROWS, "data.limits.train=0: give a whole number"),
    "limit for no split": ({"t.csv": GOOD}, {"limits": {"trian": 3}}, ROWS, "data.limits.trian: no such split"),
    "fraction": (
        {"t.csv": GOOD},
        {"validation_fraction": 1.0},
        ROWS,
        "data.validation_fraction=1.0: give a number from 0",
    ),
    "sample_by": ({"t.txt": "x"}, {"sample_by": "word"}, TEXT, "data.sample_by=word: give one of line, paragraph"),
    "bad_rows": ({"t.csv": GOOD}, {"bad_rows": "drop"}, ROWS, "data.bad_rows=drop: give one of error, skip"),
    "too short to cut": ({"t.txt": "x"}, {}, TEXT, "the text is too short to cut"),
    "nothing left": (
        {"t.csv": "text,label\n,a\n,b\n"},
        {"bad_rows": "skip"},
        ROWS,
        "t.csv: no row can be used",
    ),
    "broken gz": ({"t.csv.gz": b"not gzip"}, {"files": "t.csv.gz"}, ROWS, "t.csv.gz: cannot be read"),
    "cut gz": (
        {"t.csv.gz": gzip.compress(GOOD.encode() * 99)[:-20]},
        {"files": "t.csv.gz"},
        ROWS,
        "t.csv.gz: cannot be read",
    ),
    "cut zst": (
        {"t.csv.zst": zstandard.compress(GOOD.encode() * 99999)[:-20]},
        {"files": "t.csv.zst", "labels": ["a", "b", "label"]},
        ROWS,
        "t.csv.zst: cannot be read",
    ),
    "broken zst": ({"t.csv.zst": b"not zstd"}, {"files": "t.csv.zst"}, ROWS, "t.csv.zst: cannot be read"),
    "broken zip": ({"t.zip": b"not a zip"}, {"files": "t.zip"}, ROWS, "t.zip: cannot be read"),
    "gz without its ending": (
        {"t.csv": gzip.compress(GOOD.encode())},
        {},
        ROWS,
        "t.csv, line 1: .* is not utf-8; the file is compressed by gzip: give its name the ending .gz$",
    ),
    "parquet called csv": (
        {"t.csv": b"PAR1\x15\x04\x95\xff"},
        {},
        ROWS,
        "t.csv, line 1: .* is not utf-8; the file is Parquet: set data.format=parquet$",
    ),
    "zip in a zip": (
        {"t.zip": zipped("u.zip", zipped("t.csv", GOOD))},
        {},
        ROWS,
        "t.zip/u.zip: a zip in a zip; unpack",
    ),
    "cut gz in a zip": (
        {"t.zip": zipped("t.csv.gz", gzip.compress(GOOD.encode() * 99)[:-20])},
        {},
        ROWS,
        "t.zip: cannot be read",
    ),
    "broken parquet": ({"t.parquet": b"PAR1 no"}, {"files": "t.parquet"}, ROWS, "t.parquet: not a Parquet file"),
    "broken arrow": ({"t.arrow": b"no"}, {"files": "t.arrow"}, ROWS, "t.arrow: not an Arrow file"),
    "dead url": ({}, {"files": "http://127.0.0.1:9/t.csv"}, ROWS, "http://127.0.0.1:9/t.csv: cannot be fetched"),
    "hub offline": ({}, {"path": "nobody/nothing"}, ROWS, "data.path=nobody/nothing: .*the Hub cannot be reached"),
    "stream without label names": ({"t.csv": GOOD}, {"streaming": True}, ROWS, "give data.labels="),
    "stream without column": ({"t.csv": "txt\nx\n"}, {"streaming": True}, TEXT, "no column 'text'.*it has 'txt'"),
}


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_that_says_where_and_what_is_right(name, tmp_path, monkeypatch):
    files, options, columns, expected = CASES[name]
    write(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    if ("path" not in options and "files" not in options) or name == "both path and files":
        options = {"files": next(iter(files), None), **options}
    with pytest.raises(InputError, match=expected) as caught:
        data.load(DataConfig(**options), columns, seed=0, sample_by="document")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value) or "(from " in str(caught.value)


def test_there_are_many_bad_inputs():
    assert len(CASES) >= 40


def test_a_parquet_column_that_is_not_text_is_refused(tmp_path):
    pq.write_table(pa.table({"text": [1, 2], "label": ["a", "b"]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"t.parquet: column 'text' holds int64, not text; set data.columns.text"):
        data.load(DataConfig(files=str(tmp_path / "t.parquet")), ROWS, seed=0)


def test_a_class_label_of_minus_one_is_missing(tmp_path):
    features = Features(text=Value("string"), label=ClassLabel(names=["a", "b"]))
    Dataset.from_dict({"text": ["x", "y"], "label": [0, -1]}, features).save_to_disk(tmp_path / "saved")
    with pytest.raises(InputError, match=r"split train, row 2: no label \(-1\) in column 'label'"):
        data.load(DataConfig(path=str(tmp_path / "saved")), ROWS, seed=0)


def test_a_split_that_is_not_there_is_named_with_those_that_are(tmp_path):
    write(tmp_path, {"t.csv": GOOD})
    cfg = DataConfig(files=str(tmp_path / "t.csv"))
    with pytest.raises(InputError, match="no test split; there are train, validation"):
        data.load(cfg, ROWS, seed=0, splits=["test"])


def test_bad_rows_are_left_out_on_request_and_counted_by_reason(tmp_path, caplog):
    write(tmp_path, {"t.csv": "text,label\nx,a\n,b\ny\ny,\nz,b\nw,a,q\nv,b\n"})
    cfg = DataConfig(files=str(tmp_path / "t.csv"), bad_rows="skip", validation_fraction=0)
    with caplog.at_level(logging.INFO, "hf_llm"):
        train = data.load(cfg, ROWS, seed=0)["train"]
    assert train["text"] == ["x", "z", "v"]
    assert train["label"] == [0, 1, 1]
    line = next(message for message in caplog.messages if message.startswith("train:"))
    assert line == (
        "train: 7 rows read, 3 used; left out: 2 wrong number of fields, 1 empty text in column 'text', "
        "1 empty label in column 'label'"
    )


def test_a_row_is_named_rightly_after_rows_that_were_left_out(tmp_path):
    write(tmp_path, {"t.csv": "text,label\nx,a\n,b\ny\nz,q\nw,b\n"})
    cfg = DataConfig(files=str(tmp_path / "t.csv"), bad_rows="skip", labels=["a", "b"])
    with pytest.raises(InputError, match=r"t.csv, row 4 \(line 5\): label 'q'"):
        data.load(cfg, ROWS, seed=0)


def test_a_limit_to_one_class_is_fine_for_a_trained_model_and_a_wider_one_for_any(tmp_path):
    write(tmp_path, {"t.csv": "text,label\n" + "".join(f"x{n},{'ab'[n // 30]}\n" for n in range(60))})
    options = {"files": str(tmp_path / "t.csv"), "validation_fraction": 0}
    for rows, labels in ((1, ["a", "b"]), (31, None), (99, None)):
        train = data.load(DataConfig(**options, limits={"train": rows}), ROWS, seed=0, labels=labels)["train"]
        assert len(train) == min(rows, 60)
    cfg = DataConfig(**{**options, "validation_fraction": 0.5}, limits={"train": 1})
    assert list(data.load(cfg, ROWS, seed=0, splits=["validation"])) == ["validation"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "standard input is empty"),
        ('{"text": "x"}\n{"text": 3}\n', "standard input, row 2: column 'text' holds number"),
        ('{"text": "x"}\n{"text": ""}\n', "standard input, row 2: empty text in column 'text'"),
        ('{"txt": "x"}\n', "standard input: no column 'text' .*it has 'txt'"),
    ],
)
def test_bad_standard_input_is_one_line(content, expected):
    with pytest.raises(InputError, match=expected):
        data.read(io.StringIO(content), DataConfig(), {"text": "text", "label": "label?"})


@pytest.mark.parametrize("columns", [TEXT, {"text": "texts"}, {"text": "words", "of": "predicate?"}])
@pytest.mark.parametrize(
    "content", ['[{"text": "v"}, {"text": "x", "text": "y"}]', '{"text": "v"}\n{"text":"x","text":"y"}']
)
def test_a_key_twice_is_refused_in_every_form_of_json(tmp_path, content, columns):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(InputError, match=r"t.json, row 2: key 'text' is there twice"):
        data.read(str(tmp_path / "t.json"), DataConfig(), columns)


def labelled(folder, values, **options):
    write(folder, {"t.csv": "text,label\n" + "".join(f"t{n},{label}\n" for n, label in enumerate(values))})
    cfg = DataConfig(files=str(folder / "t.csv"), validation_fraction=0, **options)
    return data.load(cfg, ROWS, seed=0)["train"].features["label"].names


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([f"{n % 162 / 4}" for n in range(3000)], r"\(162 different ones: '0.0', '0.25', .*\) are numbers to predict"),
        ([f'"{n % 9},5"' for n in range(100)], "are numbers to predict"),  # with a decimal comma
        ([f"{n % 9}.5e-3" for n in range(100)] + ["?"] * 3, "are numbers to predict"),
        (["0.5", "1.0", "1.5"] * 20, "are numbers to predict and no classes, which is regression"),
        ([f"2021-03-{n % 28 + 1:02}" for n in range(300)], r"\(28 different ones: '2021-03-01', .*\) are dates"),
        ([f"{n % 12 + 1}/24/2021 12:30" for n in range(300)], "are dates, and no classes"),
        ([f"id-{n:05}" for n in range(100)], "has 100 different values in 100 rows"),
        ([f"a remark on {n * 2 // 3}" for n in range(90)], "has 60 different values in 90 rows .* ids and free text"),
        ([str(10_000 + n) for n in range(40)], "has 40 different values in 40 rows"),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path, labels, said):
    with pytest.raises(InputError, match=said):
        labelled(tmp_path, labels)
    names = sorted({label.strip('"') for label in labels})
    assert labelled(tmp_path, labels, labels=names) == names  # who names them means it


@pytest.mark.parametrize(
    "labels",
    [
        ["1.0", "2.0", "3.0"] * 20,
        ["-1", "0", "1"] * 20,
        ["1.0.2", "1.1.0"] * 20,
        [f"c{n % 50}" for n in range(100)],
        ["1995", "1996"] * 20,
        ["a", "b", "c"],
    ],
)
def test_whole_numbers_years_and_a_class_for_every_two_rows_are_classes(tmp_path, labels):
    assert set(labelled(tmp_path, labels)) == set(labels)


@pytest.mark.parametrize(
    ("label", "name", "what"),
    [
        ("a\xa0b ", "a b", "white space"),
        ("cafe\u0301", "caf\xe9", "Unicode form"),
        ("True", "true", "case"),
        ("1.0", "1", "how a number is written"),
        ("Cafe\u0301 ", "caf\xe9", "white space and case and Unicode form"),
        ("c", "a", None),
    ],
)
def test_a_label_that_looks_like_another_is_told_apart(label, name, what):
    said = unlisted(label, ["b", name], "data.labels")
    assert said.startswith(f"label {label!r} is not one of data.labels: ")
    assert said.endswith(f"; it differs from {name!r} only in {what}") == (what is not None)
    assert ("differs" in said) == (what is not None)


def test_labels_of_train_that_look_alike_are_warned_of_once(tmp_path, caplog):
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"x{n},a\ny{n},b\nz{n},a \n" for n in range(20)))
    files = {"train": str(tmp_path / "t.csv"), "test": str(tmp_path / "t.csv")}
    with caplog.at_level(logging.WARNING, "hf_llm"):
        data.load(DataConfig(files=files), ROWS, seed=0)
    assert [message for message in caplog.messages if "label" in message] == [
        "the train split has labels that are almost the same: 'a' and 'a ' (white space)"
    ]
