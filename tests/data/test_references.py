"""Columns of several texts, and columns inside others: every format gives the same rows, and a bad one is named."""

import json

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features, List, Translation, Value

from hf_llm import data
from hf_llm.config import DataConfig, InputError

COLUMNS = {"source": "text", "target": "texts"}
PAIRS = [("a cat", "猫"), ("two\ndogs", "两只狗"), ("NA", "007")]
NESTED = {"source": "translation.en", "target": "translation.zh"}


def load(**options):
    return data.load(DataConfig(**{"validation_fraction": 0, **options}), COLUMNS, seed=0)["train"]


def write_lines(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_every_format_of_pairs_gives_lists_of_one_text(tmp_path):
    rows = [{"source": source, "target": target} for source, target in PAIRS]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "a.parquet")
    pa.feather.write_feather(table, str(tmp_path / "a.arrow"))
    write_lines(tmp_path / "a.jsonl", rows)
    (tmp_path / "a.json").write_text(json.dumps({"data": rows}))
    (tmp_path / "a.csv").write_text("source,target\n" + "".join(f'"{s}",{t}\n' for s, t in PAIRS))
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    found = [load(files={"train": str(tmp_path / f"a.{end}")}) for end in ("parquet", "arrow", "jsonl", "json", "csv")]
    found.append(load(path=str(tmp_path / "saved")))
    for dataset in found:
        assert dataset.features == Features({"source": Value("string"), "target": List(Value("string"))})
        assert [(row["source"], row["target"]) for row in dataset] == [(s, [t]) for s, t in PAIRS]
    assert len({data.fingerprint(dataset) for dataset in found}) == 1


def test_texts_and_lists_of_texts_may_alternate_in_json(tmp_path):
    rows = [{"source": "a", "target": ["x", "y"]}, {"source": "b", "target": "z"}]
    assert list(load(files={"train": write_lines(tmp_path / "a.jsonl", rows)})["target"]) == [["x", "y"], ["z"]]


def test_lists_of_texts_come_from_tables_and_the_hub_too(tmp_path):
    rows = [{"source": "a", "target": ["x", "y"]}, {"source": "b", "target": ["z"]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    for dataset in (load(files={"train": str(tmp_path / "a.parquet")}), load(path=str(tmp_path / "saved"))):
        assert list(dataset) == rows


def test_fields_of_an_object_are_columns(tmp_path):
    rows = [{"id": i, "translation": {"en": source, "zh": target}} for i, (source, target) in enumerate(PAIRS)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    features = Features({"id": Value("int64"), "translation": Translation(languages=["en", "zh"])})
    DatasetDict({"train": Dataset.from_list(rows, features=features)}).save_to_disk(str(tmp_path / "saved"))
    write_lines(tmp_path / "a.jsonl", rows)
    sources = [{"files": {"train": str(tmp_path / f"a.{end}")}} for end in ("parquet", "jsonl")]
    for source in [*sources, {"path": str(tmp_path / "saved")}]:
        dataset = load(**source, columns=NESTED)
        assert [(row["source"], row["target"]) for row in dataset] == [(s, [t]) for s, t in PAIRS]


def test_a_column_whose_own_name_has_a_dot_is_found(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"translation.en": "a", "translation": {"en": "b"}, "zh": "c"}])
    assert load(files={"train": path}, columns={"source": "translation.en", "target": "zh"})[0]["source"] == "a"


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        (None, "row 2: null in column 'target'"),
        ([], "row 2: no text in column 'target'"),
        (["x", None], "row 2: null in column 'target'"),
        (["x", " "], "row 2: empty text in column 'target'"),
        ("", "row 2: empty text in column 'target'"),
    ],
)
def test_a_row_without_texts_is_named_or_left_out_and_counted(target, problem, tmp_path, caplog):
    rows = [{"source": "a", "target": "x"}, {"source": "b", "target": target}, {"source": "c", "target": ["y"]}]
    path = write_lines(tmp_path / "a.jsonl", rows)
    with pytest.raises(InputError, match=problem):
        load(files={"train": path})
    caplog.set_level("INFO")
    assert list(load(files={"train": path}, bad_rows="skip")["source"]) == ["a", "c"]
    assert f"left out: 1 {problem.removeprefix('row 2: ')}" in caplog.text


@pytest.mark.parametrize(
    ("target", "problem"),
    [(3, "holds a number; give a text"), (["x", 3], "holds a number in its list"), ({"zh": "x"}, "holds an object")],
)
def test_what_is_no_text_is_named(target, problem, tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"source": "a", "target": "x"}, {"source": "b", "target": target}])
    with pytest.raises(InputError, match=f"row 2: column 'target' {problem}"):
        load(files={"train": path})


def test_a_table_of_numbers_is_refused(tmp_path):
    pq.write_table(pa.table({"source": ["a"], "target": [[1]]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"column 'target' holds list<.*>, not a text or a list of texts"):
        load(files={"train": str(tmp_path / "a.parquet")})


def test_a_field_that_is_not_there_is_named_with_those_that_are(tmp_path):
    pq.write_table(pa.Table.from_pylist([{"translation": {"en": "a", "zh": "b"}}]), tmp_path / "a.parquet")
    with pytest.raises(
        InputError, match=r"no column 'translation.de' for data.columns.target; it has 'translation.en'"
    ):
        load(files={"train": str(tmp_path / "a.parquet")}, columns={**NESTED, "target": "translation.de"})


def test_streams_are_refused(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"source": "a", "target": "x"}])
    with pytest.raises(InputError, match="target cannot be streamed, only texts and labels"):
        load(files={"train": path}, streaming=True)
