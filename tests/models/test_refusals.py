"""What would change the result and is not honoured is refused, in one line; what changes nothing is let through."""

import pytest
import torch
from toy_models import (
    CONFIGS,
    PAD,
    B,
    T,
    built,
    either_model,
    every_config,
    every_language_model,
    every_layout,
    every_model,
    padded,
    some_ids,
    word_tokenizer,
)
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, DataCollatorWithFlattening

from hf_llm.models import heads, keywords
from hf_llm.models.sequence import find_padding
from hf_llm.models.state import CACHE_NAME

IDS = some_ids(B, T)
GREEDY = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": PAD, "eos_token_id": None}
PACKED = "begins another document within a row"


def raised(error, call):
    with pytest.raises(error) as refused:
        call()
    assert "\n" not in str(refused.value)
    return str(refused.value)


# A lost state


@every_language_model
@pytest.mark.parametrize("options", [{}, {"do_sample": True}, {"num_beams": 2}], ids=str)
def test_generation_that_lost_its_state_stops(config, options, monkeypatch):
    """As with a transformers that hands the cache over by another name, or forgets it."""
    model = built(config)
    ours = type(model).prepare_inputs_for_generation
    for name in ("memory", None):

        def renamed(self, input_ids, name=name, **kwargs):
            cache = kwargs.pop(CACHE_NAME, None)
            return ours(self, input_ids, **kwargs, **({name: cache} if name else {}))

        monkeypatch.setattr(type(model), "prepare_inputs_for_generation", renamed)
        refused = {"memory": TypeError, None: RuntimeError}[name]
        message = raised(refused, lambda: model.generate(IDS, **{**GREEDY, **options}))
        assert ("takes no memory" if name else "was handed no state of the tokens before") in message


@every_language_model
def test_a_step_by_hand_without_the_state_is_refused(config):
    model, mask = built(config), torch.ones(B, T)
    empty = model(IDS, use_cache=True).get(CACHE_NAME)
    empty.reset()
    for cache in (None, empty):
        for call in (
            lambda cache=cache: model(IDS[:, -1:], attention_mask=mask, past_key_values=cache),
            lambda cache=cache: model(IDS[:, -2:], position_ids=torch.tensor([[T - 2, T - 1]]), past_key_values=cache),
        ):
            assert "tokens came before these, but the state" in raised(ValueError, call)


@every_language_model
def test_steps_by_hand_with_a_whole_mask_raise_no_alarm(config):
    model = built(config)
    batch, mask = padded([IDS[0], IDS[1, :5], IDS[2, :1]], "left")
    expected = model(batch, attention_mask=mask).logits
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    for given in (mask.cumsum(1) - 1, positions, torch.arange(batch.shape[1])[None]):
        cache, found = None, []
        for t in range(batch.shape[1]):
            step = {"attention_mask": mask[:, : t + 1], "position_ids": given[:, t : t + 1]}
            outputs = model(batch[:, t : t + 1], use_cache=True, past_key_values=cache, **step)
            cache = outputs.get(CACHE_NAME)
            found.append(outputs.logits)
        torch.testing.assert_close(torch.cat(found, dim=1)[mask.bool()], expected[mask.bool()])
    first = model(batch[:, -1:], attention_mask=torch.tensor([[0, 0, 1]] * B))  # padding alone came before
    torch.testing.assert_close(first.logits, model(batch[:, -1:]).logits)


@every_language_model
@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"prefill_chunk_size": 2}, {"use_cache": False}], ids=str)
def test_prompts_of_one_token_and_embeddings_raise_no_alarm(config, options):
    model = built(config)
    if "prefill_chunk_size" not in options:
        assert model.generate(IDS[:, :1], **GREEDY, **options).shape == (B, 6)
        embeddings = model.get_input_embeddings()(IDS)
        expected = model.generate(IDS, **GREEDY, **options)
        assert torch.equal(model.generate(IDS, inputs_embeds=embeddings, **GREEDY, **options), expected)
    batch, mask = padded([IDS[0], IDS[1, :5], IDS[2, :1]], "left")
    assert model.generate(batch, attention_mask=mask, **GREEDY, **options).shape == (B, T + 3 + 5)


# Packed rows


@every_model
def test_packed_rows_are_refused(config, head):
    model = built(config, head)
    rows = [{"input_ids": IDS[0].tolist()}, {"input_ids": IDS[1, :5].tolist()}]
    for options in ({}, {"return_flash_attn_kwargs": True, "return_position_ids": False}, {"return_seq_idx": True}):
        batch = DataCollatorWithFlattening(**options)(rows)
        batch.pop("labels")
        assert PACKED in raised(ValueError, lambda batch=batch: model(**batch))
    seq_idx = torch.tensor([[0] * 11 + [1] * 5])
    assert PACKED in raised(ValueError, lambda: model(torch.cat([IDS[:1], IDS[1:2, :5]], 1), seq_idx=seq_idx))
    one = DataCollatorWithFlattening(return_flash_attn_kwargs=True, return_seq_idx=True)(rows[:1])
    one.pop("labels")
    torch.testing.assert_close(model(**one)[0], model(IDS[:1])[0])


@every_language_model
def test_a_document_that_begins_after_a_state_is_refused(config):
    model = built(config)
    cache = model(IDS, use_cache=True).get(CACHE_NAME)
    call = lambda: model(IDS, position_ids=torch.arange(T)[None], past_key_values=cache)  # noqa: E731
    assert PACKED in raised(ValueError, call)


# Keywords


@every_model
def test_a_keyword_that_is_not_honoured_is_refused(config, head):
    model = built(config, head)
    for keyword in ("inputs", "head_mask", "encoder_hidden_states", "position_id", "memory"):
        call = lambda keyword=keyword: model(IDS, **{keyword: torch.ones(1)})  # noqa: E731
        assert f"takes no {keyword}" in raised(TypeError, call)
    assert "is_causal=False" in raised(ValueError, lambda: model(IDS, is_causal=False))
    if head == "language model":
        with pytest.raises(ValueError, match="not used by the model"):
            model.generate(IDS, memory=torch.ones(1), **GREEDY)


@every_model
def test_keywords_that_change_nothing_are_let_through(config, head):
    model = built(config, head)
    harmless = {
        "token_type_ids": torch.zeros_like(IDS),
        "position_ids": torch.arange(T)[None],
        "cache_position": torch.arange(T),
        "num_items_in_batch": 5,
        "output_attentions": False,
        "output_router_logits": False,
        "is_causal": True,
        "max_length_q": T,
        "tokenizer": object(),
        "special_tokens_mask": torch.zeros_like(IDS),
        "return_dict": True,
        "head_mask": None,
    }
    assert torch.equal(model(IDS, **harmless)[0], model(IDS)[0])
    if head == "language model":  # what `generate` hands on
        tokenizer = word_tokenizer(29, eos_token="<|endoftext|>", pad_token="<|pad|>")
        given = {"tokenizer": tokenizer, "return_dict_in_generate": True}
        given |= {"output_hidden_states": True, "output_scores": True, "output_logits": True}
        assert torch.equal(model.generate(IDS, **given, **GREEDY).sequences, model.generate(IDS, **GREEDY))


@either_model
def test_segments_that_a_tokenizer_tells_of_are_warned_of(config, caplog):
    """As hf_llm trains these models without them, a pipeline that gives them gets the same result."""
    keywords.logger.warning_once.cache_clear()
    model, segments = built(config, "texts", pad_token_id=PAD), torch.zeros(B, T, dtype=torch.long)
    model(IDS, token_type_ids=segments)
    assert "segments" not in caplog.text
    segments[0, 3:] = 1
    assert torch.equal(model(IDS, token_type_ids=segments).logits, model(IDS).logits)
    assert "has no embedding of segments" in caplog.text


# Padding that no mask tells of


@every_config
@every_layout
@pytest.mark.parametrize("head", ["texts", "tokens"])
def test_a_classifier_without_a_mask_finds_padding_by_its_token(config, layout, head):
    if layout == "holes":
        pytest.skip("a pad token between others is text")
    model = built(config, head, pad_token_id=PAD)
    batch, mask = padded([IDS[0], IDS[1, :5], IDS[2, :1], IDS[2, :0]], layout)
    batch = batch.masked_fill(mask == 0, PAD)
    found, expected = model(batch).logits, model(batch, attention_mask=mask).logits
    torch.testing.assert_close(found, expected)
    text = torch.cat([IDS[:1, :4], torch.full((1, 1), PAD), IDS[:1, 4:]], dim=1)
    torch.testing.assert_close(model(text).logits, model(text, attention_mask=torch.ones_like(text)).logits)


@pytest.mark.parametrize("head", ["texts", "tokens"])
@pytest.mark.parametrize("how", ["no pad token", "embeddings"])
def test_a_classifier_that_cannot_find_padding_warns(head, how, caplog):
    model = built(CONFIGS["lstm"], head, pad_token_id=PAD if how == "embeddings" else None)
    given = {"input_ids": IDS} if how == "no pad token" else {"inputs_embeds": model.get_input_embeddings()(IDS)}
    heads.logger.warning_once.cache_clear()
    alone = {name: value[:1] for name, value in given.items()}
    model(**alone)
    model(**given, attention_mask=torch.ones(B, T))
    assert "attention_mask" not in caplog.text
    model(**given)
    assert "was given no attention_mask" in caplog.text
    assert {"no pad token": "no pad_token_id", "embeddings": "inputs_embeds have no tokens"}[how] in caplog.text


# Prompts without tokens


@either_model
def test_an_empty_prompt_is_refused(config):
    model, none = built(config), torch.zeros(B, 0, dtype=torch.long)
    embeddings = torch.zeros(B, 0, config.input_size)
    for call in (
        lambda: model.generate(none, **GREEDY),
        lambda: model.generate(input_ids=none, **GREEDY),
        lambda: model.generate(inputs_embeds=embeddings, **GREEDY),
    ):
        assert "the prompt has no tokens" in raised(ValueError, call)
    assert "no tokens were given" in raised(ValueError, lambda: model(none))
    batch, mask = padded([IDS[0], IDS[1, :0]], "left")
    call = lambda: model.generate(batch, attention_mask=mask, **GREEDY)  # noqa: E731
    assert "the prompt of row 1 has no tokens" in raised(ValueError, call)


# Quantisation


@pytest.mark.parametrize("name", ["lstm", "gru", "tanh"])
def test_quantising_an_rnn_is_refused(name, tmp_path):
    model = built(CONFIGS[name])
    model.save_pretrained(tmp_path)
    for config in (BitsAndBytesConfig(load_in_8bit=True), {"quant_method": "bitsandbytes", "load_in_8bit": True}):
        for auto in (AutoModelForCausalLM, type(model)):
            call = lambda auto=auto, config=config: auto.from_pretrained(tmp_path, quantization_config=config)  # noqa: E731
            assert "nothing would be quantised" in raised(ValueError, call)
    model.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    assert "nothing would be quantised" in raised(ValueError, lambda: type(model)(model.config))


# A step of generation does not wait for the device


@every_config
def test_one_token_is_read_without_looking_at_its_mask(config):
    """On the meta device no value can be looked at, as one of a GPU cannot without waiting for it."""
    mask = torch.ones(B, T, device="meta")
    assert find_padding(mask, B, 1) is not None
    model = built(config, "base").to("meta")
    with torch.no_grad():
        outputs = model(torch.zeros(B, 1, dtype=torch.long, device="meta"), attention_mask=mask[:, :1])
    assert outputs.last_hidden_state.shape == (B, 1, model.config.output_hidden_size)


@every_config
def test_one_token_with_a_mask_that_is_not_looked_at_gives_the_same(config, monkeypatch):
    from hf_llm.models import sequence

    model, mask = built(config, "base"), torch.tensor([[1], [0], [1]])
    expected = model(IDS[:, :1], attention_mask=mask)
    whole = model(IDS[:, :1], attention_mask=torch.ones(B, 1))

    def unseen(attention_mask, batch, length):
        is_real = attention_mask[:, -1:].bool()
        return sequence.Padding(is_real, is_real.sum(dim=1), None, None)

    monkeypatch.setattr(sequence, "find_padding", unseen)
    torch.testing.assert_close(model(IDS[:, :1], attention_mask=mask)[0], expected[0])
    torch.testing.assert_close(model(IDS[:, :1], attention_mask=torch.ones(B, 1))[0], whole[0])
