"""Corpora from Python's own standard library: no download, and no licence question beyond Python's."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Mapping
from pydoc_data.topics import topics

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hf_llm.config import InputError
from hf_llm.data.columns import listed

# https://www.unicode.org/reports/tr44/#General_Category_Values: the first letter of the category is the major class
MAJOR_CATEGORIES = {
    "L": "Letter",
    "M": "Mark",
    "N": "Number",
    "P": "Punctuation",
    "S": "Symbol",
    "Z": "Separator",
    "C": "Other",
}

# chosen so that validation and test each have a tenth of the topics' characters, and some of the 20 separators
SALT = 51


def load(name: str) -> DatasetDict:
    """`python_docs` {text} or `unicode_names` {text, label}, each with a train, validation and test split.

    The content is that of the running Python: another version may have a few more topics or characters.

    Raises:
        InputError: no such corpus.
    """
    if name not in CORPORA:
        raise InputError(f"data.path=builtin:{name}: no such corpus; there are {listed(CORPORA, near=name)}")
    return CORPORA[name]()


def python_docs() -> DatasetDict:
    """The language reference, a document per topic ("if", "FORMATTING", …)."""
    return _split({topic: (text.strip() + "\n",) for topic, text in topics.items()}, Features(text=Value("string")))


def unicode_names() -> DatasetDict:
    """The name of each assigned character -> its major general category. Exact, and naturally imbalanced.

    Names that an algorithm makes (CJK UNIFIED IDEOGRAPH-4E00, HANGUL SYLLABLE GA, …) would be most of them, and say
    nothing: left out.
    """
    rows = {}
    for code in range(0x110000):
        name = unicodedata.name(chr(code), "")
        if name and not name.endswith(f"-{code:04X}") and not name.startswith("HANGUL SYLLABLE "):
            rows[name] = (name, MAJOR_CATEGORIES[unicodedata.category(chr(code))[0]])
    return _split(rows, Features(text=Value("string"), label=ClassLabel(names=sorted(MAJOR_CATEGORIES.values()))))


CORPORA: dict[str, Callable[[], DatasetDict]] = {"python_docs": python_docs, "unicode_names": unicode_names}


def _split(rows: Mapping[str, tuple[str, ...]], features: Features) -> DatasetDict:
    """80 % train, 10 % validation, 10 % test, by a hash of the key: the same on any machine, whatever is added."""
    splits: dict[str, list[tuple[str, ...]]] = {"train": [], "validation": [], "test": []}
    for key in sorted(rows):
        bucket = int.from_bytes(hashlib.sha256(f"{SALT} {key}".encode()).digest()[:4], "big") % 10
        splits["test" if bucket == 0 else "validation" if bucket == 1 else "train"].append(rows[key])
    return DatasetDict(
        {
            split: Dataset.from_dict(dict(zip(features, map(list, zip(*part, strict=True)), strict=True)), features)
            for split, part in splits.items()
        }
    )
