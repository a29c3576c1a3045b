"""AWD-LSTM's regularisation: each dropout drops what it says, the penalties are their formulas, all is off in eval."""

import pytest
import torch
import torch.nn.functional as F
from toy_models import (
    CAUSAL,
    CELLS,
    B,
    T,
    built,
    either_model,
    every_cell,
    every_config,
    every_model,
    labels_for,
    padded,
    some_ids,
)

from hf_llm.models.rnn import RNNConfig

EVERYTHING = {
    "dropout": 0.5,
    "locked_dropout": True,
    "embedding_dropout": 0.5,
    "weight_dropout": 0.5,
    "activation_regularization": 2.0,
    "temporal_activation_regularization": 1.0,
}


def regularization(config):
    return EVERYTHING if isinstance(config, RNNConfig) else {"dropout": 0.5}


def layer_inputs(model, **inputs):
    """What each layer is given, and the output of the last."""
    seen, hooks = [], []
    for layer in model.layers:
        hooks.append(layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach())))
    outputs = model(**inputs)
    for hook in hooks:
        hook.remove()
    return seen, outputs


@every_cell
def test_locked_dropout_has_one_mask_for_all_positions_of_a_row(config):
    model = built(config, "base", dropout=0.5, locked_dropout=True).train()
    embeddings = torch.ones(B, T, config.input_size)
    seen, outputs = layer_inputs(model, inputs_embeds=embeddings)
    assert set(seen[0].unique().tolist()) == {0.0, 2.0}  # what is kept is scaled by 1 / (1 − p)
    for x in (*seen, outputs.last_hidden_state):
        dropped = x == 0
        if config.cell == "relu":  # which has zeros of its own
            dropped = (x == 0).all(dim=1, keepdim=True) if x is not seen[0] else dropped
        assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
        assert not torch.equal(dropped[0], dropped[1])
        assert 0.2 < dropped.float().mean() < 0.8
    model.config.locked_dropout = False
    seen, _ = layer_inputs(model, inputs_embeds=embeddings)
    assert not torch.equal(seen[0][:, 0], seen[0][:, 1])


@every_cell
def test_embedding_dropout_drops_whole_words_everywhere_in_the_batch(config):
    model = built(config, "base", embedding_dropout=0.5).train()
    ids = some_ids(8, 40)
    (x, *_), _ = layer_inputs(model, input_ids=ids)
    kept = x.abs().sum(dim=-1) > 0
    for word in ids.unique():
        assert len(kept[ids == word].unique()) == 1
    assert 0.2 < torch.stack([kept[ids == word].any() for word in ids.unique()]).float().mean() < 0.8
    torch.testing.assert_close(x[kept], 2 * model.embed_tokens(ids)[kept])


@every_cell
def test_weight_dropout_drops_hidden_to_hidden_weights_alone(config):
    model = built(config, "base", weight_dropout=1 - 1e-9).train()  # as good as all of them
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dropped = model(some_ids(B, T)).last_hidden_state
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    without = built(config, "base")
    assert not torch.allclose(dropped, without(some_ids(B, T)).last_hidden_state)
    for name, parameter in without.named_parameters():
        if "weight_hh" in name:
            torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(dropped, without(some_ids(B, T)).last_hidden_state)


@every_cell
def test_parameters_under_weight_dropout_are_trained(config):
    model = built(config, "base", weight_dropout=0.5).train()
    ids = some_ids(B, T)
    outputs = model(ids).last_hidden_state
    outputs.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.any(), name
        if "weight_hh" in name:  # what was dropped gets none
            assert 0.2 < (parameter.grad == 0).float().mean() < 0.95
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    model.eval()
    fresh = built(config, "base")
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(model(ids).last_hidden_state, fresh(ids).last_hidden_state)


@pytest.mark.parametrize("layout", ["none", "left", "holes"])
@pytest.mark.parametrize("name", [name for name in CELLS if name in CAUSAL])
def test_activation_regularization_is_its_formula(name, layout):
    alpha, beta = 2.0, 3.0
    fields = {"activation_regularization": alpha, "temporal_activation_regularization": beta}
    model = built(CELLS[name], dropout=0.3, locked_dropout=True, **fields).train()
    ids, mask = some_ids(B, T), torch.ones(B, T)
    if layout != "none":
        ids, mask = padded([ids[0], ids[1, :5], ids[2, :1]], layout)
    raw = []
    hook = model.model.layers[-1].register_forward_hook(lambda *args: raw.append(args[-1][0]))
    torch.manual_seed(1)
    outputs = model.model(ids, attention_mask=mask)
    hook.remove()
    rows, dropped = raw[0], outputs.last_hidden_state
    squares, changes = [], []
    for i in range(B):
        for t in range(ids.shape[1]):
            if mask[i, t]:
                squares.append(dropped[i, t].square())
                if t > 0 and mask[i, t - 1]:  # neighbours
                    changes.append((rows[i, t] - rows[i, t - 1]).square())
    expected = alpha * torch.stack(squares).mean() + beta * torch.stack(changes).mean()
    torch.testing.assert_close(outputs.penalty, expected)

    labels = ids.masked_fill(mask == 0, -100)
    torch.manual_seed(1)
    whole = model(ids, attention_mask=mask, labels=labels)
    torch.testing.assert_close(whole.penalty, expected)
    targets = labels[:, 1:].flatten()
    plain = F.cross_entropy(whole.logits[:, :-1].flatten(0, 1), targets)
    torch.testing.assert_close(whole.loss, plain + expected)
    count = (targets != -100).sum()
    torch.manual_seed(1)  # a third of the tokens of an accumulated step
    third = model(ids, attention_mask=mask, labels=labels, num_items_in_batch=3 * count).loss
    torch.testing.assert_close(third, whole.loss / 3)


@every_cell
@pytest.mark.parametrize("head", ["texts", "tokens"])
def test_activation_regularization_counts_in_a_classifiers_loss(config, head):
    fields = {"activation_regularization": 2.0, "temporal_activation_regularization": 3.0}
    ids = some_ids(B, T)
    labels = labels_for(head, ids)
    if head == "tokens":
        labels[0, :4] = -100
    model = built(config, head, **fields).train()
    whole = model(ids, labels=labels)
    penalty = model.model(ids).penalty
    assert penalty > 0
    torch.testing.assert_close(whole.penalty, penalty)
    torch.testing.assert_close(whole.loss, F.cross_entropy(whole.logits.flatten(0, -2), labels.flatten()) + penalty)
    third = model(ids, labels=labels, num_items_in_batch=3 * (labels != -100).sum()).loss
    torch.testing.assert_close(third, whole.loss / 3)


@every_cell
def test_weight_dropout_acts_on_parameters_given_in_place_of_the_models(config):
    model, ids = built(config, "base", weight_dropout=0.5).train(), some_ids(B, T)
    given = {name: value.detach().clone() for name, value in model.named_parameters()}
    torch.manual_seed(1)
    expected = model(ids).last_hidden_state
    torch.manual_seed(1)
    torch.testing.assert_close(torch.func.functional_call(model, given, (ids,)).last_hidden_state, expected)

    def loss(parameters):
        torch.manual_seed(1)
        return torch.func.functional_call(model, parameters, (ids,)).last_hidden_state.square().sum()

    found = torch.func.grad(loss)(given)
    expected.square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


@every_cell
def test_weight_dropout_acts_in_a_replica_of_data_parallel(config):
    model, ids = built(config, "base", weight_dropout=0.5).train(), some_ids(B, T)
    torch.manual_seed(1)
    expected = model(ids).last_hidden_state
    torch.manual_seed(1)
    torch.testing.assert_close(replica(model)(ids).last_hidden_state, expected)
    assert not torch.allclose(expected, model.eval()(ids).last_hidden_state)


def replica(module):
    """As `torch.nn.parallel.replicate` makes it, where there are GPUs: with copies, which are no parameters."""
    copy = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        copy._modules[name] = replica(child)
    for name, parameter in module._parameters.items():
        setattr(copy, name, parameter.clone())
    return copy


@every_model
def test_nothing_is_dropped_and_no_penalty_paid_in_eval(config, head):
    ids = some_ids(B, T)
    model, plain = built(config, head, **regularization(config)), built(config, head)
    outputs = model(ids)
    assert torch.equal(outputs[0], plain(ids)[0])
    assert outputs.get("penalty") is None
    if head != "base":
        assert torch.equal(
            model(ids, labels=labels_for(head, ids)).loss, plain(ids, labels=labels_for(head, ids)).loss
        )
    assert not torch.equal(model.train()(ids)[0], plain(ids)[0])


@every_config
def test_in_training_the_same_seed_gives_the_same_loss_and_another_another(config):
    model, ids = built(config, "tokens", **regularization(config)).train(), some_ids(B, T)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(model(ids, labels=ids % 3).loss.item())
    assert losses[0] == losses[1] != losses[2]


@either_model
def test_training_without_options_drops_nothing(config):
    model, ids = built(config), some_ids(B, T)
    torch.testing.assert_close(model.train()(ids).logits, model.eval()(ids).logits)
