"""FSDP2 over two CPU processes: the training of DistributedDataParallel, saved, resumed and loaded as any other."""

import json
import shutil

import pytest
import torch
from launched import furthest, furthest_weight, launch, logged, weights
from toys import language_model
from transformers import AutoModelForCausalLM

import hf_llm.models  # noqa: F401  registers rnn and fnn

SHARDED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}  # what accelerate makes of conf/accelerate/fsdp2.yaml
STILL = {"gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"), "rnn": ("dropout",), "fnn": ("dropout",)}
TRAINED = {"trainer.max_steps": "8", "trainer.logging_steps": "1", "trainer.save_strategy": "steps"}


def run_of(folder, arch, name):
    """Overrides of eight steps with a checkpoint after the fourth; dropout off, for each process draws its own."""
    still = [f"model.config.{field}=0" for field in STILL[arch]]
    return [*language_model(folder, arch, run=name, **TRAINED), "trainer.save_steps=4", *still]


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["gpt2", "rnn", "fnn"])
def test_a_sharded_training_is_that_of_whole_copies_and_its_model_loads_anywhere(arch, tmp_path, monkeypatch):
    launch(tmp_path, 2, "-m", "hf_llm", "train", *run_of(tmp_path, arch, "whole"))
    for name, value in SHARDED.items():
        monkeypatch.setenv(name, value)
    command = ["-m", "hf_llm", "train", *run_of(tmp_path, arch, "sharded")]
    launch(tmp_path, 2, *command)
    whole, sharded = (tmp_path / "outputs" / name for name in ("whole", "sharded"))
    assert furthest(logged(sharded, "loss"), logged(whole, "loss")) < 1e-6
    assert weights(sharded).keys() == weights(whole).keys()  # none of them twice
    assert furthest_weight(weights(sharded), weights(whole)) < 1e-5

    ids = torch.arange(12)[None]
    logits = [AutoModelForCausalLM.from_pretrained(folder / "model").eval()(ids).logits for folder in (whole, sharded)]
    torch.testing.assert_close(*logits, rtol=0, atol=1e-4)

    finished = weights(sharded)
    for left in ("checkpoint-8", "model"):
        shutil.rmtree(sharded / left)
    (sharded / "metrics.json").unlink()
    launch(tmp_path, 2, *command)
    assert "checkpoint-4" in (sharded / "train.log").read_text()
    assert furthest_weight(weights(sharded), finished) == 0
    assert json.loads((sharded / "metrics.json").read_text())["train"]["steps"] == 8
