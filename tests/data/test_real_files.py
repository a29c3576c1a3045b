"""Openly licensed corpora as they come: row counts, names and splits."""

import pytest

from hf_llm import data
from hf_llm.config import DataConfig, InputError

ROWS = {"text": "text", "label": "label"}


@pytest.mark.parametrize(("name", "rows", "classes"), [("sms_spam", 4460, 2), ("csl_category", 6000, 13)])
def test_classification_files_load_whole(shared_data, name, rows, classes):
    splits = data.load(DataConfig(path=str(shared_data / "classification" / name)), ROWS, seed=0)
    assert list(splits) == ["train", "validation", "test"]
    assert len(splits["train"]) == rows
    assert len(splits["train"].features["label"].names) == classes
    assert splits["train"].features == splits["test"].features


def test_tiny_shakespeare_splits_as_nanogpt_does(shared_data):
    path = shared_data / "lm" / "tiny_shakespeare"
    text = (path / "input.txt").read_text()
    splits = data.load(DataConfig(path=str(path)), {"text": "text"}, seed=0)
    assert splits["train"][0]["text"] == text[: int(len(text) * 0.9)]
    assert splits["validation"][0]["text"] == text[int(len(text) * 0.9) :]


@pytest.mark.parametrize(
    ("name", "sample_by", "rows"), [("gutenberg_en", "line", 84108), ("chinese_sanguo", "line", 1430)]
)
def test_text_files_load_by_line(shared_data, name, sample_by, rows):
    splits = data.load(DataConfig(path=str(shared_data / "lm" / name)), {"text": "text"}, seed=0, sample_by=sample_by)
    assert {split: len(part) for split, part in splits.items()}["train"] == rows
    assert list(splits) == ["train", "validation"]


def test_a_tsv_whose_stray_quotes_would_merge_rows_is_refused(shared_data, tmp_path):
    source = data.load(DataConfig(path=str(shared_data / "classification" / "sms_spam")), ROWS, seed=0)["train"]
    raw = [text.replace("\t", " ").replace("\n", " ") for text in source["text"]]
    path = tmp_path / "sms.tsv"
    path.write_text("".join(f"{['ham', 'spam'][y]}\t{x}\n" for x, y in zip(raw, source["label"], strict=True)))
    options = {"files": str(path), "column_names": ["label", "text"], "validation_fraction": 0}
    with pytest.raises(InputError, match=r"sms.tsv, line \d+: .*data.quoting=false"):
        data.load(DataConfig(**options), ROWS, seed=0)
    again = data.load(DataConfig(**options, quoting=False), ROWS, seed=0)["train"]
    assert list(again["text"]) == raw
