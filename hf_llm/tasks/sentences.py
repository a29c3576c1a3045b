"""Cut a text into sentences by its punctuation, English and Chinese.

English ends a sentence with a full stop and white space. Chinese papers end one with "." or "．" and no space, so the
characters on both sides decide there; numbers, abbreviations and addresses must not be cut.
"""

from __future__ import annotations

import re

ABBREVIATIONS = r"(?<!\be\.g)(?<!\bi\.e)(?<!\bet al)(?<!\bvs)(?<!\bcf)(?<!\bFig)(?<!\bDr)(?<!\bMr)(?<!\bMrs)(?<!\bMs)"
SENTENCE_END = re.compile(rf"(?:{ABBREVIATIONS}\.|[!?])[\"'”’)\]]*\s+|[。！？｡]+[”’」』）]*\s*|\n+")

# Chinese and Japanese characters, without their punctuation
CJK = "\u2e80-\u2fff\u3005-\u3007\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
HAS_CJK = re.compile(rf"[{CJK}]")
ENDS_CLAUSE = re.compile(rf"[{CJK}）】》」』”’)%％‰℃]")  # the character before a stop, in Chinese
STARTS_CLAUSE = re.compile(rf'[{CJK}“‘《「『【（"]')  # the character after one
NO_START = re.compile(r"[a-z,，、;；:：)）\]】]|NET(?![A-Za-z])")  # 中国.cn, 基于.NET平台
STOP = re.compile(r"(?:(?<![.．])[.．](?![.．])|[!?]+)[”’」』）)\]]*")
# What stands before a stop that ends no sentence: the number of an item ("1", "A"), initials, an abbreviation
ITEM = r"(?:^|[\s,，、;；:：。!！?？(（]|(?<!\d)[.．])(?:\d{1,2}|[A-Za-z])"
SHORTENED = r"(?:e\.g|i\.e|al|vs|cf|Figs?|Eqs?|Tab|Refs?|No|Vol|Drs?|Mrs?|Ms|Prof|spp?|subsp|var|Inc|Ltd|www)"
GOES_ON = re.compile(rf"(?:{ITEM}|(?:^|[^A-Za-z]){SHORTENED})$")
SHORTENED_IN_CHINESE = re.compile(rf"[{CJK}]{SHORTENED}$")
LONGEST = 16  # characters before a stop that GOES_ON looks at


def sentences(text: str) -> list[str]:
    """The sentences of a text. A line's end is one, too."""
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    if HAS_CJK.search(text):
        ends = sorted({end for end in ends if not _is_no_end(text, end)} | set(_chinese_ends(text)))
    parts = [text[start:end].strip() for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [part for part in parts if part]


def first_sentences(text: str, count: int) -> str:
    """Its first `count` sentences, as they stand."""
    return " ".join(sentences(text)[:count])


def _chinese_ends(text: str) -> list[int]:
    """Where a sentence ends with ".", "．", "!" or "?" without white space after it, beside Chinese characters."""
    found = ((match.start(), _after_quote(text, match.end())) for match in STOP.finditer(text, 1))
    return [end for stop, end in found if _ends_sentence(text, stop, end)]


def _after_quote(text: str, end: int) -> int:
    """Past a straight quotation mark, where it closes what another one has opened."""
    return end + (text[end : end + 1] == '"' and text.count('"', 0, end) % 2 == 1)


def _ends_sentence(text: str, stop: int, end: int) -> bool:
    """Whether the punctuation mark at `stop`, with closing quotes up to `end`, ends a Chinese sentence."""
    if end == len(text):
        return False
    is_full_stop = text[stop] in ".．"
    if is_full_stop and _goes_on(text, stop):
        return False
    if text[end].isspace():
        return text[stop] == "．"
    if STARTS_CLAUSE.match(text, end):
        return True
    after_chinese = bool(ENDS_CLAUSE.match(text, stop - 1))
    return after_chinese and not NO_START.match(text, end)


def _goes_on(text: str, stop: int) -> bool:
    return bool(GOES_ON.search(text[max(0, stop - LONGEST) : stop]))


def _is_no_end(text: str, end: int) -> bool:
    """Whether a stop and white space up to `end` end no sentence in Chinese: "如Fig. 3", "1. 方法"."""
    stop = end - 1
    while text[stop].isspace():
        stop -= 1
    if text[stop] != "." or "\n" in text[stop:end]:
        return False
    if SHORTENED_IN_CHINESE.search(text[max(0, stop - LONGEST) : stop]):
        return True
    return bool(HAS_CJK.match(text, end)) and _goes_on(text, stop)
