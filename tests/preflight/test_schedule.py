"""Batches and steps, against what Trainer, torch and accelerate make of them."""

import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, SequentialSampler
from toys import classifier, language_model
from transformers import TrainingArguments

from hf_llm import compose, preflight, train
from hf_llm.preflight import schedule


@pytest.fixture
def said(monkeypatch):
    """What each preflight found."""
    found, real = [], preflight.look
    monkeypatch.setattr(preflight, "look", lambda *args: found.append(real(*args)) or found[-1])
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gradient_accumulation_steps": 3},
        {"gradient_accumulation_steps": 3, "dataloader_drop_last": True},
        {"num_train_epochs": 1.5, "gradient_accumulation_steps": 2},
        {"max_steps": 5},
    ],
)
def test_steps_are_those_that_trainer_takes(tmp_path, said, settings):
    given = {"num_train_epochs": 2, "max_steps": -1, "per_device_train_batch_size": 7, **settings}
    run = train(compose(*classifier(tmp_path), *(f"trainer.{key}={value}" for key, value in given.items())))
    plan = said[0].schedule
    assert plan.steps == run.trainer.state.max_steps == run.trainer.state.global_step
    loader = run.trainer.get_train_dataloader()
    values = run.trainer.set_initial_training_values(run.trainer.args, loader)
    assert plan.steps_per_epoch == values[1]
    assert plan.effective_batch == run.trainer.get_total_train_batch_size(run.trainer.args)
    assert plan.epochs == pytest.approx(plan.steps / values[1])


def test_steps_with_a_carried_state_are_those_of_its_streams(tmp_path, said):
    options = [*language_model(tmp_path, "rnn"), "task.carry_state=true", "trainer.dataloader_drop_last=true"]
    sizes = ["trainer.max_steps=-1", "trainer.num_train_epochs=1", "trainer.per_device_train_batch_size=200"]
    run = train(compose(*options, *sizes))
    assert said[0].schedule.steps == run.trainer.state.global_step == 3  # 469 blocks
    assert said[0].schedule.tokens_per_step == pytest.approx(200 * 7494 / 469)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 8, 29, 32, 33, 64])
@pytest.mark.parametrize("processes", [2, 3])
def test_batches_of_several_processes_are_those_that_accelerate_deals_out(monkeypatch, rows, processes, drop_last):
    monkeypatch.setattr(TrainingArguments, "world_size", processes)
    args = TrainingArguments(
        "x", per_device_train_batch_size=4, dataloader_drop_last=drop_last, use_cpu=True, num_train_epochs=1,
        gradient_accumulation_steps=2, train_sampling_strategy="sequential",
    )  # fmt: skip
    sampler = BatchSampler(SequentialSampler(range(rows)), 4, drop_last)
    batches = len(BatchSamplerShard(sampler, processes, 0))
    plan = schedule.of(args, rows, tokens_per_row=10)
    assert plan.steps_per_epoch == -(-batches // 2)
    assert plan.effective_batch == 4 * 2 * processes
    assert plan.tokens_per_step == 80 * processes


def test_a_stream_has_the_steps_that_are_asked_for_and_no_epoch(tmp_path, said):
    options = [*language_model(tmp_path), "tokenizer=byte", "data.streaming=true", "data.validation_fraction=0"]
    train(compose(*options, "preflight=only"))
    plan = said[0].schedule
    assert (plan.steps, plan.steps_per_epoch, plan.epochs) == (4, None, None)
    assert said[0].splits["train"].rows is None
    assert plan.tokens_per_step == 4 * 16
