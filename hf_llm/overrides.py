"""What is typed on the command line -> overrides that Hydra reads as they were meant.

Beside cli.py the only module that imports Hydra, and only its override grammar.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_llm.config import InputError
from hf_llm.config.values import nearest
from hf_llm.help import choices

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

# Keys that say which option of a group is meant, where the command names none: `data.files.train=my.txt` is enough.
IMPLIED = {
    "data.files": "data=files",
    "data.path": "data=files",
    "launcher.profile": "launcher=accelerate",
    "model.arch": "model=arch",
    "model.pretrained": "model=pretrained",
}

# Keys whose value is text, though Hydra would read 2024_01_15 as the number 20240115 and 1e3 as 1000.
TEXT = (
    *("run", "runs_dir", "input", "output", "prompts", "data.path", "data.files", "data.columns"),
    *("model.pretrained", "tokenizer.pretrained", "launcher.profile", "launcher.partition", "launcher.account"),
    *("repo", "revision", "name", "message", "include", "card.license", "card.data_license", "card.description"),
)


def prepare(verb: str, overrides: list[str], folders: list[Path]) -> tuple[list[str], list[str]]:
    """Overrides for Hydra, and what is wrong with the choices among them.

    `key=value` becomes `++key=value`: every field is then an override without `+`, and `check` gets to see (and name)
    a misspelt one. A group's choice that none of `folders` (conf/, and the user's own) has is taken out, and reported.
    """
    groups = {folder.name for root in folders for folder in root.iterdir() if folder.is_dir()}
    mistakes = _contradictions(overrides)
    overrides = overrides + _implied(verb, overrides)
    rewritten = []
    for given in overrides:
        try:
            text, override = _readable(given, verb)
        except InputError as error:
            mistakes.append(str(error))
            continue
        key = override.key_or_group
        if key == "accelerate":
            mistakes.append(f"{text}: no group of the configuration; its files are chosen by launcher.profile=NAME")
        elif key.startswith("hydra") or override.is_delete():
            rewritten.append(text)
        elif key in groups:
            options = choices(key, folders)
            values = ["null" if value is None else str(value) for value in _values(override)]
            if (key, values) == ("experiment", ["null"]):  # as train.yaml has it
                continue
            missing = [value for value in values if value not in options]
            mistakes += [_no_such_option(key, value, options) for value in missing]
            if not missing:
                rewritten.append(text)
        else:
            rewritten.append(f"++{text.lstrip('+')}")
    return rewritten, mistakes


def _readable(text: str, verb: str) -> tuple[str, Override]:
    """An override as Hydra can read it; what its grammar has no room for (café.txt, a = b) is meant as it stands.

    Raises:
        InputError: it is not KEY=VALUE, or a list, group or quotation in it is not well formed.
    """
    from hydra.errors import HydraException

    parser = _parser()
    key, equals, value = text.partition("=")
    if equals and not all(key.lstrip("+~").split(".")):
        raise InputError(f"{text}: an override is KEY=VALUE, and {key!r} is no key")
    # A quote's backslashes are doubled, and it gets one of its own; so for the closing quote.
    escaped = re.sub(r"(\\*)$", r"\1\1", re.sub(r"(\\*)'", r"\1\1\\'", value), count=1)
    literal = f"{key}='{escaped}'"
    if (verb, key.lstrip("+")) == ("generate", "prompt") and value and value[0] not in "'\"":
        return literal, parser.parse_override(literal)  # any text: no list, no number, no sweep
    try:
        override = parser.parse_override(text)
        if equals and f"{key.lstrip('+')}.".startswith(tuple(f"{name}." for name in TEXT)):
            text = f"{key}={_numbers_quoted(value, override)}"
        return text, parser.parse_override(text)
    except HydraException as error:
        if not equals:
            raise InputError(f"{text}: an override is KEY=VALUE; the EQUAL sign is missing") from error
        if not re.fullmatch(r"[+~]*[\w.@/:-]+", key):
            raise InputError(f"{text}: an override is KEY=VALUE, and {key!r} is no key") from error
        if value[:1] in "[{":
            raise InputError(f"{text}: the list or group is not well formed") from error
        return literal, parser.parse_override(literal)


def _parser() -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


def _numbers_quoted(value: str, override: Override) -> str:
    """The value, with quotes where Hydra reads a number or a truth value, also among those of a sweep."""
    read: Any = override.value()
    parts, read = (value.split(","), read.list) if override.is_choice_sweep() else ([value], [read])
    if len(parts) != len(read) or value.startswith("choice("):  # a comma that parts no values
        return value
    return ",".join(
        f"'{part.strip()}'" if isinstance(item, (bool, int, float)) else part
        for part, item in zip(parts, read, strict=True)
    )


def _implied(verb: str, overrides: list[str]) -> list[str]:
    """Choices that the overrides make without naming them; an experiment has made its own."""
    keys = {override.split("=")[0].lstrip("+~") for override in overrides}
    if verb == "generate" and "generation.max_length" in keys and "generation.max_new_tokens" not in keys:
        return ["~generation.max_new_tokens"]  # generate.yaml's, which would win over the length that is asked for
    if verb != "train" or "experiment" in keys:
        return []
    implied = [choice for prefix, choice in IMPLIED.items() if any(f"{key}.".startswith(f"{prefix}.") for key in keys)]
    by_group = dict(choice.split("=") for choice in implied)
    return [f"{group}={option}" for group, option in by_group.items() if group not in keys]


def _contradictions(overrides: list[str]) -> list[str]:
    """Two keys of the command line of which one would win without a word. What a recipe says may be overridden."""
    typed = {key.lstrip("+~"): value for key, _, value in (override.partition("=") for override in overrides)}
    found = []
    if "run" in typed and "trainer.output_dir" in typed:
        found.append(f"run={typed['run']} and trainer.output_dir={typed['trainer.output_dir']}: give one of them")
    algorithm, pretrained = typed.get("tokenizer", "auto"), typed.get("tokenizer.pretrained", "null")
    if algorithm not in ("auto", "pretrained", "null") and pretrained != "null":
        found.append(f"tokenizer={algorithm} and tokenizer.pretrained={pretrained}: give one of them")
    return found


def _no_such_option(group: str, value: str, options: list[str]) -> str:
    hint = nearest(value, options)
    return (
        f"{group}={value}: no such option; "
        + (f"did you mean {group}={hint}? there are " if hint else "there are ")
        + ", ".join(options)
    )


def _values(override: Override) -> list[Any]:
    if override.is_sweep_override():
        return list(override.sweep_string_iterator())
    return [override.value()]


def swept_keys(overrides: list[str]) -> list[str]:
    """The keys that a sweep (`-m`) goes through several values of."""
    parsed = _parser().parse_overrides(overrides)
    return [item.key_or_group for item in parsed if item.is_sweep_override()]
