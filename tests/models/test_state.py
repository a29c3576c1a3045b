"""The state that goes from call to call: a cache of fixed size that stands for all that was read, and nothing else."""

import copy

import pytest
import torch
from toy_models import (
    CONFIGS,
    PAD,
    B,
    T,
    built,
    either_model,
    every_cell,
    every_language_model,
    every_layout,
    every_model,
    padded,
    some_ids,
)
from transformers import MambaConfig, Trainer, TrainingArguments
from transformers.cache_utils import Cache, DynamicCache, StaticCache

from hf_llm.models.state import CACHE_NAME, StateLayer, detach, holds_state

GREEDY = {"max_new_tokens": 9, "do_sample": False, "pad_token_id": PAD, "eos_token_id": None}


@torch.no_grad()
def read(model, ids, cache=None, **options):
    """The output for `ids` after what the cache has read, and the cache."""
    outputs = model(ids, past_key_values=cache, use_cache=True, **options)
    return outputs[0], outputs.past_key_values


def states(cache):
    return [state for layer in cache.layers for state in layer.states]


def snapshot(model):
    """All that hangs on the modules, to be compared after a call; but for what an nn.RNNBase remembers weakly."""
    return {
        (name, key): value.copy() if isinstance(value, (dict, list)) else value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if key != "_flat_weight_refs"
    }


def continued(model, cache, following):
    """Logits of `following` (B, n) after what the cache has read; the cache is not changed."""
    return read(model, following, copy.deepcopy(cache))[0]


@every_language_model
@pytest.mark.parametrize("head", ["base", "language model"])
@pytest.mark.parametrize("step", [1, 2, 7, "uneven"])
def test_in_pieces_is_all_at_once(config, head, step):
    model, ids = built(config, head), some_ids(B, T)
    cache, pieces = None, []
    for piece in ids.split([1, 5, 2, 3] if step == "uneven" else step, dim=1):
        output, cache = read(model, piece, cache)
        pieces.append(output)
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids)[0])
    assert cache.get_seq_length() == T


@every_language_model
@every_layout
@pytest.mark.parametrize("step", [1, 4])
def test_in_pieces_is_all_at_once_with_padding_in_any_of_them(config, layout, step):
    model, ids = built(config), some_ids(B, T)
    batch, mask = padded([ids[0], ids[1, :5], ids[2, :1]], layout)
    cache, pieces = None, []
    for start in range(0, batch.shape[1], step):
        end = start + step
        # the mask may cover all that was read so far, or just the piece
        seen = mask[:, :end] if start % 2 else mask[:, start:end]
        output, cache = read(model, batch[:, start:end], cache, attention_mask=seen)
        pieces.append(output)
    expected = model(batch, attention_mask=mask).logits
    torch.testing.assert_close(torch.cat(pieces, dim=1)[mask.bool()], expected[mask.bool()])


@every_language_model
@every_layout
def test_the_state_after_padding_is_that_of_the_real_tokens(config, layout):
    model, ids = built(config), some_ids(B, T)
    rows = [ids[0], ids[1, :5], ids[2, :0]]
    batch, mask = padded(rows, layout)
    _, cache = read(model, batch, attention_mask=mask)
    following = some_ids(3, 2, seed=5)
    logits = continued(model, cache, following)
    for i, row in enumerate(rows):
        whole = model(torch.cat([row, following[i]])[None]).logits
        torch.testing.assert_close(logits[i], whole[0, -2:])


@every_language_model
def test_rows_of_a_cache_are_reordered_repeated_and_selected(config):
    model, ids, following = built(config), some_ids(B, T), some_ids(6, 4, seed=5)
    _, cache = read(model, ids)
    changes = {
        "reorder_cache": (torch.tensor([2, 0, 0]), [2, 0, 0]),
        "batch_repeat_interleave": (2, [0, 0, 1, 1, 2, 2]),
        "batch_select_indices": (torch.tensor([2, 1]), [2, 1]),
    }
    for method, (argument, rows) in changes.items():
        other = copy.deepcopy(cache)
        getattr(other, method)(argument)
        n = len(rows)
        whole = model(torch.cat([ids[rows], following[:n]], dim=1)).logits[:, T:]
        torch.testing.assert_close(continued(model, other, following[:n]), whole)


@every_language_model
def test_a_cache_does_not_grow_with_what_it_has_read(config):
    model = built(config)
    sizes = []
    for length in (10, 10_000):
        _, cache = read(model, some_ids(2, length), logits_to_keep=1)
        assert cache.get_seq_length() == length
        # the bytes that are kept alive, not those that are shown
        sizes.append(sum(state.untyped_storage().nbytes() for state in states(cache)))
    assert sizes[0] == sizes[1] < 8000


@every_language_model
def test_a_cache_is_transformers_own_kind_copied_reset_and_never_cropped(config):
    model, ids, following = built(config), some_ids(B, T), some_ids(B, 2, seed=5)
    _, cache = read(model, ids)
    assert isinstance(cache, Cache)
    assert len(cache) == config.num_hidden_layers
    branch = copy.deepcopy(cache)
    read(model, following, branch)
    assert (cache.get_seq_length(), branch.get_seq_length()) == (T, T + 2)
    torch.testing.assert_close(continued(model, cache, following), read(model, following, cache)[0])
    with pytest.raises(ValueError, match="cannot forget its last tokens"):
        cache.crop(1)
    with pytest.raises(NotImplementedError, match="no keys and values"):
        cache.update(torch.zeros(B, 1, 1, 1), torch.zeros(B, 1, 1, 1), 0)
    cache.reset()
    assert cache.get_seq_length() == 0
    torch.testing.assert_close(read(model, ids, cache)[0], model(ids).logits)


@every_language_model
def test_a_cache_carries_gradients_until_it_is_detached(config):
    model, ids, following = built(config), some_ids(B, T), some_ids(B, 2, seed=5)
    embeddings = model.get_input_embeddings()(ids).detach().requires_grad_()
    cache = model(inputs_embeds=embeddings, use_cache=True).past_key_values
    model(following, past_key_values=cache, use_cache=False).logits.sum().backward()
    remembers = not (config.model_type == "hf_llm_fnn" and config.window == 1)
    assert (embeddings.grad is not None and bool(embeddings.grad.any())) == remembers
    model(following, past_key_values=detach(cache), use_cache=False).logits.sum().backward()  # freed, not needed
    assert not any(state.requires_grad for state in states(cache))


@every_language_model
def test_a_cache_tells_of_every_layer_what_was_read(config):
    _, cache = read(built(config), some_ids(B, T))
    for index in range(config.num_hidden_layers):
        assert cache.get_seq_length(index) == T
        assert cache.get_mask_sizes(2, index) == (T + 2, 0)
        assert cache.layers[index].is_initialized


@every_language_model
def test_another_models_cache_is_refused(config):
    model, ids = built(config), some_ids(B, T)
    size = config.num_hidden_layers
    mamba = MambaConfig(num_hidden_layers=size)
    for other in (DynamicCache(), DynamicCache(config=mamba), Cache(layers=[StateLayer() for _ in range(size + 1)])):
        with pytest.raises(ValueError, match=f"the cache must be of {size} layers of this model's state"):
            model(ids, past_key_values=other, use_cache=True)
    with pytest.raises(ValueError, match=r"not a DynamicCache of 0$"):
        model.generate(ids, past_key_values=DynamicCache(), **GREEDY)


@every_language_model
def test_transformers_own_cache_holds_the_state(config):
    model, ids = built(config), some_ids(B, T)
    for cache in (DynamicCache(config=model.config), StaticCache(config=model.config, max_cache_len=T + 1)):
        pieces = [read(model, piece, cache)[0] for piece in ids.split(4, dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids).logits)
        assert cache.get_seq_length() == T
    without = model.generate(ids, use_cache=False, **GREEDY)
    for options in (
        {"past_key_values": DynamicCache(config=model.config)},
        {"cache_implementation": "static"},
        {"cache_implementation": "dynamic"},
    ):
        assert torch.equal(model.generate(ids, **options, **GREEDY), without)


@every_language_model
def test_the_state_has_the_name_that_it_had_before_or_has_since(config):
    model, ids = built(config), some_ids(B, T)
    for name in ("past_key_values", "cache"):
        cache = model(ids[:, :6], use_cache=True).get(CACHE_NAME)
        torch.testing.assert_close(model(ids[:, 6:], **{name: cache}).logits, model(ids).logits[:, 6:])
    cache = model(ids, use_cache=True).get(CACHE_NAME)
    with pytest.raises(ValueError, match="not both"):
        model(ids, cache=cache, past_key_values=cache)


@every_model
def test_a_state_is_made_where_it_is_asked_for(config, head):
    model, ids = built(config, head), some_ids(B, T)
    makes_one = head in ("base", "language model") and not getattr(config, "bidirectional", False)
    assert holds_state(model(ids, use_cache=True).get(CACHE_NAME), config.num_hidden_layers) == makes_one
    assert model(ids, use_cache=False).get(CACHE_NAME) is None
    assert model.train()(ids).get(CACHE_NAME) is None


def test_a_network_that_reads_from_the_end_goes_on_from_no_state():
    model = built(CONFIGS["lstm, both ways"], "base")
    with pytest.raises(ValueError, match="cannot go on from past_key_values"):
        model(some_ids(B, T), past_key_values=DynamicCache(config=model.config))


@every_language_model
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}])
def test_generate_is_the_same_with_and_without_a_state_and_padding(config, options):
    model, ids = built(config), some_ids(B, T)
    options = {**GREEDY, **options}
    batch, mask = padded([ids[0], ids[1, :5]], "left")
    with_state = model.generate(batch, attention_mask=mask, **options)
    assert torch.equal(with_state, model.generate(batch, attention_mask=mask, use_cache=False, **options))
    alone = model.generate(ids[1:2, :5], **options)
    assert torch.equal(with_state[-len(alone) :, -9:], alone[:, -9:])


@every_language_model
@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"use_cache": False}], ids=str)
def test_a_prompt_may_be_read_in_chunks(config, options):
    model, ids = built(config), some_ids(B, T)
    batch, mask = padded([ids[0], ids[1, :5], ids[2, :1]], "left")
    whole = model.generate(batch, attention_mask=mask, **GREEDY, **options)
    if options.get("use_cache") is False:
        with pytest.raises(ValueError, match="Cannot use prefill chunking without a cache"):
            model.generate(batch, attention_mask=mask, prefill_chunk_size=4, **GREEDY, **options)
        return
    chunks = model.generate(batch, attention_mask=mask, prefill_chunk_size=4, **GREEDY, **options)
    assert torch.equal(chunks, whole)


@every_language_model
def test_sequences_may_end_at_different_times(config):
    model, ids = built(config), some_ids(6, 4)
    options = {**GREEDY, "max_new_tokens": 12}
    options["eos_token_id"] = int(model.generate(ids, **options)[0, 7])  # the fourth that the first row would yield
    for beams in (1, 2):
        together = model.generate(ids, num_beams=beams, **options)
        lengths = set()
        for row, whole in zip(ids, together, strict=True):
            alone = model.generate(row[None], num_beams=beams, **options)[0]
            assert torch.equal(whole[: len(alone)], alone)
            assert (whole[len(alone) :] == PAD).all()
            lengths.add(len(alone))
        assert len(lengths) > 1 or beams > 1  # a beam may go round the end


@every_language_model
def test_a_cache_goes_on_after_generate(config):
    model, ids, following = built(config), some_ids(B, 5), some_ids(B, 4, seed=5)
    first = model.generate(ids, return_dict_in_generate=True, **GREEDY)
    assert first.past_key_values.get_seq_length() == first.sequences.shape[1] - 1  # the last was not read yet
    dialogue = torch.cat([first.sequences, following], dim=1)
    mask = torch.ones_like(dialogue)
    cache = copy.deepcopy(first.past_key_values)
    second = model.generate(dialogue, attention_mask=mask, past_key_values=cache, **GREEDY)
    assert torch.equal(second, model.generate(dialogue, attention_mask=mask, use_cache=False, **GREEDY))
    last = torch.cat([first.sequences[:, -1:], following], dim=1)
    torch.testing.assert_close(continued(model, first.past_key_values, last), model(dialogue).logits[:, -5:])


@every_language_model
def test_a_second_turn_may_be_padded_between_the_turns(config):
    model, ids = built(config), some_ids(2, 5)
    batch, mask = padded([ids[0], ids[1, :3]], "left", width=5)
    first = model.generate(batch, attention_mask=mask, return_dict_in_generate=True, **GREEDY)
    turn, turn_mask = padded([some_ids(4, seed=5), some_ids(2, seed=6)], "left", width=4)
    dialogue = torch.cat([first.sequences, turn], dim=1)
    mask = torch.cat([mask, torch.ones(2, 9, dtype=torch.long), turn_mask], dim=1)
    second = model.generate(dialogue, attention_mask=mask, past_key_values=first.past_key_values, **GREEDY)
    for i in range(2):
        real = dialogue[i, mask[i].bool()][None]
        alone = model.generate(real, attention_mask=torch.ones_like(real), use_cache=False, **GREEDY)
        assert torch.equal(second[i, -9:], alone[0, -9:])


@every_language_model
def test_generate_hands_over_one_cache_of_transformers_own(config, monkeypatch):
    model = built(config)
    handed, forward = [], type(model).forward

    def spy(self, *args, **kwargs):
        handed.append(kwargs[CACHE_NAME])
        outputs = forward(self, *args, **kwargs)
        assert outputs.get(CACHE_NAME) is kwargs[CACHE_NAME]
        return outputs

    monkeypatch.setattr(model, "forward", spy.__get__(model))
    model.generate(some_ids(B, 4), **GREEDY)
    assert len(handed) == 9
    assert all(cache is handed[0] for cache in handed)
    assert type(handed[0]) is DynamicCache
    assert holds_state(handed[0], config.num_hidden_layers)


@every_model
@pytest.mark.parametrize("training", [False, True])
def test_nothing_is_kept_on_the_modules_between_calls(config, head, training):
    options = {"weight_dropout": 0.5, "embedding_dropout": 0.5} if config.model_type == "hf_llm_rnn" else {}
    model = built(config, head, dropout=0.5, **options).train(training)
    before, ids = snapshot(model), some_ids(B, T)
    batch, mask = padded([ids[0], ids[1, :5]], "holes")
    model(ids)
    model(batch, attention_mask=mask)
    if head == "language model":
        model.generate(ids, **GREEDY)
    assert snapshot(model) == before
    assert not list(model.buffers())
    assert all(parameter.grad is None for parameter in model.parameters())


@every_cell
def test_nothing_is_kept_of_a_call_that_failed(config):
    model = built(config, "base", weight_dropout=0.5).train()
    before = snapshot(model)

    def interrupt(*_):
        raise KeyboardInterrupt

    hook = model.layers[0].cell.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(some_ids(B, T))
    hook.remove()
    assert snapshot(model) == before
    assert all(weight.is_leaf for layer in model.layers for weight in layer.cell._flat_weights)


@either_model
def test_trainers_predictions_are_the_logits_alone(config, tmp_path):
    model, ids = built(config), some_ids(6, T)
    rows = [{"input_ids": row, "labels": row} for row in ids]
    options = {"per_device_eval_batch_size": 2, "report_to": [], "use_cpu": True, "disable_tqdm": True}
    trainer = Trainer(model, TrainingArguments(tmp_path, use_cache=True, **options))
    assert model(ids).past_key_values is not None
    predictions = trainer.predict(rows).predictions
    torch.testing.assert_close(torch.from_numpy(predictions), model(ids).logits.detach())
