"""scripts/bootstrap and scripts/test, with a Python that notes what it is told in place of doing it."""

import os
import shutil
import subprocess

import pytest
from conftest import ROOT

# Makes an environment whose python is this file again; pip and pytest are noted.
PYTHON = """#!/bin/sh
here=$(dirname "$0")
case "$1 $2" in
    "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp "$0" "$3/bin/ruff"; cp "$0" "$3/bin/mypy" ;;
    "-m pip" | "-m pytest") echo "$0 $*" >>noted ;;
    -c*) exit 0 ;;
    --version*) echo Python 3 ;;
    *) echo "$(basename "$0") $*" >>noted ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def noted(checkout, script, *arguments, code=0):
    """The commands that the script gave."""
    environment = {**os.environ, "PYTHON": str(checkout / "python")}
    (checkout / "noted").unlink(missing_ok=True)
    line = [str(checkout / "scripts" / script), *arguments]
    done = subprocess.run(line, cwd=checkout, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == code, done.stderr
    if not (checkout / "noted").exists():
        return []
    return (checkout / "noted").read_text().replace(f"{checkout}/", "").splitlines()


def constraints(checkout, folder):
    return (checkout / folder / "constraints.txt").read_text().splitlines()


def test_the_usual_environment_has_what_is_pinned_and_is_made_once(checkout):
    (install,) = noted(checkout, "bootstrap")
    assert install.startswith(".venv/bin/python -m pip install ")
    assert "--upgrade" not in install
    assert constraints(checkout, ".venv") == (ROOT / "constraints.txt").read_text().splitlines()
    assert noted(checkout, "bootstrap") == []


def test_the_oldest_has_every_lower_bound(checkout):
    (install,) = noted(checkout, "bootstrap", "--oldest")
    assert install.startswith(".venv-oldest/bin/python -m pip install ")
    pins = constraints(checkout, ".venv-oldest")
    assert {"transformers==5.20", "torch==2.13", "hydra-core==1.3.8"} <= set(pins)
    assert len(pins) > 25
    assert noted(checkout, "bootstrap", "--oldest") == []


def test_the_newest_has_no_pin_but_torch_and_is_looked_for_each_time(checkout):
    for _ in range(2):
        (install,) = noted(checkout, "bootstrap", "--newest")
        assert install.startswith(".venv-newest/bin/python -m pip install ")
        assert "--upgrade --upgrade-strategy eager" in install
    assert constraints(checkout, ".venv-newest") == ["torch==2.13.0"]


def test_an_unknown_set_of_releases_is_refused(checkout):
    assert noted(checkout, "bootstrap", "--newer", code=2) == []
    assert not list(checkout.glob(".venv*"))


def test_the_suite_runs_with_the_releases_asked_for(checkout):
    usual = "-m pytest --numprocesses auto --dist loadfile"
    assert noted(checkout, "test", "-k", "one")[1:] == [
        "ruff check .",
        "ruff format --check .",
        "mypy ",
        f".venv/bin/python {usual} -k one",
    ]
    assert noted(checkout, "test", "--slow")[-1] == f".venv/bin/python {usual} -m slow or not slow"
    assert noted(checkout, "test", "--oldest")[1:] == [f".venv-oldest/bin/python {usual}"]
    assert noted(checkout, "test", "--newest", "--slow", "-x")[1:] == [
        f".venv-newest/bin/python {usual} -m slow or not slow -x"
    ]
