"""Constrained decoding, against every tagging there is."""

import itertools

import pytest
import torch

from hf_llm.tasks.viterbi import bio_transitions, viterbi

TAGS = ["O", "B-A", "I-A", "B-B", "I-B"]
START, AFTER = bio_transitions(TAGS)


def allowed(tags) -> bool:
    before = "O"
    for tag in tags:
        if tag.startswith("I-") and before[2:] != tag[2:]:
            return False
        before = tag
    return True


def test_an_inside_tag_follows_only_its_own_role():
    for before, after in itertools.product(TAGS, TAGS):
        assert bool(AFTER[TAGS.index(before), TAGS.index(after)]) == allowed([before.replace("I-", "B-"), after])
    assert [tag for tag, may in zip(TAGS, START, strict=True) if may] == ["O", "B-A", "B-B"]


@pytest.mark.parametrize("seed", range(5))
def test_it_finds_the_best_of_all_allowed_taggings(seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = [4, 1, 3, 2]
    scores = torch.randn(4, 4, len(TAGS), generator=generator).log_softmax(-1)
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    paths = viterbi(scores, mask, START, AFTER)
    for row, length in enumerate(lengths):
        candidates = [
            path for path in itertools.product(range(len(TAGS)), repeat=length) if allowed([TAGS[tag] for tag in path])
        ]
        best = max(candidates, key=lambda path: sum(scores[row, word, tag].item() for word, tag in enumerate(path)))
        assert tuple(paths[row, :length].tolist()) == best


def test_padding_changes_nothing():
    scores = torch.randn(3, 5, len(TAGS), generator=torch.Generator().manual_seed(1))
    alone = viterbi(scores[:1, :2], torch.ones(1, 2, dtype=torch.bool), START, AFTER)
    mask = torch.arange(5) < torch.tensor([2, 5, 4])[:, None]
    assert viterbi(scores, mask, START, AFTER)[0, :2].tolist() == alone[0].tolist()


def test_no_words_have_no_tags():
    assert viterbi(torch.zeros(2, 0, 5), torch.zeros(2, 0, dtype=torch.bool), START, AFTER).shape == (2, 0)
