"""Trainer settings that can be used, and a tracker that is tried without a trace. Bad ones: bad_commands.txt."""

import gc
import sys

import pytest

from hf_llm import InputError, tasks


def arguments(folder, **settings):
    return tasks.get({"name": "causal_lm"}).arguments({"use_cpu": True, **settings}, folder)


def test_settings_may_be_a_json_file_or_given_themselves(tmp_path):
    (tmp_path / "a.json").write_text('{"split_batches": true}')
    for value in (str(tmp_path / "a.json"), {"split_batches": True}, '{"split_batches": true}'):
        assert arguments(tmp_path, accelerator_config=value).accelerator_config.split_batches


def test_a_good_optimizer_is_left_alone_and_draws_no_random_number(tmp_path):
    import torch

    before = torch.get_rng_state()
    args = arguments(tmp_path, optim="sgd", optim_args="momentum=0.9, nesterov=true", report_to="tensorboard")
    assert (args.optim, args.report_to) == ("sgd", ["tensorboard"])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_tracker_that_cannot_be_used_leaves_no_complaint_behind(tmp_path, monkeypatch):
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    with pytest.raises(InputError, match=r"^trainer.report_to=mlflow: "):
        arguments(tmp_path, report_to="mlflow")  # whose __del__ fails where its __init__ did
    gc.collect()
    assert not ignored
