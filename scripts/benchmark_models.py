"""Measure this package's RNN and FNN against named peers, A and B in turn in one process, one thread, by CPU time.

    python scripts/benchmark_models.py --word-language-model examples/word_language_model

* LSTM, forward and backward of the loss, beside pytorch/examples' word_language_model (its own model.py and its loss,
  at its default sizes: 2 × 200, batch 20, length 35, tied), with a small vocabulary and with WikiText-2's of 33,278,
  ours with the loss that `hf-llm train` takes, and once without
* FNN, likewise, beside transformers' GPT-2 (4 × 128, its default length of 1,024) of the same number of parameters
* greedy generation of 100, 1,000 and 10,000 tokens, LSTM beside GPT-2 with its key/value cache

The peer's code is not part of this project: give the path to it; without it, its rows are left out.
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
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from hf_llm.models import fused_loss

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

    def peer_step(vocab_size: int, ids: torch.Tensor) -> Callable[[], None]:
        model = word_language_model.RNNModel("LSTM", vocab_size, H, H, 2, dropout=0.2, tie_weights=True).train()
        criterion = torch.nn.NLLLoss()
        hidden = model.init_hidden(B)
        inputs, targets = ids[:, :-1].t().contiguous(), ids[:, 1:].t().reshape(-1)

        def step() -> None:
            model.zero_grad()
            criterion(model(inputs, hidden)[0], targets).backward()

        return step

    comparisons = []
    for vocab_size, fused in ((2_000, True), (33_278, True), (33_278, False)):
        sizes = {"vocab_size": vocab_size, "hidden_size": H, "num_hidden_layers": 2, "tie_word_embeddings": True}
        model = language_model("rnn", **sizes, dropout=0.2, residual=False)
        ids = torch.randint(vocab_size, (B, T + 1))
        title = f"LSTM 2 × 200, {vocab_size:,} words{'' if fused else ', model.fused_loss=false'}"
        ours, peer = training_step(model, ids, fused), peer_step(vocab_size, ids)
        comparisons.append(Comparison(f"{title} | word_language_model", B * T, ours, peer, repeats))
    return comparisons


def fnn(repeats: int) -> list[Comparison]:
    B, T, V = 2, 1024, 8192
    gpt2 = language_model("gpt2", vocab_size=V, **GPT2, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0)
    # Bengio's proportions: wide embeddings, which cost no products, and a narrow hidden layer
    ours = language_model("fnn", vocab_size=V, window=8, embedding_size=164, hidden_size=64)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (ours, gpt2)]
    ids = torch.randint(V, (B, T + 1))
    return [
        Comparison(
            f"FNN, {sizes[0] / 1e6:.2f} M parameters{how} | GPT-2, {sizes[1] / 1e6:.2f} M",
            B * T,
            training_step(ours, ids, True),
            training_step(gpt2, ids, fused),
            repeats,
        )
        for how, fused in ((", both with the fused loss", True), ("", False))
    ]


def generation(lengths: list[int]) -> list[Comparison]:
    sizes = {"hidden_size": 176, "num_hidden_layers": 2, "tie_word_embeddings": True}  # as many parameters as GPT-2's
    ours = language_model("rnn", vocab_size=8192, **sizes).eval()
    gpt2 = language_model("gpt2", vocab_size=8192, **GPT2, n_positions=max(lengths) + 1).eval()

    def generate(model: Any, length: int) -> Callable[[], None]:
        prompt = torch.ones(1, 1, dtype=torch.long)
        options = {"min_new_tokens": length, "max_new_tokens": length, "do_sample": False}
        return lambda: model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)

    return [
        Comparison(
            f"generate {length:,} tokens: LSTM | GPT-2", length, generate(ours, length), generate(gpt2, length), 1
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

    comparisons = fnn(args.repeats) + generation(args.lengths)
    if args.word_language_model is not None:
        comparisons = lstm(args.repeats, args.word_language_model) + comparisons
    table = Table(title="tokens per second of CPU time: medians, in turn, one thread")
    for column in ("ours | peer", "ours", "peer", "ratio", "pairs"):
        table.add_column(column, justify="left" if "|" in column else "right")
    for comparison in comparisons:
        with console.status(comparison.title):
            ours, peer = measure(comparison)
        ratios = [b / a for a, b in zip(ours, peer, strict=True)]
        rates = [comparison.tokens / statistics.median(times) for times in (ours, peer)]
        spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
        table.add_row(
            comparison.title, *(f"{rate:,.0f}" for rate in rates), f"{statistics.median(ratios):.2f}", spread
        )
    console.print(table)


def measure(comparison: Comparison) -> tuple[list[float], list[float]]:
    """Seconds of CPU time of each call, ours and the peer's, after one call of each that does not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(comparison.repeats + 1):
        for side, call in enumerate((comparison.ours, comparison.peer)):
            started = time.process_time()
            call()
            if repeat or comparison.repeats == 1:
                times[side].append(time.process_time() - started)
    return times


if __name__ == "__main__":
    main()
