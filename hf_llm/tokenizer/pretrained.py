"""A pretrained tokenizer from a folder or the Hub, and the guard against one that loads almost empty.

Traps of transformers 5 that this module exists for: `AutoTokenizer` refuses a folder of bare vocabulary files; a
tokenizer class given the 4.x keywords `vocab_file=` and `merges_file=` silently has its special tokens only; so has
what `AutoTokenizer` makes of a model's folder with a config.json but no vocabulary.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from tokenizers import Regex, decoders, normalizers
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    GPT2Tokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
)
from transformers.convert_slow_tokenizer import SentencePieceExtractor
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES
from transformers.utils import cached_file, is_protobuf_available, is_sentencepiece_available
from transformers.utils.hub import resolve_revision

from hf_llm.config import InputError

logger = logging.getLogger(__name__)

# What a special token is for, by its name: all there is to go by in a tokenizer.json without a tokenizer_config.json.
_ROLES = {
    "bos_token": ("<s>", "<bos>", "[BOS]", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>"),
    "eos_token": ("</s>", "<eos>", "[EOS]", "<|end_of_text|>", "<|endoftext|>", "<|im_end|>"),
    "pad_token": ("[PAD]", "<pad>", "<|pad|>", "<|finetune_right_pad_id|>"),
    "unk_token": ("[UNK]", "<unk>", "<|unk|>"),
    "cls_token": ("[CLS]",),
    "sep_token": ("[SEP]",),
    "mask_token": ("[MASK]", "<mask>"),
}

# Files of a tokenizer's settings: each may hold any argument of its class, and what these name is opened.
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
_OPENED = re.compile(r"vocab|merges|init_inputs|\w*_(file|files|spm|dir)")


def load(
    name: str, *, revision: str | None = None, lowercase: bool = False, special_tokens: Mapping[str, str]
) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or Hub id, completed with what the task needs.

    Args:
        lowercase: for a bare vocab.txt; also taken to be so where the vocabulary has no capital letters.
        special_tokens: role to token. A role the tokenizer fills stays as it is; eos is added where it is missing, sep
            or cls where it has the other; a missing pad is eos (or sep), so that the vocabulary need not grow.

    Raises:
        InputError: no such folder or Hub id, files that are not a tokenizer's, a near-empty result, or a tokenizer
            that is not of the `tokenizers` library: encoding and fingerprints rely on it.
    """
    where = f"tokenizer.pretrained={name}"
    if not name.strip():
        raise InputError("tokenizer.pretrained is empty; give a folder or a Hub id")
    folder = Path(name).expanduser()
    if folder.is_file():
        raise InputError(f"{where} is a file; give its folder, {folder.parent}")
    try:
        tokenizer = _from_folder(folder, where, lowercase) if folder.is_dir() else _from_hub(name, where, revision)
        tokenizer("a 中 \U0001f600")  # a WordPiece vocabulary without its unk token fails only on an unknown word
    except InputError:
        raise
    except Exception as error:  # transformers and tokenizers raise many kinds for a broken file
        raise InputError(f"{where} cannot be read: {_one_line(error)}") from error
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise InputError(
            f"{where} is a {type(tokenizer).__name__}, which transformers has in Python only; give one with a "
            f"tokenizer.json, or train one (tokenizer=byte is as ByT5's, a token per byte)"
        )
    _check_full(tokenizer, folder if folder.is_dir() else None, where)
    _complete(tokenizer, special_tokens)
    for key in ("is_local", "local_files_only"):  # how it was reached is no part of what it is
        tokenizer.init_kwargs.pop(key, None)
    logger.info("tokenizer: %s, %s tokens", name, f"{len(tokenizer):,}")
    return tokenizer


def _from_folder(folder: Path, where: str, lowercase: bool) -> PreTrainedTokenizerBase:
    files = {path.name for path in folder.iterdir()}
    _refuse_places({name: folder / name for name in (*_SETTINGS, "tokenizer.json") if name in files}, where)
    sentencepiece = sorted(name for name in files if name.endswith(".model"))
    declared = _declared_class(folder / "config.json")
    # Of a bare vocab.txt BertTokenizer itself would take any to be uncased.
    if "tokenizer_config.json" in files or (
        declared
        and ("tokenizer.json" in files or declared != "BertTokenizer")
        and (sentencepiece or files & {"tokenizer.json", "vocab.json", "vocab.txt", "tekken.json"})
    ):
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    if "tokenizer.json" in files:
        return _with_roles(PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")))
    if {"vocab.json", "merges.txt"} <= files:
        vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        merges = (folder / "merges.txt").read_text(encoding="utf-8").count("\n")
        if merges < 0.9 * (len(vocab) - 300):  # 256 bytes and a few special tokens are not merged from others
            raise InputError(f"{where}: merges.txt has {merges:,} lines, too few for the {len(vocab):,} of vocab.json")
        bare = RobertaTokenizer if "<s>" in vocab and "<|endoftext|>" not in vocab else GPT2Tokenizer
        return bare.from_pretrained(str(folder))
    if "vocab.txt" in files:
        uncased = lowercase or not _has_capitals(_lines(folder / "vocab.txt"))
        logger.info("%s: a bare WordPiece vocabulary, %s", where, "lower-cased" if uncased else "cased")
        return BertTokenizer.from_pretrained(str(folder), do_lower_case=uncased)
    if sentencepiece:
        return _from_sentencepiece(folder / sentencepiece[0], where)
    raise InputError(
        f"{where} holds no tokenizer: tokenizer.json, vocab.json with merges.txt, vocab.txt or a SentencePiece "
        f"*.model is needed, and there is {', '.join(sorted(files)[:8]) or 'nothing'}"
    )


def _declared_class(config: Path) -> str | None:
    """The tokenizer class that transformers has for the model of `config`, a config.json that may not be there."""
    if not config.is_file():
        return None
    return TOKENIZER_MAPPING_NAMES.get(json.loads(config.read_text(encoding="utf-8")).get("model_type"))


def _from_sentencepiece(path: Path, where: str) -> PreTrainedTokenizerFast:
    if not (is_sentencepiece_available() and is_protobuf_available()):
        raise InputError(
            f"{where}: {path.name} is a SentencePiece model; to read it, pip install sentencepiece protobuf"
        )
    options = PreTrainedTokenizerFast.convert_to_native_format(vocab_file=str(path))
    options.pop("vocab_file", None)  # an absolute path, which would be saved
    backend, spec = options["tokenizer_object"], SentencePieceExtractor(str(path)).proto.normalizer_spec
    # transformers converts the pieces, but leaves out what the model does with spaces.
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps += [normalizers.Precompiled(spec.precompiled_charsmap)]
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps += [normalizers.Prepend(" ")]
        backend.decoder = decoders.Sequence([backend.decoder, decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(**options)


def _from_hub(name: str, where: str, revision: str | None) -> PreTrainedTokenizerBase:
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise InputError(f"{where}: there is no such folder")
    revision = resolve_revision(name, revision)  # one commit: what is looked at is what is loaded
    try:
        found = {
            file: cached_file(name, file, revision=revision, _raise_exceptions_for_missing_entries=False)
            for file in (*_SETTINGS, "tokenizer.json")
        }
        _refuse_places({file: Path(path) for file, path in found.items() if path}, where)
        return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    except InputError:
        raise
    except Exception as error:
        if constants.HF_HUB_OFFLINE:
            reason = "no such folder, and offline (HF_HUB_OFFLINE) it is not in the Hub cache"
        else:
            reason = f"no such folder, and from the Hub: {_one_line(error)}"
        raise InputError(f"{where}: {reason}") from error


def _refuse_places(files: Mapping[str, Path], where: str) -> None:
    """Raises InputError where settings among `files` name a file that is none of the tokenizer's own."""
    for file in (name for name in _SETTINGS if name in files):
        for key, value in _opened(json.loads(files[file].read_text(encoding="utf-8"))):
            # Of these transformers takes its own, and many tokenizers on the Hub tell where they were saved.
            if file == "tokenizer_config.json" and (
                key == "special_tokens_map_file" or (key == "tokenizer_file" and "tokenizer.json" in files)
            ):
                continue
            # A bare name is looked for where the command was given, which may be the tokenizer's own folder.
            elsewhere = Path(value).is_file() and Path.cwd() != files[file].parent.resolve()
            if elsewhere or value == ".." or re.search(r"[\\/]", value):
                raise InputError(f"{where}: {file} names a file of this machine, {key}={value}; take it out")


def _opened(node: Any) -> Iterator[tuple[str, str]]:
    for key, value in node.items() if isinstance(node, dict) else ():
        if not _OPENED.fullmatch(key):
            yield from _opened(value)
        elif isinstance(value, str):
            yield key, value
        elif isinstance(value, list) and key not in ("vocab", "merges"):  # in which a list is of tokens
            yield from ((key, name) for name in value if isinstance(name, str))


def _with_roles(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Say what the special tokens of a bare tokenizer.json are for, by their names."""
    there = tokenizer.get_added_vocab()
    roles = {role: next((name for name in names if name in there), None) for role, names in _ROLES.items()}
    tokenizer.add_special_tokens({role: name for role, name in roles.items() if name is not None})
    if roles["cls_token"] and roles["sep_token"]:
        tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return tokenizer


def _complete(tokenizer: PreTrainedTokenizerBase, special_tokens: Mapping[str, str]) -> None:
    """Fill the roles that the task needs and the tokenizer has not."""
    missing: dict[str, Any] = {}
    if "eos_token" in special_tokens and tokenizer.eos_token is None:
        missing["eos_token"] = special_tokens["eos_token"]
    pair = {role: getattr(tokenizer, role) for role in ("cls_token", "sep_token") if role in special_tokens}
    if any(pair.values()):  # of BERT's style: then both; a GPT-2 has neither and needs neither
        missing.update({role: special_tokens[role] for role, token in pair.items() if token is None})
    elif pair.keys() == {"sep_token"} and special_tokens["sep_token"] != special_tokens.get("eos_token"):
        missing["sep_token"] = special_tokens["sep_token"]  # what stands between two texts
    before = len(tokenizer)
    tokenizer.add_special_tokens(missing)
    if tokenizer.pad_token is None:
        substitute = tokenizer.eos_token or tokenizer.sep_token
        if substitute is None:
            tokenizer.add_special_tokens({"pad_token": special_tokens.get("pad_token", "<|pad|>")})
        else:
            tokenizer.pad_token = substitute
            logger.info("tokenizer: no pad token; %s pads", substitute)
    if len(tokenizer) > before:
        added = [str(tokenizer.convert_ids_to_tokens(i)) for i in range(before, len(tokenizer))]
        logger.info("tokenizer: added %s", ", ".join(added))


def _check_full(tokenizer: PreTrainedTokenizerBase, folder: Path | None, where: str) -> None:
    """Raise InputError where the tokenizer has few of its vocabulary file's entries, or special tokens only."""
    entries = _entries(folder) if folder else 0
    size = len(tokenizer)
    if size < 0.9 * entries:
        raise InputError(
            f"{where} loads with {size:,} of its {entries:,} tokens: tokenizer_config.json or config.json names a "
            f"class ({type(tokenizer).__name__}) that does not fit the vocabulary file"
        )
    if size <= len(set(tokenizer.all_special_ids)):
        raise InputError(f"{where} loads with its {size} special tokens only: its vocabulary file is missing or empty")


def _entries(folder: Path) -> int:
    """How many tokens the vocabulary file in `folder` has; 0 where there is none that is plain to count."""
    if (path := folder / "tokenizer.json").is_file():
        return len(json.loads(path.read_text(encoding="utf-8"))["model"].get("vocab", ()))
    if (path := folder / "vocab.json").is_file():
        return len(json.loads(path.read_text(encoding="utf-8")))
    if (path := folder / "vocab.txt").is_file():
        return len(set(_lines(path)))
    return 0


def _lines(path: Path) -> list[str]:
    # Not splitlines(): BERT's Chinese vocabulary has the Unicode line separator itself as an entry.
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def _has_capitals(entries: list[str]) -> bool:
    return any(re.search("[A-Z]", entry) and not re.fullmatch(r"\[.*\]|<.*>", entry) for entry in entries)


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
