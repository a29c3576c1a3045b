import itertools
import random

from hf_llm.tasks.sampling import LengthGroupedSteps

RANDOM = random.Random(0)
LENGTHS = [RANDOM.randint(3, 90) for _ in range(1003)]


def batches(sampler, size=8):
    rows = list(sampler)
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def test_every_row_is_drawn_once_and_a_shorter_batch_comes_last():
    drawn = batches(LengthGroupedSteps(LENGTHS, 8, seed=1))
    assert sorted(itertools.chain(*drawn)) == list(range(len(LENGTHS)))
    assert [len(batch) for batch in drawn] == [8] * 125 + [3]


def test_a_batch_is_of_like_length_and_the_batches_are_in_no_order_of_length():
    drawn = batches(LengthGroupedSteps(LENGTHS, 8, seed=1))
    padded = sum(max(LENGTHS[row] for row in batch) * len(batch) for batch in drawn)
    assert padded < 1.15 * sum(LENGTHS)
    longest = [max(LENGTHS[row] for row in batch) for batch in drawn]
    falls = sum(a >= b for a, b in itertools.pairwise(longest))
    assert 0.35 < falls / len(longest) < 0.65  # transformers' own: 0.97


def test_each_epoch_has_its_own_order_and_the_seed_decides_it():
    sampler, again = LengthGroupedSteps(LENGTHS, 8, seed=1), LengthGroupedSteps(LENGTHS, 8, seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    again.set_epoch(1)
    assert list(sampler) == list(again) != first
