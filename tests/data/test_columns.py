"""Which column of a source is the text, whatever it is called there."""

import io

import pytest

from hf_llm import data
from hf_llm.config import DataConfig, InputError

ROWS = {"text": "text", "label": "label"}
TEXT = {"text": "text"}


@pytest.mark.parametrize("columns", [{"text": 1, "label": 0}, {"text": "1", "label": "0"}])
def test_a_columns_name_may_be_a_number(columns, tmp_path):
    (tmp_path / "t.csv").write_text("0,1\na,x\nb,y\n")
    cfg = DataConfig(files=str(tmp_path / "t.csv"), columns=columns, validation_fraction=0)
    train = data.load(cfg, ROWS, seed=0)["train"]
    assert list(train["text"]) == ["x", "y"]
    assert train.features["label"].names == ["a", "b"]
    cfg.columns = {"text": [1, 0]}
    pair = data.load(cfg, TEXT, seed=0)["train"]
    assert (pair["text"][0], pair["text_pair"][0]) == ("x", "a")


@pytest.mark.parametrize("source", [True, {"a": "b"}, [1, True]])
def test_what_is_no_name_is_refused(source):
    with pytest.raises(InputError, match=r"data\.columns\.text=.*a column's name, or a list of two"):
        data.read(io.StringIO("x"), DataConfig(columns={"text": source}), TEXT)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_text_file_has_one_column_whatever_the_text_is_called_elsewhere(streaming, tmp_path):
    (tmp_path / "t.txt").write_text("hi\nthere\n")
    (tmp_path / "t.jsonl").write_text('{"message": "hi"}\n{"message": "there"}\n')
    options = {"columns": {"text": "message"}, "validation_fraction": 0, "streaming": streaming, "sample_by": "line"}
    for name in ("t.txt", "t.jsonl"):
        train = data.load(DataConfig(files=str(tmp_path / name), **options), TEXT, seed=0)["train"]
        assert [row["text"] for row in train] == ["hi", "there"]


@pytest.mark.parametrize("form", [None, "txt"])
def test_plain_standard_input_is_read_for_a_run_whose_text_has_another_name(form):
    cfg = DataConfig(columns={"text": "message"}, format=form)
    assert list(data.read(io.StringIO("hi\n"), cfg, TEXT)["text"]) == ["hi"]
    with pytest.raises(InputError, match="no column 'message'"):
        data.read(io.StringIO('{"text": "hi"}\n'), DataConfig(columns={"text": "message"}, format="jsonl"), TEXT)


def test_a_text_file_has_no_pair_of_texts_and_no_label():
    with pytest.raises(InputError, match=r"no column 'b' .*a text file has no other"):
        data.read(io.StringIO("hi\n"), DataConfig(columns={"text": ["a", "b"]}), TEXT)
    with pytest.raises(InputError, match=r"no column 'label' .*a text file has no other"):
        data.read(io.StringIO("hi\n"), DataConfig(columns={"text": "message"}), ROWS)


def test_white_space_in_a_columns_name_shows(tmp_path):
    (tmp_path / "t.csv").write_text(" text ,label\nx,a\ny,b\n")
    with pytest.raises(InputError, match=r"no column 'text' .*it has ' text ', 'label'"):
        data.load(DataConfig(files=str(tmp_path / "t.csv")), ROWS, seed=0)
