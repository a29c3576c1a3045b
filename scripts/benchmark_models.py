"""Measure this package's RNN and FNN against named peers, A and B in turn in one process, one thread, by CPU time.

    python scripts/benchmark_models.py --word-language-model examples/word_language_model

* LSTM, forward and backward of the loss, beside pytorch/examples' word_language_model (its own model.py and its loss,
  at its default sizes: 2 × 200, batch 20, length 35, tied, dropout 0.2), with a small vocabulary and with WikiText-2's
  of 33,278; ours with the loss that `hf-llm train` takes, which holds no logits, and with the ordinary one, which is
  the same work
* FNN, likewise, beside transformers' GPT-2 (4 × 128, its default length of 1,024), no dropout, at about as many
  parameters, most of which are embeddings: it computes less for each token, and this says nothing of how well it
  predicts
* greedy generation of 100, 1,000 and 10,000 tokens, LSTM beside GPT-2 with its key/value cache, random weights both

Each line says how many parameters both sides have. The peer's code is not part of this project: give the path to it;
without it, its rows are left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from hf_llm.models import fused_loss
from hf_llm.models.fnn import FNNConfig
from hf_llm.models.rnn import RNNConfig

# as hf_llm's own conf/model/gpt2.yaml; the fused activation is the same function as GPT-2's
GPT2 = {"n_layer": 4, "n_head": 4, "n_embd": 128, "activation_function": "gelu_pytorch_tanh"}


@dataclass
class Comparison:
    """Two calls that get through the same number of tokens."""

    title: str
    tokens: int
    ours: Callable[[], None]
    peer: Callable[[], None]
    repeats: int
    warm_up: tuple[Callable[[], None], Callable[[], None]] | None = None  # None: a call of each that does not count


def millions(model: torch.nn.Module) -> str:
    return f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.2f} M"


def language_model(arch: str, **config: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    tokens = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(arch, **tokens, **config))
    model.loss_type = "ForCausalLM"  # as hf_llm.models.build sets it
    return model


def training_step(model: PreTrainedModel, ids: torch.Tensor, fused: bool) -> Callable[[], None]:
    """Forward and backward on `ids` (B, T + 1), the last T of which are targets."""
    inputs, targets = {"input_ids": ids[:, :-1]}, ids[:, 1:].contiguous()
    model.train()

    def step() -> None:
        model.zero_grad()
        if fused:
            loss = fused_loss.causal_lm_loss(model, inputs, targets)
        else:
            loss = model(**inputs, labels=targets, shift_labels=targets).loss
        loss.backward()

    return step


def lstm(repeats: int, folder: Path) -> list[Comparison]:
    sys.path.insert(0, str(folder))
    import model as word_language_model  # type: ignore[import-not-found]

    B, T, H = 20, 35, 200

    def peer_step(model: Any, ids: torch.Tensor) -> Callable[[], None]:
        criterion = torch.nn.NLLLoss()
        hidden = model.init_hidden(B)
        inputs, targets = ids[:, :-1].t().contiguous(), ids[:, 1:].t().reshape(-1)

        def step() -> None:
            model.zero_grad()
            criterion(model(inputs, hidden)[0], targets).backward()

        return step

    comparisons = []
    for vocab_size, fused in ((2_000, True), (2_000, False), (33_278, True), (33_278, False)):
        sizes = {"vocab_size": vocab_size, "hidden_size": H, "num_hidden_layers": 2, "tie_word_embeddings": True}
        model = language_model(RNNConfig.model_type, **sizes, dropout=0.2, residual=False)
        other = word_language_model.RNNModel("LSTM", vocab_size, H, H, 2, dropout=0.2, tie_weights=True).train()
        ids = torch.randint(vocab_size, (B, T + 1))
        title = f"LSTM 2 × 200, {vocab_size:,} words, {'our fused loss' if fused else 'both with logits'}: "
        title += f"forward and backward, {millions(model)} | word_language_model, {millions(other)}"
        comparisons.append(Comparison(title, B * T, training_step(model, ids, fused), peer_step(other, ids), repeats))
    return comparisons


def fnn(repeats: int) -> list[Comparison]:
    B, T, V = 2, 1024, 8192
    gpt2 = language_model("gpt2", vocab_size=V, **GPT2, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0)
    # Bengio's proportions: wide embeddings, which cost no products, and a narrow hidden layer
    ours = language_model(
        FNNConfig.model_type, vocab_size=V, window=8, embedding_size=164, hidden_size=64, dropout=0.0
    )
    ids = torch.randint(V, (B, T + 1))
    return [
        Comparison(
            f"FNN, {millions(ours)} | GPT-2, {millions(gpt2)}: forward and backward, {how}",
            B * T,
            training_step(ours, ids, fused),
            training_step(gpt2, ids, fused),
            repeats,
        )
        for how, fused in (("both with the fused loss", True), ("both with logits", False))
    ]


def generation(lengths: list[int], repeats: int) -> list[Comparison]:
    sizes = {"hidden_size": 176, "num_hidden_layers": 2, "tie_word_embeddings": True}
    ours = language_model(RNNConfig.model_type, vocab_size=8192, **sizes).eval()
    gpt2 = language_model("gpt2", vocab_size=8192, **GPT2, n_positions=max(lengths) + 1).eval()

    def generate(model: Any, length: int) -> Callable[[], None]:
        prompt = torch.ones(1, 1, dtype=torch.long)
        options = {"min_new_tokens": length, "max_new_tokens": length, "do_sample": False}
        return lambda: model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)

    # GPT-2's count has a position for each token to come
    title = f"tokens, greedy: LSTM, {millions(ours)} | GPT-2 with its cache, {millions(gpt2)}"
    return [
        Comparison(
            f"generate {length:,} {title}",
            length,
            generate(ours, length),
            generate(gpt2, length),
            repeats if length <= 1_000 else 1,
            warm_up=(generate(ours, 16), generate(gpt2, 16)),
        )
        for length in lengths
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--word-language-model", type=Path, metavar="FOLDER")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--lengths", type=int, nargs="+", default=[100, 1_000, 10_000])
    args = parser.parse_args()
    torch.set_num_threads(1)
    console = Console() if sys.stdout.isatty() else Console(width=120)

    comparisons = fnn(args.repeats) + generation(args.lengths, min(args.repeats, 3))
    if args.word_language_model is not None:
        comparisons = lstm(args.repeats, args.word_language_model) + comparisons
    console.print("tokens per second of CPU time, ours | the peer's: medians, in turn, one thread", soft_wrap=True)
    for comparison in comparisons:
        with console.status(comparison.title):
            ours, peer = measure(comparison)
        ratios = [b / a for a, b in zip(ours, peer, strict=True)]
        rates = [f"{comparison.tokens / statistics.median(times):,.0f}" for times in (ours, peer)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}, pairs: {len(ratios)})"
        console.print(f"{comparison.title}: {' | '.join(rates)}, ratio {spread}", highlight=False, soft_wrap=True)


def measure(comparison: Comparison) -> tuple[list[float], list[float]]:
    """Seconds of CPU time of each call, ours and the peer's, which take turns in who is first."""
    calls = (comparison.ours, comparison.peer)
    for warm_up in comparison.warm_up or calls:
        warm_up()
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(comparison.repeats):
        for side in (0, 1) if repeat % 2 == 0 else (1, 0):
            started = time.process_time()
            calls[side]()
            times[side].append(time.process_time() - started)
    return times


if __name__ == "__main__":
    main()
