"""Tiny RNNs and FNNs with each option in one of them, and what their tests read."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedTokenizerFast,
)

from hf_llm.models.fnn import FNNConfig
from hf_llm.models.rnn import RNNConfig

torch.set_num_threads(1)  # for so small products a second thread only waits, on a busy machine ten times as long

V, B, T = 31, 3, 11
PAD = V - 1

SMALL = {"vocab_size": V, "hidden_size": 12, "embedding_size": 8, "num_hidden_layers": 2}
SQUARE = {**SMALL, "embedding_size": 12}  # residual connections everywhere
ONE_LAYER = {**SMALL, "num_hidden_layers": 1}
CONFIGS = {
    "lstm": RNNConfig(**SMALL, residual=False, classifier_pooling="last"),
    "gru": RNNConfig(**SQUARE, cell="gru", tie_word_embeddings=True, classifier_pooling="mean"),
    "tanh": RNNConfig(**SMALL, cell="tanh", tie_word_embeddings=True),  # tied by a projection
    "relu": RNNConfig(**SQUARE, cell="relu", classifier_pooling="attention"),
    "lstm, both ways": RNNConfig(**SMALL, bidirectional=True, classifier_pooling="attention"),
    "gru, both ways": RNNConfig(
        **{**SMALL, "embedding_size": 24}, cell="gru", bidirectional=True, classifier_pooling="last"
    ),
    "fnn": FNNConfig(**ONE_LAYER, window=4, classifier_pooling="last"),
    "fnn, direct": FNNConfig(**ONE_LAYER, window=4, direct_connections=True, tie_word_embeddings=True),
    "fnn, one word": FNNConfig(**SQUARE, window=1, tie_word_embeddings=True, classifier_pooling="attention"),
    "fnn, deep": FNNConfig(**{**SMALL, "num_hidden_layers": 3}, window=2, layer_norm=True, direct_connections=True),
    "fnn, global": FNNConfig(
        **SMALL, window=3, global_context=True, residual=False, hidden_act="gelu", classifier_pooling="mean"
    ),
}
HEADS = {
    "base": AutoModel,
    "language model": AutoModelForCausalLM,
    "texts": AutoModelForSequenceClassification,
    "tokens": AutoModelForTokenClassification,
}
CAUSAL = {name: config for name, config in CONFIGS.items() if not getattr(config, "bidirectional", False)}
CELLS = {name: config for name, config in CONFIGS.items() if isinstance(config, RNNConfig)}
PLAIN = {name: CONFIGS[name] for name in ("lstm", "fnn, direct")}  # where the options do not matter

every_language_model = pytest.mark.parametrize("config", CAUSAL.values(), ids=CAUSAL.keys())
every_cell = pytest.mark.parametrize("config", CELLS.values(), ids=CELLS.keys())
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
either_model = pytest.mark.parametrize("config", PLAIN.values(), ids=["rnn", "fnn"])
every_head = pytest.mark.parametrize("head", HEADS)
MODELS = {
    f"{name}-{head}": (config, head)
    for name, config in CONFIGS.items()
    for head in HEADS
    if name in CAUSAL or head != "language model"
}
every_model = pytest.mark.parametrize(("config", "head"), MODELS.values(), ids=MODELS.keys())


def changed(config, **fields):
    """A new config of the same class: heads write to theirs, and the toys are shared."""
    values = {**config.to_dict(), "id2label": None, "label2id": None, "num_labels": 3, **fields}
    return type(config)(**values)


def built(config, head="language model", **fields):
    torch.manual_seed(0)
    return HEADS[head].from_config(changed(config, **fields)).eval()


def some_ids(*shape, seed=1):
    return torch.randint(PAD, shape, generator=torch.Generator().manual_seed(seed))


def padded(rows, layout, width=T + 3):
    """(ids, mask) of rows of different lengths, and some token, not read, in the rest."""
    ids, mask = some_ids(len(rows), width, seed=7), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        rest = width - len(row)
        if layout == "holes":
            where = torch.randperm(width, generator=torch.Generator().manual_seed(i))[: len(row)].sort().values
        else:
            where = torch.arange(len(row)) + {"left": rest, "right": 0, "both": rest // 2}[layout]
        ids[i, where] = row
        mask[i, where] = 1
    return ids, mask


every_layout = pytest.mark.parametrize("layout", ["left", "right", "both", "holes"])


def labels_for(head, ids, num_labels=3):
    """Labels that a model with the `head` is trained on."""
    if head == "language model":
        return ids.clone()
    return (ids if head == "tokens" else ids[:, 0]) % num_labels


def word_tokenizer(words=20, **special):
    special = special or {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(special.values()))}
    vocabulary |= {f"w{i}": len(vocabulary) + i for i in range(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def byte_tokenizer():
    """A token for each byte."""
    vocabulary = {character: i for i, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
