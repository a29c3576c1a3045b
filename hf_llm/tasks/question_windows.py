"""Questions with their contexts -> windows of tokens, and from logits of windows back to answers."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hf_llm.tasks.sampling import IGNORE_INDEX

CONTEXT = 1  # what a tokenizer calls the second of a pair
DROPPED = string.whitespace + "\u00a0\u200b\u200e\u200f\u3000\ufeff"  # at the edges of an answer


def windows(
    batch: dict[str, list[Any]],
    rows: list[int],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    stride: int,
    max_query_length: int,
) -> dict[str, list[Any]]:
    """`question context` in windows of at most `max_length` tokens, `stride` of the context's in common with the one
    before.

    `of_context` says which tokens are the context's, `starts` and `ends` which characters of it they are; `labels` the
    tokens in which the first of the answers begins and ends, both 0 in a window without the whole of it; ignored where
    none of the answers is known to stand in the context.
    """
    # by the tokenizer's own call, which sets truncation and padding: its backend has those of the call before
    alone = tokenizer(batch["question"], add_special_tokens=False, verbose=False).encodings
    questions = [_shortened(*pair, max_query_length) for pair in zip(batch["question"], alone, strict=True)]
    encoded = tokenizer(
        questions,
        batch["context"],
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        verbose=False,
    )
    of_row = encoded.pop("overflow_to_sample_mapping")
    columns: dict[str, list[Any]] = {name: [] for name in ("of_context", "starts", "ends", "row", "length", "labels")}
    for window, index in enumerate(of_row):
        of_context = np.array([part == CONTEXT for part in encoded.sequence_ids(window)])
        offsets = np.where(of_context[:, None], np.array(encoded["offset_mapping"][window]), -1)
        columns["of_context"].append(of_context.tolist())
        columns["starts"].append(offsets[:, 0].tolist())
        columns["ends"].append(offsets[:, 1].tolist())
        columns["row"].append(rows[index])
        columns["length"].append(len(offsets))
        if "answers" in batch:
            columns["labels"].append(_labels(offsets, batch["answers"][index]))
    if "answers" not in batch:
        del columns["labels"]
    inputs = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
    return {**inputs, **columns, "full_length": columns["length"]}


def _shortened(question: str, encoding: Any, most: int) -> str:
    """Its first `most` tokens at most, and whole words where it can be: cut, a word may be more tokens."""
    if len(encoding) <= most:
        return question
    words, kept = encoding.word_ids, most
    while kept > 1 and words[kept] == words[kept - 1]:
        kept -= 1
    return question[: encoding.offsets[(kept if kept > 1 else most) - 1][1]]


def _labels(offsets: np.ndarray, answers: dict[str, list[Any]]) -> list[int]:
    start, text = next(
        ((s, t) for s, t in zip(answers["answer_start"], answers["text"], strict=True) if s >= 0 and t), (None, "")
    )
    if start is None:
        return [IGNORE_INDEX, IGNORE_INDEX] if answers["text"] else [0, 0]
    start, end = _bare(text, start)
    starts, ends = offsets[:, 0], offsets[:, 1]
    (context,) = np.nonzero(starts >= 0)
    (inside,) = np.nonzero((starts >= 0) & (ends > start) & (starts < end))
    # characters at its edges that the tokenizer drops are in no token: it is whole if the window's text covers it
    whole = len(inside) and starts[context[0]] <= start and end <= ends[context[-1]]
    return [int(inside[0]), int(inside[-1])] if whole else [0, 0]


def _bare(text: str, start: int) -> tuple[int, int]:
    """First character and the one after the last of a text that begins at `start`, without what tokenizers drop."""
    kept = text.strip(DROPPED)
    start += text.index(kept)
    return start, start + len(kept)


class QuestionWindows(torch.utils.data.Dataset):
    """The windows of a split, and its questions.

    Args:
        encoded: what `windows` makes.
        raw: the rows that they are of.
        longest_first: in order of length, which saves padding.
    """

    def __init__(self, encoded: Dataset, raw: Dataset, longest_first: bool):
        self.encoded, self.raw = encoded, raw
        self.lengths = np.asarray(encoded["length"])
        if longest_first:
            order = np.argsort(-self.lengths, kind="stable")
            self.encoded, self.lengths = encoded.select(order), self.lengths[order]
        kept = [
            name
            for name in ("input_ids", "token_type_ids", "of_context", "labels", "row")
            if name in encoded.column_names
        ]
        self._items = self.encoded.select_columns(kept)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._items[index]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        return self._items.__getitems__(indices)


@dataclass
class Answer:
    text: str
    score: float  # its probability among the best, no answer included where that may be
    start: int  # character of the context; −1 of no answer
    end: int


@dataclass
class Found:
    """The answers to a question, best first."""

    best: list[Answer]  # scores are those without no answer
    no_answer_score: float  # how much more likely no answer is than the best one, in logits

    def ranked(self, threshold: float | None) -> list[Answer]:
        """The best and, where there is a threshold, no answer among them."""
        if threshold is None and self.best:
            return self.best
        # exp(no answer - best) to the sum of exp(each - best), which is 1 / the best one's score
        odds = math.exp(min(self.no_answer_score, 700)) * self.best[0].score if self.best else math.inf
        share = 1 - 1 / (1 + odds)
        answers = [replace(one, score=one.score * (1 - share)) for one in self.best]
        return sorted([*answers, Answer("", share, -1, -1)], key=lambda one: -one.score)

    def chosen(self, threshold: float | None) -> Answer:
        is_none = not self.best or (threshold is not None and self.no_answer_score > threshold)
        return next(one for one in self.ranked(threshold) if (one.start < 0) == is_none)


def answers(
    dataset: QuestionWindows, values: np.ndarray, places: np.ndarray, n_best: int, max_answer_length: int
) -> list[Found]:
    """The answers to each question, of all its windows.

    As in run_qa.py's `postprocess_qa_predictions`: the score of an answer is the sum of the logits of its first and
    last token, and of no answer the least of the windows' for their first token.

    Args:
        values: (windows, 2 k + 1) the k greatest logits of first tokens, those of last ones, and that of no answer.
        places: (windows, 2 k) the tokens that they are of; −1 where there are fewer.
    """
    k = places.shape[1] // 2
    rows = np.asarray(dataset.encoded["row"])
    of_question: list[list[tuple[float, int, int]]] = [[] for _ in range(len(dataset.raw))]
    none = np.full(len(dataset.raw), np.inf)
    starts, ends = dataset.encoded["starts"], dataset.encoded["ends"]
    for window, row in enumerate(rows):
        none[row] = min(none[row], values[window, 2 * k])
        first, last = places[window, :k, None], places[window, None, k:]
        good = (first >= 0) & (last >= first) & (last - first < max_answer_length)
        score = values[window, :k, None] + values[window, None, k : 2 * k]
        order = sorted(zip(*np.nonzero(good), strict=True), key=lambda pair: -score[pair])[:n_best]
        begin, end = starts[window], ends[window]
        of_question[row] += [
            (float(score[i, j]), begin[places[window, i]], end[places[window, k + j]]) for i, j in order
        ]
    contexts = dataset.raw["context"]
    return [_ranked(contexts[row], found, none[row], n_best) for row, found in enumerate(of_question)]


def _ranked(context: str, found: list[tuple[float, int, int]], none: float, n_best: int) -> Found:
    """The best of them, each place once; windows overlap and see the same answer twice."""
    kept: dict[tuple[int, int], float] = {}
    for score, start, end in sorted(found, key=lambda one: (-one[0], one[1], one[2])):
        place = _bare(context[start:end], start)  # some tokens begin with the white space before a word
        if place[0] < place[1]:
            kept.setdefault(place, score)
    best = list(kept.items())[:n_best]
    if not best:
        return Found([], np.inf)
    logits = np.array([score for _, score in best])
    weights = np.exp(logits - logits.max())
    shares = weights / weights.sum()
    ranked = [
        Answer(context[start:end], float(share), start, end)
        for ((start, end), _), share in zip(best, shares, strict=True)
    ]
    return Found(ranked, float(none - logits[0]))


def texts(found: Sequence[Found], threshold: float | None) -> list[str]:
    """What is answered to each question; "" where nothing is."""
    return [one.chosen(threshold).text for one in found]
