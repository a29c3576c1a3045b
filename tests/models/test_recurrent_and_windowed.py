"""The RNN and the FNN: their arithmetic against plain torch, padding, state, and the life of a transformers model."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from hf_llm.models.fnn import FNNConfig
from hf_llm.models.rnn import RNNConfig

V, B, T = 31, 3, 11
PAD = 0

SMALL = {"vocab_size": V, "hidden_size": 12, "embedding_size": 8, "num_hidden_layers": 2}
CONFIGS = {
    "lstm": RNNConfig(**SMALL, residual=False),
    "gru": RNNConfig(**{**SMALL, "embedding_size": 12}, cell="gru", tie_word_embeddings=True),
    "tanh": RNNConfig(**SMALL, cell="tanh", tie_word_embeddings=True),
    "relu": RNNConfig(**SMALL, cell="relu"),
    "fnn": FNNConfig(**{**SMALL, "num_hidden_layers": 1}, window=4),
    "fnn, direct": FNNConfig(
        **{**SMALL, "num_hidden_layers": 1}, window=4, direct_connections=True, tie_word_embeddings=True
    ),
    "fnn, one word": FNNConfig(vocab_size=V, hidden_size=8, embedding_size=8, window=1, tie_word_embeddings=True),
    "fnn, global": FNNConfig(**SMALL, window=3, global_context=True, layer_norm=True, hidden_act="gelu"),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def causal_lm(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def classifier(config, **fields):
    torch.manual_seed(0)
    config = type(config)(**{**config.to_dict(), "num_labels": 3, "id2label": None, "label2id": None, **fields})
    return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.fixture
def ids():
    return torch.randint(1, V, (B, T), generator=torch.Generator().manual_seed(1))


def padded(rows, side):
    """(ids, mask) of rows of different lengths, padding on the `side`, or between the tokens."""
    width = max(map(len, rows)) + 2
    ids = torch.full((len(rows), width), PAD)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        if side == "left":
            where = torch.arange(width - len(row), width)
        elif side == "right":
            where = torch.arange(len(row))
        else:
            where = torch.arange(width).roll(-1)[: len(row)].sort().values
        ids[i, where] = row
        mask[i, where] = 1
    return ids, mask


@every_config
def test_a_later_token_changes_no_earlier_logits(config, ids):
    model = causal_lm(config)
    other = ids.clone()
    other[:, 6] = other[:, 6] % (V - 1) + 1
    a, b = model(ids).logits, model(other).logits
    assert torch.equal(a[:, :6], b[:, :6])
    assert not torch.allclose(a[:, 6], b[:, 6])


def test_rnn_is_torchs_stacked_lstm(ids):
    model = causal_lm(CONFIGS["lstm"])
    reference = nn.LSTM(8, 12, 2, batch_first=True)
    weights = {
        f"{name[: name.rindex('_l0')]}_l{index}": value
        for index, layer in enumerate(model.model.layers)
        for name, value in layer.cell.state_dict().items()
    }
    reference.load_state_dict(weights)
    expected = model.lm_head(reference(model.model.embed_tokens(ids))[0])
    torch.testing.assert_close(model(ids).logits, expected)


def test_fnn_is_the_formula_of_the_paper(ids):
    config = FNNConfig(**{**SMALL, "num_hidden_layers": 1}, window=4, direct_connections=True)
    model = causal_lm(config)
    C, layer = model.model.embed_tokens.weight, model.model.layers[0].dense
    U, W = model.lm_head.weight.split([12, 4 * 8], dim=1)
    t = 7
    x = torch.cat([C[ids[1, t - k]] for k in (3, 2, 1, 0)])
    y = model.lm_head.bias + W @ x + U @ torch.tanh(layer.bias + layer.weight @ x)
    torch.testing.assert_close(model(ids).logits[1, t], y)


def test_fnn_forgets_what_left_its_window(ids):
    model = causal_lm(CONFIGS["fnn"])
    other = ids.clone()
    other[:, 2] = other[:, 2] % (V - 1) + 1
    differs = (model(ids).logits != model(other).logits).any(dim=-1).any(dim=0)
    assert differs.tolist() == [2 <= t < 2 + 4 for t in range(T)]


@every_config
@pytest.mark.parametrize("side", ["left", "right", "between"])
def test_padding_is_not_read(config, side, ids):
    rows = [ids[0], ids[1, :5], ids[2, :1]]
    model, judge = causal_lm(config), classifier(config)
    batch, mask = padded(rows, side)
    logits = model(batch, attention_mask=mask).logits
    classes = judge(batch, attention_mask=mask).logits
    for i, row in enumerate(rows):
        torch.testing.assert_close(logits[i][mask[i].bool()], model(row[None]).logits[0])
        torch.testing.assert_close(classes[i], judge(row[None]).logits[0])


@every_config
@pytest.mark.parametrize("pooling", ["mean", "max", "last", "attention"])
def test_a_row_of_nothing_but_padding_gives_finite_logits(config, pooling, ids):
    mask = torch.ones_like(ids)
    mask[1] = 0
    assert classifier(config, classifier_pooling=pooling)(ids, attention_mask=mask).logits.isfinite().all()


@every_config
def test_pooling_is_over_the_real_tokens(config, ids):
    batch, mask = padded([ids[0], ids[1, :5]], "right")
    hidden = classifier(config).model(batch, attention_mask=mask).last_hidden_state[1, :5]
    for pooling, expected in {"mean": hidden.mean(0), "max": hidden.max(0).values, "last": hidden[-1]}.items():
        model = classifier(config, classifier_pooling=pooling)
        torch.testing.assert_close(model(batch, attention_mask=mask).logits[1], model.score(expected))


@every_config
@pytest.mark.parametrize("step", [1, 2, 7])
def test_piece_by_piece_is_all_at_once(config, step, ids):
    model = causal_lm(config)
    cache, pieces = None, []
    for piece in ids.split(step, dim=1):
        outputs = model(piece, past_key_values=cache, use_cache=True)
        cache = outputs.past_key_values
        pieces.append(outputs.logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids).logits)
    assert cache.get_seq_length() == T


@every_config
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_state_after_padding_is_that_of_the_real_tokens(config, side, ids):
    rows = [ids[0], ids[1, :5], ids[2, :1]]
    batch, mask = padded(rows, side)
    model = causal_lm(config)
    cache = model(batch, attention_mask=mask, use_cache=True).past_key_values
    following = torch.tensor([[3, 4], [5, 6], [7, 8]])
    mask = torch.cat([mask, torch.ones_like(following)], dim=1)
    logits = model(following, attention_mask=mask, past_key_values=cache).logits
    for i, row in enumerate(rows):
        whole = model(torch.cat([row, following[i]])[None]).logits
        torch.testing.assert_close(logits[i], whole[0, -2:])


@every_config
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}])
def test_generate_is_the_same_with_and_without_a_state_and_padding(config, options, ids):
    model = causal_lm(config)
    options = {"max_new_tokens": 9, "do_sample": False, "pad_token_id": PAD, "eos_token_id": None, **options}
    batch, mask = padded([ids[0], ids[1, :5]], "left")
    with_state = model.generate(batch, attention_mask=mask, **options)
    without = model.generate(batch, attention_mask=mask, use_cache=False, **options)
    assert torch.equal(with_state, without)
    alone = model.generate(ids[1:2, :5], **options)
    assert torch.equal(with_state[-len(alone) :, -9:], alone[:, -9:])


@every_config
def test_generate_continues_from_embeddings(config, ids):
    model = causal_lm(config)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": PAD}
    from_ids = model.generate(ids, **options)[:, T:]
    assert torch.equal(model.generate(inputs_embeds=model.get_input_embeddings()(ids), **options), from_ids)


@every_config
def test_saved_and_loaded_it_is_the_same_model(config, ids, tmp_path):
    model = causal_lm(config)
    model.save_pretrained(tmp_path)
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(model(ids).logits, again(ids).logits)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == config.tie_word_embeddings
    body = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(body(ids).last_hidden_state, model.model(ids).last_hidden_state)
    judge = AutoModelForSequenceClassification.from_pretrained(tmp_path)  # only the head is new
    assert torch.equal(judge.model.embed_tokens.weight, model.model.embed_tokens.weight)


@every_config
def test_the_loss_honours_the_count_of_the_whole_batch_and_given_shifts(config, ids):
    model = causal_lm(config)
    labels = ids.clone()
    labels[0, :5] = -100
    count = (labels[:, 1:] != -100).sum()
    mean = model(ids, labels=labels).loss
    torch.testing.assert_close(model(ids, labels=labels, num_items_in_batch=2 * count).loss, mean / 2)
    shifted = torch.cat([labels[:, 1:], torch.full((B, 1), -100)], dim=1)
    torch.testing.assert_close(model(ids, labels=labels, shift_labels=shifted).loss, mean)


@every_config
def test_gradient_checkpointing_changes_no_gradient(config, ids):
    gradients = []
    for checkpointing in (False, True):
        model = causal_lm(type(config)(**{**config.to_dict(), "dropout": 0.0})).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(ids, labels=ids).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@every_config
def test_a_few_steps_learn_a_repeating_text(config):
    model = causal_lm(type(config)(**{**config.to_dict(), "dropout": 0.0})).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    ids = torch.arange(1, 7).repeat(4)[None].expand(4, -1)
    for _ in range(200):
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    text = model.eval().generate(ids[:1, :4], max_new_tokens=6, do_sample=False, pad_token_id=PAD)
    assert text[0].tolist() == [1, 2, 3, 4, 5, 6, 1, 2, 3, 4]


@every_config
def test_hidden_states_are_given_where_asked_and_tuples_too(config, ids):
    model = causal_lm(config)
    outputs = model(ids, output_hidden_states=True)
    assert len(outputs.hidden_states) == config.num_hidden_layers + 1
    torch.testing.assert_close(model(ids, return_dict=False)[0], outputs.logits)
    # a product of another shape, so with several threads the last bits may differ
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits, outputs.logits[:, -2:])


@pytest.mark.parametrize(
    ("config_class", "fields", "says"),
    [
        (RNNConfig, {"cell": "lsmt"}, "'lstm', 'gru', 'tanh', 'relu'"),
        (RNNConfig, {"dropout": 1.0}, "dropout must be at least 0 and less than 1, not 1.0"),
        (RNNConfig, {"weight_dropout": -0.1}, "weight_dropout must be at least 0"),
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
        causal_lm(RNNConfig(bidirectional=True))
