"""Numbers, shares and texts of strangers as Markdown, for a model card."""

from __future__ import annotations

import re
from typing import Any


def number(value: Any) -> str:
    """Four decimals of a share or a loss, a count with commas; a text as it stands, nothing for None."""
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else cell("" if value is None else str(value))


def cell(text: str) -> str:
    """What comes from the data or the user is text in a table, not markup."""
    return re.sub(r"([\\`*_{}\[\]<>|~$!#])", r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """`text` in code's type, where that can hold it."""
    return f"`{text}`" if re.fullmatch(r"[^`|\s]([^`|\n]*[^`|\s])?", text) else cell(text)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Of cells that are Markdown already; the columns of figures, where there are any, are set to the right."""
    lines = [head, ["---"] + ["---:" if len(head) > 2 else "---"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def interval(found: int, of: int) -> tuple[str, str]:
    """95 % interval of a share, by Wilson (1927)."""
    from scipy.stats import binomtest

    bounds = binomtest(found, of).proportion_ci(method="wilson")
    return f"{bounds.low:.3f}", f"{bounds.high:.3f}"


def share(found: int, of: int) -> str:
    """It and its interval; a dash where there are none to be a share of."""
    if not of:
        return "–"
    low, high = interval(found, of)
    return f"{found / of:.3f} ({low}–{high})"


def fenced(language: str, text: str) -> str:
    """A block of code that nothing in it ends: its fence is longer than any run of backticks there."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}{language}\n{text}\n{fence}"
