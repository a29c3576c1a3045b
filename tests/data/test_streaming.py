"""A stream is as strict as whole files, lazy, and says what it read."""

import bz2
import gzip
import json
import logging
import lzma
import re
import tracemalloc

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import test_bad_input
import zstandard
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from test_bad_input import CASES, GOOD, ROWS, TEXT, write

from hf_llm import data
from hf_llm.config import DataConfig, InputError

# what a stream cannot say in the same words, and what it says instead; None: it is no mistake there
OTHERWISE = {
    "every row too long": r"row 1 \(line 2\): 3 fields",  # how many there are is not known yet
    "json of numbers": "an array is read whole; give an object a line, or set data.streaming=false",
    "json column missing": "no column 'text' .*it has 'txt'",
    "limit on no split": "data.limits.foo: no such split; there are train$",  # a stream is not carved
    "numbers to predict": "label '0.100' is not one of data.labels",
    "label beyond 64 bits": "row 1: label '12345678901234567890' is not one of data.labels",
    "label only in validation": r"v.csv, row 2 \(line 3\): label 'c' is not one of data.labels: 'a', 'b'",
    "limit to one class": "data.limits.train=1: the first 1 rows .* 'a'; shuffle the file, or raise the limit",
    "undecodable txt": "t.txt, line 2: byte 3 of the file .0xc8. is not utf-8; set data.encoding$",  # no guess
    "utf-16": "t.txt, line 1: byte 1 of the file .0xff. is not utf-8; set data.encoding$",
    "unknown built-in": "is in memory already; set data.streaming=false",
    "too few of each class to carve": None,
    "too short to cut": None,
}
LABELS = {
    "cut gz in a zip": ["a", "b", "label"],
    "cut gz": ["a", "b", "label"],
    "label not listed": ["a", "B"],
    "labels of two types": [1, 2],
    "null label": [1, 2],
    "null text": [1, 2],
}


def stream(source=None, columns=ROWS, **options):
    given = {"labels": ["a", "b"]} if "label" in columns else {}
    files = str(source) if source else None
    cfg = DataConfig(**{"files": files, **given, **options}, streaming=True)
    return data.load(cfg, columns, seed=0, sample_by="line")


def said(caplog, split="train"):
    return [message for message in caplog.messages if message.startswith(f"{split}:")]


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_in_the_words_of_whole_files(name, tmp_path, monkeypatch):
    files, options, columns, expected = CASES[name]
    write(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    if ("path" not in options and "files" not in options) or name == "both path and files":
        options = {"files": next(iter(files), None), **options}
    options = {**options, "streaming": True}
    if "label" in columns and name != "stream without label names":
        options.setdefault("labels", LABELS.get(name, ["a", "b"]))
    expected = OTHERWISE.get(name, expected)

    def read_all():
        for rows in data.load(DataConfig(**options), columns, seed=0, sample_by="document").values():
            assert list(rows)

    if expected is None:
        return read_all()
    with pytest.raises(InputError) as caught:
        read_all()
    assert re.search(expected, str(caught.value))
    assert "\n" not in str(caught.value)


def test_rows_that_are_left_out_are_counted_once_when_the_stream_ends(tmp_path, caplog):
    write(tmp_path, {"t.csv": "text,label\nx,a\n,b\ny\ny,\nz,b\nw,a,q\nv,b\n", "u.csv": "text,label\nx,a\n,b\n"})
    with caplog.at_level(logging.INFO, "hf_llm"):
        train = stream(tmp_path / "?.csv", bad_rows="skip")["train"]
        assert [row["text"] for row in train.take(3)] == ["x", "z", "v"]
        assert not said(caplog)
        assert [list(train), list(train)][1] == list(train)
    assert said(caplog) == [
        "train: 9 rows read, 4 used; left out: 2 empty text in column 'text', 2 wrong number of fields, "
        "1 empty label in column 'label'"
    ]


def test_blank_lines_are_counted_as_lines(tmp_path, caplog):
    write(tmp_path, {"t.txt": "one\n\n  \ntwo\n"})
    with caplog.at_level(logging.INFO, "hf_llm"):
        assert [row["text"] for row in stream(tmp_path / "t.txt", TEXT)["train"]] == ["one", "two"]
    assert said(caplog) == ["train: 4 lines read, 2 used; left out: 2 blank lines"]


def test_what_was_read_is_said_at_the_end_of_a_training_that_did_not_reach_the_streams_end(tmp_path, caplog):
    write(tmp_path, {"t.csv": "text,label\n,a\n" + "x,a\ny,b\n" * 500})
    streams = stream(tmp_path / "t.csv", bad_rows="skip")
    with caplog.at_level(logging.INFO, "hf_llm"), data.reporting(streams):
        assert len(list(streams["train"].take(9))) == 9
    (line,) = said(caplog)  # `datasets` reads a row ahead
    assert re.fullmatch(
        r"train: 1. rows read \(not to the end\), .* used; left out: 1 empty text in column 'text'", line
    )


def test_the_first_look_at_a_stream_is_no_reading(tmp_path, caplog):
    write(tmp_path, {"t.csv": GOOD})
    streams = stream(tmp_path / "t.csv")
    with caplog.at_level(logging.INFO, "hf_llm"), data.reporting(streams):
        pass  # as where dataloader workers read, in processes of their own
    assert not said(caplog)


def test_a_single_class_is_found_at_the_streams_end_and_at_its_limit(tmp_path):
    write(tmp_path, {"t.csv": "text,label\n" + "x,a\n" * 30, "u.csv": "text,label\n" + "x,a\n" * 30 + "y,b\n"})
    with pytest.raises(InputError, match=r"t.csv: every row of the train split has the label 'a'"):
        list(stream(tmp_path / "t.csv")["train"])
    assert len(list(stream(tmp_path / "?.csv")["train"])) == 61
    assert len(list(stream(tmp_path / "u.csv", limits={"train": 31})["train"])) == 31
    with pytest.raises(InputError, match=r"data.limits.train=30: the first 30 rows .* label 'a'"):
        list(stream(tmp_path / "u.csv", limits={"train": 30})["train"])


def test_a_limit_is_over_all_files(tmp_path, caplog):
    write(tmp_path, {"a.csv": GOOD, "b.csv": GOOD})
    with caplog.at_level(logging.INFO, "hf_llm"):
        assert len(list(stream(tmp_path / "?.csv", limits={"train": 6})["train"])) == 6
        assert said(caplog)[-1] == "train: 6 rows read, 6 used"
        assert "train: the first 6 rows of the stream (data.limits)" in caplog.text
        assert len(list(stream(tmp_path / "?.csv", limits={"train": 60})["train"])) == 8


def test_a_bad_row_is_an_error_when_it_is_reached_and_not_before(tmp_path):
    write(tmp_path, {"a.csv": "text,label\n" + "x,a\ny,b\n" * 5000 + "z\n", "b.csv": "txt\nx\n"})
    rows = iter(stream(tmp_path / "a.csv")["train"])
    assert len([next(rows) for _ in range(10000)]) == 10000
    with pytest.raises(InputError, match=r"a.csv, row 10001 \(line 10002\): 1 fields, not 2 \(z\); is one missing\?"):
        next(rows)
    (tmp_path / "a.csv").write_text("text,label\nx,a\ny,b\n")
    rows = iter(stream(tmp_path / "?.csv")["train"])
    assert [next(rows)["label"], next(rows)["label"]] == [0, 1]
    with pytest.raises(InputError, match=r"b.csv: no column 'text'"):
        next(rows)


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16"])
def test_an_undecodable_byte_is_found_where_whole_files_find_it(encoding, tmp_path):
    bad = b"\x00\xd8" if encoding == "utf-16" else b"\xff"
    text = "三国演义\n" * 20000
    (tmp_path / "t.txt").write_bytes(text.encode(encoding) + bad + "\nmore\n".encode(encoding))
    with pytest.raises(InputError) as whole:
        data.load(DataConfig(files=str(tmp_path / "t.txt"), encoding=encoding), TEXT, seed=0)
    with pytest.raises(InputError) as streamed:
        list(stream(tmp_path / "t.txt", TEXT, encoding=encoding)["train"])
    place = str(streamed.value).removesuffix("; set data.encoding")
    assert f"is not {encoding}" in place
    if encoding != "utf-16":  # whose line breaks are no single byte
        assert str(whole.value).startswith(place)
        assert "line 20001" in place


@pytest.mark.parametrize("sample_by", ["line", "paragraph", "document"])
def test_texts_are_cut_as_those_of_whole_files(sample_by, tmp_path):
    (tmp_path / "t.txt").write_bytes("\ufeffone\r\n two \r\n\r\n \r\n\r\nthree\rfour\n\n\nfive".encode())
    cfg = {"files": str(tmp_path / "t.txt"), "sample_by": sample_by, "validation_fraction": 0}
    whole = data.load(DataConfig(**cfg), TEXT, seed=0)["train"]
    assert list(data.load(DataConfig(**cfg, streaming=True), TEXT, seed=0)["train"]) == list(whole)


def test_csv_oddities_are_read_as_in_whole_files(tmp_path):
    rows = 'label\ttext\r\n\r\na\t"two\r\nlines ""x"""\r\nb\t5" disk\r\n\r\na\tno\r\n'
    (tmp_path / "t.tsv").write_bytes(rows.encode())
    whole = data.load(DataConfig(files=str(tmp_path / "t.tsv"), validation_fraction=0), ROWS, seed=0)["train"]
    assert list(stream(tmp_path / "t.tsv")["train"]) == list(whole)
    (tmp_path / "u.tsv").write_text('a\t"so open\nb\twin "now\n')
    streamed = stream(tmp_path / "u.tsv", column_names=["label", "text"], quoting=False)["train"]
    assert [row["text"] for row in streamed] == ['"so open', 'win "now']


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_compressed_files_are_unpacked_as_they_are_read(pack, tmp_path):
    ending = {gzip: "gz", bz2: "bz2", lzma: "xz"}.get(__import__(pack.__module__), "zst")
    path = tmp_path / f"t.csv.{ending}"
    path.write_bytes(pack(("text,label\n" + "x,a\ny,b\n" * 50000).encode()))
    assert len(list(stream(path)["train"].take(100))) == 100
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=rf"t.csv.{ending}: cannot be read"):
        list(stream(path)["train"])


@pytest.mark.parametrize("ending", ["txt", "csv", "jsonl", "csv.gz"])
def test_memory_does_not_grow_with_the_file(ending, tmp_path):
    line = {"txt": "x" * 400, "csv": "x" * 398 + ",a", "jsonl": json.dumps({"text": "x" * 380, "label": "a"})}
    form = ending.split(".")[0]
    content = "".join(f"{line[form]}\n" for _ in range(25_000)).encode()  # 10 MB
    content = b"text,label\n" + content if form == "csv" else content
    path = tmp_path / f"t.{ending}"
    path.write_bytes(gzip.compress(content, 1) if ending.endswith("gz") else content)
    del content
    rows = stream(path, TEXT)["train"]
    tracemalloc.start()
    try:
        assert sum(1 for _ in rows) == 25_000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_file_is_a_shard_and_a_stream_goes_on_where_its_state_says(tmp_path):
    for name in "abc":
        write(tmp_path, {f"{name}.csv": "text,label\n" + "".join(f"{name}{i},{'ab'[i % 2]}\n" for i in range(10))})
    train = stream(tmp_path / "?.csv")["train"]
    assert train.num_shards == 3
    rows = iter(train)
    first = [next(rows) for _ in range(14)]
    state = train.state_dict()
    again = stream(tmp_path / "?.csv")["train"]
    again.load_state_dict(state)
    assert [*first, *again] == list(train)


def test_arrow_and_parquet_files_name_the_row_and_keep_their_label_names(tmp_path):
    features = Features(text=Value("string"), label=ClassLabel(names=["z", "a"]))
    rows = Dataset.from_dict({"text": ["x", "y", None], "label": [0, 1, -1]}, features)
    rows.to_parquet(tmp_path / "t.parquet")
    pyarrow.feather.write_feather(rows.data.table, tmp_path / "t.arrow", compression="uncompressed")
    for name in ("t.parquet", "t.arrow"):
        train = stream(tmp_path / name, labels=None)["train"]
        assert train.features["label"].names == ["z", "a"]
        rows = iter(train)
        assert [next(rows)["label"], next(rows)["label"]] == [0, 1]
        with pytest.raises(InputError, match=rf"{name}, row 3: null in column 'text'; data.bad_rows=skip"):
            next(rows)
        aligned = stream(tmp_path / name, labels=["a", "z"], bad_rows="skip")["train"]
        assert [row["label"] for row in aligned] == [1, 0]
    pq.write_table(pa.table({"text": [1, 2], "label": ["a", "b"]}), tmp_path / "u.parquet")
    with pytest.raises(InputError, match=r"u.parquet: column 'text' holds int64, not text; set data.columns.text"):
        stream(tmp_path / "u.parquet")


def test_what_save_to_disk_wrote_is_checked_row_by_row(tmp_path):
    features = Features(text=Value("string"), label=ClassLabel(names=["a", "b"]))
    saved = Dataset.from_dict({"text": ["x", "y", "z"], "label": [0, 1, -1]}, features)
    DatasetDict(train=saved).save_to_disk(tmp_path / "saved")
    with pytest.raises(InputError, match=r"split train, row 3: no label \(-1\) in column 'label'"):
        list(stream(path=str(tmp_path / "saved"), labels=None)["train"])


def test_an_error_of_datasets_itself_is_one_line(monkeypatch):
    from hf_llm.data import hub

    def rows():
        yield {"text": "x"}
        raise ConnectionError("the line\nis dead")

    broken = {"train": data.streaming.IterableDataset.from_generator(rows)}
    monkeypatch.setattr(hub, "load", lambda cfg: broken)
    streamed = iter(stream(columns=TEXT, path="me/rows")["train"])
    assert next(streamed) == {"text": "x"}
    with pytest.raises(InputError, match=r"^me/rows, split train, after row 1: cannot be read: the line is dead$"):
        next(streamed)


def test_labels_of_any_kind_are_named_as_in_whole_files(tmp_path):
    for values, names in (([True, False], ["false", "true"]), ([2.0, 1], ["1", "2"]), (["x", "7"], ["7", "x"])):
        rows = "".join(json.dumps({"label": value, "text": "t"}) + "\n" for value in values)
        write(tmp_path, {"t.jsonl": rows})
        path = str(tmp_path / "t.jsonl")
        whole = data.load(DataConfig(files=path, labels=names, validation_fraction=0), ROWS, seed=0)["train"]
        assert list(stream(path, labels=names)["train"]) == list(whole)


def test_a_test_split_without_labels_is_left_out_with_a_word(tmp_path, caplog):
    write(tmp_path, {"a.csv": GOOD, "b.csv": "text\nx\n", "c.csv": "text,label\nx,\n"})
    for name in ("b.csv", "c.csv"):
        streams = stream(files={"train": str(tmp_path / "a.csv"), "test": str(tmp_path / name)})
        assert list(streams) == ["train"]
    assert caplog.text.count("test: left out, for the labels are not given") == 2


def test_the_bad_inputs_are_those_of_whole_files():
    assert set(OTHERWISE) | set(LABELS) <= set(test_bad_input.CASES)
