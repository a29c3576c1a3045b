"""What takes any model of transformers takes these: `generate`, pipelines, LoRA, device maps."""

import pytest
import torch
from toy_models import (
    CONFIGS,
    MODELS,
    PAD,
    B,
    T,
    built,
    byte_tokenizer,
    either_model,
    every_language_model,
    labels_for,
    some_ids,
    word_tokenizer,
)
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    StoppingCriteria,
    StoppingCriteriaList,
    TextStreamer,
    pipeline,
)

OPTIONS = {"max_new_tokens": 6, "pad_token_id": PAD, "eos_token_id": None}
GREEDY = {**OPTIONS, "do_sample": False}
IDS = some_ids(B, T)


@pytest.fixture
def tokenizer():
    return word_tokenizer(29, eos_token="<|endoftext|>", pad_token="<|pad|>")


@every_language_model
def test_greedy_search_takes_the_most_likely_token_every_time(config):
    model, text = built(config), IDS
    for _ in range(6):
        text = torch.cat([text, model(text, use_cache=False).logits[:, -1:].argmax(dim=-1)], dim=1)
    assert torch.equal(model.generate(IDS, **GREEDY), text)


@every_language_model
def test_sampling_draws_from_the_models_distribution(config):
    model = built(config)
    samples = []
    for seed, use_cache in ((1, True), (1, False), (2, True)):
        torch.manual_seed(seed)
        samples.append(model.generate(IDS, do_sample=True, top_k=0, use_cache=use_cache, **OPTIONS))
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])
    torch.manual_seed(0)
    rows = model.generate(
        IDS[:1], do_sample=True, top_k=0, num_return_sequences=4000, **{**OPTIONS, "max_new_tokens": 1}
    )
    shares = rows[:, -1].bincount(minlength=config.vocab_size) / 4000
    assert (shares - model(IDS[:1]).logits[0, -1].softmax(dim=0)).abs().max() < 0.04  # five standard errors


@every_language_model
def test_beams_find_a_text_no_less_likely_and_are_scored_right(config):
    model = built(config)

    def log_likelihood(texts):
        logits = model(texts).logits[:, T - 1 : -1].log_softmax(dim=-1)
        return logits.gather(2, texts[:, T:, None]).sum(dim=(1, 2))

    greedy = model.generate(IDS, **GREEDY)
    beams = model.generate(
        IDS, num_beams=31, length_penalty=0.0, return_dict_in_generate=True, output_scores=True, **GREEDY
    )
    assert (log_likelihood(beams.sequences) >= log_likelihood(greedy) - 1e-4).all()
    torch.testing.assert_close(beams.sequences_scores, log_likelihood(beams.sequences))


@every_language_model
def test_beams_are_sampled_and_several_returned(config):
    model = built(config)
    texts = []
    for use_cache in (True, False):
        torch.manual_seed(1)
        options = {"num_beams": 4, "num_return_sequences": 3, "do_sample": True, "use_cache": use_cache}
        texts.append(model.generate(IDS, **options, **OPTIONS))
    assert torch.equal(*texts)
    assert texts[0].shape == (3 * B, T + 6)
    assert len(texts[0][:3].unique(dim=0)) > 1


@every_language_model
def test_generate_continues_from_embeddings(config):
    model = built(config)
    embeddings = model.get_input_embeddings()(IDS)
    for options in ({}, {"num_beams": 2}, {"use_cache": False}):
        expected = model.generate(IDS, **GREEDY, **options)[:, T:]
        if options.get("use_cache", True):
            assert torch.equal(model.generate(inputs_embeds=embeddings, **GREEDY, **options), expected)
        assert torch.equal(model.generate(IDS, inputs_embeds=embeddings, **GREEDY, **options)[:, T:], expected)


class AfterThree(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return torch.full(input_ids.shape[:1], input_ids.shape[1] >= T + 3)


@either_model
def test_generation_stops_where_it_is_told_to(config):
    model = built(config)
    free = model.generate(IDS, **GREEDY)
    stopped = model.generate(IDS, stopping_criteria=StoppingCriteriaList([AfterThree()]), **GREEDY)
    assert torch.equal(stopped, free[:, : T + 3])
    assert model.generate(IDS, **{**OPTIONS, "max_new_tokens": None}, max_length=T + 2).shape[1] == T + 2


@either_model
def test_generation_stops_at_a_string(config):
    tokenizer = byte_tokenizer()
    letters = set(tokenizer.convert_tokens_to_ids(list("abcdefghijklmnopqrstuvwxyz")))
    options = {**GREEDY, "suppress_tokens": [i for i in range(256) if i not in letters], "max_new_tokens": 12}
    model = built(config, vocab_size=256)
    prompt = tokenizer("once upon", return_tensors="pt").input_ids
    text = tokenizer.decode(model.generate(prompt, **options)[0])
    stop = text[len("once upon") :][3:5]
    stopped = tokenizer.decode(model.generate(prompt, stop_strings=[stop], tokenizer=tokenizer, **options)[0])
    assert stopped == text[: text.index(stop, len("once upon")) + 2]


@either_model
def test_a_streamer_gets_the_text_as_it_is_made(config, tokenizer, capsys):
    model = built(config)
    text = model.generate(IDS[:1], streamer=TextStreamer(tokenizer, skip_prompt=True), **GREEDY)
    assert capsys.readouterr().out.split() == tokenizer.decode(text[0, T:]).split()


@either_model
@pytest.mark.parametrize("how", ["prompt lookup", "assistant"])
def test_what_needs_a_state_taken_back_is_refused_by_transformers(config, how):
    model = built(config)
    options = {"prompt_lookup_num_tokens": 2} if how == "prompt lookup" else {"assistant_model": built(config)}
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        model.generate(IDS[:1], **options, **GREEDY)


@pytest.mark.parametrize("name", ["lstm", "fnn, global"])
def test_texts_are_generated_by_a_pipeline(name, tokenizer):
    model = built(CONFIGS[name])
    prompts = ["w1 w2 w3 w4 w5", "w7", "w3 w3"]
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu")
    together = generator(prompts, batch_size=3, do_sample=False, max_new_tokens=5, return_full_text=False)
    for prompt, answers in zip(prompts, together, strict=True):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        expected = model.generate(ids, do_sample=False, max_new_tokens=5, pad_token_id=tokenizer.pad_token_id)
        expected = tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True)
        assert answers[0]["generated_text"].split() == expected.split()


@pytest.mark.parametrize("name", ["lstm, both ways", "fnn"])
@pytest.mark.parametrize("task", ["text-classification", "token-classification"])
def test_texts_and_tokens_are_classified_by_a_pipeline(name, task, tokenizer, caplog):
    model = built(CONFIGS[name], "texts" if task == "text-classification" else "tokens")
    texts = ["w1 w2 w3 w4 w5", "w7", "w3 w3"]
    options = {"top_k": None} if task == "text-classification" else {"ignore_labels": []}
    classifier = pipeline(task, model=model, tokenizer=tokenizer, device="cpu")
    for text, found in zip(texts, classifier(texts, batch_size=3, **options), strict=True):
        ids = tokenizer(text, return_tensors="pt").input_ids
        expected = model(ids).logits[0].softmax(dim=-1)
        if task == "text-classification":
            scores = {answer["label"]: answer["score"] for answer in found}
            assert scores == pytest.approx({f"LABEL_{i}": p.item() for i, p in enumerate(expected)}, abs=1e-5)
        else:
            assert [answer["word"] for answer in found] == text.split()
            assert [answer["entity"] for answer in found] == [f"LABEL_{i}" for i in expected.argmax(dim=-1)]
            scores = expected.amax(dim=-1).tolist()
            assert [float(answer["score"]) for answer in found] == pytest.approx(scores, abs=1e-5)
    assert "not supported" not in caplog.text


with_linear_layers = {
    name: (config, head)
    for name, (config, head) in MODELS.items()
    if not (head == "base" and config.model_type == "hf_llm_rnn") and name != "gru-language model"
}


@pytest.mark.parametrize(("config", "head"), with_linear_layers.values(), ids=with_linear_layers.keys())
def test_lora_trains_and_merges(config, head):
    peft = pytest.importorskip("peft", reason="pip install peft")
    model = built(config, head)
    linear = [name for name, module in model.named_modules() if type(module) is torch.nn.Linear]
    targets = [name for name in linear if not (name == "lm_head" and config.tie_word_embeddings)]
    kind = "CAUSAL_LM" if head == "language model" else None
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets, task_type=kind))
    before = {name: p.detach().clone() for name, p in adapted.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW((p for p in adapted.parameters() if p.requires_grad), lr=0.02)
    losses = []
    for _ in range(8):
        outputs = adapted.train()(IDS) if head == "base" else adapted.train()(IDS, labels=labels_for(head, IDS))
        loss = outputs[0].square().mean() if head == "base" else outputs.loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for name, parameter in adapted.named_parameters():
        assert name not in before or torch.equal(parameter, before[name])
    expected = adapted.eval()(IDS)[0]
    if head == "language model":
        assert adapted.generate(input_ids=IDS, **GREEDY).shape == (B, T + 6)
    merged = adapted.merge_and_unload()
    assert type(merged) is type(built(config, head))
    torch.testing.assert_close(merged(IDS)[0], expected)


CELLS = {"target_parameters": ["cell.weight_ih_l0", "cell.weight_hh_l0"], "target_modules": []}
WORKING = {  # docs/models.md has them
    "a language model's cells": ("lstm", "language model", CELLS),
    "a GRU's cells": ("gru", "texts", CELLS),
    "the cells of one layer": ("tanh", "tokens", {**CELLS, "target_parameters": ["layers.0.cell.weight_hh_l0"]}),
    "both directions": ("lstm, both ways", "texts", {**CELLS, "target_parameters": ["cell.weight_hh_l0_reverse"]}),
    "the embeddings": ("lstm", "language model", {"target_modules": ["embed_tokens"]}),
    "the output layer": ("lstm", "language model", {"target_modules": ["lm_head"]}),
    "the projection": ("tanh", "language model", {"target_modules": ["projection"]}),
    "the pooling": ("relu", "texts", {"target_modules": ["attention.0", "attention.2"]}),
    "a classifier's output layer": ("lstm", "tokens", {"target_modules": ["score"]}),
}


@pytest.mark.parametrize(("name", "head", "targets"), WORKING.values(), ids=WORKING.keys())
def test_the_peft_targets_that_work_on_an_rnn(name, head, targets):
    peft = pytest.importorskip("peft", reason="pip install peft")
    model = built(CONFIGS[name], head)
    mask = torch.ones(B, T)
    mask[1, :4] = 0
    before = model(IDS, attention_mask=mask)[0].detach()
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, init_lora_weights=False, **targets))
    adapted.train()(IDS, attention_mask=mask, labels=labels_for(head, IDS)).loss.backward()
    trained = {name: parameter for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in trained.values())
    after = adapted.eval()(IDS, attention_mask=mask)[0]
    assert not torch.allclose(after, before)
    torch.testing.assert_close(adapted.merge_and_unload()(IDS, attention_mask=mask)[0], after)


@pytest.mark.parametrize("targets", [["cell"], "all-linear"], ids=str)
def test_peft_refuses_targets_that_an_rnn_lacks(targets):
    peft = pytest.importorskip("peft", reason="pip install peft")
    with pytest.raises(ValueError, match=r"is not supported|[Nn]o .* (passed|targeted)"):
        peft.get_peft_model(built(CONFIGS["lstm"]), peft.LoraConfig(target_modules=targets, task_type="CAUSAL_LM"))


@either_model
def test_trainable_lora_is_found_by_itself(config):
    peft = pytest.importorskip("peft", reason="pip install peft")
    model = built(config, "texts", classifier_pooling="attention")
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", target_modules="all-linear"))
    assert any("attention.0.lora_A" in name for name, _ in adapted.named_parameters())
    assert any("score.modules_to_save" in name for name, _ in adapted.named_parameters())


@every_language_model
def test_a_device_map_spreads_the_layers_and_changes_nothing(config, tmp_path):
    model = built(config)
    model.save_pretrained(tmp_path)
    layers = {f"model.layers.{i}": "disk" if i else "cpu" for i in range(config.num_hidden_layers)}
    parts = {f"model.{name}": "cpu" for name, _ in model.model.named_children() if name != "layers"}
    parts |= {name: "cpu" for name, _ in model.named_children() if name != "model"}
    for device_map in ("auto", {"": "cpu"}, {**parts, **layers}):
        again = AutoModelForCausalLM.from_pretrained(tmp_path, device_map=device_map, offload_folder=tmp_path / "disk")
        torch.testing.assert_close(again(IDS).logits, model(IDS).logits)
        assert torch.equal(again.generate(IDS, **GREEDY), model.generate(IDS, **GREEDY))


@pytest.mark.parametrize("name", ["lstm", "fnn, deep"])
def test_an_automatic_device_map_keeps_a_layer_whole(name, tmp_path):
    model = built(CONFIGS[name], "texts", num_hidden_layers=3)
    model.save_pretrained(tmp_path)
    total = sum(parameter.nbytes for parameter in model.parameters())
    spread = set()
    for room in range(total // 8, total, total // 8):  # its end falls into each layer
        options = {"device_map": "auto", "max_memory": {"cpu": room, "disk": 10**9}}
        try:
            again = AutoModelForSequenceClassification.from_pretrained(
                tmp_path, offload_folder=tmp_path / "disk", **options
            )
        except ValueError as error:  # accelerate before 1.15, where no layer fits into the memory
            if "offload the whole model" not in str(error):
                raise
            spread.add("disk")
            continue
        torch.testing.assert_close(again(IDS).logits, model(IDS).logits)
        places = getattr(again, "hf_device_map", {"": "cpu"})
        assert all(name.count(".") <= 2 for name in places)  # model.layers.0, never model.layers.0.cell
        spread.add(tuple(places.items()))
    assert len(spread) > 3
