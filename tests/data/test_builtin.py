"""The corpora from the standard library: exact, complete and always split alike."""

import unicodedata

import pytest

from hf_llm import data
from hf_llm.config import DataConfig


@pytest.fixture(scope="module")
def characters():
    return data.load(DataConfig(path="builtin:unicode_names"), {"text": "text", "label": "label"}, seed=0)


def test_the_language_reference_is_all_there():
    from pydoc_data.topics import topics

    docs = data.load(DataConfig(path="builtin:python_docs"), {"text": "text"}, seed=0)
    texts = [text for split in docs.values() for text in split["text"]]
    assert len(texts) == len(topics)
    assert {text.strip() for text in texts} == {text.strip() for text in topics.values()}
    assert list(docs) == ["train", "validation", "test"]


def test_each_name_has_its_characters_category(characters):
    first_letters = {"Letter": "L", "Mark": "M", "Number": "N", "Punctuation": "P", "Symbol": "S", "Separator": "Z"}
    names = characters["test"].features["label"].names
    for row in characters["test"]:
        category = unicodedata.category(unicodedata.lookup(row["text"]))
        assert category[0] == first_letters.get(names[row["label"]], "C")


def test_algorithmic_names_are_left_out_and_others_kept(characters):
    texts = {text for split in characters.values() for text in split["text"]}
    assert {"LATIN SMALL LETTER A", "EURO SIGN", "NO-BREAK SPACE", "ZERO WIDTH JOINER"} <= texts
    assert not [text for text in texts if text.startswith(("CJK UNIFIED", "HANGUL SYLLABLE", "TANGUT IDEOGRAPH"))]
    assert sum(map(len, characters.values())) == len(texts) > 30_000


def test_the_split_does_not_depend_on_the_seed(characters):
    other = data.load(DataConfig(path="builtin:unicode_names"), {"text": "text", "label": "label"}, seed=9)
    assert data.fingerprint(other) == data.fingerprint(characters)
