"""Single values of a configuration: of their type, among their options, in their range, or said to be none of it."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from hf_llm.config import declared
from hf_llm.config.known import ANY_NUMBER, Range

LEFT_OPEN = "???"  # Hydra's word in a YAML for a value that the user has to give


def nearest(word: str, options: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The option most like `word`, if any is: of likeness `cutoff` at least, between 0 and 1."""
    found = difflib.get_close_matches(word, list(options), n=1, cutoff=cutoff)
    return found[0] if found else None


def unknown(key: str, options: Iterable[str], prefix: str = "") -> str:
    """The message for a key that is none of `options`."""
    options = sorted(options)
    hint = nearest(key, options)
    if hint:
        return f"{prefix}{key}: no such key; did you mean {prefix}{hint}?"
    listed = ", ".join(options) if len(options) <= 20 else f"{len(options)} keys, such as {', '.join(options[:8])}"
    return f"{prefix}{key}: no such key; {prefix.rstrip('.') or 'the configuration'} has {listed}"


def message(mistakes: list[str]) -> str:
    """One line for one mistake; else a heading and a line for each."""
    if len(mistakes) == 1:
        return mistakes[0]
    return f"{len(mistakes)} mistakes in the configuration:\n" + "\n".join(f"  {line}" for line in mistakes)


def not_an_option(value: Any, options: Iterable[str]) -> str:
    options = list(options)
    hint = nearest(str(value), options)
    listed = ", ".join(options) if len(options) <= 20 else f"{len(options)}, such as {', '.join(options[:6])}"
    return f"{value!r} is not one of {listed}" + (f"; did you mean {hint}?" if hint else "")


def _alternatives(annotation: str) -> list[ast.expr]:
    """`int | None`, `Optional[int]` and `Union[int, None]` -> the parts."""

    def parts(node: ast.expr) -> list[ast.expr]:
        if isinstance(node, ast.BinOp):
            return parts(node.left) + parts(node.right)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith(("Optional", "Union")):
            inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            none: list[ast.expr] = [ast.Constant(None)] if ast.unparse(node.value).endswith("Optional") else []
            return [part for item in inner for part in parts(item)] + none
        if isinstance(node, ast.Constant) and isinstance(node.value, str):  # a quoted annotation
            return parts(ast.parse(node.value, mode="eval").body)
        return [node]

    return parts(ast.parse(annotation, mode="eval").body)


def typed(annotation: str, value: Any, key: str, mistakes: list[str], allowed: Range = ANY_NUMBER) -> Any:
    """`value` as the annotated type, with the conversions that no one doubts (3 -> 3.0, 1e3 -> 1000, 7 -> "7").

    What is wrong with it goes to `mistakes`: of another type, none of the options, or a number outside `allowed`.
    """
    if value == LEFT_OPEN:
        mistakes.append(f"{key}: missing; give it, as in {key}=VALUE")
        return value
    nodes = _alternatives(annotation)
    names = {ast.unparse(node).split("[")[0] for node in nodes}
    options = [option for name in names for option in declared.trainer_options().get(name, [])]
    for node in nodes:
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Literal"):
            options += [ast.literal_eval(item) for item in getattr(node.slice, "elts", [node.slice])]
    if options:
        if isinstance(value, bool):  # YAML 1.1 reads a bare `no` or `off` as false, and `on` as true
            value = next((word for word in _BOOLEAN_WORDS[value] if word in options), value)
        if value in options or (value is None and "None" in names):
            return value
        mistakes.append(f"{key}: {not_an_option(value, [str(option) for option in options])}")
        return value
    for name in ("None", "bool", "int", "float", "str", "list", "dict"):
        if name in names and (converted := _convert(name, value, names)) is not _MISFIT:
            if name in ("int", "float") and (wrong := allowed.wrong(converted)):
                mistakes.append(f"{key}: {value!r} {wrong}")
            return converted
    if names <= _PLAIN:
        mistakes.append(f"{key}: {value!r} is not {_in_words(names)}")
    return value  # a type that only its own library knows, or Any


_MISFIT = object()
_BOOLEAN_WORDS = {True: ("yes", "on"), False: ("no", "off")}
_PLAIN = {"None", "bool", "int", "float", "str", "list", "dict"}


def _convert(name: str, value: Any, names: set[str]) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "None" and value is None:
        return None
    if name == "bool" and isinstance(value, bool):
        return value
    if name == "int" and number and float(value).is_integer() and not ("float" in names and isinstance(value, float)):
        return int(value)
    if name == "float" and number:
        return float(value)
    if name == "str" and (isinstance(value, str) or number):
        return str(value)
    if name == "list" and isinstance(value, (list, tuple)):
        return list(value)
    if name == "dict" and isinstance(value, Mapping):
        return dict(value)
    return _MISFIT


def _in_words(names: set[str]) -> str:
    words = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "text"}
    words |= {"list": "a list", "dict": "a group of keys", "None": "null"}
    return " or ".join(words[name] for name in words if name in names)
