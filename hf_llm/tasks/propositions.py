"""A sentence and one of its predicates -> what a model reads, with the predicate marked in one of three ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase

from hf_llm.config import InputError
from hf_llm.data.predicates import sentences
from hf_llm.tasks.words import WordEncoder

if TYPE_CHECKING:
    from datasets import Dataset

MARKERS = ("<V>", "</V>")  # around the predicate, as tokens of their own
UNREAD = -1  # in the place of a word's first sub-word, where a sentence is too long for all of it to be read
NO_PREDICATE = -1  # of an example in which the predicates themselves are to be found


class PropositionEncoder:
    """Sentences with a predicate, each as one input; and sentences without, as `WordEncoder` reads them.

    Args:
        max_length: tokens of an input. Of a longer sentence the words nearest to the predicate are read.
        marking: `markers` stand around the predicate; `segment_ids` are 1 at its sub-words and 0 elsewhere (as He et
            al. 2017 mark it, by an embedding); `sep_predicate` says it again behind the sentence, as BERT's second
            segment (Shi and Lin 2019).

    Raises:
        InputError: the tokenizer lacks the tokens that `marking` needs.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, marking: str):
        self.marking = marking
        self.plain = WordEncoder(tokenizer, max_length)
        self.around: list[int] = []
        if marking == "markers":
            vocabulary = tokenizer.get_vocab()
            if not set(MARKERS) <= set(vocabulary):
                raise InputError(
                    f"task.predicate_marking=markers: the tokenizer has no {MARKERS[0]}, so the model was trained "
                    "with another marking; set it to segment_ids or sep_predicate"
                )
            self.around = [vocabulary[marker] for marker in MARKERS]
        self.separator = (
            self.plain.suffix
            or [token for token in (tokenizer.sep_token_id, tokenizer.eos_token_id) if token is not None][:1]
        )
        if marking == "sep_predicate" and not self.separator:
            raise InputError("task.predicate_marking=sep_predicate: the tokenizer has no sep token; use markers")

    def __call__(self, words: Sequence[Sequence[str]], predicates: Sequence[int]) -> list[dict[str, list[int]]]:
        """Of each `input_ids`, `token_type_ids` where the marking makes them, and for each word the place of its
        `first` sub-word among the ids, or `UNREAD`."""
        pieces = self.plain.pieces(words)
        return [self._example(*example) for example in zip(pieces, predicates, strict=True)]

    def _example(self, pieces: list[list[int]], predicate: int) -> dict[str, list[int]]:
        own = pieces[predicate]
        said_again = [*own, *self.separator] if self.marking == "sep_predicate" else []
        room = max(self.plain.room - len(self.around) - len(said_again), 1)
        shown = nearest([len(piece) for piece in pieces], predicate, room)
        ids, types, first = list(self.plain.prefix), [0] * len(self.plain.prefix), [UNREAD] * len(pieces)
        for word in shown:
            is_predicate = word == predicate
            before, after = (self.around[:1], self.around[1:]) if is_predicate else ([], [])
            first[word] = len(ids) + len(before)
            here = [*before, *pieces[word][:room], *after]
            ids += here
            types += [int(is_predicate and self.marking == "segment_ids")] * len(here)
        end = self.separator if said_again else self.plain.suffix
        ids, types = [*ids, *end, *said_again], [*types, *[0] * len(end), *[1] * len(said_again)]
        if self.marking == "markers":
            return {"input_ids": ids, "first": first}
        return {"input_ids": ids, "token_type_ids": types, "first": first}


def nearest(sizes: Sequence[int], middle: int, room: int) -> range:
    """The words around one of them, as many on both sides, whose sizes add up to no more than `room`."""
    if sum(sizes) <= room:
        return range(len(sizes))
    start, stop, left = middle, middle + 1, room - sizes[middle]
    can_grow = True
    while can_grow:
        can_grow = False
        if start > 0 and sizes[start - 1] <= left:
            start, left, can_grow = start - 1, left - sizes[start - 1], True
        if stop < len(sizes) and sizes[stop] <= left:
            stop, left, can_grow = stop + 1, left - sizes[stop], True
    return range(start, stop)


def examples(raw: Dataset, identify: bool, tag_ids: tuple[int, int] | None) -> dict[str, list[Any]]:
    """What of `raw` becomes inputs, as columns: each row that has a predicate, then where the predicates are to be
    found, each sentence once, with `predicate` = `NO_PREDICATE`.

    Args:
        tag_ids: those of O and B-V, where the rows have tags; else of the sentences only those are read of which no
            predicate is given.
    """
    words, predicates = raw["words"][:], raw["predicate"][:] if "predicate" in raw.column_names else [None] * len(raw)
    rows = [row for row, predicate in enumerate(predicates) if predicate is not None]
    columns: dict[str, list[Any]] = {
        "words": [words[row] for row in rows],
        "predicate": [predicates[row] for row in rows],
        "row": list(rows),
        "example": list(rows),
    }
    if tag_ids:
        tags = raw["tags"][:]
        columns["tags"] = [tags[row] for row in rows]
    for sentence in sentences(words, predicates) if identify else ():
        if sentence.predicates and not tag_ids:
            continue
        columns["words"].append(sentence.words)
        columns["predicate"].append(NO_PREDICATE)
        columns["row"].append(sentence.row)
        columns["example"].append(len(words) + sentence.row)
        if tag_ids:
            here = set(sentence.predicates)
            columns["tags"].append([tag_ids[word in here] for word in range(len(sentence.words))])
    return columns
