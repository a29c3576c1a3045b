"""However it is run, a model gives the same numbers: checkpointed, compiled, in half precision, on two processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_models import (
    CONFIGS,
    B,
    T,
    built,
    either_model,
    every_language_model,
    every_model,
    labels_for,
    padded,
    some_ids,
)

from hf_llm.models.rnn import RNNConfig

EVERY_DROPOUT = {"locked_dropout": True, "embedding_dropout": 0.3, "weight_dropout": 0.3}


def a_batch():
    ids = some_ids(B, T)
    batch, mask = padded([ids[0], ids[1, :5], ids[2, :1]], "left")
    return {"input_ids": batch, "attention_mask": mask}


def loss_and_gradients(model, head):
    """The loss, for the base model the sum of its squares, and the gradients."""
    torch.manual_seed(1)
    inputs = a_batch()
    model.zero_grad()
    if head == "base":
        loss = model(**inputs).last_hidden_state.square().sum()
    else:
        loss = model(**inputs, labels=labels_for(head, inputs["input_ids"])).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@every_model
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_no_gradient(config, head, reentrant):
    dropouts = EVERY_DROPOUT if isinstance(config, RNNConfig) else {}
    model = built(config, head, dropout=0.3, **dropouts).train()
    plain = loss_and_gradients(model, head)
    runs = []
    for layer in model.base_model.layers:
        next(layer.children()).register_forward_hook(lambda *_: runs.append(1))
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    torch.testing.assert_close(loss_and_gradients(model, head), plain)
    assert len(runs) == 2 * config.num_hidden_layers  # each layer again, for the backward pass


@every_language_model
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_keeps_the_gradient_through_the_state(config, reentrant):
    gradients = []
    for checkpointing in (False, True):
        model, ids = built(config).train(), some_ids(B, T)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        cache = model(ids[:, :6], use_cache=True).past_key_values
        model(ids[:, 6:], past_key_values=cache, use_cache=True).logits.square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", ["lstm", "fnn, global"])
@pytest.mark.parametrize("head", ["language model", "texts", "tokens"])
def test_compiled_it_is_the_same_model(name, head):
    torch.compiler.reset()
    model = built(CONFIGS[name], head).train()
    expected = loss_and_gradients(model, head)
    model.compile(backend="aot_eager")  # the default compiles C++ for most of a minute
    torch.testing.assert_close(loss_and_gradients(model, head), expected)
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0


def test_compiled_it_goes_on_from_a_state():
    torch.compiler.reset()
    model, ids = built(CONFIGS["gru"]), some_ids(B, T)
    with torch.no_grad():
        expected = model(ids).logits[:, 6:]
        model.compile(backend="aot_eager")
        cache = model(ids[:, :6], use_cache=True).past_key_values
        torch.testing.assert_close(model(ids[:, 6:], past_key_values=cache).logits, expected)


@every_model
@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_bfloat16_is_close_to_float32(config, head, how):
    model = built(config, head)
    loss, gradients = loss_and_gradients(model, head)
    if how == "weights":
        model = model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        half_loss, half_gradients = loss_and_gradients(model, head)
    torch.testing.assert_close(half_loss.float(), loss, rtol=0.02, atol=0.02)
    scale = max(gradient.abs().max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert (half_gradients[name].float() - gradient).abs().max() < 0.05 * scale, name


@every_language_model
def test_a_bfloat16_state_is_all_that_was_read_too(config):
    model, ids = built(config).bfloat16(), some_ids(B, 40)
    cache = None
    with torch.no_grad():
        for piece in ids.split(7, dim=1):
            outputs = model(piece, past_key_values=cache, use_cache=True)
            cache = outputs.past_key_values
        torch.testing.assert_close(outputs.logits, model(ids).logits[:, -outputs.logits.shape[1] :], rtol=0, atol=0.03)


_TWO_PROCESSES = """
import os, sys
sys.path.insert(0, {tests!r})
import torch
from toy_models import CONFIGS, built
from test_losses import rows_for, train
world = {world}
weights = {{}}
for name in ("lstm", "fnn, direct"):
    for head in ("language model", "texts", "tokens"):
        model = built(CONFIGS[name], head)
        rows = rows_for(head, "one of three")
        train(model, rows, {folder!r}, batch_size=8 // world, steps=3, gradient_accumulation_steps=1)
        weights |= {{f"{{name}} {{head}} {{key}}": value for key, value in model.state_dict().items()}}
if int(os.environ.get("RANK", 0)) == 0:
    torch.save(weights, f"{folder}/{{world}}.pt")
"""


@pytest.mark.slow
def test_plain_trainer_on_two_processes_does_what_one_does(tmp_path):
    weights = []
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for world, launcher in ((1, []), (2, launch)):
        script = tmp_path / f"train{world}.py"
        script.write_text(_TWO_PROCESSES.format(tests=str(Path(__file__).parent), world=world, folder=str(tmp_path)))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, *launcher, str(script)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        weights.append(torch.load(tmp_path / f"{world}.pt"))
    torch.testing.assert_close(*weights)


@either_model
def test_a_model_in_double_precision_is_the_same_to_single(config):
    model = built(config)
    expected = model(**a_batch()).logits
    torch.testing.assert_close(model.double()(**a_batch()).logits.float(), expected)
