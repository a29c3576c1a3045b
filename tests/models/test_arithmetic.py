"""What the networks compute, against plain torch and by hand; that they look at no later token; what a window sees."""

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from toy_models import (
    CAUSAL,
    CONFIGS,
    ONE_LAYER,
    SMALL,
    SQUARE,
    B,
    T,
    V,
    built,
    either_model,
    every_language_model,
    every_model,
    some_ids,
)

from hf_llm.models.fnn import FNNConfig
from hf_llm.models.rnn import RNNConfig

TORCHS = {"lstm": nn.LSTM, "gru": nn.GRU, "tanh": nn.RNN, "relu": nn.RNN}


def torchs_own(model):
    """torch's stacked network with the weights of ours."""
    cell, config = model.config.cell, model.config
    options = {"nonlinearity": cell} if cell in ("tanh", "relu") else {}
    reference = TORCHS[cell](
        config.input_size,
        config.hidden_size,
        config.num_hidden_layers,
        batch_first=True,
        bidirectional=config.bidirectional,
        **options,
    )
    weights = {
        name.replace("_l0", f"_l{index}"): value
        for index, layer in enumerate(model.layers)
        for name, value in layer.cell.state_dict().items()
    }
    reference.load_state_dict(weights)
    return reference


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", TORCHS)
def test_rnn_is_torchs_stacked_network(cell, bidirectional):
    model = built(RNNConfig(**SMALL, cell=cell, bidirectional=bidirectional, residual=False), "base")
    ids = some_ids(B, T)
    torch.testing.assert_close(model(ids).last_hidden_state, torchs_own(model)(model.embed_tokens(ids))[0])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_residual_layers_add_their_input_where_sizes_agree(bidirectional):
    model = built(RNNConfig(**SMALL, residual=True, bidirectional=bidirectional), "base")
    x = model.embed_tokens(some_ids(B, T))
    first = model.layers[0].cell(x)[0]  # 8 -> 12: none
    second = model.layers[1].cell(first)[0] + first
    torch.testing.assert_close(model(some_ids(B, T)).last_hidden_state, second)
    square = built(RNNConfig(**SQUARE, cell="gru"), "base")
    x = square.embed_tokens(some_ids(B, T))
    first = square.layers[0].cell(x)[0] + x
    torch.testing.assert_close(square(some_ids(B, T)).last_hidden_state, square.layers[1].cell(first)[0] + first)


def test_tied_logits_are_products_with_the_embeddings():
    for name in ("gru", "tanh", "fnn, direct"):
        model = built(CONFIGS[name])
        assert model.lm_head.weight is model.get_input_embeddings().weight
        hidden = model.model(some_ids(B, T)).last_hidden_state
        if model.projection is not None:
            hidden = hidden @ model.projection.weight.T
        expected = hidden @ model.get_input_embeddings().weight.T + model.lm_head.bias
        torch.testing.assert_close(model(some_ids(B, T)).logits, expected)


def test_fnn_is_the_formula_of_the_paper():
    model = built(FNNConfig(**ONE_LAYER, window=4, direct_connections=True))
    ids = some_ids(B, T)
    C, layer = model.model.embed_tokens.weight, model.model.layers[0].dense
    U, W = model.lm_head.weight.split([12, 4 * 8], dim=1)
    for t in (1, 7):  # before the first word stand zeros
        x = torch.cat([C[ids[1, t - k]] if t >= k else torch.zeros(8) for k in (3, 2, 1, 0)])
        y = model.lm_head.bias + W @ x + U @ torch.tanh(layer.bias + layer.weight @ x)
        torch.testing.assert_close(model(ids).logits[1, t], y)


def test_fnn_with_every_option_is_its_formula():
    config = FNNConfig(**{**SQUARE, "num_hidden_layers": 3}, window=2, layer_norm=True, global_context=True)
    model = built(config, "base")
    layers = model.layers
    for layer in layers:  # away from where a forgotten norm changes little
        nn.init.normal_(layer.norm.weight)
        nn.init.normal_(layer.norm.bias)
    ids = some_ids(B, T)
    e = model.embed_tokens.weight[ids[1]]
    t = 7
    x = torch.cat([e[t - 1], e[t], e[: t - 1].mean(dim=0)])
    y = layers[0].norm(torch.tanh(layers[0].dense(x)))
    for layer in layers[1:]:
        y = layer.norm(torch.tanh(layer.dense(y)) + y)
    torch.testing.assert_close(model(ids).last_hidden_state[1, t], y)


@every_language_model
def test_a_later_token_changes_no_earlier_logits(config):
    model, ids = built(config), some_ids(B, T)
    other = ids.clone()
    other[:, 6:] = other[:, 6:] % (V - 1) + 1
    before, after = model(ids).logits, model(other).logits
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.isclose(before[:, 6:], after[:, 6:]).all(dim=-1).any()


@pytest.mark.parametrize("name", [name for name in CAUSAL if name.startswith("fnn")])
def test_an_fnn_sees_the_last_token_in_its_window_and_none_outside(name):
    model, ids = built(CONFIGS[name]), some_ids(B, T)
    other = ids.clone()
    other[:, 2] = other[:, 2] % (V - 1) + 1
    differs = (model(ids).logits != model(other).logits).any(dim=-1)
    end = T if model.config.global_context else 2 + model.config.window
    assert differs.tolist() == [[2 <= t < end for t in range(T)]] * B


@every_model
def test_hidden_states_are_the_embeddings_and_what_each_layer_gives(config, head):
    model, ids = built(config, head), some_ids(B, T)
    outputs = model(ids, output_hidden_states=True)
    assert len(outputs.hidden_states) == config.num_hidden_layers + 1
    assert torch.equal(outputs.hidden_states[0], model.get_input_embeddings()(ids))
    if head == "base" and not getattr(config, "direct_connections", False):
        assert torch.equal(outputs.hidden_states[-1], outputs.last_hidden_state)
    elif head == "tokens" and not getattr(config, "direct_connections", False):
        torch.testing.assert_close(model.score(outputs.hidden_states[-1]), outputs.logits)
    assert model(ids).hidden_states is None


@every_model
def test_embeddings_may_be_given_and_a_tuple_asked_for(config, head):
    model, ids = built(config, head), some_ids(B, T)
    expected = model(ids)[0]
    assert torch.equal(model(inputs_embeds=model.get_input_embeddings()(ids))[0], expected)
    given = model(ids, return_dict=False)
    assert isinstance(given, tuple)
    assert torch.equal(given[0], expected)
    with pytest.raises(ValueError, match="give either input_ids or inputs_embeds"):
        model(ids, inputs_embeds=model.get_input_embeddings()(ids))


@every_language_model
def test_logits_are_of_the_positions_asked_for(config):
    model, ids = built(config), some_ids(B, T)
    logits = model(ids).logits
    # products of other shapes: the last bits may differ
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits, logits[:, -2:])
    torch.testing.assert_close(model(ids, logits_to_keep=torch.tensor([1, 4])).logits, logits[:, [1, 4]])
    each = torch.arange(2 * B).view(B, 2) % T
    expected = torch.stack([row[kept] for row, kept in zip(logits, each, strict=True)])
    torch.testing.assert_close(model(ids, logits_to_keep=each).logits, expected)
    torch.testing.assert_close(model(ids, logits_to_keep=ids > 3).logits, logits[ids > 3])


@either_model
def test_a_few_steps_learn_a_repeating_text(config):
    model = built(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    ids = torch.arange(1, 7).repeat(4)[None].expand(4, -1)
    for _ in range(100):
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    text = model.eval().generate(ids[:1, :4], max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert text[0].tolist() == [1, 2, 3, 4, 5, 6, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("config_class", "fields", "says"),
    [
        (RNNConfig, {"cell": "lsmt"}, "'lstm', 'gru', 'tanh', 'relu'"),
        (RNNConfig, {"dropout": 1.0}, "dropout must be at least 0 and less than 1, not 1.0"),
        (RNNConfig, {"weight_dropout": -0.1}, "weight_dropout must be at least 0"),
        (RNNConfig, {"activation_regularization": -1.0}, "activation_regularization must be a number of at least 0"),
        (RNNConfig, {"temporal_activation_regularization": math.nan}, "temporal_activation_regularization must be a"),
        (RNNConfig, {"activation_regularization": math.inf}, "a number of at least 0, not inf"),
        (RNNConfig, {"num_hidden_layers": 0}, "num_hidden_layers must be at least 1, not 0"),
        (FNNConfig, {"window": 0}, "window must be at least 1, not 0"),
        (FNNConfig, {"hidden_act": "swish"}, "'tanh', 'relu', 'gelu'"),
        (FNNConfig, {"hidden_size": "12"}, "'hidden_size' expected int, got str"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(config_class, fields, says):
    with pytest.raises((ValueError, StrictDataclassError), match=says):
        config_class(**fields)


def test_a_causal_lm_that_reads_backwards_is_refused():
    with pytest.raises(ValueError, match="bidirectional=true reads the tokens that a causal language model is to"):
        built(RNNConfig(bidirectional=True))
