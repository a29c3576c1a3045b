"""Checkpoints of the time when the model types were rnn and fnn: they load, and the words stay those of our YAMLs."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from hf_llm import runs
from hf_llm.config import declared
from hf_llm.models.fnn import FNNConfig, FNNForCausalLM
from hf_llm.models.rnn import RNNConfig, RNNForSequenceClassification
from hf_llm.models.scratch import model_type_of

RUNS = ROOT / "tests" / "fixtures" / "old_runs" / "runs"
OLD = {
    "fnn": (RUNS / "language_model" / "model", AutoModelForCausalLM, FNNForCausalLM),
    "rnn": (RUNS / "classifier" / "model", AutoModelForSequenceClassification, RNNForSequenceClassification),
}
every_old = pytest.mark.parametrize(("folder", "auto", "model_class"), OLD.values(), ids=OLD.keys())


@every_old
@pytest.mark.parametrize("trust", [None, True])
def test_an_old_checkpoint_loads_and_is_saved_by_its_new_type(folder, auto, model_class, trust, tmp_path):
    before = json.loads((folder / "config.json").read_text())["model_type"]
    model, info = auto.from_pretrained(folder, trust_remote_code=trust, output_loading_info=True)
    assert type(model) is model_class
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.config.model_type == AutoConfig.from_pretrained(folder).model_type == f"hf_llm_{before}"
    assert type(AutoModel.from_pretrained(folder)) is type(model.model)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == f"hf_llm_{before}"
    again = auto.from_pretrained(tmp_path)
    ids = torch.arange(6)[None]
    assert torch.equal(again(ids).logits, model(ids).logits)


_ELSEWHERE = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_llm":
            raise ImportError("hf_llm is not here")
sys.meta_path.insert(0, Blocker())
import torch, transformers
model = getattr(transformers, sys.argv[2]).from_pretrained(sys.argv[1], trust_remote_code=True)
torch.save(model(torch.arange(6)[None], attention_mask=torch.ones(1, 6)).logits.detach(), sys.argv[3])
"""


@every_old
def test_an_old_folders_own_code_gives_the_same(folder, auto, model_class, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    copy = shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "elsewhere.py").write_text(_ELSEWHERE)
    arguments = [copy, auto.__name__, tmp_path / "logits.pt"]
    command = [sys.executable, *(["-I"] if "site-packages" in torch.__file__ else []), tmp_path / "elsewhere.py"]
    done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    logits = auto.from_pretrained(folder)(torch.arange(6)[None], attention_mask=torch.ones(1, 6)).logits
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), logits)


def test_the_words_of_our_yamls_mean_our_models():
    for word, config_class in (("rnn", RNNConfig), ("fnn", FNNConfig)):
        assert word in declared.architectures()
        assert declared.model_fields(word) == declared.model_fields(f"hf_llm_{word}")
        assert declared.model_default(f"hf_llm_{word}", "hidden_size") == config_class().hidden_size
        assert model_type_of(word) == config_class.model_type == f"hf_llm_{word}"
        assert CONFIG_MAPPING[word] is CONFIG_MAPPING[f"hf_llm_{word}"] is config_class
        assert type(AutoConfig.for_model(word)) is config_class
    assert model_type_of("gpt2") == "gpt2"


def test_a_model_type_that_transformers_takes_later_leaves_ours_as_they_are(monkeypatch):
    """With a model of transformers' own called rnn, the word in our YAMLs still means ours."""
    monkeypatch.setitem(CONFIG_MAPPING._extra_content, "rnn", CONFIG_MAPPING["gpt2"])
    assert CONFIG_MAPPING[model_type_of("rnn")] is RNNConfig


@pytest.mark.parametrize("name", ["language_model", "classifier"])
def test_an_old_runs_config_names_its_architecture_by_the_word_of_today(name):
    assert runs.load_config(RUNS / name).model.arch in declared.architectures()
