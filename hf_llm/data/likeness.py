"""Names that differ only in what does not show: two of them are often one that was written in two ways."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Callable, Iterable


def _number(name: str) -> str:
    with contextlib.suppress(ValueError):
        return repr(float(name))
    return name


FORMS: dict[str, Callable[[str], str]] = {
    "white space": lambda name: " ".join(name.split()),
    "case": str.casefold,
    "Unicode form": lambda name: unicodedata.normalize("NFC", name),  # after case, which takes letters apart
    "how a number is written": _number,
}


def _plain(name: str, but: str = "") -> str:
    for what, form in FORMS.items():
        name = name if what == but else form(name)
    return name


def is_alike(one: str, other: str) -> bool:
    """Whether there is no other difference than those of FORMS."""
    return _plain(one) == _plain(other)


def difference(one: str, other: str) -> str:
    """In what two names that are alike differ."""
    return " and ".join(what for what in FORMS if _plain(one, but=what) != _plain(other, but=what))


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Those that are alike: each with the first of its kind."""
    first: dict[str, str] = {}
    return [(first[_plain(name)], name) for name in names if first.setdefault(_plain(name), name) != name]
