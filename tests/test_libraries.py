"""Releases that hf_llm was tested with: what pyproject.toml allows, what constraints.txt pins, what a run warns of."""

import importlib.metadata
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.version import Version
from toys import language_model

from hf_llm import libraries

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
DECLARED = [Requirement(text) for text in re.findall(r'"([A-Za-z_-]+[<>=][^"]*)"', PYPROJECT)]
RANGED = ["transformers", "datasets", "tokenizers", "accelerate", "huggingface_hub", "hydra-core", "peft", "gradio"]


def lower_and_upper(requirement):
    bounds = {each.operator: each.version for each in requirement.specifier}
    return bounds.get(">="), bounds.get("<")


def pinned(name):
    """The newest version that constraints.txt has of it: there is another for an older Python."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    name = name.lower().replace("_", "-")
    return max(Version(re.split("==|;", line)[1].strip()) for line in lines if line.startswith(f"{name}=="))


def test_every_requirement_has_a_lowest_release_and_one_range():
    assert len(DECLARED) > 30
    ranges = {}
    for requirement in DECLARED:
        assert lower_and_upper(requirement)[0], requirement
        assert ranges.setdefault(requirement.name, requirement.specifier) == requirement.specifier


@pytest.mark.parametrize("name", RANGED)
def test_the_range_ends_at_the_newest_release_that_was_tested(name):
    requirement = next(each for each in DECLARED if each.name == name)
    upper, newest = Version(lower_and_upper(requirement)[1]), pinned(name)
    assert (upper.major, upper.minor) == (newest.major, newest.minor + 1)


def test_the_torch_that_was_tested_is_the_one_that_is_pinned():
    pin = pinned("torch")
    (upper,) = Requirement(libraries.TORCH_TESTED).specifier
    assert Version(upper.version) == Version(f"{pin.major}.{pin.minor + 1}")
    assert lower_and_upper(next(each for each in DECLARED if each.name == "torch"))[0] == f"{pin.major}.{pin.minor}"


@pytest.fixture
def warned(monkeypatch):
    """What is warned of, as a function of the versions that are installed."""

    def run(versions):
        def version(name):
            if name not in versions:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]

        requires = [str(each) for each in DECLARED] + ['gradio<6.32,>=6.29.1; extra == "demo"']
        monkeypatch.setattr(importlib.metadata, "requires", lambda name: requires)
        monkeypatch.setattr(importlib.metadata, "version", version)
        told = []
        monkeypatch.setattr(libraries.logger, "warning", lambda text, *values: told.append(text % values))
        libraries.warn_of_untested.cache_clear()
        libraries.warn_of_untested()
        libraries.warn_of_untested()
        libraries.warn_of_untested.cache_clear()
        return told

    return run


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("transformers", "5.25.0"),
        ("transformers", "5.25.0.dev0"),
        ("transformers", "5.19.0"),
        ("torch", "2.14.0+cu130"),
        ("torch", "2.12.1"),
        ("hydra-core", "1.4.0"),
        ("gradio", "7.0"),  # of an extra
    ],
)
def test_a_release_outside_the_tested_range_is_warned_of_once(name, version, warned):
    (line,) = warned({"torch": "2.13.0", "transformers": "5.24.0", name: version})
    assert line.count("tested:") == 1
    assert f"{name} {version} (tested: " in line


def test_all_untested_releases_share_a_line(warned):
    (line,) = warned({"torch": "2.15.0", "transformers": "5.26.0", "datasets": "5.2.0"})
    assert "torch 2.15.0 (tested: <2.14)" in line
    assert "transformers 5.26.0" in line
    assert "datasets" not in line


@pytest.mark.parametrize("build", ["2.13.0", "2.13.0+cpu", "2.13.1+cu130"])
def test_tested_releases_are_not_warned_of(build, warned):
    assert warned({"torch": build, "transformers": "5.24.3", "datasets": "5.2.0", "tokenizers": "0.23.3"}) == []


def command(*arguments, folder, rank=None):
    """What `hf-llm …` wrote to standard error on a machine with a gradio that is newer than all."""
    site = folder / "site"
    for name, version, more in (("gradio", "99.0", ""), ("hf_llm", "0.1.0", "Requires-Dist: gradio<98\n")):
        (site / f"{name}-{version}.dist-info").mkdir(parents=True, exist_ok=True)
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}"
        (site / f"{name}-{version}.dist-info" / "METADATA").write_text(text)
    paths = os.pathsep.join([str(site), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    if rank is not None:
        environment["RANK"] = rank
    line = [sys.executable, "-m", "hf_llm", *arguments]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def test_a_run_warns_and_help_and_the_configuration_do_not(tmp_path):
    told = command("train", *language_model(tmp_path, run="here"), "trainer.max_steps=1", folder=tmp_path)
    assert told.count("gradio 99.0 (tested: ") == 1
    assert "gradio 99.0" in (tmp_path / "outputs" / "here" / "train.log").read_text()
    for quiet in (["--help"], ["train", "--help"], ["train", "--cfg", "job"]):
        assert "gradio" not in command(*quiet, folder=tmp_path)
    assert "gradio" not in command("evaluate", "run=here", folder=tmp_path, rank="1")
