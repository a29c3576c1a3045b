"""The best BIO tagging, not the best tag of each word: an `I-X` may only follow `B-X` or `I-X`.

B: sentences, W: words, C: tags.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

FORBIDDEN = -1e4  # far below any log-probability, and finite: where all is forbidden, the least bad is still found


def bio_transitions(tags: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Which tags a sentence may begin with (C,), and which may come after which (C, C): [before, after], bool."""
    inside = [tag[2:] if tag.startswith("I-") else None for tag in tags]
    start = torch.tensor([role is None for role in inside])
    after = torch.tensor(
        [[role is None or before in (f"B-{role}", f"I-{role}") for role in inside] for before in tags]
    )
    return start, after


def viterbi(scores: torch.Tensor, mask: torch.Tensor, start: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """The tagging with the highest sum of scores among those allowed (Viterbi 1967), for each sentence of a batch.

    Args:
        scores: (B, W, C) of each tag at each word, such as log-probabilities.
        mask: (B, W) bool, the words that are there, those of a sentence before its padding.
        start, after: as `bio_transitions` makes them.

    Returns:
        Tag ids (B, W); those beyond a sentence's end mean nothing.
    """
    B, W, C = scores.shape
    if not W:
        return torch.zeros(B, 0, dtype=torch.long, device=scores.device)
    step = torch.zeros(after.shape, device=scores.device).masked_fill(~after.to(scores.device), FORBIDDEN)
    first = torch.zeros(C, device=scores.device).masked_fill(~start.to(scores.device), FORBIDDEN)
    same = torch.arange(C, device=scores.device).expand(B, C)
    best = scores[:, 0].float() + first  # (B, C): of taggings that end in a tag
    back = []
    for word in range(1, W):
        score, before = (best[:, :, None] + step).max(dim=1)  # (B, C)
        there = mask[:, word, None]
        best = torch.where(there, score + scores[:, word], best)
        back.append(torch.where(there, before, same))
    tag = best.argmax(dim=1)
    path = [tag]
    for before in reversed(back):
        tag = before.gather(1, tag[:, None])[:, 0]
        path.append(tag)
    return torch.stack(path[::-1], dim=1)
