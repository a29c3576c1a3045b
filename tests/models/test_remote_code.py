"""Saved weights bring the code that reads them: they load, with trust_remote_code, where this package is not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_models import CONFIGS, HEADS, MODELS, B, T, built, either_model, every_head, some_ids

from hf_llm.models import fnn, rnn

NAMES = ("lstm", "lstm, both ways", "fnn, direct", "fnn, global")
FOLDERS = {name: pair for name, pair in MODELS.items() if name.rpartition("-")[0] in NAMES}
IDS = some_ids(B, T)
TRAVELS = ("heads.py", "keywords.py", "requirement.py", "sequence.py", "state.py")

# Runs alone, in isolated mode and in another folder
_ELSEWHERE = """
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_llm":
            raise ImportError("hf_llm is not here")

sys.meta_path.insert(0, Blocker())
import torch, transformers
from transformers import Trainer, TrainingArguments

folder, heads, mask = sys.argv[1], json.loads(sys.argv[2]), torch.ones(3, 11)
ids = torch.load(f"{folder}/ids.pt")
mask[1, :4] = 0
outputs = {}
for name, auto in heads.items():
    auto = getattr(transformers, auto)
    model = auto.from_pretrained(f"{folder}/{name}", trust_remote_code=True)
    assert model.is_remote_code(), name
    outputs[name] = model(ids, attention_mask=mask)[0].detach()
    model.save_pretrained(f"{folder}/again/{name}")  # and on to the next
    again = auto.from_pretrained(f"{folder}/again/{name}", trust_remote_code=True)
    torch.testing.assert_close(again(ids, attention_mask=mask)[0], outputs[name])
    if hasattr(model, "generate") and "language" in name:
        outputs[f"{name}, generated"] = model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=30)
        rows = [dict(input_ids=row, labels=row) for row in ids]
        for smoothing in (0.0, 0.1):
            arguments = TrainingArguments(
                f"{folder}/trained", max_steps=1, label_smoothing_factor=smoothing, learning_rate=0.0,
                save_strategy="no", logging_steps=1, report_to=[], use_cpu=True, disable_tqdm=True)
            trainer = Trainer(model.train(), arguments, train_dataset=rows)
            trainer.train()
            if smoothing == 0.0:
                outputs[f"{name}, loss"] = torch.tensor(trainer.state.log_history[0]["loss"])
            print(f"{name} trained with label_smoothing_factor={smoothing}", file=sys.stderr, flush=True)
assert not any(module.split(".")[0] == "hf_llm" for module in sys.modules)
torch.save(outputs, f"{folder}/outputs.pt")
"""


def elsewhere(folder, **environment):
    heads = {name: HEADS[head].__name__ for name, (_, head) in FOLDERS.items()}
    (folder / "cwd").mkdir()
    (folder / "elsewhere.py").write_text(_ELSEWHERE)
    environment = {**os.environ, "HF_MODULES_CACHE": str(folder / "modules"), "OMP_NUM_THREADS": "1", **environment}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-I", str(folder / "elsewhere.py"), str(folder), json.dumps(heads)]
    options = {"capture_output": True, "text": True, "timeout": 240, "check": False}
    return subprocess.run(command, cwd=folder / "cwd", env=environment, **options)


def test_every_head_loads_where_this_package_is_not_and_yields_the_same(tmp_path):
    mask = torch.ones(B, T)
    mask[1, :4] = 0
    expected = {}
    for name, (config, head) in FOLDERS.items():
        model = built(config, head)
        model.save_pretrained(tmp_path / name)
        expected[name] = model(IDS, attention_mask=mask)[0].detach()
        if head == "language model":
            options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 30}
            expected[f"{name}, generated"] = model.generate(IDS, **options)
            logits = model(IDS).logits[:, :-1].flatten(0, 1)
            expected[f"{name}, loss"] = torch.nn.functional.cross_entropy(logits, IDS[:, 1:].flatten()).detach()
    torch.save(IDS, tmp_path / "ids.pt")
    done = elsewhere(tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    torch.testing.assert_close(torch.load(tmp_path / "outputs.pt"), expected)
    # Trainer shifts the labels that it smooths for models of transformers alone
    before, _, after = done.stderr.partition("trained with label_smoothing_factor=0.0")
    warning = "which Trainer's label_smoothing_factor does only for models of transformers"
    assert warning not in before
    assert warning in after


_TOO_OLD = """
import sys
import transformers
from transformers import AutoConfig
transformers.__version__ = sys.argv[2]
for name in ("transformers.utils.output_capturing", "transformers.initialization", "transformers.cache_utils"):
    sys.modules[name] = None  # as where an older transformers has no such module
AutoConfig.from_pretrained(sys.argv[1], trust_remote_code=True)
"""


@either_model
@pytest.mark.parametrize("version", ["4.57.6", "5.3.0", "5.19.1"])
def test_a_transformers_too_old_is_told_of_before_anything_fails(config, version, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    built(config).save_pretrained(tmp_path / "model")
    (tmp_path / "elsewhere.py").write_text(_TOO_OLD)
    command = [sys.executable, str(tmp_path / "elsewhere.py"), str(tmp_path / "model"), version]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: this model needs transformers>=5.20, and {version} is installed"), last


def test_every_file_that_travels_asks_for_the_version_first():
    """Or is imported by one that does, before which it imports nothing that an older transformers lacks."""
    for name in ("rnn", "fnn", "heads", "sequence"):
        lines = (Path(rnn.__file__).parent / f"{name}.py").read_text().splitlines()
        imports = [line for line in lines if line.startswith(("import ", "from "))]
        first = next(
            line for line in imports if line.split()[1].split(".")[0] not in ("__future__", "dataclasses", "typing")
        )
        assert first.startswith("from .requirement import")
    lines = (Path(rnn.__file__).parent / "requirement.py").read_text().splitlines()
    assert [line for line in lines if line.startswith(("import ", "from "))] == [
        "import transformers",
        "from packaging.version import Version",
    ]


@every_head
@pytest.mark.parametrize("module", [rnn, fnn], ids=["rnn", "fnn"])
def test_saved_weights_come_with_just_the_files_they_need(module, head, tmp_path):
    name = module.__name__.rpartition(".")[2]
    model = built(CONFIGS["lstm" if module is rnn else "fnn"], head)
    model.save_pretrained(tmp_path)
    code = {path.name: path.read_text() for path in tmp_path.glob("*.py")}
    own = Path(module.__file__).parent
    assert code == {file: (own / file).read_text() for file in (f"{name}.py", *TRAVELS)}
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    config_class = f"{name}.{name.upper()}Config"
    assert auto_map == {"AutoConfig": config_class, HEADS[head].__name__: f"{name}.{type(model).__name__}"}


@every_head
@pytest.mark.parametrize("name", ["lstm", "fnn"])
def test_where_this_package_is_its_own_class_is_loaded_without_trust(name, head, tmp_path):
    model = built(CONFIGS[name], head)
    model.save_pretrained(tmp_path)
    for file in tmp_path.glob("*.py"):  # never looked at
        file.write_text("raise SystemExit")
    again = HEADS[head].from_pretrained(tmp_path)
    assert type(again) is type(model)
    assert type(again).__module__ == f"hf_llm.models.{model.config.model_type.removeprefix('hf_llm_')}"
    torch.testing.assert_close(again(IDS)[0], model(IDS)[0])
    shutil.rmtree(tmp_path)
