"""What a tagger must beat: each word's most frequent tag, and the names that were seen in training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from hf_llm.metrics.entities import OUTSIDE, spans

Sentences = Iterable[tuple[Sequence[str], Sequence[str]]]  # words and their tags


def most_frequent_tags(train: Sentences, sentences: Iterable[Sequence[str]]) -> list[list[str]]:
    """Each word's most frequent tag in `train`; that of all words for a word that is not there."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for words, tags in train:
        for word, tag in zip(words, tags, strict=True):
            counts[word][tag] += 1
    overall = sum(counts.values(), Counter()).most_common(1)[0][0]
    best = {word: tags.most_common(1)[0][0] for word, tags in counts.items()}
    return [[best.get(word, overall) for word in words] for words in sentences]


def seen_names(train: Sentences, sentences: Iterable[Sequence[str]]) -> list[list[str]]:
    """IOB2 tags: whatever was a name in `train` is one again, of its most frequent type; the longest first."""
    counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for words, tags in train:
        for span in spans(tags):
            counts[tuple(words[span.start : span.stop])][span.type] += 1
    names = {words: types.most_common(1)[0][0] for words, types in counts.items()}
    longest = max(map(len, names), default=0)
    return [_marked(words, names, longest) for words in sentences]


def _marked(words: Sequence[str], names: dict[tuple[str, ...], str], longest: int) -> list[str]:
    tags, start = [OUTSIDE] * len(words), 0
    while start < len(words):
        for size in range(min(longest, len(words) - start), 0, -1):
            kind = names.get(tuple(words[start : start + size]))
            if kind is not None:
                tags[start : start + size] = [f"B-{kind}", *[f"I-{kind}"] * (size - 1)]
                break
        else:
            size = 1
        start += size
    return tags
