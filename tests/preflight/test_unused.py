"""An option that nothing reads says so, once; the options of a default run, and those that are read, say nothing."""

import pytest
import torch
from toys import classifier, language_model, masked_language_model, tagger, translator, write_text
from transformers import TrainingArguments

from hf_llm import InputError, compose, tasks, train
from hf_llm.models import rnn
from hf_llm.preflight import memory, unused


def lines(options, folder):
    cfg = compose(*options)
    task = tasks.get(cfg.task, cfg.model)
    return list(unused.options(cfg, task.arguments(cfg.trainer, folder), task))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("trainer.fp16=true", "a CPU trains in float32, or in 16 bits with trainer.bf16=true"),
        ("trainer.dataloader_pin_memory=true", "memory is pinned for copies to a GPU, and there is none"),
        ("trainer.eval_steps=100", "trainer.eval_strategy is epoch, and steps reads it"),
        ("trainer.save_steps=100", "trainer.save_strategy is epoch, and steps reads it"),
        ("trainer.greater_is_better=true", "trainer.metric_for_best_model is not set"),
        ("trainer.length_column_name=y", "the task knows the lengths"),
        ("trainer.do_train=true", "`hf-llm train` trains"),
        ("trainer.train_sampling_strategy=group_by_length", "all blocks have one length"),
        ("data.num_proc=2", "only a dataset of the Hub is prepared by several processes"),
        ("data.delimiter=;", "only csv and tsv have it; the files are txt"),
        ("tokenizer.vocab_size=300 tokenizer.algorithm=byte", "tokenizer=byte has 256 bytes"),
        ("tokenizer.min_frequency=5 tokenizer.algorithm=unigram", "tokenizer=unigram has no such limit"),
        ("tokenizer.vocab_size=300 tokenizer=pretrained tokenizer.pretrained=x", "a pretrained tokenizer is taken"),
        ("launcher.num_processes=2", "launcher=local trains in this process"),
        ("trainer.adam_beta2=0.9 trainer.optim=sgd", "trainer.optim=sgd has no such number"),
    ],
)
def test_an_option_without_effect_says_so(tmp_path, given, why):
    epochs = ["trainer.eval_strategy=epoch", "trainer.save_strategy=epoch"]
    key, _, value = given.split()[0].partition("=")
    (line,) = lines([*language_model(tmp_path), *epochs, *given.split()], tmp_path)
    assert line.lower().startswith(f"{key}={value}: ")
    assert why in line


def test_what_is_measured_while_training_has_no_effect_without_evaluations(tmp_path):
    given = ["trainer.metric_for_best_model=loss", "trainer.load_best_model_at_end=true"]
    found = lines([*language_model(tmp_path), *given], tmp_path)
    assert [line.partition("=")[0] for line in found] == [
        "trainer.load_best_model_at_end",
        "trainer.metric_for_best_model",
    ]


@pytest.mark.parametrize("options", [language_model, classifier, masked_language_model, tagger])
def test_a_run_with_nothing_set_says_nothing(tmp_path, options):
    given = [option for option in options(tmp_path) if not option.startswith("trainer.")]
    assert lines([*given, "trainer.use_cpu=true"], tmp_path) == []


@pytest.mark.parametrize(
    "given",
    [
        ["trainer.bf16=true"],
        ["trainer.eval_strategy=steps", "trainer.eval_steps=2", "trainer.save_strategy=steps", "trainer.save_steps=2"],
        ["trainer.eval_strategy=epoch", "trainer.metric_for_best_model=loss", "trainer.greater_is_better=false"],
        ["tokenizer.min_frequency=3", "tokenizer.vocab_size=300", "tokenizer=bpe", "model.fused_loss=false"],
        ["trainer.adam_beta2=0.99", "launcher.num_processes=1"],
    ],
)
def test_an_option_that_is_read_says_nothing(tmp_path, given):
    assert lines([*language_model(tmp_path), *given], tmp_path) == []


def test_a_fused_loss_is_said_to_be_left_out_where_it_is(tmp_path):
    (line,) = lines([*language_model(tmp_path), "trainer.torch_compile=true"], tmp_path)
    assert "the loss is not fused" in line
    assert lines([*language_model(tmp_path), "trainer.torch_compile=true", "model.fused_loss=false"], tmp_path) == []
    (line,) = lines([*classifier(tmp_path), "model.fused_loss=false"], tmp_path)
    assert line == "model.fused_loss=false: only the loss of a causal language model is fused"


def test_a_training_says_it_once(tmp_path):
    run = train(compose(*language_model(tmp_path), "trainer.fp16=true"))
    log = (run.folder / "train.log").read_text()
    assert log.count("no effect: ") == log.count("no effect: trainer.fp16=true: a CPU trains in float32") == 1


def estimate(monkeypatch, options):
    """What preflight counts for the loss, with a vocabulary that is worth fusing for."""
    from hf_llm import preflight

    found = []
    monkeypatch.setattr(preflight, "say", lambda findings, *rest: found.append(findings))
    monkeypatch.setattr(memory, "loss_bytes", lambda model, args, tokens, fused: int(fused))
    train(compose(*options, "preflight=only"))
    return found[0].memory


def test_preflight_counts_a_fused_loss_only_where_the_loss_is_fused(tmp_path, monkeypatch):
    assert estimate(monkeypatch, language_model(tmp_path)).loss == 1
    assert estimate(monkeypatch, [*language_model(tmp_path), "trainer.torch_compile=true"]).loss == 0
    assert estimate(monkeypatch, [*language_model(tmp_path), "trainer.label_smoothing_factor=0.1"]).loss == 0
    assert estimate(monkeypatch, masked_language_model(tmp_path)).loss == 0


@pytest.mark.parametrize("arch", ["t5", "gpt2"])
def test_preflight_counts_the_logits_of_the_targets_of_a_translation(tmp_path, monkeypatch, arch):
    from hf_llm import preflight

    found = []
    monkeypatch.setattr(preflight, "say", lambda findings, *rest: found.append(findings))
    train(compose(*translator(tmp_path, arch, preflight="only", **{"model.fused_loss": "false"})))
    (findings,) = found
    longest = findings.splits["train"].lengths.percentiles[-1]
    tokens = 4 * (min(12, longest) if arch == "t5" else longest)
    assert findings.memory.loss == 3 * 4 * tokens * findings.vocabulary > 0


def test_preflight_counts_no_logits_of_a_classifier(tmp_path, monkeypatch):
    assert estimate(monkeypatch, classifier(tmp_path)).loss == 0


def test_preflight_counts_the_launchers_precision(tmp_path, monkeypatch):
    options = language_model(tmp_path)
    whole = estimate(monkeypatch, options).activations
    own = estimate(monkeypatch, [*options, "trainer.bf16=true"]).activations
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert estimate(monkeypatch, options).activations == own != whole
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    assert estimate(monkeypatch, options).activations == whole  # nothing, on a CPU
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    assert estimate(monkeypatch, [*options, "trainer.fp16=true"]).activations == whole
    cfg = compose(*options, "trainer.bf16=true")
    assert memory.precision(tasks.get(cfg.task).arguments(cfg.trainer, tmp_path)) == torch.bfloat16


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("trainer.dataloader_persistent_workers=true", "there are no workers; give trainer.dataloader_num_workers"),
        ("trainer.batch_eval_metrics=true", "the metrics are over all rows"),
    ],
)
def test_what_would_fail_later_is_refused(tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        train(compose(*language_model(tmp_path), given))


def test_a_model_that_cannot_compute_activations_again_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(rnn.RNNForCausalLM, "supports_gradient_checkpointing", False)
    name = "activation" if hasattr(TrainingArguments, "activation_checkpointing") else "gradient"  # before 5.23
    with pytest.raises(InputError, match=rf"trainer.{name}_checkpointing=true: a [a-z_]*rnn cannot"):
        train(compose(*language_model(tmp_path, "rnn"), f"trainer.{name}_checkpointing=true"))


def test_the_files_that_are_named_tell_their_formats(tmp_path):
    given = [option for option in language_model(tmp_path) if not option.startswith("data.")]
    text = write_text(tmp_path, "more.txt.gz")
    found = lines([*given, f"data.files={{train: [{text}], test: x.csv}}", "data.sample_by=line"], tmp_path)
    assert found == []
    (line,) = lines([*given, "data.files.train=x.jsonl", "data.sample_by=line"], tmp_path)
    assert line == "data.sample_by=line: only txt is cut so; the files are jsonl"
