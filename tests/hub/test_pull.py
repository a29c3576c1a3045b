"""A run is pulled whole or not at all, whatever its repository holds; offline says of one that it is not here."""

import subprocess
import sys

import pytest
from hub_server import HubServer

CONFIG = "run: book\ndata: {files: {train: a.txt}}\nmodel: {arch: rnn}\ntask: {name: causal_lm}\n"
RUN = {
    "config.json": "{}",
    "model.safetensors": b"weights",
    "run/config.yaml": CONFIG,
    "run/environment.json": "{}",
    "run/metrics.json": "{}",
}
REPOS = {
    "good": {"adapter_config.json": "{}", "sub/adapter_config.json": "{}"},
    "list": {"run/environment.json": "[1]"},
    "large": {"run/environment.json": " " * 2**20 + "{}"},
    "outside": {"../../evil.json": "{}"},
    "day": {"run/config.yaml": CONFIG.replace("book", "2001-99-99")},
}


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        for name, files in REPOS.items():
            server.add(f"me/{name}", {**RUN, **files})
        yield server


def cli(hub, place, *arguments):
    command, env = [sys.executable, "-m", "hf_llm", *arguments], hub.environment(place / "home")
    return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["repo=me/list"], "environment.json: not a JSON object"),
        (["repo=me/large"], "environment.json: 1,048,578 bytes; a run's record is far smaller"),
        (["repo=me/outside"], "repo=me/outside: "),
        (["repo=me/day"], "config.yaml: not YAML"),
        (["repo=me/good", f"run={'x' * 300}"], "File name too long"),
    ],
)
def test_a_pull_that_cannot_be_is_refused_in_one_line_and_leaves_nothing(options, message, hub, tmp_path):
    (tmp_path / "outputs").mkdir()
    refused = cli(hub, tmp_path, "pull", *options)
    assert refused.returncode == 2, refused.stderr
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("hf-llm: ")]
    assert message in line
    assert "Traceback" not in refused.stderr
    assert list((tmp_path / "outputs").iterdir()) == []


def test_no_adapter_comes_with_a_run(hub, tmp_path):
    done = cli(hub, tmp_path, "pull", "repo=me/good")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs" / "good" / "model" / "model.safetensors").read_bytes() == b"weights"
    assert not list(tmp_path.rglob("*adapter_config.json"))


def test_offline_says_that_a_run_is_not_on_this_machine(hub, tmp_path):
    asked = len(hub.requests)
    refused = cli(hub, tmp_path, "generate", "run=me/good", "prompt=a", "offline=true")
    assert refused.returncode == 2, refused.stderr
    assert "repo=me/good: not on this machine" in refused.stderr.splitlines()[-1]
    assert hub.requests[asked:] == []
