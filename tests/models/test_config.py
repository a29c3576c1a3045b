"""Config fields: checked whenever they are set, and doing what they say."""

import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from torch import nn
from toy_models import CONFIGS, HEADS, B, T, built, changed, either_model, every_config, every_model, some_ids
from transformers import AutoConfig, AutoModel

from hf_llm.models.fnn import FNNConfig
from hf_llm.models.rnn import RNNConfig

IDS = some_ids(B, T)
WRONG = {  # field -> a value that it cannot have, and what is raised
    "hidden_size": (-1, "hidden_size must be at least 1, not -1"),
    "num_hidden_layers": (0, "num_hidden_layers must be at least 1"),
    "embedding_size": (0, "embedding_size must be at least 1"),
    "vocab_size": ("many", "expected int"),
    "dropout": (1.0, "dropout must be at least 0 and less than 1"),
    "classifier_dropout": (-0.1, "classifier_dropout must be at least 0 and less than 1"),
    "classifier_pooling": ("first", "expected one of"),
    "initializer_range": (float("nan"), "initializer_range must be a number of at least 0"),
    "use_cache": (3, "expected bool"),
}
OF_ONE = {
    RNNConfig: {
        "cell": ("lsmt", "expected one of"),
        "weight_dropout": (2, "weight_dropout must be"),
        "activation_regularization": (float("inf"), "activation_regularization must be"),
    },
    FNNConfig: {"window": (0, "window must be at least 1"), "layer_norm_eps": (-1.0, "layer_norm_eps must be")},
}
MISTAKES = [(cls, field, *wrong) for cls, own in OF_ONE.items() for field, wrong in {**WRONG, **own}.items()]


@pytest.mark.parametrize(("config_class", "field", "value", "message"), MISTAKES)
def test_a_field_is_checked_whenever_it_is_set(config_class, field, value, message):
    with pytest.raises((ValueError, StrictDataclassFieldValidationError), match=message):
        config_class(**{field: value})
    config = config_class()
    before = getattr(config, field)
    with pytest.raises((ValueError, StrictDataclassFieldValidationError), match=message):
        setattr(config, field, value)
    assert getattr(config, field) == before
    with pytest.raises((ValueError, StrictDataclassFieldValidationError), match=message):
        config_class.from_dict(config.to_dict(), **{field: value})


@every_config
def test_the_width_of_the_output_has_a_field_that_is_saved(config, tmp_path):
    model = built(config, "base")
    width = model(IDS).last_hidden_state.shape[-1]
    assert model.config.output_hidden_size == width == model.output_size
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["output_hidden_size"] == width
    again = AutoConfig.from_pretrained(tmp_path)
    assert again.output_hidden_size == width
    with pytest.raises(AttributeError):
        again.output_hidden_size = 3
    wider = AutoModel.from_config(changed(config, hidden_size=20))
    assert wider.config.output_hidden_size == wider(IDS).last_hidden_state.shape[-1] != width


@every_model
def test_initializer_range_is_the_deviation_of_every_weight(config, head):
    config = changed(config, hidden_size=60, embedding_size=60, vocab_size=400, initializer_range=0.03)
    if config.tie_word_embeddings:
        config.embedding_size = 50  # with a projection, which is drawn too
    torch.manual_seed(0)
    model = HEADS[head].from_config(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and parameter.numel() > 1000:
            assert parameter.std().item() == pytest.approx(0.03, rel=0.1), name
            assert abs(parameter.mean().item()) < 0.005, name
        elif "bias" in name and "norm" not in name:
            assert set(parameter.tolist()) <= {0.0, 1.0}, name  # 1: an open forget gate


def test_layer_norm_eps_is_that_of_every_layer_norm():
    model = built(CONFIGS["fnn, deep"], "base", layer_norm_eps=0.5)
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 3
    assert {norm.eps for norm in norms} == {0.5}
    default = built(CONFIGS["fnn, deep"], "base")
    assert {module.eps for module in default.modules() if isinstance(module, nn.LayerNorm)} == {1e-5}


@either_model
@pytest.mark.parametrize("head", ["texts", "tokens"])
def test_classifier_dropout_is_of_what_the_output_layer_reads(config, head):
    model = built(config, head, classifier_dropout=0.5)
    read = []
    model.score.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0].detach()))
    model(IDS)
    model.train()(IDS)
    ratio = (read[1] / read[0])[read[0] != 0]
    dropped = ratio == 0
    torch.testing.assert_close(ratio[~dropped], torch.full_like(ratio[~dropped], 2.0))
    assert 0.2 < dropped.float().mean() < 0.8
    torch.testing.assert_close(built(config, head).train()(IDS)[0], built(config, head)(IDS)[0])
