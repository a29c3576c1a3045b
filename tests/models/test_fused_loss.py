"""The fused loss gives the loss and the gradients of the ordinary one, and knows where it would not."""

import os
import subprocess
import sys

import peft
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from hf_llm.models import fnn, fused_loss, linear_cross_entropy, rnn  # noqa: F401 (registers rnn and fnn)

V, B, T = 97, 3, 20
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2}
ARCHITECTURES = {
    "gpt2": ("gpt2", GPT2),
    "gpt2, untied": ("gpt2", {**GPT2, "tie_word_embeddings": False}),
    "llama": ("llama", {**SIZES, "num_key_value_heads": 2}),
    "bert decoder (bias)": ("bert", {**SIZES, "is_decoder": True}),
    "mixture of experts": ("mixtral", {**SIZES, "num_key_value_heads": 2, "output_router_logits": True}),
    "rnn (bias)": ("rnn", {"hidden_size": 16}),
    "rnn, tied": ("rnn", {"hidden_size": 16, "tie_word_embeddings": True}),
    "fnn, direct": ("fnn", {"hidden_size": 16, "embedding_size": 8, "direct_connections": True}),
}
UNFIT = {
    "soft-capped": ("gemma2", {**SIZES, "num_key_value_heads": 2, "head_dim": 8}),
    "scaled": ("cohere", {**SIZES, "num_key_value_heads": 2}),
}


def built(arch, fields):
    torch.manual_seed(0)
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(arch, vocab_size=V, **ids, **fields))
    for parameter in model.parameters():  # away from the flat start, where a wrong loss looks right
        if parameter.dim() > 1:
            parameter.data.mul_(4)
    return model.eval()


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(linear_cross_entropy, "ROWS_PER_CHUNK", 7)
    monkeypatch.setattr(fused_loss, "_FEW_LOGITS", 1)


@pytest.fixture
def batch():
    ids = torch.randint(2, V, (B, T), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[0, :9] = -100
    shift_labels = F.pad(labels, (0, 1), value=-100)[:, 1:]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels, shift_labels


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(model, loss, expected, tolerance=1e-5):
    assert abs(loss.item() - expected.item()) < tolerance
    ours, theirs = gradients(model, loss), gradients(model, expected)
    assert ours.keys() == theirs.keys()
    scale = max(g.abs().max() for g in theirs.values())
    for name in theirs:
        assert (ours[name] - theirs[name]).abs().max() < tolerance * scale, name


@pytest.mark.parametrize("count", [None, 100, torch.tensor(100)], ids=["mean", "count", "tensor count"])
@pytest.mark.parametrize(("arch", "fields"), ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_loss_and_gradients_equal_the_models_own(arch, fields, count, batch):
    model = built(arch, fields)
    inputs, labels, shift_labels = batch
    assert fused_loss.applies(model)
    extra = {} if count is None else {"num_items_in_batch": count}
    expected = model(**inputs, labels=labels, **extra).loss
    assert_same(model, fused_loss.causal_lm_loss(model, inputs, shift_labels, count), expected)


def test_the_logits_are_never_whole(batch):
    model = built(*ARCHITECTURES["gpt2"])
    inputs, _, shift_labels = batch
    rows = []

    class Spy(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if "mm" in function.name() and result.shape[-1] == V:
                rows.append(result.numel() // V)
            return result

    with Spy():
        fused_loss.causal_lm_loss(model, inputs, shift_labels).backward()
        fused_loss.token_losses(model, inputs, shift_labels)
    assert 0 < max(rows) <= 7


@pytest.mark.parametrize(("arch", "fields"), UNFIT.values(), ids=UNFIT.keys())
def test_where_logits_are_changed_before_the_loss_the_ordinary_loss_is_used(arch, fields, batch):
    model = built(arch, fields)
    inputs, labels, shift_labels = batch
    assert not fused_loss.applies(model)
    expected = model(**inputs, labels=labels, num_items_in_batch=50).loss
    assert_same(model, fused_loss.causal_lm_loss(model, inputs, shift_labels, 50), expected)


@pytest.mark.parametrize(("arch", "fields"), [*ARCHITECTURES.values(), *UNFIT.values()])
def test_token_losses_are_those_of_the_logits(arch, fields, batch):
    model = built(arch, fields)
    inputs, _, shift_labels = batch
    expected = F.cross_entropy(model(**inputs).logits.flatten(0, 1), shift_labels.flatten(), reduction="none")
    losses = fused_loss.token_losses(model, inputs, shift_labels)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, expected.view_as(losses))
    assert (losses[shift_labels == -100] == 0).all()


def test_the_model_is_left_as_it_was(batch):
    model = built(*ARCHITECTURES["gpt2"]).train()
    model.transformer.h[0].eval()  # a part that someone froze
    inputs, labels, shift_labels = batch
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    assert fused_loss.applies(model)
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    fused_loss.token_losses(model, inputs, shift_labels)
    assert model(**inputs).logits.shape == (B, T, V)
    assert "forward" not in vars(model.lm_head)
    with pytest.raises(IndexError):
        fused_loss.causal_lm_loss(model, {"input_ids": inputs["input_ids"] + V}, shift_labels)
    assert model(**inputs, labels=labels).logits.shape == (B, T, V)


@pytest.mark.parametrize("arch", ["gpt2", "rnn (bias)", "fnn, direct"])
def test_gradient_checkpointing_works(arch, batch):
    model = built(*ARCHITECTURES[arch])
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.train()
    inputs, labels, shift_labels = batch
    expected = model(**inputs, labels=labels).loss
    theirs = gradients(model, expected)
    model.gradient_checkpointing_enable()
    ours = gradients(model, fused_loss.causal_lm_loss(model, inputs, shift_labels))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name])


@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_in_bfloat16_it_is_as_exact_as_the_ordinary_loss(how, batch):
    model = built(*ARCHITECTURES["gpt2, untied"])
    inputs, labels, shift_labels = batch
    exact = model(**inputs, labels=labels).loss.item()
    if how == "weights":
        model = model.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        ordinary = model(**inputs, labels=labels).loss
        fused = fused_loss.causal_lm_loss(model, inputs, shift_labels)
        losses = fused_loss.token_losses(model, inputs, shift_labels)
    assert fused.dtype == torch.float32
    assert abs(fused.item() - ordinary.item()) < 1e-5
    assert abs(fused.item() - exact) < 0.05
    assert abs(losses.sum().item() / (shift_labels != -100).sum().item() - ordinary.item()) < 1e-5
    assert_same(model, fused, ordinary, tolerance=1e-2)


_TWO_PROCESSES = """
import torch, torch.distributed as dist, torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM
from hf_llm.models import fused_loss, linear_cross_entropy
dist.init_process_group("gloo")
torch.manual_seed(0)
model = AutoModelForCausalLM.from_config(AutoConfig.for_model(
    "gpt2", vocab_size=97, n_embd=16, n_layer=2, n_head=2, tie_word_embeddings=False,
    resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0))
linear_cross_entropy.ROWS_PER_CHUNK, fused_loss._FEW_LOGITS = 7, 1
ids = torch.randint(0, 97, (4, 12))
shift = F.pad(ids, (0, 1), value=-100)[:, 1:]
model(input_ids=ids, labels=ids).loss.backward()
expected = {n: p.grad.clone() for n, p in model.named_parameters()}
model.zero_grad()
wrapped = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
assert fused_loss.applies(wrapped)
mine = slice(2 * dist.get_rank(), 2 * dist.get_rank() + 2)
for _ in range(2):
    model.zero_grad()
    fused_loss.causal_lm_loss(wrapped, {"input_ids": ids[mine]}, shift[mine]).backward()
for n, p in model.named_parameters():
    torch.testing.assert_close(p.grad, expected[n], atol=1e-6, rtol=1e-4)
dist.destroy_process_group()
"""


def test_two_processes_get_the_gradients_of_one(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(_TWO_PROCESSES)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(fused_loss.__file__))))
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_another_output_layer_is_looked_at_anew(batch):
    inputs, _, targets = batch

    class Scaled(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) / 2

    model = built(*ARCHITECTURES["fnn, direct"])
    before = fused_loss.causal_lm_loss(model, inputs, targets)
    head = model.lm_head
    scaled = Scaled(head.in_features, head.out_features)
    scaled.load_state_dict(head.state_dict())
    model.set_output_embeddings(scaled)
    expected = F.cross_entropy(model(**inputs).logits.flatten(0, 1), targets.flatten())
    assert not torch.isclose(before, expected)
    torch.testing.assert_close(fused_loss.causal_lm_loss(model, inputs, targets), expected)


def test_an_adapter_on_a_model_that_was_looked_at_before_is_looked_at_anew(batch):
    inputs, _, targets = batch
    model = built(*ARCHITECTURES["fnn, direct"])
    before = fused_loss.causal_lm_loss(model, inputs, targets)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["dense"], task_type="CAUSAL_LM"))
    torch.testing.assert_close(fused_loss.causal_lm_loss(adapted, inputs, targets), before)  # which begins as it was


@pytest.mark.parametrize("fused", [True, False])
def test_a_penalty_counts_by_the_batchs_share_of_the_step(fused, monkeypatch):
    config = AutoConfig.for_model("rnn", vocab_size=97, hidden_size=8, activation_regularization=2.0)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).train()
    if not fused:
        monkeypatch.setattr(fused_loss, "applies", lambda model: False)
    ids = torch.randint(97, (2, 10))
    inputs, targets = {"input_ids": ids[:, :-1]}, ids[:, 1:]
    outputs = model(**inputs)
    assert outputs.penalty > 0
    plain = F.cross_entropy(outputs.logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(fused_loss.causal_lm_loss(model, inputs, targets), plain + outputs.penalty)
    quarter = fused_loss.causal_lm_loss(model, inputs, targets, num_items_in_batch=4 * targets.numel())
    torch.testing.assert_close(quarter, (plain + outputs.penalty) / 4)
