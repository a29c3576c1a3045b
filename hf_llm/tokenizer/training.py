"""Training a tokenizer on the train split with the `tokenizers` library.

It is deterministic: the same texts give the same tokenizer.json, byte for byte, whatever the number of threads.
`tokenizers` alone does not promise that: its WordPiece and Unigram trainers walk hash maps whose order changes from
process to process, so these two are brought into a canonical order below.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from hf_llm.config import InputError, TokenizerConfig

logger = logging.getLogger(__name__)

Texts = Callable[[], Iterable[list[str]]]


def train(cfg: TokenizerConfig, texts: Texts | None, *, special_tokens: Mapping[str, str]) -> PreTrainedTokenizerFast:
    """A tokenizer of `cfg.algorithm` trained on `texts`; arguments and errors as for `tokenizer.load`.

    An unk token is there only where the algorithm can meet what it does not know.
    """
    if cfg.algorithm not in _ALGORITHMS:
        raise InputError(f"tokenizer.algorithm={cfg.algorithm} is unknown; there are {', '.join(_ALGORITHMS)}")
    roles = dict(special_tokens)
    if cfg.algorithm in ("byte_level_bpe", "byte"):
        roles.pop("unk_token", None)
    else:
        roles.setdefault("unk_token", "[UNK]" if cfg.algorithm == "wordpiece" else "<unk>")
    roles.setdefault("pad_token", "<|pad|>")
    special = list(dict.fromkeys(roles.values()))

    if cfg.algorithm != "byte":
        if texts is None:
            raise InputError(
                f"tokenizer.algorithm={cfg.algorithm} needs a train split to learn from and there is none; "
                "give data with one, or tokenizer.pretrained"
            )
        _check_room(cfg, special)
        texts = _with_content(texts)
    backend = _ALGORITHMS[cfg.algorithm](cfg, texts, special, roles.get("unk_token", ""))
    backend.add_special_tokens(special)
    if backend.get_vocab_size() <= len(special):
        raise InputError(
            f"tokenizer.min_frequency={cfg.min_frequency}: nothing in the train split is that frequent, so the "
            "vocabulary would be empty; lower it"
        )

    inputs = ["input_ids", "attention_mask"]
    if "cls_token" in roles and "sep_token" in roles:
        backend.post_processor = _between(roles["cls_token"], roles["sep_token"], backend)
        inputs.insert(1, "token_type_ids")
    elif "sep_token" in roles:
        sep = roles["sep_token"]
        ids = [(sep, backend.token_to_id(sep))]
        backend.post_processor = processors.TemplateProcessing(single=f"$A {sep}", special_tokens=ids)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=inputs, **roles)
    logger.info("tokenizer: %s, %s tokens", cfg.algorithm, f"{len(tokenizer):,}")
    return tokenizer


def _byte_level_bpe(cfg: TokenizerConfig, texts: Texts, special: list[str], unk: str) -> Tokenizer:
    """Radford et al. 2019, as GPT-2 does it: any text round-trips."""
    tokenizer = _tokenizer(
        models.BPE(), pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel(), _lowercase(cfg)
    )
    trainer = trainers.BpeTrainer(
        vocab_size=cfg.vocab_size,
        min_frequency=cfg.min_frequency,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def _wordpiece(cfg: TokenizerConfig, texts: Texts, special: list[str], unk: str) -> Tokenizer:
    """Devlin et al. 2019, as BERT does it; each CJK character is a word of its own.

    The trainer numbers the ##x forms of the alphabet in hash order, and ties between merges are broken by number. So
    the alphabet is found first, then given to it sorted.
    """
    normalizer = normalizers.BertNormalizer(lowercase=cfg.lowercase)
    words = pre_tokenizers.BertPreTokenizer()

    def trained(**options) -> dict[str, int]:
        tokenizer = _tokenizer(models.WordPiece(unk_token=unk), words, None, normalizer)
        trainer = trainers.WordPieceTrainer(min_frequency=cfg.min_frequency, show_progress=False, **options)
        tokenizer.train_from_iterator(texts(), trainer)
        return tokenizer.get_vocab()

    alphabet = set(trained(vocab_size=0)) - set(special)
    room = cfg.vocab_size - len(special)
    if len(alphabet) > room:  # the trainer would overrun vocab_size: keep the most frequent characters
        forms = [[form for form in (c, f"##{c}") if form in alphabet] for c in _characters(texts, normalizer, words)]
        alphabet = set()
        for form in forms:
            if len(alphabet) + len(form) > room:
                break
            alphabet.update(form)
        logger.info(
            "tokenizer.vocab_size=%d does not hold all characters: the rarest %d of %d become %s",
            cfg.vocab_size,
            len(forms) - len({f.removeprefix("##") for f in alphabet}),
            len(forms),
            unk,
        )
    # A text may hold "#" and even "##" as characters; a form is what the trainer made of one character.
    characters = sorted({form[-1] for form in alphabet})
    vocab = trained(
        vocab_size=cfg.vocab_size,
        special_tokens=[*special, *sorted(alphabet)],
        initial_alphabet=characters,
        limit_alphabet=len(characters),
    )
    return _tokenizer(models.WordPiece(vocab, unk_token=unk), words, decoders.WordPiece(), normalizer)


def _unigram(cfg: TokenizerConfig, texts: Texts, special: list[str], unk: str) -> Tokenizer:
    """Kudo 2018, as SentencePiece does it, but spaces and line ends survive, so that known characters round-trip.

    Two trainings on the same texts give scores that differ in the last digits, and characters too rare for a score of
    their own get theirs in hash order, from the lowest score up in steps of 1e-4. Here scores are rounded, those
    characters all get the lowest score, and pieces are sorted.
    """
    # Chinese has no spaces: without the cut at its punctuation a paragraph is one word, and training takes minutes.
    cut = pre_tokenizers.Split(Regex(r"\n|(?![\x00-\x7F])\p{P}"), "isolated")
    spaces = pre_tokenizers.Metaspace(prepend_scheme="never")
    words = pre_tokenizers.Sequence([cut, spaces])
    decoder = decoders.Metaspace(prepend_scheme="never")
    tokenizer = _tokenizer(models.Unigram(), words, decoder, _lowercase(cfg))
    trainer = trainers.UnigramTrainer(
        vocab_size=cfg.vocab_size, special_tokens=special, unk_token=unk, show_progress=False
    )
    try:
        tokenizer.train_from_iterator(texts(), trainer)
    except InputError:
        raise
    except Exception as error:  # tokenizers raises a bare Exception
        if "not large enough" not in str(error):
            raise
        characters = len(_characters(texts, _lowercase(cfg), words))
        raise InputError(
            f"tokenizer.vocab_size={cfg.vocab_size} cannot hold the {characters:,} different characters of the train "
            f"split, which unigram keeps all; give at least {characters + len(special) + 1}"
        ) from error
    learnt = {
        piece: score for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"] if piece not in special
    }
    lowest = min(learnt.values())
    for piece, score in learnt.items():
        steps = (score - lowest) / 1e-4
        if len(piece) == 1 and steps < len(learnt) and abs(steps - round(steps)) < 1e-4:
            learnt[piece] = lowest
    ranked = sorted((-round(score, 4), piece) for piece, score in learnt.items())
    vocab = [*((token, 0.0) for token in special), *((piece, -negated) for negated, piece in ranked)]
    return _tokenizer(models.Unigram(vocab, unk_id=special.index(unk)), words, decoder, _lowercase(cfg))


def _word(cfg: TokenizerConfig, texts: Texts, special: list[str], unk: str) -> Tokenizer:
    """Whole words with inner apostrophes and hyphens, single punctuation marks, single Han characters, line ends.

    Spaces are not tokens; decoding puts them back where English and Chinese typography have them.
    """
    letter = r"(?:(?!\p{Han})\w)"
    words = pre_tokenizers.Split(Regex(rf"{letter}+(?:['’-]{letter}+)*|\p{{Han}}|\n|[^\w\s]"), "removed", invert=True)
    chinese, quotes = r"\p{Han}，。、；：？！《》「」", "“”‘’…—"  # the quotes are English ones as well
    unspaced = (
        r" (?=[.,:;!?%)\]}…”’\n])",
        r"(?<=[(\[{“‘\n]) ",
        rf"(?<=[{chinese}{quotes}]) (?=[{chinese}])",
        rf"(?<=[{chinese}]) (?=[{quotes}])",
    )
    joined = [decoders.WordPiece(prefix="##", cleanup=False), decoders.Fuse()]  # with spaces; no word begins with ##
    decoder = decoders.Sequence([*joined, *(decoders.Replace(Regex(pattern), "") for pattern in unspaced)])
    return _word_level(cfg, texts, special, unk, words, decoder)


def _char(cfg: TokenizerConfig, texts: Texts, special: list[str], unk: str) -> Tokenizer:
    """One token per Unicode code point, spaces and line ends too, the most frequent first."""
    return _word_level(cfg, texts, special, unk, pre_tokenizers.FixedLength(1), decoders.Fuse())


def _byte(cfg: TokenizerConfig, texts: Texts, special: list[str], unk: str) -> Tokenizer:
    """One token per byte of UTF-8, its id the byte's value; special tokens from 256 on. Nothing is learnt."""
    vocab = {character: byte for byte, character in sorted(bytes_to_unicode().items())}
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return _tokenizer(models.BPE(vocab, []), words, decoders.ByteLevel(), _lowercase(cfg))


_ALGORITHMS: dict[str, Callable[..., Tokenizer]] = {
    "byte_level_bpe": _byte_level_bpe,
    "wordpiece": _wordpiece,
    "unigram": _unigram,
    "word": _word,
    "char": _char,
    "byte": _byte,
}


def _tokenizer(model, pre_tokenizer, decoder, normalizer) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    for name, part in (("decoder", decoder), ("normalizer", normalizer)):
        if part is not None:
            setattr(tokenizer, name, part)
    return tokenizer


def _word_level(cfg, texts: Texts, special: list[str], unk: str, words, decoder) -> Tokenizer:
    tokenizer = _tokenizer(models.WordLevel(unk_token=unk), words, decoder, _lowercase(cfg))
    trainer = trainers.WordLevelTrainer(
        vocab_size=cfg.vocab_size, min_frequency=cfg.min_frequency, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def _lowercase(cfg: TokenizerConfig):
    return normalizers.Lowercase() if cfg.lowercase else None


def _characters(texts: Texts, normalizer, words) -> list[str]:
    """The different characters of the texts' words, the most frequent first, ties in code-point order."""
    tokenizer = _tokenizer(
        models.WordLevel(), pre_tokenizers.Sequence([words, pre_tokenizers.FixedLength(1)]), None, normalizer
    )
    trainer = trainers.WordLevelTrainer(vocab_size=0x110000, show_progress=False)  # as many as Unicode has
    tokenizer.train_from_iterator(texts(), trainer)
    return [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])]


def _between(cls: str, sep: str, backend: Tokenizer):
    ids = [(token, backend.token_to_id(token)) for token in (cls, sep)]
    return processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0", pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1", special_tokens=ids
    )


def _check_room(cfg: TokenizerConfig, special: list[str]) -> None:
    """Raise InputError where not even the bytes, or one token, fit beside the special tokens."""
    least = (256 if cfg.algorithm == "byte_level_bpe" else 1) + len(special)
    if cfg.vocab_size < least:
        what = "the 256 bytes" if cfg.algorithm == "byte_level_bpe" else "one token"
        raise InputError(
            f"tokenizer.vocab_size={cfg.vocab_size} is too small for {cfg.algorithm}: {what} and the "
            f"{len(special)} special tokens need at least {least}"
        )


def _with_content(texts: Texts) -> Texts:
    """`texts`, raising InputError at the end of a pass that had nothing but white space."""

    def batches() -> Iterator[list[str]]:
        empty = True
        for batch in texts():
            empty = empty and not any(text.strip() for text in batch)
            yield batch
        if empty:
            raise InputError("the train split holds no text to train a tokenizer on")

    return batches
