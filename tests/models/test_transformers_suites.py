"""transformers' own common suites (modelling, configuration, generation, training) against the RNN and the FNN.

They are not in transformers' wheel. With its source at the installed version, and what its tests need (`pip install
parameterized httpx`):

    TRANSFORMERS_SOURCE=transformers pytest -m slow tests/models/test_transformers_suites.py
"""

import os
import sys
import unittest

import pytest
import torch
from transformers import Cache
from transformers.models.auto import modeling_auto

from hf_llm.models import fnn, rnn

SOURCE = os.environ.get("TRANSFORMERS_SOURCE")
if SOURCE is None:
    pytest.skip("TRANSFORMERS_SOURCE is not set", allow_module_level=True)
sys.path[:0] = [SOURCE, os.path.join(SOURCE, "utils")]  # its tests import each other as `tests.…`

from tests.causal_lm_tester import CausalLMModelTest, CausalLMModelTester  # noqa: E402
from tests.test_configuration_common import ConfigTester  # noqa: E402

pytestmark = pytest.mark.slow

# From these lists of class names the suites tell which labels a model takes.
for name, prefix in (("hf_llm_rnn", "RNN"), ("hf_llm_fnn", "FNN")):
    modeling_auto.MODEL_MAPPING_NAMES[name] = f"{prefix}Model"
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name] = f"{prefix}ForCausalLM"
    modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES[name] = f"{prefix}ForSequenceClassification"
    modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES[name] = f"{prefix}ForTokenClassification"


class RNNTester(CausalLMModelTester):
    config_class = rnn.RNNConfig
    base_model_class = rnn.RNNModel
    causal_lm_class = rnn.RNNForCausalLM
    sequence_classification_class = rnn.RNNForSequenceClassification
    token_classification_class = rnn.RNNForTokenClassification


class FNNTester(CausalLMModelTester):
    config_class = fnn.FNNConfig
    base_model_class = fnn.FNNModel
    causal_lm_class = fnn.FNNForCausalLM
    sequence_classification_class = fnn.FNNForSequenceClassification
    token_classification_class = fnn.FNNForTokenClassification

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.embedding_size = self.hidden_size  # the suites take every hidden state to be of that size


class WithState:
    """The suites as they are, but for what they know of attention: its heads, and its keys and values in the cache."""

    has_attentions = False

    def setUp(self):
        super().setUp()
        common = ["hidden_size", "num_hidden_layers"]
        self.config_tester = ConfigTester(self, self.model_tester.config_class, common_properties=common)

    def test_left_padding_compatibility(self):
        self.has_attentions = True  # the suite takes a model without attention to be one that cannot skip padding
        super().test_left_padding_compatibility()

    def _check_past_key_values_for_generate(self, batch_size, past_key_values, seq_length, config):
        assert isinstance(past_key_values, Cache)
        assert len(past_key_values) == config.num_hidden_layers
        assert {len(state) for layer in past_key_values.layers for state in layer.states} == {batch_size}

    def _check_caches_are_equal(self, cache1, cache2):
        for one, other in zip(cache1.layers, cache2.layers, strict=True):
            torch.testing.assert_close(one.states, other.states)


class TestRNN(WithState, CausalLMModelTest, unittest.TestCase):
    model_tester_class = RNNTester


class TestFNN(WithState, CausalLMModelTest, unittest.TestCase):
    model_tester_class = FNNTester


del CausalLMModelTest  # not to be collected by itself
