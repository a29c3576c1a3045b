"""`generate`: continue a prompt, or every prompt of a file, with transformers' own generation settings."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_llm import console, runs
from hf_llm.config import GenerateConfig, InputError
from hf_llm.config.generation import MORE_THAN_TEXTS, checked

if TYPE_CHECKING:
    from transformers import BatchEncoding, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def generate(cfg: GenerateConfig) -> list[dict[str, str]]:
    """One `{"prompt", "text"}` per prompt and returned sequence; `text` is the continuation alone.

    Raises:
        InputError: no such run, model or prompt file; an unknown generation setting; a prompt too long for the model.
    """
    console.set_up()
    runs.check_output(cfg.output)
    prompts = _prompts(cfg)
    import torch
    from tqdm import tqdm
    from transformers import set_seed

    from hf_llm import saved

    loaded = saved.load(cfg)
    if loaded.task.predicts:
        raise InputError(f"{type(loaded.model).__name__} is of another task: use `hf-llm predict`")
    chosen = settings(cfg.generation, loaded.model, loaded.tokenizer)
    device = cfg.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model: Any = loaded.model
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:  # no such kind, none here, or a torch built without it
        raise InputError(f"device={device}: {str(error).splitlines()[0]}") from error
    tokenizer = loaded.tokenizer
    tokenizer.padding_side = "left"  # a continuation starts right after its prompt
    set_seed(cfg.seed)
    results = []
    starts = range(0, len(prompts), cfg.batch_size)
    for start in tqdm(starts, desc="generating", disable=len(starts) < 2 or not runs.is_main_process()):
        batch = prompts[start : start + cfg.batch_size]
        inputs = encoded(batch, tokenizer).to(device)
        length = inputs["input_ids"].shape[1]
        check_room(length, chosen, model)
        try:
            output = model.generate(**inputs, generation_config=chosen, tokenizer=tokenizer)  # for stop_strings
        except (ValueError, ArithmeticError) as error:  # some settings are looked at only here
            raise InputError(f"generation: {' '.join(str(error).split())}") from error
        continuations = [_continuation(row, length, tokenizer) for row in output.tolist()]
        each = len(continuations) // len(batch)  # num_return_sequences
        results += [{"prompt": batch[i // each], "text": text} for i, text in enumerate(continuations)]
    return results


def encoded(prompts: list[str], tokenizer: PreTrainedTokenizerBase) -> BatchEncoding:
    """The prompts' tokens, of which each has to have some: a model goes on from something.

    An empty prompt starts where a document starts: after the end of another.

    Raises:
        InputError: naming the first prompt that has none.
    """
    start = tokenizer.bos_token or tokenizer.eos_token
    if start is None and not all(prompts):
        raise InputError("prompt: empty, and the tokenizer has no token that begins or ends a text; give a prompt")
    texts = [prompt or start for prompt in prompts]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    for prompt, has_tokens in zip(prompts, inputs["attention_mask"].any(dim=1).tolist(), strict=True):
        if not has_tokens:
            raise InputError(f"prompt: {prompt!r} has no token of this tokenizer; give another prompt")
    return inputs


def _continuation(row: list[int], length: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of `row` after its first `length` tokens, the prompt's.

    Decoded by themselves those after it would lose the space that WordPiece and Metaspace put between two words.
    """
    prompt, whole = tokenizer.batch_decode([row[:length], row], skip_special_tokens=True)
    if whole.startswith(prompt):
        return whole[len(prompt) :]
    return tokenizer.batch_decode([row[length:]], skip_special_tokens=True)[0]  # it changed how the prompt is written


def _prompts(cfg: GenerateConfig) -> list[str]:
    if cfg.prompt is not None and cfg.prompts is not None:
        raise InputError("prompt and prompts: give one of them")
    if cfg.prompts is None:
        return [cfg.prompt or ""]
    from hf_llm.data import decoding

    remedy = "prompts are read as utf-8"
    if cfg.prompts == "-":
        text = decoding.standard_input(sys.stdin, "utf-8", remedy)
    elif Path(cfg.prompts).is_file():
        text = decoding.decode(Path(cfg.prompts).read_bytes(), cfg.prompts, "utf-8", remedy)
    else:
        raise InputError(f"prompts={cfg.prompts}: no such file")
    lines = decoding.lines(text)
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise InputError(f"prompts={cfg.prompts}: empty; a prompt per line is wanted")
    blank = f"; left out: {len(lines) - len(prompts):,} blank lines" if len(prompts) < len(lines) else ""
    said = f"{len(lines):,} line{'s' * (len(lines) > 1)} read, {len(prompts):,} used{blank}"
    logger.info("%s: %s", decoding.STANDARD_INPUT if cfg.prompts == "-" else cfg.prompts, said)
    return prompts


def settings(given: dict[str, Any], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """The model's own generation settings with those that are given laid over them.

    Raises:
        InputError: an unknown setting, a value that it cannot have, or values that do not go together.
    """
    from transformers import GenerationConfig

    given = checked(given, "generation.")
    probe = "abcdef"  # transformers' own, by which it finds out how each token is spelt
    if given.get("stop_strings") and probe not in tokenizer.decode(tokenizer(probe)["input_ids"]):
        raise InputError(
            f"generation.stop_strings: wants a tokenizer with the letters {probe}, and this one lacks some"
        )
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    own = {name: value for name, value in model.generation_config.to_diff_dict().items() if value is not None}
    own |= dict.fromkeys(MORE_THAN_TEXTS, False)  # what is not set, `generate` takes from the model
    if "max_length" in given:  # the model's own max_new_tokens would win
        own.pop("max_new_tokens", None)
    try:
        return GenerationConfig(**{**ends, **own, **given})
    except (ValueError, TypeError) as error:
        raise InputError(f"generation: {' '.join(str(error).split())}") from error


def check_room(length: int, settings: GenerationConfig, model: PreTrainedModel) -> None:
    """Past its last position a GPT-2 fails deep inside an embedding look-up: say it here, with the numbers."""
    room = getattr(model.config, "max_position_embeddings", None)
    if not room:
        return
    if settings.max_new_tokens is None and settings.max_length and settings.max_length > room:
        raise InputError(f"generation.max_length={settings.max_length} exceeds the model's {room} positions")
    if settings.max_new_tokens and length + settings.max_new_tokens > room:
        raise InputError(
            f"the prompt's {length} tokens and generation.max_new_tokens={settings.max_new_tokens} exceed the model's "
            f"{room} positions: at most generation.max_new_tokens={max(room - length, 0)} fit"
        )


def generate_command(cfg: GenerateConfig) -> None:
    """`hf-llm generate`: the texts, or with `output` a JSONL file."""
    results = generate(cfg)
    if cfg.output == "-":
        print("\n\n".join(result["prompt"] + result["text"] for result in results))
    elif runs.is_main_process():
        runs.write(Path(cfg.output), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in results))
        console.say(f"{len(results)} texts in {cfg.output}")
