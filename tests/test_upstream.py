"""What hf_llm overrides or uses of its libraries' private interfaces, as it was when our code was written for it.

No library promises to keep these. upstream.txt has each, a function with its parameters, so that a release that
changes one fails here by name, before it makes an override silently wrong. Then look at what the new release passes
and expects, correct our code, and record what it has now (on a second line, while an older release is supported).
"""

import ast
import dataclasses
import functools
import importlib
import inspect
import pkgutil
import re

import pytest
from conftest import ROOT

RECORDED = (ROOT / "tests" / "upstream.txt").read_text(encoding="utf-8").splitlines()
NAMES = sorted({line.partition("(")[0] for line in RECORDED})

LIBRARIES = ("transformers", "datasets", "tokenizers", "accelerate", "evaluate", "huggingface_hub", "peft", "hydra")
# Classes with private members that we use without overriding them.
USED = {
    "Trainer": "transformers.trainer",
    "PreTrainedModel": "transformers.modeling_utils",
    "Dataset": "datasets.arrow_dataset",
    "JobEnvironment": "submitit",
    "RNNBase": "torch.nn.modules.rnn",
    "UntypedStorage": "torch.storage",
    "_BaseAutoModelClass": "transformers.models.auto.auto_factory",
}
NOT_OF_A_CLASS = {"_replace", "_internal", "_http", "_subclasses"}  # of a NamedTuple; parts of a module's name


def modules():
    import hf_llm

    for found in pkgutil.walk_packages(hf_llm.__path__, "hf_llm."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def is_of(cls, *packages):
    return cls.__module__.split(".")[0] in packages


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name != "_abc_impl"


def described(owner, name, member):
    """`Trainer._save_checkpoint(self, model, trial)`, or the name alone of what is no function."""
    function = getattr(member, "__func__", member)
    if not inspect.isroutine(function):
        return f"{owner}.{name}"
    bare = [each.replace(annotation=each.empty) for each in inspect.signature(function).parameters.values()]
    return f"{owner}.{name}{inspect.Signature(bare)}"


def overridden():
    """The members of a library's class that a class of ours replaces: all private ones, and public methods."""
    for module in modules():
        for cls in (each for each in vars(module).values() if inspect.isclass(each) and is_of(each, "hf_llm")):
            for place, own in enumerate(cls.__mro__):
                for name in vars(own) if is_of(own, "hf_llm") else ():
                    theirs = [
                        base for base in cls.__mro__[place + 1 :] if is_of(base, *LIBRARIES) and name in vars(base)
                    ]
                    if not theirs or name.startswith("__"):
                        continue
                    line = described(theirs[0].__name__, name, inspect.getattr_static(theirs[0], name))
                    if is_private(name) or line.endswith(")"):
                        yield line


def used():
    """The private members that our source names and does not define, or that Trainer itself sets."""
    accessed, defined = set(), set()
    for path in (ROOT / "hf_llm").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                accessed.add(node.attr)
                if isinstance(node.ctx, ast.Store):
                    defined.add(node.attr)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                defined.add(node.id)
    owners = {name: getattr(importlib.import_module(module), name) for name, module in USED.items()}
    sources = {name: inspect.getsource(cls) for name, cls in owners.items()}
    for name in accessed - NOT_OF_A_CLASS:
        for owner, cls in owners.items():
            if hasattr(cls, name):
                yield described(owner, name, inspect.getattr_static(cls, name))
                break
            if f"self.{name} = " in sources[owner] or f"self.{name}: " in sources[owner]:
                yield f"{owner}.{name}"
                break
        else:
            if name not in defined:
                yield f"unknown.{name}"


@functools.cache
def relied_on():
    return {*used(), *overridden()}


@pytest.mark.parametrize("name", NAMES)
def test_what_we_rely_on_upstream_is_as_recorded(name):
    now = {line for line in relied_on() if line.partition("(")[0] == name}
    assert now, f"{name} has gone upstream, or from our code"
    assert now <= set(RECORDED), f"{name} is not what our code was written for"


def test_all_that_we_rely_on_upstream_is_recorded():
    assert sorted(line for line in relied_on() if line.partition("(")[0] not in NAMES) == []


def test_every_trainer_setting_that_we_advise_is_one_of_the_installed_transformers():
    from transformers import TrainingArguments

    fields = {field.name for field in dataclasses.fields(TrainingArguments)}
    texts = [path for folder in ("hf_llm", "conf", "docs", "notebooks") for path in (ROOT / folder).rglob("*.*")]
    advised = {}
    for path in [*texts, *ROOT.glob("*.md")]:
        if path.suffix in (".py", ".yaml", ".md", ".ipynb"):
            for name in re.findall(r"\btrainer\.([a-z_0-9]+)=", path.read_text(encoding="utf-8")):
                advised[name] = path.name
    assert len(advised) > 20
    assert {name: where for name, where in advised.items() if name not in fields} == {}
