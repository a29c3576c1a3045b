"""Parameters, memory and disk, against a model that is built, an optimizer that has stepped, and files on the disk."""

import dataclasses

import pytest
import torch
from toys import classifier, language_model
from transformers import AutoModelForCausalLM, GPT2Config, TrainingArguments

from hf_llm import compose, preflight, train
from hf_llm.preflight import memory


@pytest.fixture
def said(monkeypatch):
    """What each preflight found."""
    found, real = [], preflight.look
    monkeypatch.setattr(preflight, "look", lambda *args: found.append(real(*args)) or found[-1])
    return found


CASES = [
    *((language_model, arch, ()) for arch in ("gpt2", "rnn", "fnn")),
    *((classifier, arch, ()) for arch in ("gpt2", "bert", "rnn", "fnn")),
    (language_model, "rnn", ("model.config.tie_word_embeddings=true",)),
    (language_model, "gpt2", ("task.block_size=1100",)),  # positions are added
]


@pytest.mark.parametrize(("kind", "arch", "more"), CASES)
def test_the_parameters_are_those_of_the_model_that_is_built(tmp_path, said, kind, arch, more):
    run = train(compose(*kind(tmp_path, arch), *more, "trainer.max_steps=1"))
    assert said[0].parameters == run.model.num_parameters()
    assert said[0].memory.weights == sum(value.nbytes for value in run.model.parameters())
    state = run.trainer.optimizer.state.values()
    held = sum(value.nbytes for of in state for value in of.values() if torch.is_tensor(value))
    assert said[0].memory.optimizer == held


def test_the_parameters_of_a_pretrained_model_are_counted_with_its_new_words_and_labels(tmp_path, said):
    small = train(compose(*language_model(tmp_path, run="small")))
    given = [option for option in classifier(tmp_path) if not option.startswith("model")]
    words = "\n".join(f"{'ab'[n % 2]},{chr(200 + n)} word{n}" for n in range(60))  # more of them than characters there
    (tmp_path / "w.csv").write_text(f"label,text\n{words}\n")
    given += [f"data.files.train={tmp_path / 'w.csv'}", "tokenizer=word", "tokenizer.min_frequency=1"]
    run = train(compose(*given, f"model.pretrained={small.folder / 'model'}"))
    assert run.model.config.vocab_size > small.model.config.vocab_size
    assert said[1].parameters == run.model.num_parameters()
    assert said[1].vocabulary == run.model.config.vocab_size


def test_what_autograd_keeps_is_what_it_keeps_of_a_true_model():
    config = GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=50, bos_token_id=0, eos_token_id=0)
    model = AutoModelForCausalLM.from_config(config).train()
    weights = {value.untyped_storage()._cdata for value in (*model.parameters(), *model.buffers())}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage()._cdata not in weights:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.base_model(input_ids=torch.zeros(3, 40, dtype=torch.int64))
    true = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

    def bytes_kept(**settings):
        args = TrainingArguments("x", use_cpu=True, **settings)
        return memory.activation_bytes(lambda: AutoModelForCausalLM.from_config(config), args, 3, 40)

    assert bytes_kept() == true
    assert bytes_kept(bf16=True) < 0.9 * true
    named = {field.name for field in dataclasses.fields(TrainingArguments)}
    assert bytes_kept(gradient_checkpointing=True) < 0.3 * true
    if "activation_checkpointing" in named:  # from transformers 5.23 on
        assert bytes_kept(activation_checkpointing=True) < 0.3 * true


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "sgd", "sgd momentum", "adafactor", "rmsprop"])
def test_the_optimizers_state_is_what_it_holds_after_a_true_step(optim):
    from transformers import Trainer

    name, *momentum = optim.split()
    args = TrainingArguments("x", use_cpu=True, optim=name, optim_args="momentum=0.9" if momentum else None)
    config = GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=50, bos_token_id=0, eos_token_id=0)
    model = AutoModelForCausalLM.from_config(config)
    optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
    optimizer = optimizer_class(model.parameters(), **options)
    ids = torch.zeros(1, 4, dtype=torch.int64)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    state = optimizer.state.values()
    held = sum(value.nbytes for of in state for value in of.values() if torch.is_tensor(value))
    with torch.device("meta"):
        sketch = AutoModelForCausalLM.from_config(config)
    assert memory.optimizer_bytes(sketch, args) == held
    assert (held == 0) is (optim == "sgd")


def test_the_logits_of_a_fused_loss_are_those_of_a_few_rows():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(GPT2Config(n_layer=1, n_embd=32, n_head=2))
    args = TrainingArguments("x", use_cpu=True)
    assert memory.loss_bytes(model, args, 2048, fused=False) == 12 * 2048 * 50257
    assert memory.loss_bytes(model, args, 2048, fused=True) == 4 * 256 * 50257 + 4 * 32 * (50257 + 2048)
    assert memory.loss_bytes(model, args, 16, fused=True) == memory.loss_bytes(model, args, 16, fused=False)


@pytest.mark.parametrize(
    ("environment", "settings", "divisors"),
    [
        ({}, {}, (1, 1, 1)),
        ({"ACCELERATE_USE_FSDP": "true"}, {}, (4, 4, 4)),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_SHARDING_STRATEGY": "SHARD_GRAD_OP"}, {}, (1, 4, 4)),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}, {}, (1, 1, 4)),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, {}, (4, 4, 4)),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, {}, (1, 1, 1)),
    ],
)
def test_what_processes_share_is_divided_by_their_number(monkeypatch, environment, settings, divisors):
    monkeypatch.setattr(TrainingArguments, "world_size", 4)
    args = TrainingArguments("x", use_cpu=True, **settings)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    shares = memory.shares(args)
    assert (shares.weights, shares.gradients, shares.optimizer) == divisors
    assert bool(shares.words) is bool(environment)


@pytest.mark.parametrize("only_model", [False, True])
def test_a_checkpoint_is_as_large_as_was_said(tmp_path, said, only_model):
    size = [
        "model.config.n_embd=64",
        "trainer.save_strategy=steps",
        "trainer.save_steps=3",
        "trainer.save_total_limit=1",
    ]
    run = train(compose(*language_model(tmp_path), *size, f"trainer.save_only_model={str(only_model).lower()}"))
    (checkpoint,) = run.folder.glob("checkpoint-*")
    true = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    space = said[0].disk
    assert space.checkpoint == pytest.approx(true, rel=0.1)
    model = sum(path.stat().st_size for path in (run.folder / "model").rglob("*"))
    assert space.model == pytest.approx(model, rel=0.1)
    assert (space.saves, space.kept) == (2, 2)  # after steps 3 and 4: the second is written before the first goes
    assert space.needed == 2 * space.checkpoint + space.model


@pytest.mark.parametrize(
    ("settings", "saves", "kept"),
    [
        (["trainer.save_strategy=no"], 0, 0),
        (["trainer.save_strategy=steps", "trainer.save_steps=10", "trainer.save_total_limit=null"], 12, 12),
        (["trainer.save_strategy=steps", "trainer.save_steps=10", "trainer.save_total_limit=3"], 12, 4),
        (["trainer.save_strategy=steps", "trainer.save_steps=0.5"], 2, 2),
        (["trainer.save_strategy=epoch", "trainer.save_total_limit=null"], 1, 1),
        (
            ["trainer.save_strategy=best", "trainer.eval_strategy=steps", "trainer.eval_steps=25",
             "trainer.metric_for_best_model=loss"],
            5, 3,
        ),
    ],
)  # fmt: skip
def test_saves_are_counted(tmp_path, said, settings, saves, kept):
    epoch = ["trainer.max_steps=-1", "trainer.num_train_epochs=1"]  # 118 steps
    train(compose(*language_model(tmp_path), *epoch, *settings, "preflight=only"))
    assert (said[0].disk.saves, said[0].disk.kept) == (saves, kept)
