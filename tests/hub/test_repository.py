"""What a push does to a repository that has something already, and what it asks before it makes one."""

import hashlib
import json

import pytest
import yaml
from hub_server import HubServer

from hf_llm import InputError, compose, push
from hf_llm.publishing import push_command

WEIGHTS = b"\x02\0\0\0\0\0\0\0{}"  # of no tensor


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub that this process itself speaks to."""
    with HubServer() as server:
        for name, value in server.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(tmp_path / "home" / "hub"),
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        yield server


@pytest.fixture
def run(tmp_path):
    """A finished run, written by hand."""
    folder = tmp_path / "outputs" / "cls"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "model" / "config.json").write_text('{"model_type": "gpt2"}')
    config = {"run": "cls", "data": {"path": "builtin:python_docs"}, "model": {"arch": "gpt2"}}
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "task": {"name": "causal_lm"}}))
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    (folder / "environment.json").write_text(json.dumps({"weights": {"model.safetensors": digest}}))
    (folder / "metrics.json").write_text(json.dumps({"validation": {"loss": 1.5}}))
    (folder / "loss_curve.png").write_bytes(b"a picture")
    return folder


def sent(run, *options, repo="me/cls"):
    return push(compose("push", f"run={run}", f"repo={repo}", *options))


def test_other_peoples_files_stay_and_what_an_earlier_push_left_goes(hub, run):
    sent(run)
    theirs = {"teaser.png": b"1", "onnx/model.safetensors": b"2", "demo/adapter_model.safetensors": b"3"}
    theirs |= {"model-00001-of-00002.safetensors": b"4"}
    hub.add("me/cls", theirs)
    (run / "loss_curve.png").unlink()
    seen = sent(run, "dry_run=true")
    assert (seen.deleted, seen.sent) == (["loss_curve.png"], [])
    assert "loss_curve.png" in hub.files("me/cls")
    assert sent(run).deleted == ["loss_curve.png"]
    files = hub.files("me/cls")
    assert theirs.items() <= files.items()
    assert "loss_curve.png" not in files
    assert sent(run).url is None  # nothing is left to do


def test_a_file_of_a_push_that_somebody_changed_since_is_theirs(hub, run):
    sent(run)
    hub.add("me/cls", {"loss_curve.png": b"a finer one"})
    (run / "loss_curve.png").unlink()
    assert sent(run).deleted == []
    assert hub.files("me/cls")["loss_curve.png"] == b"a finer one"


def test_what_is_deleted_is_said(hub, run, capsys):
    sent(run)
    (run / "loss_curve.png").unlink()
    for option, word in (("dry_run=true", "would be deleted"), ("dry_run=false", "deleted")):
        push_command(compose("push", f"run={run}", "repo=me/cls", option))
        assert f"loss_curve.png {word}" in " ".join(capsys.readouterr().out.split())


def test_a_card_that_was_edited_on_the_hub_stays_until_it_may_be_overwritten(hub, run):
    sent(run)
    for edited in ("# my web-edited card", hub.files("me/cls")["README.md"].decode() + "\nmore"):
        hub.add("me/cls", {"README.md": edited})
        assert sent(run, "card.license=mit").kept == ["README.md"]
        assert hub.files("me/cls")["README.md"].decode() == edited
    assert sent(run, "card.license=mit", "overwrite=true").kept == []
    assert b"license: mit" in hub.files("me/cls")["README.md"]


def test_a_card_that_was_edited_here_goes_out_whenever_it_is_edited(hub, run):
    sent(run)
    for text in ("---\nlicense: mit\n---\n# mine", "---\nlicense: mit\n---\n# mine, again"):
        (run / "README.md").write_text(text)
        assert sent(run).kept == []
        assert hub.files("me/cls")["README.md"].decode() == text


def test_a_repository_of_something_else_is_left_alone_unless_it_may_be_overwritten(hub, run):
    theirs = {"pytorch_model.bin": b"theirs", "config.json": "{}", "README.md": "# theirs"}
    hub.add("me/cls", theirs, private=True)
    for option in ("dry_run=true", "dry_run=false"):
        with pytest.raises(InputError, match=r"files that no push put there \(config.json, pytorch_model.bin\)"):
            sent(run, option)
    assert hub.files("me/cls")["config.json"] == b"{}"
    assert sent(run, "overwrite=true").deleted == []
    assert hub.files("me/cls")["pytorch_model.bin"] == b"theirs"
    assert b"gpt2" in hub.files("me/cls")["config.json"]


def test_a_record_of_the_last_push_that_is_none_deletes_nothing(hub, run):
    sent(run)
    for record in (b"{", b'{"files": ["notes.md"]}', b'{"files": {"notes.md": 1}}', b"[" * 10**5):
        hub.add("me/cls", {"run/pushed.json": record, "notes.md": "theirs"})
        assert sent(run).deleted == []


def test_weights_that_are_missing_or_others_are_refused_and_those_on_the_hub_stay(hub, run):
    sent(run)
    path = run / "model" / "model.safetensors"
    path.write_bytes(WEIGHTS[:-1])
    for option in ("dry_run=true", "dry_run=false"):
        with pytest.raises(InputError, match=r"model/model\.safetensors is not what the run saved"):
            sent(run, option)
    path.unlink()
    with pytest.raises(InputError, match=r"model/model\.safetensors is not there"):
        sent(run)
    (run / "environment.json").write_text("{}")
    with pytest.raises(InputError, match=r"model/model\.safetensors is not there"):
        sent(run)
    assert hub.files("me/cls")["model.safetensors"] == WEIGHTS


def test_a_push_that_is_refused_here_makes_no_repository(hub, run):
    with pytest.raises(InputError, match="has no file nope"):
        sent(run, "include=[nope.txt]")
    (run / "notes.txt").write_text("ghp_" + "a1B2" * 9)
    with pytest.raises(InputError, match="access token"):
        sent(run, "include=[notes.txt]")
    (run / "README.md").write_bytes(b"---\nlicense: mit\n---\n\xff\xfe")
    with pytest.raises(InputError, match=r"README\.md: not UTF-8"):
        sent(run)
    (run / "README.md").unlink()
    for depth, message in ((10**5, "not JSON"), (700, "not as a run's are")):
        (run / "environment.json").write_text('{"x":' * depth + "1" + "}" * depth)
        with pytest.raises(InputError, match=message):
            sent(run)
    assert not hub.repos


def test_metadata_that_the_hub_refuses_are_named_before_anything_is_sent(hub, run):
    said = {"errors": [{"message": '"license" must be one of [apache-2.0, ...]'}], "warnings": []}
    hub.fail("POST", "validate-yaml", 400, body=json.dumps(said).encode())
    with pytest.raises(InputError) as refused:
        sent(run, "card.license=nonsense")
    assert str(refused.value) == 'README.md: the Hub refuses its metadata ("license" must be one of [apache-2.0, ...])'
    assert not hub.repos
    assert not hub.uploaded
    hub.fail("POST", "validate-yaml", 400, body=b"no", after=1)  # only the second time, when a commit is made
    with pytest.raises(InputError) as refused:
        sent(run)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("repo", ["me/..", "a/b/c", "/tmp/x", "me/", "me/x y", "me/a--b"])
def test_a_name_that_no_repository_can_have_is_refused_with_and_without_dry_run(repo, hub, run):
    for option in ("dry_run=true", "dry_run=false"):
        with pytest.raises(InputError, match="no name of a repository"):
            sent(run, option, repo=f"'{repo}'")
    assert not hub.repos


def test_a_repository_without_an_owner_is_the_users_own(hub, run):
    assert sent(run, repo="cls").repo == "me/cls"
    assert b"me/cls" in hub.files("me/cls")["README.md"]


def test_a_private_repository_stays_private_and_that_is_said(hub, run, caplog, monkeypatch):
    sent(run)
    monkeypatch.setattr("hf_llm.console.logger.propagate", True)
    sent(run, "private=false")
    assert "repo=me/cls is private, and stays so" in caplog.text
    assert hub.repos["model", "me/cls"].private


def test_a_run_that_was_pulled_says_nothing_of_its_own_in_its_card(hub, run):
    record = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**record, "pulled_from": "evil/cls"}))
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "card": {"description": "<b>buy</b>"}}))
    sent(run)
    assert b"buy" not in hub.files("me/cls")["README.md"]
