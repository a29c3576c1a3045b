"""Files of every format -> the task's columns, exactly as they are in the file."""

import bz2
import gzip
import http.server
import io
import json
import logging
import lzma
import re
import threading
import zipfile
from collections import Counter

import datasets
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import zstandard
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hf_llm import data
from hf_llm.config import DataConfig, InputError
from hf_llm.data import files

ROWS = {"text": "text", "label": "label"}
TEXT = {"text": "text"}
# texts that other readers turn into nulls, numbers, dates or something else
TRAPS = [
    "NA",
    "null",
    "007",
    "1e5",
    "2020-01-01",
    "True",
    "",
    'he said "hi"',
    "a,b",
    "a\nb",
    "𝔘😀 三国",
    " x ",
    "\ufeffx",
]
TRAPS.remove("")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def load(columns=ROWS, *, seed=0, sample_by="document", labels=None, splits=None, **options):
    options = {"validation_fraction": 0, **options}
    return data.load(DataConfig(**options), columns, seed=seed, sample_by=sample_by, labels=labels, splits=splits)


def csv_of(rows, delimiter=","):
    import csv

    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return out.getvalue()


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet", "arrow", "feather", "saved"])
def test_texts_survive_every_format(ending, tmp_path):
    labels = ["ham", "spam"] * 6
    path = tmp_path / f"t.{ending}"
    table = {"label": labels, "id": list(range(12)), "text": TRAPS}
    options = {"files": str(path)}
    if ending in ("csv", "tsv"):
        write(path, csv_of([list(table), *zip(*table.values(), strict=True)], "," if ending == "csv" else "\t"))
    elif ending == "jsonl":
        write(
            path,
            "".join(
                json.dumps(dict(zip(table, row, strict=True))) + "\n\n" for row in zip(*table.values(), strict=True)
            ),
        )
    elif ending == "json":
        write(
            path,
            json.dumps(
                {"version": 1, "data": [dict(zip(table, r, strict=True)) for r in zip(*table.values(), strict=True)]},
                indent=1,
            ),
        )
    elif ending == "parquet":
        pq.write_table(pa.table(table), path)
    elif ending == "arrow":
        with pa.ipc.new_stream(path, pa.table(table).schema) as sink:
            sink.write_table(pa.table(table))
    elif ending == "feather":
        path = tmp_path / "f.arrow"
        pyarrow.feather.write_feather(pa.table(table), path, compression="uncompressed")
        options = {"files": str(path)}
    else:
        DatasetDict(train=Dataset.from_dict(table)).save_to_disk(path)
        options = {"path": str(path)}
    train = load(**options)["train"]
    assert train.column_names == ["text", "label"]
    assert list(train["text"]) == TRAPS
    assert train.features["label"].int2str(list(train["label"])) == labels


@pytest.mark.parametrize("name", ["t.csv.gz", "t.csv.bz2", "t.csv.xz", "t.csv.zst", "t.zip", "gz.zip"])
def test_compressed_files_read_as_what_they_hold(name, tmp_path):
    plain = b"text,label\nx,a\ny,b\n"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("d/t.csv", plain)
        file.writestr("__MACOSX/d/._t.csv", b"junk")
    inside = io.BytesIO()
    with zipfile.ZipFile(inside, "w") as file:
        file.writestr("t.csv.gz", gzip.compress(plain))
    packed = {
        "gz.zip": inside.getvalue(),
        "t.csv.gz": gzip.compress(plain),
        "t.csv.bz2": bz2.compress(plain),
        "t.csv.xz": lzma.compress(plain),
        "t.csv.zst": zstandard.compress(plain),
        "t.zip": archive.getvalue(),
    }
    path = write(tmp_path / name, packed[name])
    assert list(load(files=path)["train"]["text"]) == ["x", "y"]
    streamed = load(files=path, streaming=True, labels=["a", "b"])["train"]
    assert [row["text"] for row in streamed] == ["x", "y"]


def test_a_changed_archive_is_read_again(tmp_path):
    for text in ("x", "y"):
        path = write(tmp_path / "t.txt.gz", gzip.compress(text.encode()))
        assert list(load(TEXT, files=path)["train"]["text"]) == [text]


def test_a_header_less_tsv_with_stray_quotes_keeps_every_row(tmp_path):
    path = write(tmp_path / "t.tsv", 'ham\t"so open\nspam\twin "now\nham\tok\n')
    options = {"column_names": ["label", "text"], "quoting": False}
    train = load(files=path, **options)["train"]
    assert list(train["text"]) == ['"so open', 'win "now', "ok"]


def test_line_breaks_between_quotes_are_kept_and_stray_quotes_refused(tmp_path):
    path = write(tmp_path / "t.tsv", 'label\ttext\nham\t"two\nlines"\nham\t5" disk\nspam\tno\n')
    assert list(load(files=path)["train"]["text"]) == ["two\nlines", '5" disk', "no"]
    for rows in ('ham\t"so open\nspam\twin "now\n', 'ham\t"so" open\nspam\tno\n'):
        path = write(tmp_path / "t.tsv", "label\ttext\n" + rows)
        with pytest.raises(InputError, match=r"line 2: a double quote is opened that is closed .*data.quoting=false"):
            load(files=path)


def test_lines_paragraphs_and_documents(tmp_path, caplog):
    path = write(tmp_path / "t.txt", "\ufeffone\r\n two \r\n\r\n \r\n\r\nthree\rfour\n")
    by = lambda sample_by: list(load(TEXT, files=path, sample_by=sample_by)["train"]["text"])  # noqa: E731
    assert by("document") == ["one\n two \n\n \n\nthree\nfour\n"]
    assert by("paragraph") == ["one\n two ", "three\nfour"]
    with caplog.at_level(logging.INFO, "hf_llm"):
        assert by("line") == ["one", " two ", "three", "four"]
    assert "train: 7 lines read, 4 used; left out: 3 blank lines" in caplog.text
    assert load(TEXT, files={"train": path}, sample_by="line")["train"].num_rows == 4


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["10", "9", "1"], ["1", "9", "10"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        ([3, 1, -1], ["-1", "1", "3"]),
        ([True, False, True], ["false", "true"]),
        ([2.0, 1.0, 2.0], ["1", "2"]),
        (["体育", "财经", "体育"], ["体育", "财经"]),
    ],
)
def test_labels_of_any_kind_are_named_and_sorted(values, names, tmp_path):
    rows = "".join(json.dumps({"label": value, "text": "x"}) + "\n" for value in values)
    train = load(files=write(tmp_path / "t.jsonl", rows))["train"]
    assert train.features["label"].names == names
    as_text = [str(v).lower() if isinstance(v, bool) else str(int(v) if isinstance(v, float) else v) for v in values]
    assert train.features["label"].int2str(list(train["label"])) == as_text


def test_class_label_names_keep_their_order_and_align_to_a_models(tmp_path):
    features = Features(text=Value("string"), label=ClassLabel(names=["z", "a", "never"]))
    Dataset.from_dict({"text": ["x", "y"], "label": [0, 1]}, features).save_to_disk(tmp_path / "d")
    train = load(path=str(tmp_path / "d"))["train"]
    assert (train.features["label"].names, list(train["label"])) == (["z", "a", "never"], [0, 1])
    train = load(path=str(tmp_path / "d"), labels=["a", "z"])["train"]
    assert (train.features["label"].names, list(train["label"])) == (["a", "z"], [1, 0])
    train = load(path=str(tmp_path / "d"), labels=["a", "never", "z"])["train"]
    assert list(train["label"]) == [2, 0]


def test_a_pair_of_texts_and_renamed_columns(tmp_path):
    path = write(tmp_path / "t.csv", "y,s2,s1\n1,b,a\n0,d,c\n")
    cfg = DataConfig(files=path, columns={"text": ["s1", "s2"], "label": "y"}, validation_fraction=0)
    train = data.load(cfg, ROWS, seed=0)["train"]
    assert train.column_names == ["text", "text_pair", "label"]
    assert train[0] == {"text": "a", "text_pair": "b", "label": 1}


def test_a_folders_splits_are_in_its_file_names_or_sub_folders(tmp_path):
    rows = "text,label\nx,a\ny,b\n"
    for name in ("my-train.csv", "sub/dev.csv", "testing/part1.csv", "testing/part2.csv", "README.md", "latest.csv"):
        write(tmp_path / name, rows)
    assert {split: len(part) for split, part in load(path=str(tmp_path)).items()} == {
        "train": 2,
        "validation": 2,
        "test": 4,
    }


def test_a_split_may_have_a_name_of_its_own(tmp_path):
    rows = "text,label\nx,a\ny,b\n"
    for name in ("train.csv", "heldout.csv"):
        write(tmp_path / name, rows)
    cfg = DataConfig(path=str(tmp_path), splits={"validation": "heldout"})
    found = data.load(cfg, ROWS, seed=0, splits=["validation"])
    assert list(found) == ["validation"]
    assert len(found["validation"]) == 2


def test_a_test_split_without_labels_is_left_out_with_a_word(tmp_path, caplog):
    train = write(tmp_path / "a.csv", "text,label\nx,a\ny,b\n")
    test = write(tmp_path / "b.csv", "text\nx\n")
    assert list(load(files={"train": train, "test": test})) == ["train"]
    assert "test: left out, for its labels are not given" in caplog.text


def test_globs_and_several_files_are_joined_in_order(tmp_path):
    for name in ("b.txt", "a.txt", "c.txt"):
        write(tmp_path / name, name)
    assert list(load(TEXT, files=str(tmp_path / "*.txt"))["train"]["text"]) == ["a.txt", "b.txt", "c.txt"]


def test_a_url_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", str(tmp_path / "cache"))
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *args: None})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0),
        lambda *args: handler(*args, directory=str(tmp_path)),  # type: ignore[arg-type]
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    write(tmp_path / "t.csv.gz", gzip.compress(b"text,label\nx,a\ny,b\n"))
    url = f"http://127.0.0.1:{server.server_port}/t.csv.gz?download=1"
    try:
        assert list(load(files=url)["train"]["text"]) == ["x", "y"]
    finally:
        server.shutdown()
        server.server_close()


def test_validation_is_carved_seeded_and_stratified(tmp_path):
    labels = ["rare"] * 10 + ["common"] * 90 + ["once"]
    path = write(
        tmp_path / "t.csv", csv_of([("text", "label"), *((f"t{i}", label) for i, label in enumerate(labels))])
    )
    first = load(files=path, validation_fraction=0.2, seed=3)
    again = load(files=path, validation_fraction=0.2, seed=3)
    other = load(files=path, validation_fraction=0.2, seed=4)
    assert list(first["validation"]["text"]) == list(again["validation"]["text"]) != list(other["validation"]["text"])
    names = first["train"].features["label"].int2str(list(first["validation"]["label"]))
    assert Counter(names) == {"common": 18, "rare": 2}
    texts = [*first["train"]["text"], *first["validation"]["text"]]
    assert sorted(texts) == sorted(f"t{i}" for i in range(101))
    kept = [int(text[1:]) for text in first["train"]["text"]]
    assert kept == sorted(kept)
    alone = load(files=path, validation_fraction=0.2, seed=3, splits=["validation"])
    assert list(alone) == ["validation"]
    assert list(alone["validation"]["text"]) == list(first["validation"]["text"])


def test_a_single_document_is_cut_where_nanogpt_cuts_it(tmp_path):
    text = "0123456789" * 7 + "三"
    both = load(TEXT, files=write(tmp_path / "t.txt", text), validation_fraction=0.1)
    assert both["train"][0]["text"] == text[: int(len(text) * 0.9)]
    assert both["train"][0]["text"] + both["validation"][0]["text"] == text


def test_limits_take_a_seeded_sample_in_order_and_may_exceed_the_data(tmp_path):
    path = write(tmp_path / "t.csv", csv_of([("text", "label"), *((f"t{i:03}", "ab"[i // 50]) for i in range(100))]))
    options = {"files": path, "validation_fraction": 0.2, "limits": {"train": 20, "val": 7, "test": 9}}
    first = load(**options)
    assert (len(first["train"]), len(first["validation"])) == (20, 7)
    for split in first.values():
        assert list(split["text"]) == sorted(split["text"])
        assert set(split["label"]) == {0, 1}  # of a file that is sorted by label
    assert list(load(**options)["train"]["text"]) == list(first["train"]["text"])
    assert list(load(**options, seed=1)["train"]["text"]) != list(first["train"]["text"])
    more = load(**{**options, "limits": {"train": 40, "validation": 1000}})
    assert set(first["train"]["text"]) < set(more["train"]["text"])
    assert (len(more["train"]), len(more["validation"])) == (40, 20)


def test_the_fingerprint_is_of_the_content_alone(tmp_path):
    rows = [("text", "label"), *((f"t{i}", "ab"[i % 2]) for i in range(50))]
    whole = load(files=write(tmp_path / "t.csv", csv_of(rows)))
    write(tmp_path / "d" / "1.tsv", csv_of(rows[:20], "\t"))
    write(tmp_path / "d" / "2.tsv", csv_of([rows[0], *rows[20:]], "\t"))
    parts = load(files=str(tmp_path / "d" / "*.tsv"))
    assert data.fingerprint(whole) == data.fingerprint(parts)
    picked = DatasetDict(train=whole["train"].select(range(49, -1, -1)).select(range(49, -1, -1)))
    assert data.fingerprint(picked) == data.fingerprint(whole)
    rows[7] = ("t", "a")
    rows[8] = ("6t7", "b")
    assert data.fingerprint(load(files=write(tmp_path / "u.csv", csv_of(rows)))) != data.fingerprint(whole)


def test_reading_for_prediction(tmp_path):
    optional = {"text": "text", "label": "label?"}
    lines = data.read(io.StringIO("one\ntwo\n"), DataConfig(), optional)
    assert (lines.column_names, list(lines["text"])) == (["text"], ["one", "two"])
    rows = data.read(io.StringIO('{"text": "x", "label": "b"}\n'), DataConfig(), optional, labels=["a", "b"])
    assert rows[0] == {"text": "x", "label": 1}
    rows = data.read(io.StringIO('{"text": "x", "label": "?"}\n'), DataConfig(), optional, labels=["a", "b"])
    assert rows.column_names == ["text"]
    rows = data.read(io.StringIO("text\nx\n"), DataConfig(format="csv"), optional)
    assert list(rows["text"]) == ["x"]
    stream = io.TextIOWrapper(io.BytesIO("三国\n".encode("gb18030")))
    assert list(data.read(stream, DataConfig(encoding="gb18030"), optional)["text"]) == ["三国"]
    path = write(tmp_path / "t.csv", "text\nx\ny\n")
    assert list(data.read(path, DataConfig(), optional)["text"]) == ["x", "y"]


@pytest.mark.parametrize(
    ("text", "line"), [("one\n\ntwo\n", "2: blank (1 such line)"), ("one\ntwo\n\r\n\n", "3: blank (2 such lines)")]
)
def test_a_blank_line_to_predict_on_is_left_out_only_where_asked(text, line, tmp_path):
    path = write(tmp_path / "new.txt", text)
    for source, where in ((path, path), (io.StringIO(text), "standard input")):
        with pytest.raises(InputError, match=re.escape(f"{where}, line {line}, and a line is a row")):
            data.read(source, DataConfig(), {"text": "text"})
    left = data.read(path, DataConfig(bad_rows="skip"), {"text": "text"})
    assert list(left["text"]) == ["one", "two"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_streamed_rows_equal_those_that_are_loaded(ending, tmp_path):
    table = {"label": ["ham", "spam"] * 6, "text": TRAPS}
    path = tmp_path / f"t.{ending}"
    if ending == "csv":
        write(path, csv_of([list(table), *zip(*table.values(), strict=True)]))
    elif ending == "jsonl":
        write(
            path,
            "".join(
                json.dumps(dict(zip(table, row, strict=True))) + "\n" for row in zip(*table.values(), strict=True)
            ),
        )
    else:
        pq.write_table(pa.table(table), path)
    cfg = DataConfig(files=str(path), streaming=True, labels=["ham", "spam"])
    streams = data.load(cfg, ROWS, seed=0)
    assert data.fingerprint(streams) is None
    assert list(streams) == ["train"]
    cfg.streaming, cfg.validation_fraction = False, 0
    loaded = data.load(cfg, ROWS, seed=0)["train"]
    assert streams["train"].features == loaded.features
    assert list(streams["train"]) == list(loaded)


def test_a_zips_members_are_told_by_their_own_names_behind_a_query(monkeypatch):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.csv", b"plain")
        file.writestr("b.csv.gz", gzip.compress(b"packed"))
    monkeypatch.setattr(files, "_opened", lambda url: io.BytesIO(archive.getvalue()))
    url = "https://example.org/t.zip?download=1"
    read = [(name, stream.read()) for name, stream in files.streams(url)]
    assert read == [(f"{url}/a.csv", b"plain"), (f"{url}/b.csv.gz", b"packed")]
