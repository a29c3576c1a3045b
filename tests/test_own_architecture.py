"""The README's worked example of an architecture of one's own: a file and a YAML, and it is trained and used."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from toys import language_model


@pytest.fixture
def checkout(tmp_path):
    """A copy of the package with the two files of the README put where it says."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("### An architecture of your own")[2].partition("\n## ")[0]
    names = re.findall(r"^`([\w/]+\.(?:py|yaml))`", section, re.MULTILINE)
    contents = re.findall(r"^```(?:python|yaml)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert names == ["hf_llm/models/average.py", "conf/model/average.yaml"]
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "hf_llm", folder / "hf_llm", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "conf", folder / "conf")
    for name, content in zip(names, contents, strict=True):
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def hf_llm(checkout, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", "hf_llm", *map(str, arguments)]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_readmes_own_architecture_trains_evaluates_and_generates(checkout, tmp_path):
    assert "average" in hf_llm(checkout, "train", "--help")
    settings = [setting for setting in language_model(tmp_path, run="mine") if not setting.startswith("model")]
    hf_llm(checkout, "train", *settings, "model=average")
    run = tmp_path / "outputs" / "mine"
    assert json.loads((run / "model" / "config.json").read_text())["model_type"] == "average"
    assert (run / "model" / "average.py").is_file()  # its code goes with its weights
    assert hf_llm(checkout, "generate", f"run={run}", "prompt=the", "generation.max_new_tokens=3")
