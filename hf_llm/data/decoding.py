"""The bytes of a file or of standard input -> text, strictly, and its lines."""

from __future__ import annotations

import codecs
from typing import TextIO

from hf_llm.config import InputError

STANDARD_INPUT = "standard input"
REMEDY = "set data.encoding"
MAGIC = {
    b"\x1f\x8b": "compressed by gzip: give its name the ending .gz",
    b"BZh": "compressed by bzip2: give its name the ending .bz2",
    b"\xfd7zXZ\x00": "compressed by xz: give its name the ending .xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: give its name the ending .zst",
    b"PK\x03\x04": "a zip archive: give its name the ending .zip",
    b"PAR1": "Parquet: set data.format=parquet",
    b"ARROW1": "Arrow: set data.format=arrow",
}


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
        magic = no_text(raw)
        hint = "" if magic else _encoding_hint(raw)
        raise InputError(
            f"{undecodable(where, line, start + 1, raw[start], encoding, magic or remedy)}{hint}"
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


def no_text(raw: bytes) -> str | None:
    """What the file is by its first bytes, where these are no text's, and what to do: latin-1 would read it too."""
    return next((f"the file is {what}" for magic, what in MAGIC.items() if raw.startswith(magic)), None)


def _encoding_hint(raw: bytes) -> str:
    """An encoding that reads all of it; a guess, so only for a message."""
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
