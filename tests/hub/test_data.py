"""A data set of the Hub as a user trains on it: CSV and Parquet, at a revision, private, and offline afterwards."""

import io
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet
import pytest
import toys
from hub_server import HubServer

README = """---
configs:
- config_name: default
  data_files: [{split: train, path: train.FORMAT}, {split: test, path: test.FORMAT}]
---
"""
TRAIN = [pair for i in range(20) for pair in ((f"red cat {i}", "colour"), (f"one dog {i}", "thing"))]
ROWS = {"train": TRAIN, "test": [("blue cat", "colour")] * 5}


def files(form, rows):
    contents = {"README.md": README.replace("FORMAT", form)}
    for split, pairs in rows.items():
        texts, labels = map(list, zip(*pairs, strict=True))
        if form == "csv":
            contents[f"{split}.csv"] = "text,label\n" + "".join(f"{a},{b}\n" for a, b in pairs)
        else:
            buffer = io.BytesIO()
            pyarrow.parquet.write_table(pa.table({"text": texts, "label": labels}), buffer)
            contents[f"{split}.parquet"] = buffer.getvalue()
    return contents


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        for form in ("csv", "parquet"):
            first = {**ROWS, "train": ROWS["train"][:20]}
            server.add(f"me/{form}", files(form, first), type="dataset", tag="v1")
            server.add(f"me/{form}", files(form, ROWS), type="dataset")
        server.add("me/secret", files("csv", ROWS), type="dataset", private=True)
        yield server


def look(hub, folder, *options, token="hf_good"):
    """What `hf-llm train` says before it would train."""
    command = [sys.executable, "-m", "hf_llm", "train", "task=text_classification", "preflight=only"]
    if not any(option.startswith("tokenizer.pretrained") for option in options):
        command += ["tokenizer=word"]
    command += [*toys.SMALL["bert"], *toys.QUICK, *options]
    env = hub.environment(folder / "home", token)
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_data_set_is_read_at_a_revision_and_offline_afterwards(form, hub, tmp_path):
    newest = look(hub, tmp_path, f"data.path=me/{form}")
    assert newest.returncode == 0, newest.stderr
    assert "train: 40 rows read" in newest.stderr
    tagged = look(hub, tmp_path, f"data.path=me/{form}", "data.revision=v1")
    assert "train: 20 rows read" in tagged.stderr
    asked = len(hub.requests)
    offline = look(hub, tmp_path, f"data.path=me/{form}", "offline=true")
    assert offline.returncode == 0, offline.stderr
    assert "train: 40 rows read" in offline.stderr
    assert (
        "train: 20 rows read" in look(hub, tmp_path, f"data.path=me/{form}", "data.revision=v1", "offline=true").stderr
    )
    assert hub.requests[asked:] == []


def test_offline_names_at_once_everything_that_is_missing(hub, tmp_path):
    asked = len(hub.requests)
    options = ["data.path=me/csv", "model.pretrained=me/bert", "tokenizer.pretrained=me/words"]
    refused = look(hub, tmp_path, *options, "~model.arch", "offline=true")
    assert refused.returncode == 2, refused.stderr
    last = refused.stderr.strip().splitlines()[-1]
    for missing in ("data.path=me/csv", "tokenizer.pretrained=me/words", "model.pretrained=me/bert"):
        assert missing in last
    assert hub.requests[asked:] == []


def test_a_private_data_set_wants_a_token(hub, tmp_path):
    refused = look(hub, tmp_path, "data.path=me/secret", token=None)
    assert refused.returncode == 2
    assert "log in with `hf auth login`" in refused.stderr
    assert look(hub, tmp_path, "data.path=me/secret").returncode == 0
