"""Truncated back-propagation through time, against plain torch; its layout, and what it cannot be done with."""

import copy
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from accelerate.data_loader import BatchSamplerShard
from conftest import ROOT, overrides
from datasets import Dataset
from safetensors.torch import load_file
from torch.utils.data import BatchSampler, SequentialSampler
from toys import language_model
from transformers import AutoConfig, AutoModelForCausalLM, TrainingArguments

from hf_llm import InputError, compose, evaluate, tasks, train
from hf_llm.models import fnn, rnn  # noqa: F401 (registers rnn and fnn)
from hf_llm.tasks.packing import IGNORE_INDEX, PackedBlocks, collate
from hf_llm.tasks.streams import BlockStreams

EOS, V, T, ROWS = 0, 31, 5, 4
TOKENS = torch.randint(1, V, (103,), generator=torch.Generator().manual_seed(0)).tolist()  # 21 blocks, the last of 3
BY_HAND = [(0, 6), (6, 11), (11, 16), (16, 21)]  # the blocks of each of four streams
STEPS = 6  # batches in an epoch
ARCHITECTURES = {
    "lstm": ("rnn", {"cell": "lstm"}),
    "gru": ("rnn", {"cell": "gru"}),
    "fnn": ("fnn", {"window": 8}),
    "fnn, global": ("fnn", {"window": 3, "global_context": True, "num_hidden_layers": 2}),
}


def blocks(tokens=TOKENS, block_size=T):
    row = {"input_ids": tokens, "num_words": 1, "num_bytes": 1, "num_unknown": 0}
    return PackedBlocks(Dataset.from_list([row]), block_size, EOS)


def built(arch="rnn", **fields):
    torch.manual_seed(0)
    sizes = {"vocab_size": V, "hidden_size": 12, "embedding_size": 8, "residual": False, "dropout": 0.0}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(arch, **{**sizes, **fields}))


def trainer_of(model, folder, *, fused=True, **settings):
    """The task's own Trainer: plain SGD, `ROWS` rows, every step's loss in the log."""
    plain = {"optim": "sgd", "lr_scheduler_type": "constant", "learning_rate": 0.5, "max_grad_norm": 0.0}
    quiet = {"report_to": "none", "save_strategy": "no", "logging_steps": 1, "use_cpu": True, "disable_tqdm": True}
    size = {"per_device_train_batch_size": ROWS, "num_train_epochs": 1}
    args = TrainingArguments(str(folder), remove_unused_columns=False, **{**plain, **quiet, **size, **settings})
    task = tasks.get({"name": "causal_lm", "block_size": T, "carry_state": True})
    return task.trainer(model, args, {"train": blocks()}, None, fused=fused)


def losses(trainer):
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def streams_by_hand():
    """(inputs, targets) of each stream, cut out of the tokens without the code under test."""
    text = [EOS, *TOKENS]
    parts = [text[T * first : min(T * last, len(TOKENS)) + 1] for first, last in BY_HAND]
    return [(torch.tensor(part[:-1]), torch.tensor(part[1:])) for part in parts]


@pytest.mark.parametrize("rows", [1, 2, 4, 5, 21, 30])
@pytest.mark.parametrize("block_size", [1, T, 200])
def test_every_token_is_a_target_once_and_in_order_within_its_row(rows, block_size):
    corpus = blocks(block_size=block_size)
    streams = BlockStreams(corpus, rows)
    items = [streams[index] for index in range(len(streams))]
    assert len(items) % rows == 0
    assert [item["position"] for item in items] == [index // rows for index in range(len(items))]
    read = [torch.cat([item["shift_labels"] for item in items[row::rows]]) for row in range(rows)]
    assert [token for row in read for token in row.tolist() if token != IGNORE_INDEX] == TOKENS
    sizes = [-(-int((row != IGNORE_INDEX).sum()) // block_size) for row in read]
    assert sum(sizes) == len(corpus)
    assert max(sizes) - min(sizes) <= 1
    for item in items:
        assert item["attention_mask"].equal(item["shift_labels"] != IGNORE_INDEX)


def test_row_r_of_batch_t_is_block_t_of_stream_r():
    streams = BlockStreams(blocks(), ROWS)
    batches = [collate([streams[i] for i in range(t * ROWS, (t + 1) * ROWS)]) for t in range(STEPS)]
    for row, (inputs, targets) in enumerate(streams_by_hand()):
        size = len(inputs)
        assert torch.cat([batch["input_ids"][row] for batch in batches])[:size].equal(inputs)
        read = torch.cat([batch["shift_labels"][row] for batch in batches])
        assert read[:size].equal(targets)
        assert (read[size:] == IGNORE_INDEX).all()
    assert ["attention_mask" in batch for batch in batches] == [False] * 4 + [True] * 2
    assert batches[5]["attention_mask"].any(1).tolist() == [True, False, False, False]


@pytest.mark.parametrize("processes", [2, 4])
def test_each_process_keeps_its_rows(processes):
    streams = BlockStreams(blocks(), ROWS)
    batches = BatchSampler(SequentialSampler(streams), ROWS // processes, drop_last=False)
    shards = [list(BatchSamplerShard(batches, processes, process)) for process in range(processes)]
    assert [list(itertools.chain(*parts)) for parts in zip(*shards, strict=True)] == [
        list(range(t * ROWS, (t + 1) * ROWS)) for t in range(STEPS)
    ]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_losses_and_weights_are_those_of_a_plain_torch_loop(tmp_path, fused, accumulation):
    model = built(num_hidden_layers=2)
    start = copy.deepcopy(model.state_dict())
    settings = {"num_train_epochs": 2, "gradient_accumulation_steps": accumulation}
    found = losses(trainer_of(model, tmp_path, fused=fused, **settings))

    embedding, head = torch.nn.Embedding(V, 8), torch.nn.Linear(12, V)
    lstm = torch.nn.LSTM(8, 12, num_layers=2, batch_first=True)
    parts = {"model.embed_tokens": embedding, "lm_head": head}
    for name, module in parts.items():
        module.load_state_dict({key: start[f"{name}.{key}"] for key in module.state_dict()})
    cells = {f"{kind}_l{i}": start[f"model.layers.{i}.cell.{kind}_l0"] for i in (0, 1) for kind in
             ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}  # fmt: skip
    lstm.load_state_dict(cells)
    sgd = torch.optim.SGD([*embedding.parameters(), *head.parameters(), *lstm.parameters()], lr=0.5)
    rows = streams_by_hand()
    expected = []
    for _ in range(2):
        states = [(torch.zeros(2, 1, 12), torch.zeros(2, 1, 12)) for _ in rows]
        for step in range(0, STEPS, accumulation):
            total, count = 0.0, 0
            for block in range(step, step + accumulation):
                for row, (inputs, targets) in enumerate(rows):  # each row by itself: there is no padding
                    piece = slice(T * block, T * (block + 1))
                    if not len(targets[piece]):
                        continue
                    outputs, state = lstm(embedding(inputs[None, piece]), states[row])
                    states[row] = tuple(s.detach() for s in state)
                    total = total + F.cross_entropy(head(outputs[0]), targets[piece], reduction="sum")
                    count += len(targets[piece])
            sgd.zero_grad()
            (total / count).backward()
            sgd.step()
            expected.append(total.item() / count)
    assert found == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(model.lm_head.weight, head.weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.model.embed_tokens.weight, embedding.weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.model.layers[0].cell.weight_hh_l0, lstm.weight_hh_l0, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("arch", "fields"), ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_with_unchanging_weights_each_stream_is_read_as_in_one_go(tmp_path, arch, fields, checkpointing, fused):
    model = built(arch, **fields)
    still = {"learning_rate": 0.0, "gradient_checkpointing": checkpointing}
    trainer = trainer_of(model, tmp_path, fused=fused, **still)
    found = losses(trainer)
    model.eval()
    whole = [[] for _ in range(STEPS)]
    for row, (inputs, targets) in enumerate(streams_by_hand()):
        with torch.no_grad():
            outputs = model(input_ids=inputs[None], use_cache=True)
        for step, losses_ in enumerate(F.cross_entropy(outputs.logits[0], targets, reduction="none").split(T)):
            whole[step].append(losses_)
        # what is carried when the epoch ends is the stream's state, not the padding's after it
        for layer, alone in zip(trainer.carried.cache.layers, outputs.past_key_values.layers, strict=True):
            for state, expected in zip(layer.states, alone.states, strict=True):
                assert not state.requires_grad
                torch.testing.assert_close(state[row], expected[0].to(state.dtype), rtol=1e-5, atol=1e-6)
    assert found == pytest.approx([torch.cat(parts).mean().item() for parts in whole], rel=1e-5)


def test_a_process_whose_streams_have_ended_adds_nothing(tmp_path):
    trainer = trainer_of(built(activation_regularization=2.0), tmp_path)
    trainer.get_train_dataloader()
    model = trainer.model.train()
    padding = {
        "input_ids": torch.zeros(2, T, dtype=torch.int64),
        "shift_labels": torch.full((2, T), IGNORE_INDEX),
        "attention_mask": torch.zeros(2, T, dtype=torch.bool),
        "position": 0,
    }
    loss = trainer.compute_loss(model, padding, num_items_in_batch=torch.tensor(0))
    loss.backward()
    assert loss.item() == 0.0
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("arch", "accumulation", "stop"),  # of six, or accumulated three, steps in an epoch
    [("rnn", 1, 1), ("rnn", 1, 5), ("rnn", 1, 6), ("rnn", 1, 7), ("rnn", 2, 2), ("rnn", 2, 3), ("fnn", 1, 4)],
)
def test_a_resumed_training_ends_with_the_same_weights(tmp_path, arch, accumulation, stop):
    every = {"max_steps": 8, "save_strategy": "steps", "save_steps": 1, "optim": "adamw_torch",
             "learning_rate": 0.01, "gradient_accumulation_steps": accumulation}  # fmt: skip
    fields = {"dropout": 0.3, **({"global_context": True} if arch == "fnn" else {"weight_dropout": 0.2})}
    whole = trainer_of(built(arch, **fields), tmp_path / "a", **every)
    whole.train()
    torch.manual_seed(99)
    resumed = trainer_of(built(arch, **fields), tmp_path / "b", **every)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / f"checkpoint-{stop}"))
    assert resumed.state.global_step == 8
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name
    last = [load_file(tmp_path / name / "checkpoint-8" / "carried_state_0.safetensors") for name in ("a", "b")]
    assert last[0]
    assert all(torch.equal(last[1][name], state) for name, state in last[0].items())


def test_a_checkpoint_without_the_state_is_refused_but_where_an_epoch_begins(tmp_path):
    every = {"max_steps": 8, "save_strategy": "steps", "save_steps": 2}
    trainer_of(built(), tmp_path, **every).train()
    for step in (2, 6):
        (tmp_path / f"checkpoint-{step}" / "carried_state_0.safetensors").unlink()
    with pytest.raises(InputError, match="has no state of 4 streams on 1 process"):
        trainer_of(built(), tmp_path, **every).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    resumed = trainer_of(built(), tmp_path, **every)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert resumed.state.global_step == 8


@pytest.mark.parametrize("other", [{"per_device_train_batch_size": 5}, {"gradient_accumulation_steps": 2}])
def test_a_checkpoint_of_another_layout_is_refused(tmp_path, other):
    every = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    trainer_of(built(), tmp_path, **every).train()
    with pytest.raises(InputError, match="resume with the batch size"):
        trainer_of(built(), tmp_path / "b", **every, **other).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-2")
        )


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"train_sampling_strategy": "group_by_length"}, "trainer.train_sampling_strategy=group_by_length"),
        ({"train_sampling_strategy": "batch_rebalance"}, "trainer.train_sampling_strategy=batch_rebalance"),
        ({"auto_find_batch_size": True}, "trainer.auto_find_batch_size=true"),
        ({"dataloader_in_order": False, "dataloader_num_workers": 2}, "trainer.dataloader_in_order=false"),
        ({"accelerator_config": {"split_batches": True}}, "trainer.accelerator_config.split_batches=true"),
        ({"accelerator_config": {"dispatch_batches": True}}, "trainer.accelerator_config.dispatch_batches=true"),
    ],
)
def test_what_would_put_blocks_elsewhere_is_refused(tmp_path, settings, named):
    with pytest.raises(InputError, match=f"^task.carry_state=true: .*{named}"):
        trainer_of(built(), tmp_path, **settings)


@pytest.mark.parametrize("arch", ["gpt2", "mamba"])
def test_a_model_without_such_a_state_is_refused(tmp_path, arch):
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1} if arch == "gpt2" else {"num_hidden_layers": 1, "state_size": 2}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(arch, vocab_size=V, hidden_size=8, **sizes))
    with pytest.raises(InputError, match=f"^task.carry_state=true: {type(model).__name__} keeps no recurrent state"):
        trainer_of(model, tmp_path)


def test_a_stream_of_documents_is_refused(tmp_path):
    options = [*language_model(tmp_path, "rnn", run="r"), "task.carry_state=true", "data.streaming=true"]
    with pytest.raises(InputError, match=r"^task.carry_state=true: .*set data.streaming=false"):
        train(compose(*options))
    assert not (tmp_path / "outputs" / "r").exists()


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def test_an_interrupted_run_goes_on_in_its_streams_and_is_measured_as_any_other(tmp_path, monkeypatch):
    from transformers import TrainerCallback

    from hf_llm import training

    saved = {"trainer__max_steps": 8, "trainer__save_strategy": "steps", "trainer__save_steps": 2}
    evaluated = {"trainer__eval_strategy": "steps", "trainer__eval_steps": 1}  # between one block and the next
    options = [*language_model(tmp_path, "rnn", **overrides(**saved, **evaluated)), "task.carry_state=true"]
    whole = train(compose(*options, "run=whole"))

    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "_callbacks", lambda cfg: [Interrupt()])
        with pytest.raises(KeyboardInterrupt):
            train(compose(*options, "run=cut"))
    resumed = train(compose(*options, "run=cut"))
    first, second = weights(whole.folder), weights(resumed.folder)
    assert all(torch.equal(first[name], second[name]) for name in first)

    wanted = whole.metrics["validation"]["loss"]
    for size in (1, 5):
        asked = ["evaluate", f"run={whole.folder}", f"trainer.per_device_eval_batch_size={size}"]
        assert evaluate(compose(*asked))["loss"] == pytest.approx(wanted, rel=1e-6)


def test_a_block_is_measured_after_the_one_before_it(tmp_path):
    run = train(compose(*language_model(tmp_path, "rnn"), "task.carry_state=true"))
    text = "red blue green one two three\nblue green one two three cat\n" * 2
    (tmp_path / "held_out.txt").write_text(text)
    end = run.tokenizer.eos_token_id
    tokens = torch.tensor([[end, *run.tokenizer(text)["input_ids"], end]])
    model = run.model.eval().requires_grad_(False)
    total, count = 0.0, tokens.shape[1] - 1
    for start in range(0, count, 16):  # block_size
        first = max(start - 16, 0)
        logits = model(tokens[:, first : min(start + 16, count)]).logits[0, start - first :]
        total += F.cross_entropy(logits, tokens[0, start + 1 : start + 17], reduction="sum").item()
    asked = ["evaluate", f"run={run.folder}", f"data.files={tmp_path / 'held_out.txt'}"]
    found = [evaluate(compose(*asked, f"data.streaming={streaming}"))["loss"] for streaming in ("false", "true")]
    assert found == pytest.approx([total / count] * 2, rel=1e-5)

    in_one_go = F.cross_entropy(model(tokens[:, :-1]).logits[0], tokens[0, 1:]).item()
    assert evaluate(compose(*asked, "task.block_size=1000"))["loss"] == pytest.approx(in_one_go, rel=1e-5)


def test_a_model_without_a_state_is_not_measured_so(tmp_path):
    run = train(compose(*language_model(tmp_path, "gpt2")))
    with pytest.raises(InputError, match=r"^task.carry_state=true: GPT2LMHeadModel keeps no recurrent state"):
        evaluate(compose("evaluate", f"run={run.folder}", "task.carry_state=true"))


def launched(folder, processes, *options):
    command = [str(Path(sys.executable).parent / "torchrun"), f"--nproc_per_node={processes}", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", str(ROOT / "scripts" / "train.py"), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)


@pytest.mark.slow
def test_two_processes_read_the_streams_of_one_and_go_on_with_their_own(tmp_path):
    given = {
        "trainer__max_steps": 12, "trainer__logging_steps": 1, "trainer__save_strategy": "steps",
        "trainer__save_steps": 4, "model__config__dropout": 0, "trainer__learning_rate": 0.01,
    }  # fmt: skip
    options = [*language_model(tmp_path, "rnn", **overrides(**given)), "task.carry_state=true"]
    text = (tmp_path / "corpus.txt").read_text()[:560]  # 504 characters to train on: 32 blocks of 16, the last of 9
    (tmp_path / "corpus.txt").write_text(text)
    runs = {}
    for processes, rows, name in ((1, 6, "one"), (2, 3, "two")):
        launched(tmp_path, processes, *options, f"run={name}", f"trainer.per_device_train_batch_size={rows}")
        folder = tmp_path / "outputs" / name
        history = json.loads((folder / "checkpoint-12" / "trainer_state.json").read_text())["log_history"]
        runs[name] = ([entry["loss"] for entry in history if "loss" in entry], weights(folder))
    assert len(runs["one"][0]) == 12
    assert runs["two"][0] == pytest.approx(runs["one"][0], rel=1e-6)
    for name, tensor in runs["one"][1].items():
        torch.testing.assert_close(runs["two"][1][name], tensor, rtol=1e-6, atol=1e-6)

    folder = tmp_path / "outputs" / "two"
    for name in ("checkpoint-12", "model"):  # as if it had been stopped in the second epoch, of six steps
        shutil.rmtree(folder / name)
    (folder / "metrics.json").unlink()
    launched(tmp_path, 2, *options, "run=two", "trainer.per_device_train_batch_size=3")
    assert all(torch.equal(weights(folder)[name], tensor) for name, tensor in runs["two"][1].items())
