"""The Hub, played by a server on this machine: real `load_dataset`, its successes and failures."""

import http.server
import json
import os
import subprocess
import sys
import threading
from typing import ClassVar

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
ELSEWHERE = ["http://HOST/x.csv", "/etc/x.csv", "../x.csv", "zip://x.csv::http://HOST/x.zip", "ftp://HOST/x.csv"]
SUBSETS = "configs:\n- config_name: default\n  data_files: [{split: train, path: train.csv}]\n"
REPOS = {
    **{
        f"me/elsewhere{number}": {"README.md": README.replace("train.csv", place), "dev.csv": "s,y\nd,0\n"}
        for number, place in enumerate(ELSEWHERE)
    },
    "me/folder": {"README.md": f"---\n{SUBSETS}  data_dir: /etc\n---\n", "train.csv": "s,y\na,1\n"},
    "me/yaml": {
        "README.md": f"---\n{SUBSETS}---\n",
        ".huggingface.yaml": SUBSETS.replace("train.csv", "[train.csv, 'http://HOST/x.csv']"),
        "train.csv": "s,y\na,1\n",
    },
    "me/rows": {"README.md": README, "train.csv": "s,y\na,1\nb,0\nc,1\n", "dev.csv": "s,y\nd,0\ne,1\n"},
    "me/script": {"README.md": "", "script.py": "import datasets\n"},
}


class Hub(http.server.BaseHTTPRequestHandler):
    """The few routes that `load_dataset` asks; `led` is what was asked of it as HOST, which nobody should ask."""

    led: ClassVar[list] = []

    def do_GET(self):
        if "/x." in self.path:
            self.led.append(self.path)
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
        body = files[name].replace("HOST", f"127.0.0.1:{self.server.server_port}").encode()
        return self.answer(200, body, {"X-Repo-Commit": SHA, "ETag": f'"{name}"'})

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


@pytest.mark.parametrize("streaming", [False, True])
def test_a_card_leads_to_no_file_of_this_machine_and_to_no_other_host(streaming, ask):
    names = [*(f"elsewhere{number}" for number in range(len(ELSEWHERE))), "folder", "yaml"]
    columns = {"text": "s", "label": "y"}
    options = [{"path": f"me/{name}", "columns": columns, "streaming": streaming} for name in names]
    for name, message in zip(names, ask(*options), strict=True):
        assert "a place outside of its repository" in message
        assert message.startswith(
            f"data.path=me/{name}: {'.huggingface.yaml' if name == 'yaml' else 'README.md'} names "
        )
        assert "\n" not in message
    assert Hub.led == []
