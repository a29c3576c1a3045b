"""A capsule from a stranger is data: hostile ones are refused in one line, and nothing is run, read or written."""

import builtins
import dataclasses
import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
import yaml

from hf_llm import InputError, compose, rerun
from hf_llm.hub import capsule

GOOD = {
    "run": "good",
    "data": {"path": "builtin:unicode_names", "columns": {"text": "name", "label": "category"}},
    "tokenizer": {"algorithm": "char"},
    "model": {"arch": "rnn", "config": {"hidden_size": 8}},
    "task": {"name": "text_classification"},
    "trainer": {"max_steps": 1, "seed": 1},
}


def changed(path, value):
    """GOOD as YAML, with `value` at the dotted `path`."""
    tree = json.loads(json.dumps(GOOD))
    node = tree
    *groups, last = path.split(".")
    for group in groups:
        node = node.setdefault(group, {})
    node[last] = value
    return yaml.safe_dump(tree)


HOSTILE = {
    "a python object": "!!python/object/apply:os.system ['touch pwned']\n",
    "a python name": "run: !!python/name:os.system\n",
    "an unknown tag": "run: !include /etc/passwd\n",
    "an explicit standard tag": "run: !!binary aGVsbG8=\n",
    "growing aliases": "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n",
    "an anchor that holds itself": "a: &a [*a]\n",
    "groups without end": "a: " + "[" * 5000 + "]" * 5000 + "\n",
    "two documents": "run: a\n---\nrun: b\n",
    "a target": changed("model._target_", "os.system"),
    "a nested target": changed("task.generation._target_", "builtins.open"),
    "an interpolation of the environment": changed("data.path", "${oc.env:HOME}"),
    "an interpolation in a key": changed("data.columns.${oc.env:HOME}", "x"),
    "a trust flag": changed("model.config.trust_remote_code", True),
    "a trust flag on top": changed("trust_remote_code", True),
    "an auto map": changed("model.config.auto_map", {"AutoModel": "evil.Model"}),
    "a token": changed("trainer.hub_token", "hf_secret"),
    "an output folder": changed("trainer.output_dir", "/tmp/elsewhere"),
    "fsdp's file": changed("trainer.fsdp_config", "/etc/passwd"),
    "deepspeed's file": changed("trainer.deepspeed", "/etc/passwd"),
    "accelerator's file": changed("trainer.accelerator_config", "/etc/passwd"),
    "a compiler's backend": changed("trainer.torch_compile_backend", "evil"),
    "an unknown key": changed("execute", "rm -rf ~"),
    "an absolute file": changed("data.files", {"train": "/etc/passwd"}),
    "a file above": changed("data.files", {"train": ["../../secret.txt"]}),
    "a file at home": changed("data.path", "~/secrets"),
    "a file address": changed("data.files", {"train": "file:///etc/passwd"}),
    "a web address": changed("data.files", {"train": "http://127.0.0.1:1/collect"}),
    "a chained address": changed("data.files", {"train": "zip://x::http://127.0.0.1:1/a.zip"}),
    "a bucket": changed("data.path", "s3://bucket/data"),
    "a local model": changed("model", {"pretrained": "./model"}),
    "an address of a model": changed("model", {"pretrained": "http://127.0.0.1:1/model"}),
    "a local tokenizer": changed("tokenizer", {"pretrained": "/etc"}),
    "a metric from the Hub": changed("task.metrics", ["evil/metric"]),
    "a path in a setting of the task": changed("task.generation", {"cache_implementation": "/etc/passwd"}),
    "a path in a setting of the model": changed("model.config.rnn_type", "../../evil"),
    "a kernel from the Hub": changed("model.config.attn_implementation", "evil/kernel"),
    "a null character": 'run: "a\\0b"\ndata: {path: "builtin:x\\0"}\n',
    "a revision that is a file": changed("data.revision", "/tmp/x"),
    "a revision above": changed("data.revision", "../../../tmp/x"),
    "a model's revision above": changed("model", {"pretrained": "me/model", "revision": "refs/../../x"}),
    "a tokenizer's revision that is a file": changed("tokenizer", {"pretrained": "me/words", "revision": "/tmp/x"}),
    "a day that there is not": "run: 2001-99-99\n",
    "a number without end": f"run: {'9' * 5000}\n",
    "a list": "- run\n",
    "nothing": "",
    "bytes": b"\xff\xfe\x00run",
    "text alone": "run\n",
    "groups that are texts": "run: a\ndata: x\nmodel: y\ntask: z\ntrainer: w\n",
}


@pytest.mark.parametrize("name", ["gradient_checkpointing", "activation_checkpointing"])
def test_less_memory_for_more_time_is_taken_by_the_name_that_transformers_has_for_it(name, tmp_path):
    from transformers import TrainingArguments

    if name not in {field.name for field in dataclasses.fields(TrainingArguments)}:
        pytest.skip(f"{name}: not in this release")
    (tmp_path / "config.yaml").write_text(changed(f"trainer.{name}", True))
    assert capsule.read(tmp_path / "config.yaml", local_files=False, given={}).trainer[name] is True


@pytest.fixture
def watched(monkeypatch):
    """What is run, connected to, written, or read outside of the folder of the test and of Python itself."""
    seen = []

    def forbid(name):
        def call(*args, **kwargs):
            seen.append((name, args))
            raise AssertionError(f"{name}{args}")

        return call

    monkeypatch.setattr(os, "system", forbid("os.system"))
    monkeypatch.setattr(subprocess, "Popen", forbid("Popen"))
    monkeypatch.setattr(socket.socket, "connect", forbid("connect"))
    true_open = builtins.open

    def watching_open(file, mode="r", *args, **kwargs):
        name = str(file)
        if set(mode) & set("wax+") or "passwd" in name or "secret" in name:
            seen.append(("open", (name, mode)))
        return true_open(file, mode, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", watching_open)
    return seen


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_capsule_is_refused_and_nothing_happens(name, tmp_path, monkeypatch, watched):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "outputs" / "evil"
    run.mkdir(parents=True)
    content = HOSTILE[name]
    (run / "config.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    (run / "environment.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as refused:
        rerun(compose("rerun", "run=evil"))
    message = str(refused.value)
    assert "\n" not in message.strip()
    assert "config.yaml" in message or "builtin:" in message or "metric" in message
    assert not watched
    assert sorted(tmp_path.rglob("*")) == before


def test_there_are_thirty_of_them_and_the_good_one_passes(tmp_path):
    assert len(HOSTILE) >= 30
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    cfg = capsule.read(path, local_files=False, given={})
    assert (cfg.data.path, cfg.model.config, cfg.trainer) == (
        "builtin:unicode_names",
        {"hidden_size": 8},
        {"max_steps": 1, "seed": 1},
    )


@pytest.mark.parametrize("target", ["/etc/passwd", "../other.yaml"])
def test_a_link_to_elsewhere_is_refused(target, tmp_path):
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(GOOD))
    (tmp_path / "run").mkdir()
    link = tmp_path / "run" / "config.yaml"
    link.symlink_to(target)
    with pytest.raises(InputError, match="a link to elsewhere"):
        capsule.read(link, local_files=True, given={})


def test_a_record_of_any_size_shape_or_colour_harms_nobody(tmp_path):
    path = tmp_path / "environment.json"
    for text, reason in (
        ("[" * 10**5, "not JSON"),
        ("[1]", "not a JSON object"),
        ("x" * (2**20 + 1), "json: 1,048,577"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=reason):
            capsule.record(path)
    assert capsule.shown("\x1b[31mred\nand more" + "x" * 500) == "?[31mred?and more" + "x" * 100 + "…"


def test_settings_of_one_machine_are_left_out_and_launchers_and_trackers_are_not_taken(tmp_path):
    path = tmp_path / "config.yaml"
    tree = {**GOOD, "launcher": {"name": "slurm"}, "runs_dir": "/elsewhere"}
    tree["trainer"] = {**GOOD["trainer"], "report_to": "wandb", "push_to_hub": True, "dataloader_num_workers": 64}
    tree["trainer"]["resume_from_checkpoint"] = "/elsewhere/checkpoint-1"
    tree["data"] = {**GOOD["data"], "num_proc": 4096}
    path.write_text(yaml.safe_dump(tree))
    cfg = capsule.read(path, local_files=False, given={})
    assert cfg.launcher.name == "local"
    assert cfg.runs_dir == "outputs"
    assert cfg.trainer == {"max_steps": 1, "seed": 1}
    assert cfg.data.num_proc is None


def test_local_files_are_used_where_the_user_says_so_or_names_others(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(changed("data", {"files": {"train": "/home/x/train.csv"}, "delimiter": ";"}))
    with pytest.raises(InputError, match=r"data\.files\.train=/home/x/train\.csv is a file or folder of this machine"):
        capsule.read(path, local_files=False, given={})
    assert capsule.read(path, local_files=True, given={}).data.files == {"train": "/home/x/train.csv"}
    mine = capsule.read(path, local_files=False, given={"files": {"train": "mine.csv"}}).data
    assert (mine.files, mine.delimiter) == ({"train": "mine.csv"}, ";")


def test_of_a_pushed_run_a_user_of_the_model_takes_data_and_task_but_no_place(tmp_path):
    path = Path(tmp_path / "config.yaml")
    path.write_text(changed("data", {"files": {"train": "/etc/passwd"}, "columns": {"text": "t"}}))
    cfg = capsule.published(path)
    assert (cfg.data.path, cfg.data.files, cfg.data.columns) == (None, None, {"text": "t"})
    assert cfg.trainer == {"seed": 1}
    path.write_text(changed("data.path", "me/rows"))
    assert capsule.published(path).data.path == "me/rows"


def test_what_lies_in_the_working_folder_says_nothing_of_a_pushed_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    for name in ("its/own", "me/bert"):
        (tmp_path / name).mkdir(parents=True)
        path.write_text(changed("model", {"pretrained": name}))
        assert capsule.published(path).data.path == "builtin:unicode_names"


def test_a_setting_that_is_not_taken_may_be_given_by_the_user(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(changed("trainer.torch_compile", True))
    with pytest.raises(InputError, match=r"trainer\.torch_compile is not taken from a run"):
        capsule.read(path, local_files=False, given={})
    cfg = capsule.read(path, local_files=False, given={}, trainer={"torch_compile": False, "max_steps": 2})
    assert cfg.trainer == {"seed": 1, "torch_compile": False, "max_steps": 2}
