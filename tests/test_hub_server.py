"""The Hub on loopback, asked by huggingface_hub and datasets themselves, each in a process of its own."""

import hashlib
import io
import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet
import pytest
from hub_server import GOOD, READ_ONLY, HubServer

CLIENT = """
import json, sys, time, warnings
from pathlib import Path
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
api, given, said = HfApi(), json.loads(sys.argv[1]), {}
def refused(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as error:
        response = getattr(error, "response", None)
        return [type(error).__name__, response.status_code if response is not None else str(error)]
"""
WEIGHTS = {"model.safetensors": bytes(range(256)) * 200, "small.safetensors": b"weights" * 9}  # 51,200 and 63 bytes


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def ask(hub, tmp_path):
    """A function: a program for the client, and what it is given -> what it put into `said`."""

    def ask(program, token=GOOD, offline=False, **given):
        env = {**hub.environment(tmp_path / "home", token), "HF_HUB_OFFLINE": str(int(offline))}
        command = [sys.executable, "-c", f"{CLIENT}\n{program}\nprint(json.dumps(said))", json.dumps(given)]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return ask


@pytest.fixture
def folder(tmp_path):
    """A folder as a push has it: text, an empty file, a folder in it, and weights."""
    folder = tmp_path / "model"
    contents = {"README.md": b"---\nlicense: mit\n---\n# Toy\n", "empty.txt": b"", "run/config.yaml": b"a: 1\n"}
    for path, content in {**contents, **WEIGHTS}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


PUSH = """
api.create_repo("me/toy", private=True)
said["commit"] = api.upload_folder(repo_id="me/toy", folder_path="model", commit_message="all of it").oid
"""


@pytest.mark.parametrize("part_size", [None, 20_000])
def test_what_is_uploaded_comes_back_byte_for_byte(part_size, hub, ask, folder, tmp_path):
    hub.part_size = part_size
    said = ask(
        PUSH
        + """
snapshot_download("me/toy", local_dir="back")
cached = Path(snapshot_download("me/toy"))
said["cached"] = cached.name
said["kept"] = {path.name: path.resolve().name for path in cached.glob("*.safetensors")}
info = api.model_info("me/toy", files_metadata=True)
said["info"] = [info.sha, info.private, {file.rfilename: file.lfs and file.lfs.sha256 for file in info.siblings}]
"""
    )
    sent = contents(folder)
    back = {path: content for path, content in contents(tmp_path / "back").items() if not path.startswith(".")}
    assert back == sent
    assert {**sent, ".gitattributes": b""} == hub.files("me/toy")
    commit = hub.repos["model", "me/toy"].commits[-1]
    assert (commit.sha, commit.message) == (said["commit"], "all of it")
    assert said["cached"] == commit.sha
    lfs = {path: sha256(content) for path, content in WEIGHTS.items()}
    assert said["kept"] == lfs  # the file's name in the cache is its ETag
    assert said["info"] == [commit.sha, True, {path: lfs.get(path) for path in hub.files("me/toy")}]
    large = WEIGHTS["model.safetensors"]
    pieces = [large[i : i + 20_000] for i in range(0, len(large), 20_000)] if part_size else [large]
    assert sorted(hub.uploaded) == sorted(sha256(piece) for piece in [*pieces, WEIGHTS["small.safetensors"]])


def test_a_large_file_goes_by_lfs_whatever_its_ending(hub, ask, tmp_path):
    hub.add("me/toy", {})
    hub.lfs_above = 100
    (tmp_path / "large.txt").write_bytes(b"x" * 101)
    said = ask("""
for name, content in (("large.txt", "large.txt"), ("small.txt", b"x" * 100)):
    api.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id="me/toy")
said["lfs"] = {file.path: bool(file.lfs) for file in api.list_repo_tree("me/toy")}
said["size"] = Path(hf_hub_download("me/toy", "large.txt")).stat().st_size
""")
    assert said == {"lfs": {"large.txt": True, "small.txt": False}, "size": 101}
    assert hub.uploaded == [sha256(b"x" * 101)]


def test_listings_come_in_pages_with_folders_and_last_commits(hub, ask):
    names = [f"a/{i}.txt" for i in range(7)] + ["b/c/d.txt", "e.txt"]
    first = hub.add("me/toy", dict.fromkeys(names, "old"))
    last = hub.add("me/toy", {"b/c/d.txt": "new"})
    said = ask("""
said["all"] = [[type(e).__name__, e.path] for e in api.list_repo_tree("me/toy", recursive=True)]
said["top"] = [e.path for e in api.list_repo_tree("me/toy")]
said["inside"] = [e.path for e in api.list_repo_tree("me/toy", "a")]
said["changed"] = {e.path: e.last_commit.oid for e in api.list_repo_tree("me/toy", expand=True)}
said["paths"] = sorted(e.path for e in api.get_paths_info("me/toy", ["e.txt", "b", "nothing"], expand=True))
said["nowhere"] = refused(lambda: list(api.list_repo_tree("me/toy", "z")))
said["commits"] = [commit.commit_id for commit in api.list_repo_commits("me/toy")][:2]
""")
    folders = [["RepoFolder", path] for path in ("a", "b", "b/c")]
    assert sorted(said["all"]) == sorted(folders + [["RepoFile", name] for name in names])
    assert sum("/tree/" in line for line in hub.requests[:3]) == 3  # twelve entries in pages of five
    assert said["top"] == ["a", "b", "e.txt"]
    assert said["inside"] == names[:7]
    assert said["changed"] == {"a": first, "b": last, "e.txt": first}
    assert said["paths"] == ["b", "e.txt"]
    assert said["nowhere"] == ["RemoteEntryNotFoundError", 404]
    assert said["commits"] == [last, first]


def test_branches_tags_and_hashes_name_their_own_files(hub, ask):
    first = hub.add("me/toy", {"a.txt": "one"}, tag="v1")
    hub.add("me/toy", {"a.txt": "two"}, revision="dev")
    said = ask(
        """
def read(revision=None):
    return Path(hf_hub_download("me/toy", "a.txt", revision=revision)).read_text()
api.create_tag("me/toy", tag="v2", revision="dev")
api.create_branch("me/toy", branch="feature/x", revision="v1")
api.upload_file(path_or_fileobj=b"three", path_in_repo="a.txt", repo_id="me/toy", revision="feature/x")
said["read"] = [read(name) for name in (None, "v1", "dev", "v2", "feature/x", given["first"])]
refs = api.list_repo_refs("me/toy")
said["refs"] = [sorted(ref.name for ref in refs.branches), sorted(ref.name for ref in refs.tags)]
said["again"] = refused(api.create_tag, "me/toy", tag="v1")
said["nowhere"] = [refused(read, "v9"), refused(hf_hub_download, "me/toy", "b.txt"), refused(api.model_info, "me/no")]
""",
        first=first,
    )
    assert said["read"] == ["one", "one", "two", "two", "three", "one"]
    assert said["refs"] == [["dev", "feature/x", "main"], ["v1", "v2"]]
    assert said["again"] == ["HfHubHTTPError", 409]
    errors = ["RevisionNotFoundError", "RemoteEntryNotFoundError", "RepositoryNotFoundError"]
    assert said["nowhere"] == [[name, 404] for name in errors]
    assert hub.files("me/toy", revision="main")["a.txt"] == b"one"


ACCESS = """
said["who"] = refused(api.whoami) or api.whoami()["name"]
said["read"] = [refused(hf_hub_download, repo, "a.txt") for repo in ("me/open", "me/secret", "other/secret")]
said["gated"] = refused(hf_hub_download, "other/gated", "a.txt")
said["create"] = [refused(api.create_repo, repo) for repo in ("me/open", "me/new", "our/new", "other/new")]
said["write"] = [
    refused(api.upload_file, path_or_fileobj=b"b", path_in_repo="b.txt", repo_id=repo)
    for repo in ("me/open", "other/open")
]
"""
MISSING, BAD, NO = ["RepositoryNotFoundError", 401], ["HfHubHTTPError", 401], ["HfHubHTTPError", 403]


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (GOOD, {"who": "me", "read": [None, None, ["RepositoryNotFoundError", 404]], "gated": ["GatedRepoError", 403],
                "create": [["HfHubHTTPError", 409], None, None, NO], "write": [None, NO]}),
        (READ_ONLY, {"who": "me", "read": [None, None, ["RepositoryNotFoundError", 404]],
                     "gated": ["GatedRepoError", 403], "create": [NO, NO, NO, NO], "write": [NO, NO]}),
        (None, {"who": ["LocalTokenNotFoundError"], "read": [None, MISSING, MISSING],
                "gated": ["GatedRepoError", 401], "create": [BAD, BAD, BAD, BAD], "write": [BAD, BAD]}),
        ("hf_bad", {"who": BAD, "read": [BAD, BAD, BAD], "gated": BAD, "create": [BAD, BAD, BAD, BAD],
                    "write": [BAD, BAD]}),
    ],
)  # fmt: skip
def test_each_token_may_do_what_it_may(token, expected, hub, ask):
    for repo_id, private in (("me/open", False), ("other/open", False), ("me/secret", True), ("other/secret", True)):
        hub.add(repo_id, {"a.txt": "a"}, private=private)
    hub.add("other/gated", {"a.txt": "a"})
    hub.repos["model", "other/gated"].gated = "auto"
    said = ask(ACCESS, token=token)
    said["who"] = said["who"][:1] if token is None else said["who"]
    assert said == expected


def test_settings_make_a_repository_private_and_a_card_that_is_not_yaml_is_refused(hub, ask):
    hub.add("me/toy", {"a.txt": "a"})
    said = ask("""
api.update_repo_settings("me/toy", visibility="private")
said["private"] = api.model_info("me/toy").private
def card(text):
    return refused(api.upload_file, path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id="me/toy")
blocks = ["license: mit", "- a list", "license: [", "# nothing"]
said["cards"] = [bool(card(f"---\\n{block}\\n---\\n# Toy\\n")) for block in blocks] + [card("# no metadata\\n")]
""")
    assert said == {"private": True, "cards": [False, True, True, True, None]}
    assert hub.repos["model", "me/toy"].private
    assert hub.files("me/toy")["README.md"] == b"# no metadata\n"


def test_a_commit_on_a_stale_parent_is_refused_and_one_may_delete_a_file_and_a_folder(hub, ask):
    old = hub.add("me/toy", {"a.txt": "a", "run/b.txt": "b", "run/c/d.txt": "d", "running.txt": "e"})
    hub.add("me/toy", {"a.txt": "newer"})
    said = ask(
        """
add = CommitOperationAdd(path_in_repo="a.txt", path_or_fileobj=b"mine")
said["stale"] = refused(api.create_commit, "me/toy", [add], commit_message="x", parent_commit=given["old"])
gone = [CommitOperationDelete("a.txt"), CommitOperationDelete("run/", is_folder=True)]
api.create_commit("me/toy", gone, commit_message="delete", parent_commit=api.model_info("me/toy").sha)
said["missing"] = refused(api.delete_file, "a.txt", "me/toy")
""",
        old=old,
    )
    assert said == {"stale": ["HfHubHTTPError", 412], "missing": ["RemoteEntryNotFoundError", 404]}
    assert hub.files("me/toy") == {"running.txt": b"e"}


def test_the_client_waits_as_long_as_it_is_told_and_gets_over_a_fault(hub, ask, folder):
    hub.fail("POST", "preupload", 429, Retry_After=1)
    hub.fail("POST", "/objects/batch", 503, body=b"not even JSON")
    hub.fail("PUT", "/lfs/", 500, after=1)  # the second object
    hub.cut("GET", f"/cdn/{sha256(WEIGHTS['model.safetensors'])}", after_bytes=30_000)
    said = ask(
        """
waits, sleep = [], time.sleep
time.sleep = lambda seconds: (waits.append(seconds), sleep(seconds / 20))
"""
        + PUSH
        + """
said["uploading"], waits[:] = sorted(waits), []
said["bytes"] = Path(hf_hub_download("me/toy", "model.safetensors")).read_bytes().hex()
said["downloading"] = waits
"""
    )
    assert [wait for wait in said["uploading"] if wait >= 1] == [1, 1, 2]  # 429: Retry-After and a second
    assert bytes.fromhex(said["bytes"]) == WEIGHTS["model.safetensors"]
    assert 1 in said["downloading"]
    assert not any(fault.times for fault in hub.faults)
    first, second, again = [line for line in hub.requests if line.startswith("PUT")]
    assert second == again != first


@pytest.mark.parametrize("part_size", [None, 20_000])
def test_after_a_cut_upload_a_second_one_sends_only_what_is_missing(part_size, hub, ask, folder):
    hub.part_size = part_size
    large, small = (sha256(WEIGHTS[name]) for name in ("model.safetensors", "small.safetensors"))
    hub.cut("PUT", large, after_bytes=10_000)
    hub.fail("PUT", large, 403)  # of the retry, or the client would mend the cut by itself
    failed = ask('api.create_repo("me/toy")\nsaid["push"] = refused(api.upload_folder, repo_id="me/toy", '
                 'folder_path="model")')  # fmt: skip
    assert failed["push"][0] == "RuntimeError"
    assert hub.uploaded == [small]
    assert "model.safetensors" not in hub.files("me/toy")
    ask('api.upload_folder(repo_id="me/toy", folder_path="model")')
    assert hub.uploaded.count(small) == 1
    assert len(hub.uploaded) == 1 + (3 if part_size else 1)
    assert hub.files("me/toy")["model.safetensors"] == WEIGHTS["model.safetensors"]


def test_bytes_that_are_not_those_announced_are_refused(hub, ask):
    hub.add("me/toy", {"a.safetensors": b"good"})
    said = ask(
        """
from huggingface_hub import get_session
from huggingface_hub.utils import build_hf_headers
def call(method, path, **kwargs):
    url = f"{api.endpoint}{path}"
    return get_session().request(method, url, headers=build_hf_headers(), **kwargs).status_code
def commit(oid, size):
    value = {"path": "b.safetensors", "algo": "sha256", "oid": oid, "size": size}
    lines = [{"key": "header", "value": {"summary": "x"}}, {"key": "lfsFile", "value": value}]
    return call("POST", "/api/models/me/toy/commit/main", content="\\n".join(map(json.dumps, lines)))
oid = given["oid"]
said["other"] = call("PUT", f"/lfs/{oid}", content=b"other bytes")
said["absent"] = [call("POST", f"/lfs/{oid}/verify", json={"oid": oid, "size": 5}), commit(oid, 5)]
said["arrived"] = call("PUT", f"/lfs/{oid}", content=b"bytes")
said["size"] = [call("POST", f"/lfs/{oid}/verify", json={"oid": oid, "size": 4}), commit(oid, 4)]
said["right"] = [call("POST", f"/lfs/{oid}/verify", json={"oid": oid, "size": 5}), commit(oid, 5)]
def complete(etag):
    parts = [{"partNumber": 1, "etag": etag}]
    return call("POST", f"/lfs/{given['part']}/complete", json={"oid": given["part"], "parts": parts})
said["part"] = [call("PUT", f"/lfs/{given['part']}/1", content=b"part"), complete("other"), complete(given["etag"])]
""",
        oid=sha256(b"bytes"),
        part=sha256(b"part"),
        etag=hashlib.md5(b"part").hexdigest(),
    )
    expected = {"other": 400, "absent": [404, 400], "arrived": 200, "size": [422, 400], "right": [200, 200]}
    assert said == {**expected, "part": [200, 400, 200]}
    assert hub.files("me/toy")["b.safetensors"] == b"bytes"


def test_a_download_can_come_with_other_bytes_of_the_same_length_and_in_pieces(hub, ask):
    hub.add("me/toy", {"a.safetensors": b"good weights", "b.txt": b"good text"})
    hub.corrupt |= {"a.safetensors", "b.txt"}
    program = """
from huggingface_hub import HfFileSystem
said["read"] = [Path(hf_hub_download("me/toy", name)).read_bytes().hex() for name in ("a.safetensors", "b.txt")]
with HfFileSystem().open("me/toy/a.safetensors") as file:
    file.seek(5)
    said["piece"] = file.read(4).hex()
"""
    said = ask(program)
    for found, sent in zip(map(bytes.fromhex, said["read"]), (b"good weights", b"good text"), strict=True):
        assert len(found) == len(sent)
        assert found != sent
    hub.corrupt.clear()
    assert bytes.fromhex(ask(program)["piece"]) == b"weig"


def dataset(form, texts):
    if form == "csv":
        content = "text,label\n" + "".join(f"{text},{i}\n" for i, text in enumerate(texts))
    else:
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pa.table({"text": texts, "label": list(range(len(texts)))}), buffer)
        content = buffer.getvalue()
    card = "---\nconfigs:\n- config_name: plain\n  data_files: [{split: train, path: rows." + form + "}]\n---\n"
    return {"README.md": card, f"rows.{form}": content}


def test_data_sets_are_loaded_at_a_revision_and_offline_afterwards(hub, ask):
    for form in ("csv", "parquet"):
        hub.add(f"me/{form}", dataset(form, ["one", "two"]), type="dataset", private=True, tag="v1")
        hub.add(f"me/{form}", dataset(form, ["three"]), type="dataset")
    program = """
from datasets import load_dataset
for form in ("csv", "parquet"):
    for revision in given["revisions"]:
        said[f"{form} {revision}"] = load_dataset(f"me/{form}", "plain", split="train", revision=revision)["text"][:]
"""
    said = ask(program, revisions=["v1", None])
    texts = {"v1": ["one", "two"], None: ["three"]}
    assert said == {f"{form} {name}": found for form in ("csv", "parquet") for name, found in texts.items()}
    asked = len(hub.requests)
    offline = ask(program, offline=True, token=None, revisions=[None])
    assert offline == {f"{form} None": ["three"] for form in ("csv", "parquet")}
    assert hub.requests[asked:] == []
