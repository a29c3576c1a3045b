"""What our models take of transformers and its documentation does not promise: a test names it where it goes."""

import inspect

import pytest
import torch
from toy_models import CONFIGS, built, some_ids
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import DYNAMIC_LAYER_TYPE_MAPPING, STATIC_LAYER_TYPE_MAPPING, CacheLayerMixin

from hf_llm.models import heads, sequence
from hf_llm.models.state import CACHE_NAME, StateLayer


def parameters(function):
    return set(inspect.signature(function).parameters)


def test_generation_mixin_prepare_inputs_for_generation_takes_what_we_pass_on():
    """CausalLMHead overrides it, to see that the cache came back."""
    theirs = parameters(GenerationMixin.prepare_inputs_for_generation)
    assert {"input_ids", "next_sequence_length", "attention_mask", "inputs_embeds", "is_first_iteration"} <= theirs
    assert CACHE_NAME in theirs
    ours = parameters(heads.CausalLMHead.prepare_inputs_for_generation)
    assert ours - {"self", "kwargs"} <= theirs


def test_generation_mixin_generate_takes_the_prompt_first():
    """CausalLMHead overrides it, to refuse a prompt without tokens."""
    assert list(inspect.signature(GenerationMixin.generate).parameters)[:2] == ["self", "inputs"]


@pytest.mark.parametrize("name", ["_prepare_cache_for_generation", "_supports_default_dynamic_cache"])
def test_no_private_method_of_generation_mixin_is_overridden(name):
    for cls in (heads.CausalLMHead, *heads.CausalLMHead.__subclasses__()):
        assert getattr(cls, name, None) is None or name not in vars(cls), name
    private = {key for key in vars(heads.CausalLMHead) if key.startswith("_") and not key.startswith("__")}
    assert private & set(vars(GenerationMixin)) == set()


def test_cache_layer_mixin_layer_type_puts_our_layer_into_transformers_caches():
    assert "_layer_type" in vars(CacheLayerMixin)
    assert DYNAMIC_LAYER_TYPE_MAPPING[StateLayer._layer_type] is StateLayer
    assert STATIC_LAYER_TYPE_MAPPING[StateLayer._layer_type] is StateLayer
    abstract = CacheLayerMixin.__abstractmethods__
    assert abstract <= set(vars(StateLayer)), f"StateLayer lacks {abstract - set(vars(StateLayer))}"


def test_pretrained_model_init_weights_is_given_a_module():
    """SequencePreTrainedModel overrides it."""
    assert list(inspect.signature(PreTrainedModel._init_weights).parameters) == ["self", "module"]
    assert "_init_weights" in vars(sequence.SequencePreTrainedModel)


@pytest.mark.parametrize(
    "name", ["_is_stateful", "_no_split_modules", "_can_record_outputs", "_tied_weights_keys", "_auto_class"]
)
def test_pretrained_model_still_declares(name):
    """Class attributes that ours set, each looked up by transformers itself."""
    assert any(name in vars(cls) or name in getattr(cls, "__annotations__", {}) for cls in PreTrainedModel.__mro__)


def test_an_output_has_the_cache_by_the_name_that_generate_looks_for():
    model = built(CONFIGS["lstm"])
    outputs = model(some_ids(1, 3), use_cache=True)
    assert CACHE_NAME in outputs
    kwargs = model._update_model_kwargs_for_generation(outputs, {"attention_mask": torch.ones(1, 3)})
    assert kwargs[CACHE_NAME] is outputs[CACHE_NAME]
