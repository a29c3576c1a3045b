import random

import pytest
import torch
from datasets import Dataset, concatenate_datasets

from hf_llm.tasks.packing import IGNORE_INDEX, PackedBlocks, collate, stream_blocks

EOS = 0


def corpus(lengths, seed=0):
    """Documents of random tokens, each ended by EOS, as `tasks.causal_lm` makes them."""
    rng = random.Random(seed)
    documents = [[rng.randint(5, 99) for _ in range(length)] + [EOS] for length in lengths]
    rows = [
        {"input_ids": tokens, "num_words": len(tokens), "num_bytes": 3 * len(tokens), "num_unknown": 1}
        for tokens in documents
    ]
    return Dataset.from_list(rows), [token for tokens in documents for token in tokens]


@pytest.mark.parametrize("block_size", [1, 4, 7, 1000])
def test_every_token_is_a_target_once_and_in_order(block_size):
    documents, tokens = corpus([5, 1, 0, 17, 3, 8])
    blocks = PackedBlocks(documents, block_size, EOS)
    assert torch.cat([block["shift_labels"] for block in blocks]).tolist() == tokens
    assert torch.cat([block["input_ids"] for block in blocks]).tolist() == [EOS, *tokens[:-1]]
    assert all(len(block["input_ids"]) == block_size for block in list(blocks)[:-1])
    assert len(blocks) == -(-len(tokens) // block_size)
    assert blocks.num_tokens == len(tokens)


def test_blocks_reach_over_the_chunks_of_the_table():
    first, tokens = corpus([50, 9], seed=1)
    second, more = corpus([4, 31], seed=2)
    joined = concatenate_datasets([first, second])
    assert len(joined.data.column("input_ids").chunks) > 1
    blocks = PackedBlocks(joined, 8, EOS)
    assert torch.cat([block["shift_labels"] for block in blocks]).tolist() == tokens + more


def test_a_selection_of_documents_is_packed_as_selected():
    documents, _ = corpus([5, 6, 7])
    blocks = PackedBlocks(documents.select([2, 0]), 4, EOS)
    expected = documents[2]["input_ids"] + documents[0]["input_ids"]
    assert torch.cat([block["shift_labels"] for block in blocks]).tolist() == expected


def test_words_and_bytes_are_counted_once_in_whatever_blocks():
    documents, tokens = corpus([5, 1, 0, 17, 3, 8])
    for block_size in (1, 6, 100):
        blocks = PackedBlocks(documents, block_size, EOS, count_text=True)
        total = sum(block["counts"] for block in blocks)
        assert total.tolist() == [len(tokens), 3 * len(tokens), len(documents)]


def test_a_stream_gives_the_same_blocks():
    documents, _ = corpus([5, 1, 0, 17, 3, 8])
    for block_size in (1, 4, 7, 1000):
        blocks = PackedBlocks(documents, block_size, EOS, count_text=True)
        streamed = list(stream_blocks(iter(documents), block_size, EOS))
        for block, packed in zip(streamed, blocks, strict=True):
            size = len(packed["input_ids"])
            assert block["input_ids"][:size] == packed["input_ids"].tolist()
            assert block["shift_labels"] == packed["shift_labels"].tolist() + [IGNORE_INDEX] * (block_size - size)
        assert sum(block["counts"][1] for block in streamed) == sum(int(block["counts"][1]) for block in blocks)


@pytest.mark.parametrize("context", [1, 4, 9, 1000])
@pytest.mark.parametrize("block_size", [1, 4, 7, 1000])
def test_a_block_is_read_after_its_context_which_is_no_target_again(block_size, context):
    documents, tokens = corpus([5, 1, 0, 17, 3, 8])
    blocks = PackedBlocks(documents, block_size, EOS, count_text=True, context=context)
    streamed = list(stream_blocks(iter(documents), block_size, EOS, context=context))
    text, targets = [EOS, *tokens], []
    for index, (packed, block) in enumerate(zip(blocks, streamed, strict=True)):
        start, stop = index * block_size, min((index + 1) * block_size, len(tokens))
        before = min(context, start)
        assert packed["input_ids"].tolist() == text[start - before : stop]
        assert packed["shift_labels"].tolist() == [IGNORE_INDEX] * before + tokens[start:stop]
        size = len(packed["input_ids"])
        assert block["input_ids"][:size] == packed["input_ids"].tolist()
        missing = [IGNORE_INDEX] * (context + block_size - size)
        assert block["shift_labels"] == packed["shift_labels"].tolist() + missing
        targets += tokens[start:stop]
    assert targets == tokens
    assert sum(block["counts"][1] for block in streamed) == sum(int(block["counts"][1]) for block in blocks)


def test_a_start_token_that_the_tokenizer_put_is_input_but_never_a_target():
    documents = Dataset.from_list([{"input_ids": [1, 7, 8, 2], "num_words": 2, "num_bytes": 3, "num_unknown": 0}] * 2)
    blocks = PackedBlocks(documents, 100, eos_token_id=2, bos_token_id=1)
    assert blocks[0]["input_ids"].tolist() == [2, 1, 7, 8, 2, 1, 7, 8]
    assert blocks[0]["shift_labels"].tolist() == [IGNORE_INDEX, 7, 8, 2, IGNORE_INDEX, 7, 8, 2]


def test_the_short_last_block_is_padded_without_loss():
    documents, tokens = corpus([9])
    blocks = PackedBlocks(documents, 6, EOS)
    batch = collate(list(blocks))
    assert batch["input_ids"].shape == batch["shift_labels"].shape == (2, 6)
    assert (batch["shift_labels"] != IGNORE_INDEX).sum() == len(tokens)
    assert batch["labels"] is batch["input_ids"]
