"""Sentences of words -> windows of sub-words, in which each word has one place where it is read off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase


@dataclass
class Window:
    """A sentence, or of one that is longer than the model takes, a part of it."""

    input_ids: list[int]
    words: list[int]  # those that are read off here, by their numbers in the sentence; each in one window only
    first: list[int]  # and where the first sub-word of each is among `input_ids`
    shown: range  # all the words that stand in it


class WordEncoder:
    """Words are joined by single spaces, so that a tokenizer sees what it sees of plain text, and sub-words belong to
    the word that their last character is of.

    A word of which the tokenizer leaves nothing (a zero-width space, say) is encoded as the unknown token: it still
    gets a tag, by its neighbours.

    Args:
        max_length: of a window, in tokens, the special ones included. A longer sentence becomes several windows with
            half of each in common; each word is read off the one where it has most context on its poorer side.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int):
        self.backend = tokenizer.backend_tokenizer
        self.prefix, self.suffix = special_tokens_around(tokenizer)
        self.room = max_length - len(self.prefix) - len(self.suffix)
        self.nothing = tokenizer.pad_token_id if tokenizer.unk_token_id is None else tokenizer.unk_token_id

    def __call__(self, sentences: Sequence[Sequence[str]], reserved: int = 0) -> list[list[Window]]:
        """The windows of each sentence; each leaves room for `reserved` more tokens."""
        return [self._windows(sentence, self.room - reserved) for sentence in self.pieces(sentences)]

    def pieces(self, sentences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        """The sub-words of each word of each sentence, one at least."""
        encodings = self.backend.encode_batch([" ".join(words) for words in sentences], add_special_tokens=False)
        return [self._pieces(words, encoding) for words, encoding in zip(sentences, encodings, strict=True)]

    def _pieces(self, words: Sequence[str], encoding: Any) -> list[list[int]]:
        """The sub-words of each word."""
        lengths = np.array([len(word) + 1 for word in words])  # with the space after it
        of_character = np.repeat(np.arange(len(words)), lengths)
        pieces: list[list[int]] = [[] for _ in words]
        for token, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
            if stop > start:
                pieces[of_character[stop - 1]].append(token)
        return [piece or [self.nothing] for piece in pieces]

    def _windows(self, pieces: list[list[int]], room: int) -> list[Window]:
        pieces = [piece[:room] for piece in pieces]
        ends = np.cumsum([len(piece) for piece in pieces])
        ranges = [range(len(pieces))] if ends[-1] <= room else _ranges(pieces, room)
        best = np.full(len(pieces), -1)
        context = np.full(len(pieces), -1)
        for number, shown in enumerate(ranges):
            for word in shown:
                left = word - shown.start if shown.start else len(pieces)  # nothing is missing before the first word
                right = shown.stop - 1 - word if shown.stop < len(pieces) else len(pieces)
                if min(left, right) > context[word]:
                    best[word], context[word] = number, min(left, right)
        windows = []
        for number, shown in enumerate(ranges):
            ids, place = list(self.prefix), {}
            for word in shown:
                place[word] = len(ids)
                ids += pieces[word]
            own = [word for word in shown if best[word] == number]
            windows.append(Window([*ids, *self.suffix], own, [place[word] for word in own], shown))
        return windows


def _ranges(pieces: list[list[int]], room: int) -> list[range]:
    """Words of windows that fit in `room`; each begins in the middle of the one before."""
    ranges, start = [], 0
    while True:
        stop, size = start, 0
        while stop < len(pieces) and size + len(pieces[stop]) <= room:
            size += len(pieces[stop])
            stop += 1
        ranges.append(range(start, stop))
        if stop == len(pieces):
            return ranges
        middle, half = start, 0
        while half + len(pieces[middle]) <= size // 2:
            half += len(pieces[middle])
            middle += 1
        start = max(middle, start + 1)


def special_tokens_around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before a text and after it: [CLS] and [SEP], say."""
    with_special = tokenizer.backend_tokenizer.encode("a", add_special_tokens=True)
    inner = [index for index, special in enumerate(with_special.special_tokens_mask) if not special]
    first, last = (inner[0], inner[-1]) if inner else (len(with_special.ids), len(with_special.ids) - 1)
    return with_special.ids[:first], with_special.ids[last + 1 :]
