"""What a class of another module declares, read from its source, so that a check takes milliseconds.

Importing `transformers.training_args` takes seconds (it brings torch); reading its fields off the syntax tree, 30 ms.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from hf_llm.config.paths import PACKAGE


@lru_cache
def transformers_folder() -> Path:
    """Where transformers is installed, without importing it."""
    spec = importlib.util.find_spec("transformers")
    locations = spec.submodule_search_locations if spec else None
    if not locations:
        raise ModuleNotFoundError("transformers is not installed")
    return Path(locations[0])


@lru_cache
def _classes(source: Path) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in _tree(source).body if isinstance(node, ast.ClassDef)}


def _literal(cls: ast.ClassDef, name: str) -> Any:
    """The value of the class attribute `name`, where it is a literal."""
    for node in cls.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            with contextlib.suppress(ValueError, TypeError):
                return ast.literal_eval(node.value)
    return None


def _own_fields(cls: ast.ClassDef) -> dict[str, str]:
    return {
        node.target.id: ast.unparse(node.annotation)
        for node in cls.body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and "ClassVar" not in ast.unparse(node.annotation)
    }


def trainer_fields() -> dict[str, str]:
    """`TrainingArguments`: field name -> annotation, as written."""
    return _own_fields(_classes(transformers_folder() / "training_args.py")["TrainingArguments"])


@lru_cache
def trainer_options() -> dict[str, list[str]]:
    """The enums that `TrainingArguments` uses (SchedulerType, …): class name -> the values allowed."""
    options = {}
    for source in ("training_args.py", "trainer_utils.py"):
        for name, cls in _classes(transformers_folder() / source).items():
            if any(ast.unparse(base) == "ExplicitEnum" for base in cls.bases):
                values = [
                    node.value.value
                    for node in cls.body
                    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
                ]
                options[name] = [str(value) for value in values]
    return options


@lru_cache
def trainer_choices() -> dict[str, list[Any]]:
    """Fields of `TrainingArguments` -> the values that their metadata lists, with None where it is the default."""
    choices = {}
    for node in _classes(transformers_folder() / "training_args.py")["TrainingArguments"].body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        given = {word.arg: word.value for word in getattr(node.value, "keywords", [])}
        metadata = given.get("metadata")
        for key, value in zip(getattr(metadata, "keys", []), getattr(metadata, "values", []), strict=True):
            if isinstance(key, ast.Constant) and key.value == "choices" and isinstance(value, ast.List):
                optional = [None] if "None" in ast.unparse(node.annotation) else []
                choices[node.target.id] = [*ast.literal_eval(value), *optional]
    return choices


@lru_cache
def generation_fields() -> dict[str, str]:
    """`GenerationConfig`: field name -> annotation; its `__init__` has the names, only its docstring the types."""
    cls = _classes(transformers_folder() / "generation" / "configuration_utils.py")["GenerationConfig"]
    init = next(node for node in cls.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    assigned = [target for node in ast.walk(init) if isinstance(node, ast.Assign) for target in node.targets]
    names = [target.attr for target in assigned if isinstance(target, ast.Attribute) and target.attr[0] != "_"]
    said = re.findall(r"^ +(\w+) *:? *\((.+?)(?:, \*optional\*.*)?\)+:$", ast.get_docstring(cls) or "", re.MULTILINE)
    kinds = {name: kind.replace("`", "").replace(" or ", " | ") for name, kind in said}
    plain = {"bool", "int", "float", "str", "list", "dict", "Union"}
    typed = {name: f"{kind} | None" for name, kind in kinds.items() if set(re.findall(r"\w+", kind)) <= plain}
    return {name: typed.get(name, "Any") for name in names}


@lru_cache
def architectures() -> list[str]:
    """Every `model.arch`: ours, and transformers' model types."""
    ours = [path.stem for path in (PACKAGE / "models").glob("*.py") if _config_class(path, path.stem)]
    return sorted(ours) + sorted(_table("auto_mappings.py", "CONFIG_MAPPING_NAMES"))


@lru_cache
def _tree(source: Path) -> ast.Module:
    return ast.parse(source.read_text(encoding="utf-8"))


def _table(module: str, name: str) -> list[str]:
    """The model types in the table `name` of a module of transformers' Auto classes."""
    for node in _tree(transformers_folder() / "models" / "auto" / module).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and ast.unparse(node.targets[0]) == name:
            return [model_type for model_type, _ in ast.literal_eval(node.value.args[0])]
    raise LookupError(f"transformers has no table {name} in {module}")


def registered() -> list[str]:
    """Every architecture that AutoConfig knows in this process, with those that the user's program registered."""
    auto = sys.modules.get("transformers.models.auto.configuration_auto")  # not loaded: nothing was registered
    return list(auto.CONFIG_MAPPING.keys()) if auto else []


def _config_class(source: Path, arch: str) -> ast.ClassDef | None:
    """The config class of `arch` in a module; ours have model types of their own, with a prefix."""
    types = (arch, f"hf_llm_{arch}")
    return next((cls for cls in _classes(source).values() if _literal(cls, "model_type") in types), None)


def model_fields(arch: str) -> dict[str, str] | None:
    """Fields of the config class of `arch`: name -> annotation; None where only importing it would tell."""
    family = _config_family(arch)
    if family is None:
        return None
    generic = _own_fields(_classes(transformers_folder() / "configuration_utils.py")["PreTrainedConfig"])
    own = {field: annotation for member in family for field, annotation in _own_fields(member).items()}
    maps = [_literal(member, "attribute_map") or {} for member in family]
    aliases = {alias: own[field] for names in maps for alias, field in names.items() if field in own}
    return {**generic, **own, **aliases}


def _config_family(arch: str) -> list[ast.ClassDef] | None:
    """The config class of `arch`, after its bases below PreTrainedConfig; None where its source does not tell.

    One of ours may be called by its model type, too.
    """
    name = arch.replace("-", "_").removeprefix("hf_llm_")
    folder = transformers_folder() / "models" / name
    for source in (PACKAGE / "models" / f"{name}.py", folder / f"configuration_{name}.py"):
        cls = _config_class(source, arch) if source.is_file() else None
        if cls is not None:
            return _ancestry(cls)
    return None


def _ancestry(cls: ast.ClassDef) -> list[ast.ClassDef] | None:
    """From below PreTrainedConfig down to `cls`, through this package's own base classes; None through any other."""
    bases = [ast.unparse(base) for base in cls.bases]
    if bases == ["PreTrainedConfig"]:
        return [cls]
    ours = {name: node for path in (PACKAGE / "models").glob("*.py") for name, node in _classes(path).items()}
    above = _ancestry(ours[bases[0]]) if len(bases) == 1 and bases[0] in ours else None
    return None if above is None else [*above, cls]


def tasks() -> list[str]:
    """Every `task.name`: the modules of `hf_llm/tasks` that define a Task."""
    return sorted(path.stem for path in (PACKAGE / "tasks").glob("*.py") if _task_class(path))


def _task_class(source: Path) -> ast.ClassDef | None:
    """The class of a module whose base is a …Task; one that is called so itself is but a base of tasks."""
    return next((cls for cls in _classes(source).values() if _task_bases(cls) and not cls.name.endswith("Task")), None)


def _task_bases(cls: ast.ClassDef) -> list[str]:
    return [name for base in cls.bases if (name := ast.unparse(base)).endswith("Task")]


def task_fields(name: str) -> dict[str, str]:
    """The options of a task: those of its class and of its base classes."""
    return {
        "name": "str",
        **{field: kind for member in _task_family(name) for field, kind in _own_fields(member).items()},
    }


def _task_family(name: str) -> list[ast.ClassDef]:
    """The class of a task, after its bases."""
    folder = PACKAGE / "tasks"
    cls = _task_class(folder / f"{name}.py")
    assert cls is not None, name
    known = {name: node for path in folder.glob("*.py") for name, node in _classes(path).items()}
    family = [cls]
    while bases := [base for base in _task_bases(family[0]) if base in known]:
        family.insert(0, known[bases[0]])
    return family


def task_attribute(name: str, attribute: str) -> Any:
    """A literal that the class of a task, or the nearest of its bases, assigns to `attribute`."""
    values = [_literal(cls, attribute) for cls in _task_family(name)]
    return next((value for value in reversed(values) if value is not None), None)


@lru_cache
def model_types(table: str) -> frozenset[str]:
    """The model types in a table of transformers' Auto classes, such as MODEL_FOR_MASKED_LM_MAPPING_NAMES."""
    return frozenset(_table("modeling_auto.py", table))


def model_default(arch: str, field: str) -> Any:
    """What the config class of `arch` has for `field`, where that is a literal and its source is at hand."""
    for cls in reversed(_config_family(arch) or []):
        field = (_literal(cls, "attribute_map") or {}).get(field, field)
        if (value := _literal(cls, field)) is not None:
            return value
    return None
