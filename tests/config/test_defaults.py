"""What nobody gave follows what is trained."""

import json
import os
import subprocess
import sys

import pytest
import toys
import yaml
from conftest import ROOT
from hub_server import HubServer

from hf_llm import compose, tasks, train
from hf_llm.config import TrainConfig, check, defaults
from hf_llm.preflight import schedule

FILES = sorted((ROOT / "conf" / "defaults").glob("*.yaml"))
TEXTS = ["data.files.train=train.csv", "task=text_classification"]


def checkpoint(folder, **config):
    (folder / "config.json").write_text(json.dumps(config))
    return f"model.pretrained={folder}"


def kind(*overrides):
    return defaults.usual(compose(*overrides)).kind


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=bert", *TEXTS], "encoder"),
        (["model.arch=roberta", *TEXTS], "encoder"),
        (["model=gpt2", *TEXTS], "decoder"),
        (["model=gpt2"], "decoder"),
        (["model.arch=llama"], "decoder"),
        (["model.arch=mamba"], "decoder"),
        (["model=rnn", *TEXTS], "rnn"),
        (["model=fnn"], "fnn"),
        (["model=bert", "task=masked_lm"], "encoder"),
        (["model=t5", "task=translation"], "encoder_decoder"),
        (["model=bart", "task=summarization"], "encoder_decoder"),
        (["model=gpt2", "task=translation"], "decoder"),
    ],
)
def test_an_architecture_has_the_defaults_of_its_kind(overrides, expected):
    assert kind(*overrides) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "bert"}, "pretrained_encoder"),
        ({"model_type": "distilbert"}, "pretrained_encoder"),
        ({"model_type": "gpt2"}, "pretrained_decoder"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "pretrained_encoder_decoder"),
        ({"model_type": "bart"}, "pretrained_encoder_decoder"),
        ({"model_type": "rnn"}, "rnn"),
        ({"model_type": "hf_llm_fnn"}, "fnn"),
        ({}, "pretrained_encoder"),
        ({"model_type": ["bert"]}, "pretrained_encoder"),
    ],
)
def test_pretrained_weights_have_the_defaults_of_their_kind(tmp_path, config, expected):
    assert kind(checkpoint(tmp_path, **config), *TEXTS) == expected


def test_a_checkpoint_that_cannot_be_read_composes_all_the_same(tmp_path):
    (tmp_path / "config.json").write_text("[1, 2")
    assert kind(f"model.pretrained={tmp_path}", *TEXTS) == "pretrained_encoder"
    assert kind("model.pretrained=owner/name", "offline=true", *TEXTS) == "pretrained_encoder"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_holds_settings_of_training_arguments(path):
    content = yaml.safe_load(path.read_text())
    assert path.stem in defaults.IN_WORDS
    sections = {
        name: values for name, values in content.items() if name not in ("reference", "scaling", "least_steps")
    }
    assert sections
    for values in sections.values():
        composed = {"model": {"arch": "gpt2"}, "task": {"name": "causal_lm"}, "trainer": dict(values)}
        assert check(composed, TrainConfig).trainer == values
        assert isinstance(values["learning_rate"], float)  # "1e-3" without a point is a text in YAML 1.1


@pytest.mark.parametrize(
    ("width", "depth", "least", "most"),
    [
        (768, 12, 5e-5, 5e-5),  # BERT-base: the paper's 2e-5 to 5e-5
        (1024, 24, 1e-5, 3e-5),  # BERT-large
        (384, 6, 1e-4, 3e-4),  # MiniLM
        (128, 2, 1e-4, 3e-4),  # BERT-tiny: Turc et al. 2019
    ],
)
def test_the_rate_of_pretrained_weights_falls_with_their_size(tmp_path, width, depth, least, most):
    model = checkpoint(tmp_path, model_type="bert", hidden_size=width, num_hidden_layers=depth)
    assert least <= compose(model, *TEXTS).trainer["learning_rate"] <= most


def test_sizes_are_read_under_every_name_and_from_the_config_class():
    small = compose("model=gpt2", "model.config.n_embd=128", "model.config.n_layer=4").trainer["learning_rate"]
    large = compose("model=gpt2", "model.config.n_embd=512", "model.config.n_layer=16").trainer["learning_rate"]
    assert large == pytest.approx(small / 4, rel=0.05)
    found = defaults.usual(compose("model.arch=gpt2"))
    assert (found.width, found.depth) == (768, 12)  # GPT2Config's own


def test_a_recipe_and_the_command_line_go_before():
    assert compose("model=bert", *TEXTS, "trainer.learning_rate=0.2").trainer["learning_rate"] == 0.2
    recipe = compose("experiment=sms_spam", "data.path=folder").trainer
    assert (recipe["learning_rate"], recipe["num_train_epochs"]) == (5e-4, 3)


def test_post_norm_encoders_take_a_lower_rate_than_gpt2():
    rates = {arch: compose(f"model={arch}", *TEXTS).trainer["learning_rate"] for arch in ("bert", "gpt2")}
    assert rates["bert"] < rates["gpt2"]


def test_settings_are_the_same_whatever_the_task_calls_its_rows():
    tags = compose("model=bert", "task=token_classification", "data.files.train=a.conll").trainer
    assert tags["learning_rate"] == compose("model=bert", *TEXTS).trainer["learning_rate"]
    assert "train_sampling_strategy" not in compose("model=gpt2").trainer  # blocks are of one length


def shown(folder, *overrides, **environment):
    """The trainer's settings that `hf-llm train --cfg job` prints."""
    command = [sys.executable, "-m", "hf_llm", "train", "--cfg", "job", *overrides]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)["trainer"]


def test_cfg_job_prints_what_nobody_gave(tmp_path):
    found = shown(tmp_path, "model=bert", *TEXTS, "trainer.weight_decay=0.3")
    expected = compose("model=bert", *TEXTS).trainer
    assert found.pop("weight_decay") == 0.3
    assert {key: float(value) if key == "learning_rate" else value for key, value in found.items()} == {
        key: value for key, value in expected.items() if key != "weight_decay"
    }


def test_the_kind_of_a_model_of_the_hub_is_asked_once_and_unreachable_it_is_not_waited_for(tmp_path):
    config = json.dumps({"model_type": "gpt2", "n_embd": 768, "n_layer": 12})
    with HubServer() as hub:
        hub.add("me/decoder", {"config.json": config})
        env = hub.environment(tmp_path / "home")
        assert float(shown(tmp_path, "model.pretrained=me/decoder", **env)["learning_rate"]) == 5e-5
        assert sum("config.json" in request for request in hub.requests) == 1
    assert "learning_rate" in shown(tmp_path, "model.pretrained=me/decoder", **env)  # the server is gone


def test_config_yaml_and_preflight_have_the_settings(tmp_path):
    options = [*toys.classifier(tmp_path, run="r"), "trainer.learning_rate=0.5"]
    cfg = compose(*options)
    run = train(cfg)
    saved = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert saved["trainer"] == cfg.trainer
    assert saved["trainer"]["train_sampling_strategy"] == "group_by_length"
    usual = defaults.usual(cfg).settings["learning_rate"]
    text = " ".join((run.folder / "train.log").read_text().split())
    assert (
        f"trainer.learning_rate=0.5 is high: for an encoder from scratch of 2 layers of 32 {usual:g} is usual" in text
    )
    assert f"0.5, cosine; beside {usual:g}, the usual one for an encoder from scratch of 2 layers of 32" in text


@pytest.mark.parametrize(
    ("rows", "given", "epochs"),
    [(96, [], 20), (1600, [], 20), (3200, [], 10), (90000, [], 5), (96, ["trainer.num_train_epochs=2"], 2)],
)
def test_few_rows_are_gone_through_more_often_unless_the_epochs_are_given(rows, given, epochs, tmp_path):
    cfg = compose("model=bert", *TEXTS, "trainer.use_cpu=true", *given)
    args = tasks.get(cfg.task).arguments(cfg.trainer, tmp_path)
    if cfg.least_steps:
        schedule.lengthen(args, cfg.least_steps, rows)
    assert args.num_train_epochs == epochs


def test_steps_that_are_given_are_all(tmp_path):
    assert compose("model=bert", *TEXTS, "trainer.max_steps=4").least_steps is None
    assert compose("model=gpt2").least_steps is None  # blocks


def test_a_run_of_few_rows_takes_its_epochs_and_resumes_as_the_same(tmp_path):
    sizes = ["model.config.hidden_size=8", "model.config.embedding_size=8", "trainer.disable_tqdm=true"]
    files = [f"data.files.train={toys.write_csv(tmp_path, rows=40)}", f"runs_dir={tmp_path}", "tokenizer=word"]
    options = ["model=fnn", *files, *sizes, "task=text_classification", "trainer.use_cpu=true", "run=few"]
    run = train(compose(*options))
    assert run.trainer.state.num_train_epochs == 20
    assert train(compose(*options)).trainer is None  # complete
