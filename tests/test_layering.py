"""Who may import whom (CONTRIBUTING, "The house"), read from the source."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

PACKAGE = ROOT / "hf_llm"
LEAVES = {"data", "tokenizer", "metrics", "models", "runs", "changes", "checkpoints"}
ALLOWED = {
    "config": set(),
    **{leaf: {"config"} for leaf in LEAVES},
    "runs": {"changes", "config"},
    "hub": {"changes", "checkpoints", "config", "runs"},
    "plots": set(),
    "interruption": set(),
    "libraries": set(),
    "provenance": set(),
    "console": {"config", "runs"},
    "tasks": LEAVES | {"config", "interruption"},
    "publishing": {"config", "console", "hub", "libraries", "runs"},
    "cli": {"config", "distributed", "help", "interruption", "launching", "overrides", "runs"},
    "distributed": {"config"},
    "processes": {"interruption"},
    "overrides": {"config", "help"},
    "help": set(),
    "__main__": {"cli"},
}


def imports(path):
    """Absolute names of the hf_llm modules that a file imports, anywhere in it."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def layer(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


def test_the_files_are_found():
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_the_layers_below_it(path):
    own = layer(path)
    if own not in ALLOWED:
        return
    modules = {child.stem for child in PACKAGE.iterdir()}
    used = {name.split(".")[1] for name in imports(path) if name.startswith("hf_llm.")} & modules
    assert used - {own} <= ALLOWED[own]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_imports_hydra(path):
    if path.stem in ("cli", "overrides"):
        return
    assert not {name for name in imports(path) if name.split(".")[0] in ("hydra", "omegaconf")}


def test_no_file_instantiates_from_configuration_or_unpickles():
    for path in FILES:
        text = path.read_text()
        for forbidden in ("instantiate(", "pickle.load", "weights_only=False"):
            assert forbidden not in text, f"{path}: {forbidden}"
        for node in ast.walk(ast.parse(text)):  # a model card says it to its reader, in a text
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert ast.unparse(node.value) == "False", f"{path}, line {node.value.lineno}"


def test_importing_the_package_and_asking_for_help_load_nothing_heavy():
    code = (
        "import sys, hf_llm, hf_llm.cli\n"
        "hf_llm.cli.main(['--help']); hf_llm.cli.main(['train', '--help'])\n"
        "heavy = {'torch', 'transformers', 'datasets', 'evaluate', 'matplotlib', 'hydra'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "causal_lm" in done.stdout
