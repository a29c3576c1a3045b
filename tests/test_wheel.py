"""The wheel holds all that a run needs, and works where there is no checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from toys import language_model


def python(*arguments, folder, **environment):
    """What `python …` wrote to standard output, run in `folder`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1", **environment}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, folder=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the package alone, to be put before every other on Python's path."""
    folder = tmp_path_factory.mktemp("site")
    python("-m", "pip", "install", "--no-deps", "--no-index", "--target", folder, wheel, folder=folder)
    return folder


def test_the_wheel_holds_the_package_its_configuration_and_nothing_else(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "hf_llm").rglob("*")
        if path.suffix in (".py", ".md") or path.name == "py.typed"
    }
    conf = {f"hf_llm/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert len(conf) > 15
    assert inside == package | conf


def test_the_installed_wheel_trains_outside_the_checkout(installed, tmp_path):
    where = {"folder": tmp_path, "PYTHONPATH": str(installed)}
    assert Path(python("-c", "import hf_llm; print(hf_llm.__file__)", **where).strip()).is_relative_to(installed)
    found = python("-c", "from hf_llm.config.paths import CONF; print(CONF)", **where).strip()
    assert Path(found) == installed / "hf_llm" / "conf"
    assert "n_layer: 4" in python("-m", "hf_llm", "train", "--cfg", "job", **where)

    python("-m", "hf_llm", "train", *language_model(tmp_path, run="here"), "trainer.max_steps=2", **where)
    assert (tmp_path / "outputs" / "here" / "metrics.json").is_file()
    assert not list(installed.rglob("outputs"))
