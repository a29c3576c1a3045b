"""What `generate` returns, on models with random weights."""

import io
import logging
import shutil
import sys
from pathlib import Path

import pytest
from toys import language_model

from hf_llm import compose, generate, generation, train
from hf_llm import tokenizer as tokenizers
from hf_llm.config import InputError, TokenizerConfig


def trained(folder: Path, run: str, tokenizer: str) -> None:
    options = [*language_model(folder, run=run), f"tokenizer={tokenizer}"]
    options.remove("tokenizer=char")
    train(compose("train", *options))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two language models: of `chars` and of `bytes`."""
    folder = tmp_path_factory.mktemp("generation")
    trained(folder, "chars", "char")
    trained(folder, "bytes", "byte")
    return folder / "outputs"


def generated(runs, run, *overrides, prompt="red blue"):
    cfg = compose("generate", f"run={runs / run}", f"prompt={prompt}", "generation.do_sample=false", *overrides)
    return [row["text"] for row in generate(cfg)]


def test_max_length_counts_the_prompt_and_needs_no_other_setting(runs):
    assert len(generated(runs, "chars", "generation.max_length=10")[0]) == 10 - len("red blue")
    both = ["generation.max_length=10", "generation.max_new_tokens=4"]
    assert len(generated(runs, "chars", *both)[0]) == 4
    with pytest.raises(InputError, match=r"generation\.max_length=2000 exceeds the model's 1024 positions"):
        generated(runs, "chars", "generation.max_length=2000")


def test_a_model_that_would_return_more_than_texts_still_gives_texts(runs, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(runs / "chars", folder)
    (settings,) = folder.rglob("generation_config.json")
    settings.write_text('{"return_dict_in_generate": true, "output_scores": true}')
    assert generated(runs, folder, "generation.max_length=10") == generated(runs, "chars", "generation.max_length=10")


AWKWARD = "\ufeffred\u2028blue\r\n \r\none\x0ctwo\r\n\r\n".encode()


@pytest.mark.parametrize("source", ["file", "standard input"])
def test_prompts_are_lines_and_those_left_out_are_counted(runs, source, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("hf_llm"), "propagate", True)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(AWKWARD), encoding="ascii"))
    path = tmp_path / "prompts.txt"
    path.write_bytes(AWKWARD)
    name = str(path) if source == "file" else "-"
    greedy = ["generation.do_sample=false", "generation.max_new_tokens=1"]
    with caplog.at_level(logging.INFO, "hf_llm"):
        rows = generate(compose("generate", f"run={runs / 'bytes'}", f"prompts={name}", *greedy))
    assert [row["prompt"] for row in rows] == ["red\u2028blue", "one\x0ctwo"]
    where = str(path) if source == "file" else source
    assert f"{where}: 4 lines read, 2 used; left out: 2 blank lines" in caplog.messages


def test_standard_input_that_is_not_utf_8_is_refused_with_the_line(runs, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"red\n\xff\n")))
    with pytest.raises(
        InputError, match=r"^standard input, line 2: byte 5 .* is not utf-8; prompts are read as utf-8"
    ):
        generate(compose("generate", f"run={runs / 'bytes'}", "prompts=-"))


def test_a_stop_string_ends_a_text(runs):
    whole = generated(runs, "bytes", "generation.max_new_tokens=20")[0]
    stop = whole[4]
    (text,) = generated(runs, "bytes", "generation.max_new_tokens=20", f"generation.stop_strings=['{stop}']")
    assert text == whole[: whole.index(stop) + 1]
    with pytest.raises(InputError, match=r"generation\.stop_strings: .* the letters abcdef"):
        generated(runs, "chars", "generation.stop_strings=[b]")


def test_a_continuations_first_word_is_set_apart_from_the_prompts_last():
    texts = ["the cat with a hat won't", "a cat's"] * 3
    cfg = TokenizerConfig(algorithm="wordpiece", vocab_size=99, min_frequency=1)
    tokenizer = tokenizers.load(cfg, lambda: [texts], special_tokens={"eos_token": "<eos>", "pad_token": "<pad>"})

    def continued(prompt, text, padding=0):
        ids = [tokenizer.pad_token_id] * padding + tokenizer(prompt)["input_ids"]
        return generation._continuation(ids + tokenizer(text)["input_ids"], len(ids), tokenizer)

    assert continued("the cat", "with") == " with"
    assert continued("the cat", "with a hat", padding=5) == " with a hat"
    assert continued("", "with") == "with"
    ids = tokenizer("cats")["input_ids"]
    assert generation._continuation(ids, 1, tokenizer) == tokenizer.decode(ids).removeprefix(tokenizer.decode(ids[:1]))


def test_a_prompt_without_tokens_is_refused_in_one_line(runs):
    cfg = TokenizerConfig(algorithm="wordpiece", vocab_size=99, min_frequency=1)
    special = {"eos_token": "<eos>", "pad_token": "<pad>"}
    ended, endless = (
        tokenizers.load(cfg, lambda: [["the cat", "a cat"]], special_tokens=tokens)
        for tokens in (special, {"pad_token": "<pad>"})
    )
    for tokenizer in (ended, endless):
        tokenizer.padding_side = "left"
        assert generation.encoded(["the cat", "cat"], tokenizer)["attention_mask"].tolist() == [[1, 1], [0, 1]]
        for prompts in (["the", "\u200b \t"], [" "]):
            with pytest.raises(InputError, match=r"^prompt: '.*' has no token of this tokenizer; give another"):
                generation.encoded(prompts, tokenizer)
    assert generation.encoded([""], ended)["input_ids"].tolist() == [[ended.eos_token_id]]
    with pytest.raises(InputError, match=r"^prompt: empty, and the tokenizer has no token that begins or ends a text"):
        generation.encoded(["the", ""], endless)
