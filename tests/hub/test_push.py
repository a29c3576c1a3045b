"""Push, pull and use of a pushed run, by the command itself, against a Hub on this machine with and without faults."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import toys
from hub_server import READ_ONLY, HubServer

from hf_llm import compose, train

RUNS = {
    "gpt2": lambda folder: toys.language_model(folder, "gpt2", run="gpt2"),
    "bert": lambda folder: [
        *(f"data.files.train={toys.write_csv(folder)}", f"runs_dir={folder / 'outputs'}", "run=bert"),
        *("task=text_classification", "tokenizer=word", *toys.SMALL["bert"], *toys.QUICK),
    ],
    "rnn": lambda folder: toys.language_model(folder, "rnn", run="rnn"),
    "fnn": lambda folder: toys.language_model(folder, "fnn", run="fnn"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of each of the four families, in one runs_dir."""
    folder = tmp_path_factory.mktemp("trained")
    return {name: train(compose("train", *options(folder))).folder for name, options in RUNS.items()}


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def place(tmp_path, trained):
    """A working folder with a copy of the runs."""
    shutil.copytree(trained["rnn"].parent, tmp_path / "outputs")
    return tmp_path


def cli(hub, place, *arguments, token="hf_good", **extra):
    env = {**hub.environment(place / "home", token), **extra}
    command = [sys.executable, "-m", "hf_llm", *arguments]
    return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=240)


def tree(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "README.md"
    }


ELSEWHERE = """
import json, sys
import torch, transformers
outputs = {}
for repo, auto in json.loads(sys.argv[1]).items():
    model = getattr(transformers, auto).from_pretrained(repo, trust_remote_code=True).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(repo)
    outputs[repo] = model(**tokenizer(["red cat one"], return_tensors="pt", return_token_type_ids=False)).logits
assert not any(name.split(".")[0] == "hf_llm" for name in sys.modules)
torch.save(outputs, sys.argv[2])
"""
BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_llm":
            raise ImportError("hf_llm is not here")
sys.meta_path.insert(0, Blocker())
"""


def test_what_was_pushed_loads_elsewhere_with_transformers_alone_and_gives_the_same(hub, place):
    import torch
    import transformers

    autos = dict.fromkeys(RUNS, "AutoModelForCausalLM") | {"bert": "AutoModelForSequenceClassification"}
    for name in RUNS:
        pushed = cli(hub, place, "push", f"run={name}", f"repo=me/{name}")
        assert pushed.returncode == 0, pushed.stderr
        assert hub.repos["model", f"me/{name}"].private
    code, found = place / "elsewhere.py", place / "outputs.pt"
    code.write_text(BLOCKED + ELSEWHERE)
    repos = json.dumps({f"me/{name}": auto for name, auto in autos.items()})
    done = subprocess.run(
        [sys.executable, "-I", code, repos, found], cwd=place, env=hub.environment(place / "elsewhere"),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for repo, logits in torch.load(found).items():
        name = repo.removeprefix("me/")
        folder = place / "outputs" / name / "model"
        model = getattr(transformers, autos[name]).from_pretrained(folder).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        inputs = tokenizer(["red cat one"], return_tensors="pt", return_token_type_ids=False)
        assert torch.equal(model(**inputs).logits, logits), name


def test_the_code_and_the_command_of_a_card_run_against_the_hub(hub, place):
    assert cli(hub, place, "push", "run=bert", "repo=me/bert").returncode == 0
    code = re.search(r"```python\n(.*?)```", hub.files("me/bert")["README.md"].decode(), re.DOTALL)[1]
    env = hub.environment(place / "user")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=place)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "'label'" in done.stdout
    command = re.search(r"^hf-llm predict (.*) output=.*$", hub.files("me/bert")["README.md"].decode(), re.MULTILINE)[
        1
    ]
    (place / "new.csv").write_text("text\nred cat\n")
    done = cli(hub, place, "predict", *command.replace("FILE", "new.csv").split(), "trainer.use_cpu=true")
    assert json.loads(done.stdout)["label"] in ("colour", "thing"), done.stderr


def test_pushing_again_sends_nothing_and_a_change_only_what_changed(hub, place):
    first = cli(hub, place, "push", "run=rnn", "repo=me/rnn")
    assert first.stdout.count("  sent") == len(hub.files("me/rnn")) - 1, first.stderr  # all but .gitattributes
    commits = len(hub.repos["model", "me/rnn"].commits)
    again = cli(hub, place, "push", "run=rnn", "repo=me/rnn")
    assert (again.returncode, again.stdout.count("  sent")) == (0, 0)
    assert "has all of them already" in again.stderr
    assert len(hub.repos["model", "me/rnn"].commits) == commits
    hub.add("me/rnn", {"notes.md": "somebody's"})
    changed = cli(hub, place, "push", "run=rnn", "repo=me/rnn", "card.license=apache-2.0")
    sent = [line.split()[0] for line in changed.stdout.splitlines() if line.endswith("  sent")]
    assert sent == ["README.md", "run/pushed.json"], changed.stderr
    assert "notes.md" in hub.files("me/rnn")


FAULTS = {
    "no token": ({}, {"token": None}, "log in with `hf auth login`"),
    "a wrong token": ({}, {"token": "hf_bad"}, "log in with `hf auth login`"),
    "a token that may only read": ({}, {"token": READ_ONLY}, "your token may not do this"),
    "not found": ({"method": "POST", "pattern": "preupload", "status": 404, "times": 9}, {}, "no such repository"),
    "a conflict": (
        {"method": "POST", "pattern": "/commit/", "status": 409, "times": 9},
        {},
        "somebody else changed it",
    ),
    "a stale parent": (
        {"method": "POST", "pattern": "/commit/", "status": 412, "times": 9},
        {},
        "somebody else changed",
    ),
    "a checksum that is wrong": ({"method": "PUT", "pattern": "/lfs/", "status": 400, "times": 99}, {}, "status 400"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_push_that_fails_says_why_in_one_line_and_leaves_the_run_whole(name, hub, place):
    fault, options, expected = FAULTS[name]
    if fault:
        hub.fail(**fault)
    before = tree(place / "outputs" / "rnn")
    failed = cli(hub, place, "push", "run=rnn", "repo=me/rnn", **options)
    assert failed.returncode == 2, failed.stderr
    (last,) = [line for line in failed.stderr.splitlines() if line.startswith("hf-llm: ")]
    assert last.startswith("hf-llm: repo=me/rnn: ")
    assert expected in last
    assert "Traceback" not in failed.stderr
    assert tree(place / "outputs" / "rnn") == before
    if fault:
        assert "not sent: README.md, config.json" in last
        hub.faults.clear()
        again = cli(hub, place, "push", "run=rnn", "repo=me/rnn")
        assert again.returncode == 0, again.stderr
        assert "model.safetensors" in hub.files("me/rnn")


def test_the_client_waits_and_goes_on_where_the_hub_asks_for_patience_or_stumbles(hub, place):
    hub.fail("POST", "preupload", 429, Retry_After=1)
    hub.fail("POST", "batch", 503)
    hub.fail("PUT", "/lfs/", 500)
    hub.fail("PUT", "/lfs/", cut=1000)  # the line goes dead in the middle of a file
    done = cli(hub, place, "push", "run=rnn", "repo=me/rnn")
    assert done.returncode == 0, done.stderr
    assert not any(fault.times for fault in hub.faults)
    assert "model.safetensors" in hub.files("me/rnn")


def test_after_a_cut_upload_the_same_command_sends_only_what_is_missing(hub, place):
    hub.part_size = 10_000
    weights = place / "outputs" / "rnn" / "model" / "model.safetensors"
    oid = hashlib.sha256(weights.read_bytes()).hexdigest()
    hub.fail("POST", "/commit/", times=99, cut=100)  # the line goes dead when all weights are there
    failed = cli(hub, place, "push", "run=rnn", "repo=me/rnn")
    assert failed.returncode == 2
    assert "the same command again sends what is missing" in failed.stderr
    assert oid in hub.objects
    hub.faults.clear()
    before = len(hub.requests)
    assert cli(hub, place, "push", "run=rnn", "repo=me/rnn").returncode == 0
    assert not [line for line in hub.requests[before:] if line.startswith("PUT") and oid in line]
    assert hub.files("me/rnn")["model.safetensors"] == weights.read_bytes()


def test_a_public_repository_wants_to_be_asked_for(hub, place):
    hub.add("me/rnn", {"README.md": ""})
    refused = cli(hub, place, "push", "run=rnn", "repo=me/rnn")
    assert refused.returncode == 2
    assert "repo=me/rnn is public: to publish there, say private=false" in refused.stderr
    assert hub.files("me/rnn")["README.md"] == b""
    assert cli(hub, place, "push", "run=rnn", "repo=me/rnn", "private=false").returncode == 0


def test_a_run_that_was_pulled_is_evaluated_and_continues_like_the_one_that_was_pushed(hub, place):
    assert cli(hub, place, "push", "run=rnn", "repo=me/book").returncode == 0
    assert cli(hub, place, "pull", "repo=me/book").returncode == 0
    pulled = place / "outputs" / "book"
    assert (pulled / "model" / "model.safetensors").read_bytes() == hub.files("me/book")["model.safetensors"]
    again = cli(hub, place, "pull", "repo=me/book")
    assert again.returncode == 2
    assert "is there already: give the run another name" in again.stderr
    (place / "text.txt").write_text("red blue green one two three cat dog\n" * 5)
    said = {}
    for run in ("rnn", "book", "me/book"):
        options = ["data.files=text.txt", f"output={place / 'metrics.json'}", "trainer.use_cpu=true"]
        done = cli(hub, place, "evaluate", f"run={run}", *options)
        assert done.returncode == 0, done.stderr
        said[run] = json.loads((place / "metrics.json").read_text())
    assert said["rnn"] == said["book"] == said["me/book"]
    prompts = [cli(hub, place, "generate", f"run={run}", "prompt=red").stdout for run in ("rnn", "me/book")]
    assert prompts[0] == prompts[1] != ""
    offline = cli(hub, place, "generate", "run=me/book", "prompt=red", "offline=true")
    assert offline.stdout == prompts[0]


def test_a_download_that_fails_or_is_not_what_was_promised_is_noticed_and_leaves_nothing(hub, place):
    assert cli(hub, place, "push", "run=rnn", "repo=me/book").returncode == 0
    hub.corrupt.add("model.safetensors")  # as many bytes, but others
    failed = cli(hub, place, "pull", "repo=me/book")
    assert failed.returncode == 2
    assert "model.safetensors is not what was sent" in failed.stderr.splitlines()[-1]
    assert not (place / "outputs" / "book").exists()
    hub.corrupt.clear()
    assert cli(hub, place, "pull", "repo=me/book").returncode == 0
    hub.add("me/bare", {"config.json": "{}"})
    for repo, expected in (("me/nothing", "no such repository"), ("me/bare", "no run of this project")):
        failed = cli(hub, place, "pull", f"repo={repo}")
        assert failed.returncode == 2
        assert expected in failed.stderr.splitlines()[-1]
        assert not (place / "outputs" / repo.removeprefix("me/")).exists()


def test_a_training_pushes_when_it_is_done_and_says_before_it_starts_where_it_cannot(hub, place):
    options = [*toys.language_model(place, "rnn", run="fresh"), "trainer.push_to_hub=true", f"runs_dir={place / 'o'}"]
    refused = cli(hub, place, "train", *options, token=None)
    assert refused.returncode == 2
    assert "log in with `hf auth login`" in refused.stderr
    assert not (place / "o" / "fresh").exists()
    hub.fail("POST", "/commit/", 500, times=99)
    failed = cli(hub, place, "train", *options)
    assert failed.returncode == 2
    assert "the run is whole" in failed.stderr
    assert (place / "o" / "fresh" / "metrics.json").is_file()
    assert (place / "o" / "fresh" / "README.md").is_file()
    hub.faults.clear()
    done = cli(hub, place, "train", *options)  # nothing to train: it only pushes
    assert done.returncode == 0, done.stderr
    assert hub.repos["model", "me/fresh"].private
    assert "model.safetensors" in hub.files("me/fresh")


def test_a_run_of_the_hub_is_trained_again_to_the_same_weights(hub, place):
    assert cli(hub, place, "push", "run=rnn", "repo=me/book").returncode == 0
    corpus = toys.write_text(place, "mine.txt")
    refused = cli(hub, place, "rerun", "run=me/book")
    assert refused.returncode == 2
    assert "is a file or folder of this machine: say where it is" in refused.stderr
    done = cli(hub, place, "rerun", "run=me/book", f"data.files.train={corpus}")
    assert done.returncode == 0, done.stderr
    assert "the weights are the same, bit for bit" in done.stderr
    corpus.write_text(corpus.read_text().replace("cat", "cow"))
    other = cli(hub, place, "rerun", "run=me/book", f"data.files.train={corpus}", "name=other")
    assert other.returncode == 2
    assert "the data are not those of then" in other.stderr
    assert not (place / "outputs" / "other").exists()


def test_what_differs_from_then_is_named(hub, place):
    path = place / "outputs" / "rnn" / "environment.json"
    record = json.loads(path.read_text())
    record["packages"]["torch"] = "1.0"
    path.write_text(json.dumps({**record, "git_commit": "0" * 40, "python": "3.0"}))
    done = cli(hub, place, "rerun", "run=rnn", "--dry-run")
    assert done.returncode == 0, done.stderr
    for line in ("torch 1.0 then, ", "python: 3.0 then, ", f"git_commit: {'0' * 40} then, "):
        assert f"not as then: {line}" in done.stderr
    assert "nothing was trained" in done.stderr
    assert not (place / "outputs" / "rnn-rerun").exists()


def test_no_token_and_no_path_of_this_machine_is_in_what_went_up(hub, place):
    assert cli(hub, place, "push", "run=rnn", "repo=me/rnn").returncode == 0
    for path, content in hub.files("me/rnn").items():
        assert b"hf_good" not in content, path
        assert str(place).encode() not in content, path
        assert os.path.expanduser("~/").encode() not in content, path
