"""Texts of strangers for a terminal: labels, keys and names come from files that somebody else wrote."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text


def printable(text: str, lines: bool = True) -> str:
    """`text` with `?` for what a terminal obeys instead of showing: escape codes, turns of the writing direction.

    Args:
        lines: whether line ends and tabs stay.
    """
    return "".join(character if _is_shown(character, lines) else "?" for character in text)


def plain(text: str, style: str = "") -> Text:
    """`text` for a table, as it stands: in a string rich would read `[red]` and `:cat:` as markup."""
    from rich.text import Text

    return Text(printable(text), style=style)


def _is_shown(character: str, lines: bool) -> bool:
    if character.isprintable() or (lines and character in "\n\t"):
        return True
    # Spaces of other scripts, and what joins letters and emoji; both are unprintable to Python.
    return unicodedata.category(character) == "Zs" or character in "\u200c\u200d"
