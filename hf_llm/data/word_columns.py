"""Which column of CoNLL's holds the words: one that counts them (1, 2, 3, …) or names the document does not."""

from __future__ import annotations

import re
from collections.abc import Sequence

Words = Sequence[Sequence[str]]  # of a sentence, the fields of each word
INSIDE = re.compile(r"\d+[-.]\d+")  # of CoNLL-U: 1-2 is a range of words, 8.1 an empty node; neither is a word
TAG = re.compile(r"O|[BIESLUM]-.+")
CONLLU_WIDTH = 10


def counts(sentences: Sequence[Words], column: int) -> bool:
    """Whether a column counts the words of each sentence, from 0 or 1 on."""
    words = 0
    for sentence in sentences:
        numbers = [fields[column].strip() for fields in sentence if column < len(fields)]
        numbers = [number for number in numbers if not INSIDE.fullmatch(number)]
        if not all(number.isdecimal() for number in numbers) or len(numbers) < 1:
            return False
        first = int(numbers[0])
        if first > 1 or [int(number) for number in numbers] != list(range(first, first + len(numbers))):
            return False
        words += len(numbers)
    return words > max(2, len(sentences))  # sentences of one word each say nothing


def without_ranges(sentence: Words) -> list[tuple[int, Sequence[str]]]:
    """The words, with their places, that are no ranges and empty nodes by their first column."""
    return [(place, fields) for place, fields in enumerate(sentence) if not INSIDE.fullmatch(fields[0].strip())]


def is_constant(sentences: Sequence[Words], column: int) -> bool:
    """Whether a column has one value in each sentence, as the name of a document."""
    longer = [sentence for sentence in sentences if len(sentence) > 1]
    return len(longer) > 1 and all(len({fields[column] for fields in sentence}) == 1 for sentence in longer)


def refusal(sentences: Sequence[Words], words: int, tags: int | None, tags_are_default: bool) -> str | None:
    """What is wrong with the columns that words and tags are read from, with those that may be right; None if nothing.

    Args:
        words, tags: numbers of columns; no tags where none are asked for.
        tags_are_default: nobody has said that they are the tags.
    """
    if counts(sentences, words):
        wrong = f"column {words} counts the words (1, 2, 3, …) and holds none"
    elif is_constant(sentences, words):
        wrong = f"column {words} has the same value for each word of a sentence ({sentences[0][0][words]!r}, …)"
    elif tags is not None and tags_are_default and counts(sentences, 0) and _is_conllu(sentences):
        wrong = f"column {tags} has the remarks of CoNLL-U's last column (MISC), and no tags"
    else:
        return None
    kept = None if tags is None or tags_are_default else tags
    proposal = propose(sentences, kept) if tags is not None else {"words": propose(sentences, None)["words"]}
    columns = ", ".join(f"{name}: {place}" for name, place in proposal.items())
    conllu = ", or data.format=conllu" if _is_conllu(sentences) else ""
    return f"{wrong}; give data.columns={{{columns}}}{conllu} (columns are numbered from 0)"


def propose(sentences: Sequence[Words], tags: int | None) -> dict[str, int]:
    """The columns that look like words and like tags."""
    width = min(len(fields) for sentence in sentences for fields in sentence)
    if _is_conllu(sentences) and counts(sentences, 0):
        return {"words": 1, "tags": 3 if tags is None else tags}
    values = {place: [fields[place] for sentence in sentences for fields in sentence] for place in range(width)}
    texts = [
        place
        for place, column in values.items()
        if not counts(sentences, place) and not is_constant(sentences, place) and _share(column, _is_text) > 0.5
    ]
    different = {place: len(set(values[place])) for place in texts}
    words = next((place for place in texts if different[place] >= max(different.values()) / 2), min(1, width - 1))
    others = [place for place in texts if place != words]
    spans = [place for place in others if all(TAG.fullmatch(tag) for tag in values[place]) and different[place] > 1]
    if tags is None:
        few = sorted(others, key=lambda place: (different[place], place))
        tags = next(iter([*spans, *(place for place in few if different[place] > 1), *others, width - 1]))
    return {"words": words, "tags": tags}


def _is_conllu(sentences: Sequence[Words]) -> bool:
    return len(sentences[0][0]) == CONLLU_WIDTH


def _share(column: Sequence[str], is_such: object) -> float:
    return sum(map(is_such, column)) / len(column)  # type: ignore[call-overload]


def _is_text(value: str) -> bool:
    return any(character.isalpha() for character in value) and "=" not in value
