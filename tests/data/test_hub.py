"""The Hub, played by a server on this machine: real `load_dataset`, its successes and failures."""

import http.server
import json
import os
import subprocess
import sys
import threading

import pytest

SHA = "0" * 40
README = """---
configs:
- config_name: plain
  data_files: [{split: train, path: train.csv}, {split: dev, path: dev.csv}]
- config_name: other
  data_files: [{split: train, path: dev.csv}]
---
"""
REPOS = {
    "me/rows": {"README.md": README, "train.csv": "s,y\na,1\nb,0\nc,1\n", "dev.csv": "s,y\nd,0\ne,1\n"},
    "me/script": {"README.md": "", "script.py": "import datasets\n"},
}


class Hub(http.server.BaseHTTPRequestHandler):
    """The few routes that `load_dataset` asks."""

    def do_GET(self):
        path = self.path.split("?")[0].removeprefix("/api").removeprefix("/datasets/")
        repo, _, rest = path.partition("/")[0] + "/" + path.split("/")[1], None, "/".join(path.split("/")[2:])
        files = REPOS.get(repo)
        if repo == "me/gated":
            return self.answer(403, headers={"X-Error-Code": "GatedRepo"})
        if files is None:
            return self.answer(404, headers={"X-Error-Code": "RepoNotFound"})
        if "missing" in rest:
            return self.answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        if self.path.startswith("/api"):
            tree = [{"type": "file", "path": n, "size": len(c), "oid": n.ljust(40, "0")} for n, c in files.items()]
            info = {"id": repo, "sha": SHA, "siblings": [{"rfilename": name} for name in files], "private": False}
            return self.answer(200, json.dumps(tree if rest.startswith("tree") else info).encode())
        name = rest.split("/")[-1]
        if name not in files:
            return self.answer(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": SHA})
        return self.answer(200, files[name].encode(), {"X-Repo-Commit": SHA, "ETag": f'"{name}"'})

    do_HEAD = do_POST = do_GET

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **dict(headers)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """A function: DataConfig's fields -> what a process that knows this Hub only says."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    program = """
import json, sys
from hf_llm import data
from hf_llm.config import DataConfig, InputError
for options in json.loads(sys.argv[1]):
    try:
        splits = data.load(DataConfig(**options), {"text": "text", "label": "label"}, seed=0)
        print(json.dumps({name: [list(row.values()) for row in split] for name, split in splits.items()}))
    except InputError as error:
        print(json.dumps(str(error)))
"""
    env = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0"}
    env |= {"HF_HOME": str(tmp_path_factory.mktemp("home")), "HF_HUB_DISABLE_XET": "1"}
    for key in [key for key in env if key.lower().endswith("_proxy")]:
        del env[key]

    def ask(*options):
        done = subprocess.run(
            [sys.executable, "-c", program, json.dumps(options)], env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    yield ask
    server.shutdown()
    server.server_close()


def test_a_data_set_of_the_hub_is_loaded_by_subset_with_its_own_split_names(ask):
    columns = {"text": "s", "label": "y"}
    rows = {"path": "me/rows", "subset": "plain", "columns": columns}
    whole, sliced, streamed = ask(
        rows, {**rows, "splits": {"test": "train[:2]"}}, {**rows, "streaming": True, "labels": ["1", "0"]}
    )
    assert whole == {"train": [["a", 1], ["b", 0], ["c", 1]], "validation": [["d", 0], ["e", 1]]}
    assert sliced == {**whole, "test": [["a", 1], ["b", 0]]}
    assert streamed == {"train": [["a", 0], ["b", 1], ["c", 0]], "validation": [["d", 1], ["e", 0]]}


def test_what_the_hub_refuses_is_one_line(ask):
    cases = {
        "no such data set on the Hub": {"path": "me/nothing"},
        "is a script, which datasets no longer runs": {"path": "me/script"},
        "is gated: ask for access": {"path": "me/gated"},
        "give data.subset; there are 'plain', 'other'": {"path": "me/rows"},
        "no data.subset=plane; there are 'plain', 'other'": {"path": "me/rows", "subset": "plane"},
        "no data.revision=missing": {"path": "me/rows", "subset": "plain", "revision": "missing"},
        "split train: no column 'text'": {"path": "me/rows", "subset": "plain"},
    }
    for (expected, options), message in zip(cases.items(), ask(*cases.values()), strict=True):
        assert expected in message
        assert message.startswith(options["path"] if "column" in expected else f"data.path={options['path']}: ")
        assert "\n" not in message
