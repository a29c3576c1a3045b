"""Orders of rows, and the rows without targets that batches are filled with."""

import itertools

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, IterableDatasetShard
from datasets import Dataset
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from toys import classifier, language_model

from hf_llm import compose, train
from hf_llm.tasks.sampling import IGNORE_INDEX, EpochSampler, FilledRows, FilledSampler, FilledStream


def dealt(sampler, batch, processes):
    """The rows of each process's batches, dealt out as accelerate does."""
    batches = BatchSampler(sampler, batch, drop_last=False)
    return [list(BatchSamplerShard(batches, processes, process)) for process in range(processes)]


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_each_row_is_in_one_batch_of_one_process_and_all_have_as_many_batches(size, batch, processes):
    rows = dealt(FilledSampler(EpochSampler(size, 4, seed=0), batch * processes), batch, processes)
    assert len({len(part) for part in rows}) == 1
    assert all(len(one) == batch for one in itertools.chain(*rows))
    real = [row for one in itertools.chain(*rows) for row in one if row >= 0]
    assert sorted(real) == list(range(size))


def test_an_order_is_of_its_seed_and_epoch_alone():
    sampler = EpochSampler(50, 4, seed=3)
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)
    assert first == again
    assert list(sampler) != first
    assert list(EpochSampler(50, 7, seed=4)) == list(sampler)  # the seed of epoch 1; the step has no say
    assert len(list(EpochSampler(50, 8, seed=3, drop_last=True))) == 48


@pytest.mark.parametrize("kind", ["map", "stream"])
def test_a_row_without_targets_keeps_its_input(kind):
    items = [{"input_ids": [i, i], "labels": i, "shift_labels": torch.tensor([i, i]), "counts": [i]} for i in range(3)]
    if kind == "map":
        rows, sampler = FilledRows(items), FilledSampler(SequentialSampler(items), 4)
        found = [rows.__getitems__(batch) for part in dealt(sampler, 2, 2) for batch in part]
        assert len(rows) == 3
    else:
        parts = [IterableDatasetShard(FilledStream(items, 4), 2, False, 2, process) for process in range(2)]
        found = [list(part) for part in parts]
    assert found[0] == items[:2]
    last, filled = found[1]
    assert last == items[2]
    assert filled["input_ids"] == [2, 2]
    assert (filled["labels"], filled["counts"]) == (IGNORE_INDEX, [0])
    assert filled["shift_labels"].tolist() == [IGNORE_INDEX] * 2


def test_rows_are_fetched_a_batch_at_a_time_as_datasets_would():
    rows = FilledRows(Dataset.from_dict({"labels": [5, 6, 7], "length": [1, 2, 3]}))
    assert rows.__getitems__([2, 0, ~0]) == [
        {"labels": 7, "length": 3}, {"labels": 5, "length": 1}, {"labels": IGNORE_INDEX, "length": 1}
    ]  # fmt: skip


class Numbers(torch.utils.data.IterableDataset):
    """Fifty-one rows; of two workers each reads every second."""

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        yield from ({"labels": i} for i in range(51) if worker is None or i % worker.num_workers == worker.id)


@pytest.mark.parametrize("workers", [0, 2])
def test_no_batch_changes_the_order_of_a_stream(workers):
    found = []
    for size in (2, 3):
        stream = FilledStream(Numbers(), size, num_workers=workers)
        rows = [label for batch in DataLoader(stream, batch_size=size) for label in batch["labels"].tolist()]
        assert len(rows) % size == 0
        found.append([label for label in rows if label != IGNORE_INDEX])
    assert found[0] == found[1]
    assert sorted(found[0]) == list(range(51))
    assert workers or found[0] == list(range(51))


def test_a_split_of_one_block_is_not_filled_up_to_a_whole_batch(tmp_path):
    run = train(compose(*language_model(tmp_path, "rnn"), "task.block_size=1000000"))
    (batch,) = run.trainer.get_eval_dataloader()
    assert batch["input_ids"].shape == (1, run.trainer.eval_dataset.num_tokens)


@pytest.mark.parametrize("arch", ["gpt2", "bert", "rnn", "fnn"])
@pytest.mark.parametrize("kind", [language_model, classifier])
def test_every_parameter_has_a_gradient_so_that_ddp_need_not_look_for_those_that_have_none(tmp_path, kind, arch):
    if (kind, arch) == (language_model, "bert"):
        pytest.skip("no causal LM here")
    trainer = train(compose(*kind(tmp_path, arch), "trainer.max_steps=1")).trainer
    assert trainer.args.ddp_find_unused_parameters is False
    trainer.model.train()
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.compute_loss(trainer.model, batch).backward()
    assert [name for name, p in trainer.model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("arch", ["gpt2", "bert", "rnn", "fnn"])
@pytest.mark.parametrize("count", [None, torch.tensor(0)])
def test_a_batch_of_rows_without_targets_adds_nothing(tmp_path, arch, count):
    trainer = train(compose(*classifier(tmp_path, arch), "trainer.max_steps=1")).trainer
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    batch["labels"] = torch.full_like(batch["labels"], IGNORE_INDEX)
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=count)
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad.any() for p in trainer.model.parameters())
