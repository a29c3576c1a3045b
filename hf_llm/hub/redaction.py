"""What is taken out of a run's records before they are published: where its files lay, and what opens a door."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import get_token

_PART = r"[^\s/\\,'\"`\])}:;|<>]+"  # of a path within a text
# Up to a query nothing of an address may separate the items of a list; a query goes as far as it can.
_ADDRESS = (
    r"[A-Za-z][A-Za-z0-9+.-]{1,20}://(?:[^\s/@'\"`<>]*@)?[^\s,?#'\"`<>\]})]*"
    r"(?:[?#](?:(?!,(?:[A-Za-z][\w+.-]{0,20}:)?[/~\\])[^\s'\"`<>])*)?"
)
# An absolute path is of two parts at least, for "/" and "and/or" are ordinary words.
_PATH = (
    rf"(?<![\w./\\-])(?:[\w.-]+[\\/]+)*\.\.(?:[\\/]+{_PART})+[\\/]*"
    rf"|(?<![\w./\\])(?:(?:~[\w.-]*|file:|[A-Za-z]:)(?:[\\/]+{_PART})+|(?:[\\/]+{_PART}){{2,}})[\\/]*"
)
_PLACE = re.compile(rf"(?P<address>{_ADDRESS})|{_PATH}")
_IS_PATH = re.compile(r"(?:/|\\\\|~[\w.-]*[\\/]|\.\.[\\/]|[A-Za-z]:[\\/]|file:[\\/](?!/)).*\w")  # and nothing but one
_IS_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://\S+")
_SECRET = re.compile(
    r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}\b|\bsk-(?=[\w-]{0,99}\d)[\w-]{20,}|\bgh[pousr]_[A-Za-z0-9]{30,}\b"
    r"|\bgithub_pat_\w{30,}|\bglpat-[\w-]{20,}|\bxox[abprs]-[\w-]{10,}|\bA(?:KI|SI)A[0-9A-Z]{16}\b"
    r"|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----|://[^\s/:@'\"]*:[^\s/@'\"]+@"
)


def public(value: Any) -> Any:
    """A configuration, or a text of one: paths cut to their last part, addresses without name, password and query."""
    if isinstance(value, Mapping):
        return {public(key): public(item) for key, item in value.items()}
    if isinstance(value, list):
        return [public(item) for item in value]
    if not isinstance(value, str):
        return value
    text = value.strip()
    if _IS_PATH.fullmatch(text):
        return _last_part(text)
    if _IS_ADDRESS.fullmatch(text) and "::" not in text:
        value = _address(text)
    return _PLACE.sub(lambda match: _address(match[0]) if match["address"] else _last_part(match[0]), value)


def public_command(text: str) -> str:
    """A command line, cleaned argument by argument."""
    with contextlib.suppress(ValueError):  # of what is no shell's
        if len(text) < 10_000:  # shlex is slow
            return shlex.join(_argument(word) for word in shlex.split(text))
    return str(public(text))


def _argument(word: str) -> str:
    key, equals, value = word.partition("=")
    return f"{key}={public(value)}" if equals and re.fullmatch(r"[\w.@+~-]+", key) else str(public(word))


def _last_part(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or "."


def _address(url: str) -> str:
    if "::" in url:  # of fsspec: an archive, and where it is
        return "::".join(str(public(part)) for part in url.split("::"))
    scheme, _, rest = url.partition("://")
    host = re.split(r"[/?#]", rest)[0]
    if "@" not in host and re.search(r":(?!\d*$)", host):  # no port: of a password with one of these in it
        rest = rest.rpartition("@")[2]
    kept, query = re.fullmatch(r"([^?#]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    host, slash, path = kept.partition("/")
    host = host.rpartition("@")[2]
    closing = re.search(r"[\])}]*$", query)[0]  # type: ignore[index]
    return (f"{scheme}://{host}{slash}{path}" if host and scheme != "file" else _last_part(path)) + closing


def leak(text: str, folder: Path) -> str | None:
    """What a text gives away: a folder of this machine or its user, or a key to something; None where nothing."""
    places = {str(Path.home()), str(folder.resolve()), str(Path.cwd()), os.environ.get("HF_HOME", "")}
    for place in sorted(place for place in places if len(Path(place).parts) > 2 or place == str(Path.home()) != "/"):
        if re.search(rf"(?<![\w.-]){re.escape(place)}(?![\w.-])", text):
            return f"names a folder of this machine ({place})"
    with contextlib.suppress(OSError, KeyError, ImportError):  # nobody has this number
        user = re.escape(getpass.getuser())
        if found := re.search(rf"(?:[\\/](?:home|Users)[\\/]+|(?<![\w~])~){user}(?![\w.-])", text):
            return f"names a user of this machine ({found[0]})"
    secrets = {value for value in (get_token(), os.environ.get("WANDB_API_KEY")) if value and len(value) > 5}
    if any(secret in text for secret in secrets) or _SECRET.search(text):
        return "holds what looks like an access token or a password"
    return None
