"""Losses and their gradients, against plain torch: ignored labels, accumulated steps, every kind of label."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call
from toy_models import (
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
from transformers import Trainer, TrainingArguments

from hf_llm.models import fused_loss
from hf_llm.tasks.language_model_trainer import LanguageModelTrainer

# problem_type, num_labels, labels of B texts, and their loss by hand, summed
KINDS = {
    "one of three": (None, 3, torch.tensor([2, 0, 1]), lambda x, y: F.cross_entropy(x, y, reduction="sum")),
    "one of three, one ignored": (
        "single_label_classification",
        3,
        torch.tensor([2, -100, 1]),
        lambda x, y: F.cross_entropy(x[[0, 2]], y[[0, 2]], reduction="sum"),
    ),
    "several of three": (
        None,
        3,
        torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0]]),
        lambda x, y: -(y * x.sigmoid().log() + (1 - y) * (-x).sigmoid().log()).sum(),
    ),
    "a number": (None, 1, torch.tensor([0.5, -2.0, 1.0]), lambda x, y: (x[:, 0] - y).square().sum()),
    "a number of 64 bits": (
        "regression",
        1,
        torch.tensor([[0.5], [-2.0], [1.0]]),
        lambda x, y: (x - y).square().sum(),
    ),
    "three numbers": ("regression", 3, torch.arange(9.0).view(3, 3), lambda x, y: (x - y).square().sum()),
}


def gradients(model, loss):
    model.zero_grad()
    loss.backward(retain_graph=True)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(model, loss, expected):
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(model, loss), gradients(model, expected))


@every_language_model
def test_a_language_models_loss_is_the_cross_entropy_of_the_next_tokens(config):
    model, ids = built(config), some_ids(B, T)
    labels = ids.clone()
    labels[0, :5] = -100
    labels[2, 7] = -100
    by_hand = [
        -model(ids).logits[i, t].log_softmax(dim=0)[ids[i, t + 1]]
        for i in range(B)
        for t in range(T - 1)
        if labels[i, t + 1] != -100
    ]
    mean = torch.stack(by_hand).mean()
    assert_same(model, model(ids, labels=labels).loss, mean)
    accumulated = model(ids, labels=labels, num_items_in_batch=torch.tensor(100)).loss
    assert_same(model, accumulated, torch.stack(by_hand).sum() / 100)
    shifted = F.pad(labels[:, 1:], (0, 1), value=-100)
    torch.testing.assert_close(model(ids, labels=labels, shift_labels=shifted).loss, mean)
    torch.testing.assert_close(fused_loss.causal_lm_loss(model, {"input_ids": ids}, shifted), mean)


@either_model
def test_a_token_classifiers_loss_is_the_cross_entropy_of_the_labelled_tokens(config):
    model, ids = built(config, "tokens"), some_ids(B, T)
    batch, mask = padded([ids[0], ids[1, :5], ids[2, :1]], "left")
    labels = (batch % 3).masked_fill(mask == 0, -100)
    logits = model(batch, attention_mask=mask).logits[mask.bool()]
    total = -logits.log_softmax(dim=1).gather(1, labels[mask.bool()][:, None]).sum()
    assert_same(model, model(batch, attention_mask=mask, labels=labels).loss, total / mask.sum())
    accumulated = model(batch, attention_mask=mask, labels=labels, num_items_in_batch=100).loss
    assert_same(model, accumulated, total / 100)


@either_model
@pytest.mark.parametrize(("problem_type", "num_labels", "labels", "by_hand"), KINDS.values(), ids=KINDS.keys())
def test_a_text_classifiers_loss_is_that_of_its_kind_of_label(config, problem_type, num_labels, labels, by_hand):
    model = built(config, "texts", num_labels=num_labels, problem_type=problem_type)
    ids = some_ids(B, T)
    total, count = by_hand(model(ids).logits, labels), (labels != -100).sum()
    assert_same(model, model(ids, labels=labels).loss, total / count)
    for items in (100, torch.tensor(100)):
        assert_same(model, model(ids, labels=labels, num_items_in_batch=items).loss, total / 100)


@every_model
def test_gradients_are_those_of_finite_differences(config, head):
    sizes = {"vocab_size": 3, "hidden_size": 2, "embedding_size": 2, "num_hidden_layers": 1, "num_labels": 2}
    if config.model_type == "hf_llm_fnn":
        sizes["num_hidden_layers"] = 2
    model, ids = built(config, head, **sizes).double(), torch.tensor([[1, 2, 0, 1], [2, 0, 1, 1]])
    for parameter in model.parameters():  # away from zeros, where a ReLU has no derivative
        parameter.data.add_(0.1 * torch.rand(parameter.shape, generator=torch.Generator().manual_seed(0)))
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1]])
    carries = head in ("base", "language model") and not getattr(config, "bidirectional", False)

    def output(*parameters):
        named = dict(zip(names, parameters, strict=True))
        if not carries:
            return functional_call(model, named, (ids,), {"attention_mask": mask})[0]
        first = functional_call(model, named, (ids[:, :2],), {"attention_mask": mask[:, :2], "use_cache": True})
        rest = {"attention_mask": mask, "past_key_values": first.past_key_values}
        return torch.cat([first[0], functional_call(model, named, (ids[:, 2:],), rest)[0]], dim=1)

    names, parameters = zip(*model.named_parameters(), strict=True)
    assert torch.autograd.gradcheck(output, parameters, check_undefined_grad=False)


def train(model, rows, folder, batch_size, steps, trainer_class=Trainer, **options):
    options.setdefault("gradient_accumulation_steps", len(rows) // batch_size)
    arguments = TrainingArguments(
        folder,
        per_device_train_batch_size=batch_size,
        max_steps=steps,
        learning_rate=0.1,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        **options,
    )
    trainer = trainer_class(model, arguments, train_dataset=rows)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def rows_for(head, kind):
    """Eight rows of different lengths, padded, so that their means would not average to the mean of all."""
    ids = some_ids(8, T)
    batch, mask = padded([row[: 2 + i] for i, row in enumerate(ids)], "right")
    if head == "texts":
        labels = {"three numbers": batch[:, :3].float() / 10, "one of three": batch[:, 0] % 3}[kind]
    else:
        labels = labels_for(head, batch).masked_fill(mask == 0, -100)
    return [{"input_ids": i, "attention_mask": m, "labels": y} for i, m, y in zip(batch, mask, labels, strict=True)]


@either_model
@pytest.mark.parametrize(
    ("head", "kind"),
    [("language model", ""), ("tokens", ""), ("texts", "one of three"), ("texts", "three numbers")],
)
def test_plain_trainer_in_accumulated_steps_does_what_one_big_batch_does(config, head, kind, tmp_path):
    rows = rows_for(head, kind)
    options = {"problem_type": "regression"} if kind == "three numbers" else {}
    losses, weights = [], []
    for batch_size in (8, 2):
        model = built(config, head, **options)
        losses.append(train(model, rows, tmp_path, batch_size, steps=2))
        weights.append(model.state_dict())
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    torch.testing.assert_close(*weights)
    assert losses[0][0] != pytest.approx(losses[0][1])


@either_model
@pytest.mark.parametrize("head", ["language model", "texts", "tokens"])
def test_label_smoothing_is_torchs(config, head, tmp_path):
    """By our Trainer for a language model, whose labels Trainer shifts for models of transformers alone."""
    rows = rows_for(head, "one of three")
    model = built(config, head)
    ids, mask, labels = (torch.stack([row[key] for row in rows]) for key in ("input_ids", "attention_mask", "labels"))
    logits, trainer_class = model(ids, attention_mask=mask).logits, Trainer
    if head == "language model":
        logits, labels, trainer_class = logits[:, :-1], labels[:, 1:], LanguageModelTrainer
        shifted = F.pad(labels, (0, 1), value=-100)
        rows = [{**row, "shift_labels": y} for row, y in zip(rows, shifted, strict=True)]
    expected = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), label_smoothing=0.1)
    for batch_size in (8, 2):
        options = {"label_smoothing_factor": 0.1, "remove_unused_columns": False}
        if head == "language model":
            options["label_names"] = ["shift_labels"]
        losses = train(built(config, head), rows, tmp_path, batch_size, 1, trainer_class, **options)
        assert losses == pytest.approx([expected.item()], abs=1e-5)


@every_model
def test_keywords_that_other_models_take_change_nothing(config, head):
    model, ids = built(config, head), some_ids(B, T)
    others = {"token_type_ids": torch.zeros_like(ids), "position_ids": torch.arange(T)[None]}
    assert torch.equal(model(ids, **others)[0], model(ids)[0])
    if head != "base":
        labels = labels_for(head, ids)
        assert torch.equal(model(ids, labels=labels, **others).loss, model(ids, labels=labels).loss)
