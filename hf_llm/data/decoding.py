"""The bytes of a file or of standard input -> text, strictly, and its lines."""

from __future__ import annotations

import codecs
from typing import TextIO

from hf_llm.config import InputError

STANDARD_INPUT = "standard input"
REMEDY = "set data.encoding"


def decode(raw: bytes, where: str, encoding: str, remedy: str = REMEDY) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        InputError: a byte is not of the encoding; what to do is the `remedy`.
    """
    try:
        return raw.decode(codec(encoding))
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        line = raw.count(b"\n", 0, start) + 1
        raise InputError(
            f"{undecodable(where, line, start + 1, raw[start], encoding, remedy)}{_encoding_hint(raw, encoding)}"
        ) from error


def codec(encoding: str) -> str:
    """The codec of `data.encoding`: a byte order mark is no part of the text, and utf-8-sig reads files without too.

    Raises:
        InputError: there is none of that name.
    """
    try:
        "".encode(encoding)  # unlike codecs.lookup, refuses base64 and the like
    except LookupError as error:
        raise InputError(f"data.encoding={encoding}: no such encoding; utf-8, gb18030 and cp1252 are some") from error
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def undecodable(where: str, line: int, number: int, byte: int, encoding: str, remedy: str = REMEDY) -> str:
    return f"{where}, line {line}: byte {number:,} of the file (0x{byte:02x}) is not {encoding}; {remedy}"


def _encoding_hint(raw: bytes, encoding: str) -> str:
    """ "=NAME" of an encoding that reads all of it; a guess, so only for a message."""
    candidates = ["utf-16"] if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ["utf-8", "gb18030", "cp1252", "latin-1"]
    for candidate in candidates:
        try:
            raw.decode(candidate)
        except UnicodeError:
            continue
        return f" ({candidate} would read it)"
    return ""


def standard_input(stream: TextIO, encoding: str, remedy: str = REMEDY) -> str:
    """All of it, decoded as a file is: its own encoding is the locale's, and would keep a byte order mark."""
    buffer = getattr(stream, "buffer", None)  # a StringIO has none
    return decode(buffer.read(), STANDARD_INPUT, encoding, remedy) if buffer is not None else stream.read()


def lines(text: str) -> list[str]:
    """They end with \\n, \\r\\n or \\r, as `open` has it.

    Not `splitlines`, which also cuts at form feeds, U+0085 and U+2028: in a text these are characters like others.
    """
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
