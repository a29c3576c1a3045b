"""Saved and loaded, whole or in shards, with missing weights, from the meta device, or resized: the same model."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from toy_models import (
    CAUSAL,
    HEADS,
    PAD,
    B,
    T,
    V,
    built,
    either_model,
    every_config,
    every_language_model,
    every_model,
    some_ids,
)
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

IDS = some_ids(B, T)


@pytest.fixture
def nan_where_nothing_was_written():
    """Memory that is not initialised reads as NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def assert_initialised(model):
    """Every weight is what `_init_weights` draws: not NaN, nor zero, nor what torch's own modules begin with."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            torch.testing.assert_close(
                module.weight.std() * module.embedding_dim**0.5, torch.tensor(1.0), rtol=0, atol=0.2
            )
        elif isinstance(module, nn.Linear):
            torch.testing.assert_close(
                module.weight.std() * module.in_features**0.5, torch.tensor(1.0), rtol=0, atol=0.5
            )
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()
        elif isinstance(module, nn.RNNBase):
            H = module.hidden_size
            for name, parameter in module.named_parameters():
                for index, gate in enumerate(parameter.split(H)):
                    if name.startswith("weight_hh"):
                        torch.testing.assert_close(gate @ gate.T, torch.eye(H))
                    elif name.startswith("weight_ih"):
                        assert 0 < gate.abs().max() <= (6 / (H + gate.shape[1])) ** 0.5
                    else:
                        opened = isinstance(module, nn.LSTM) and name.startswith("bias_ih") and index == 1
                        assert (gate == float(opened)).all()


@every_model
def test_weights_are_initialised_from_the_meta_device_too(config, head, nan_where_nothing_was_written):
    model = built(config, head)
    assert_initialised(model)
    with torch.device("meta"):
        sketch = HEADS[head].from_config(model.config)
    assert all(parameter.is_meta for parameter in sketch.parameters())
    sketch = sketch.to_empty(device="cpu")
    assert next(sketch.parameters()).isnan().all()
    sketch.init_weights()
    sketch.tie_weights()
    assert_initialised(sketch)


@every_model
def test_saved_and_loaded_it_is_the_same_model(config, head, tmp_path):
    model = built(config, head)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    again, info = HEADS[head].from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert not again.training
    assert type(again) is type(model)
    torch.testing.assert_close(again(IDS)[0], model(IDS)[0])
    if head == "language model":
        assert (again.lm_head.weight is again.get_input_embeddings().weight) == config.tie_word_embeddings


@every_model
def test_saved_in_shards_it_is_the_same_model(config, head, tmp_path):
    model = built(config, head)
    model.save_pretrained(tmp_path, max_shard_size="2KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    again, info = HEADS[head].from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    torch.testing.assert_close(again(IDS)[0], model(IDS)[0])


@every_model
@pytest.mark.parametrize("missing", [0, 1], ids=["even", "odd"])
def test_what_a_checkpoint_lacks_is_initialised_and_the_rest_loaded(
    config, head, missing, tmp_path, nan_where_nothing_was_written
):
    model = built(config, head)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 7.0)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for i, (name, value) in enumerate(sorted(weights.items())) if i % 2 != missing}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again, info = HEADS[head].from_pretrained(tmp_path, output_loading_info=True)
    lacking = weights.keys() - kept.keys()
    assert lacking - info["missing_keys"] == set()
    fresh = built(config, head).state_dict()
    for name, parameter in again.named_parameters():
        if name in kept:
            assert (parameter == 7.0).all()
            parameter.data.copy_(fresh[name])  # as if drawn, so that all can be looked at
    assert_initialised(again)


@every_language_model
def test_the_body_of_a_language_model_goes_into_other_heads(config, tmp_path):
    model = built(config)
    model.save_pretrained(tmp_path)
    body = AutoModel.from_pretrained(tmp_path)
    torch.testing.assert_close(body(IDS).last_hidden_state, model.model(IDS).last_hidden_state)
    judge, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=3, output_loading_info=True)
    torch.testing.assert_close(judge.model(IDS).last_hidden_state, model.model(IDS).last_hidden_state)
    assert all(name.startswith(("score", "attention")) for name in info["missing_keys"])
    body.save_pretrained(tmp_path / "body")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "body")
    torch.testing.assert_close(again.model(IDS).last_hidden_state, model.model(IDS).last_hidden_state)


@every_model
@pytest.mark.parametrize("size", [V + 9, 20], ids=["larger", "smaller"])
def test_a_resized_vocabulary_leaves_the_words_that_stay_as_they_were(config, head, size, tmp_path):
    model, ids = built(config, head), IDS % 20
    expected = model(ids)[0]
    model.resize_token_embeddings(size, mean_resizing=False)
    assert model.config.vocab_size == model.get_input_embeddings().weight.shape[0] == size
    kept = min(size, V)
    resized = model(ids)[0]
    if head == "language model":
        assert resized.shape[-1] == len(model.lm_head.bias) == model.lm_head.out_features == size
        assert (model.lm_head.weight is model.get_input_embeddings().weight) == config.tie_word_embeddings
        assert model(ids, labels=ids).loss.isfinite()
        assert model.generate(ids, max_new_tokens=3, pad_token_id=0, do_sample=False).shape == (B, T + 3)
        resized, expected = resized[..., :kept], expected[..., :kept]
    torch.testing.assert_close(resized, expected)
    if size > V:
        assert model(torch.full((1, 3), size - 1))[0].isfinite().all()
    model.save_pretrained(tmp_path)
    again = HEADS[head].from_pretrained(tmp_path)
    torch.testing.assert_close(again(ids)[0], model(ids)[0])


@either_model
def test_embeddings_and_output_layer_can_be_replaced(config):
    model = built(config, tie_word_embeddings=False)
    embeddings, head = nn.Embedding(V, model.config.input_size), nn.Linear(model.lm_head.in_features, V)
    model.set_input_embeddings(embeddings)
    model.set_output_embeddings(head)
    assert model.get_input_embeddings() is model.model.embed_tokens is embeddings
    assert model.get_output_embeddings() is model.lm_head is head


@every_config
def test_a_config_goes_round_through_its_file(config, tmp_path):
    model = built(config, "texts")
    model.config.save_pretrained(tmp_path)
    again = type(config).from_pretrained(tmp_path)
    assert again.to_dict() == model.config.to_dict()
    assert type(config)(**config.to_dict()).to_dict() == config.to_dict()


def test_half_precision_and_generation_settings_are_kept(tmp_path):
    model = built(CAUSAL["gru"]).bfloat16()
    model.generation_config.max_new_tokens = 4
    model.generation_config.pad_token_id = PAD
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.dtype == torch.bfloat16
    assert again.generate(IDS).shape == (B, T + 4)
