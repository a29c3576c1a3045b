"""Predicates and their arguments as a person reads them: a table in colours."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from hf_llm.config import plain

# PropBank numbers what belongs to the verb's meaning; ARGM is where, when and how.
COLOURS = {"0": "green", "1": "cyan", "2": "yellow", "3": "blue", "4": "blue", "5": "blue"}
ADJUNCT = "magenta"


def role_table(prediction: dict[str, Any]) -> Table:
    """A section for each predicate of a sentence, with a line for each argument."""
    title = plain(" ".join(prediction["words"]), "bold")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_header=False)
    table.add_column("predicate", style="bold red")
    table.add_column("role", no_wrap=True)
    table.add_column("words")
    for found in prediction["predicates"]:
        name = plain(found["word"])
        for argument in found["arguments"] or [{"role": "", "text": ""}]:
            style = _colour(argument["role"])
            table.add_row(name, plain(argument["role"], style), plain(argument["text"], style))
            name = plain("")
        table.add_section()
    if not prediction["predicates"]:
        table.add_row(plain("no predicate", "dim"))
    return table


def _colour(role: str) -> str:
    core = role.removeprefix("R-").removeprefix("ARG").removeprefix("A")
    return COLOURS.get(core[:1], ADJUNCT)
