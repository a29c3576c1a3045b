import json
import math

import datasets
import numpy as np
import pytest
import sklearn.metrics
import torch
from conftest import overrides
from safetensors.torch import load_file
from toys import classifier, language_model, role_labeller, tagger, write_csv, write_text
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from hf_llm import InputError, compose, evaluate, generate, predict, train


def weights(run):
    return load_file(run.folder / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return train(compose(*language_model(tmp_path_factory.mktemp("lm"), run="lm")))


@pytest.fixture(scope="module")
def spam(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    options = classifier(folder, run="c", **overrides(trainer__max_steps=40, trainer__learning_rate=0.003))
    return train(compose(*options))


@pytest.mark.parametrize("arch", ["gpt2", "rnn", "fnn"])
def test_a_run_directory_holds_what_a_person_needs(tmp_path, arch):
    run = train(compose(*language_model(tmp_path, arch, run="mine")))
    assert run.folder == tmp_path / "outputs" / "mine"
    names = {path.name for path in run.folder.iterdir()}
    assert {"config.yaml", "environment.json", "metrics.json", "loss_curve.png", "train.log", "model"} <= names
    assert not [name for name in names if name.startswith(".")]
    assert {path.name for path in (run.folder / "model").iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert not list((run.folder / "model").glob("*.bin"))
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["seed"] == 42
    assert len(environment["data_fingerprint"]) == 64
    AutoModelForCausalLM.from_pretrained(run.folder / "model")
    AutoTokenizer.from_pretrained(run.folder / "model")


def test_the_same_command_twice_gives_bit_identical_weights(tmp_path):
    first = weights(train(compose(*language_model(tmp_path, run="a"))))
    second = weights(train(compose(*language_model(tmp_path, run="b"))))
    other = weights(train(compose(*language_model(tmp_path, run="c", **overrides(trainer__seed=7)))))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_same_command_again_says_that_the_run_is_complete(lm, caplog):
    import yaml

    config = yaml.safe_load((lm.folder / "config.yaml").read_text())
    before = (lm.folder / "model" / "model.safetensors").stat().st_mtime_ns
    options = [f"run={lm.folder}", *language_model(lm.folder.parent.parent)]
    again = train(compose(*options))
    assert again.metrics == json.loads((lm.folder / "metrics.json").read_text())
    assert (lm.folder / "model" / "model.safetensors").stat().st_mtime_ns == before
    assert config["task"]["block_size"] == 16


def test_the_second_run_on_the_same_data_finds_it_tokenised(tmp_path, caplog):
    from hf_llm.tasks import causal_lm

    own = f"data.files.train={write_text(tmp_path, 'own.txt', lines=41)}"  # that no other test has left encoded
    train(compose(*language_model(tmp_path, run="a"), own))
    calls = []
    real = causal_lm._tokenize
    causal_lm._tokenize = lambda *args, **kwargs: calls.append(1) or real(*args, **kwargs)
    try:
        train(compose(*language_model(tmp_path, run="b"), own))
        assert not calls
        train(compose(*language_model(tmp_path, run="c"), own, "tokenizer=byte"))
        assert calls
    finally:
        causal_lm._tokenize = real


@pytest.mark.parametrize("disabled", [True, False])
def test_progress_bars_are_shown_unless_disable_tqdm_is_set(tmp_path, capfd, disabled):
    datasets.enable_progress_bars()
    (tmp_path / "own.txt").write_text(f"words of {tmp_path}\n" * 50)  # which no cache holds
    given = overrides(data__files__train=tmp_path / "own.txt", trainer__disable_tqdm=str(disabled).lower())
    train(compose(*language_model(tmp_path, **given)))
    shown = capfd.readouterr().err
    for bar in ("tokenising train", "it/s]"):
        assert (bar in shown) is not disabled, bar


def test_another_configuration_under_the_same_name_is_refused(lm):
    options = [
        f"run={lm.folder}",
        *language_model(lm.folder.parent.parent),
        "trainer.learning_rate=0.5",
        "task.block_size=8",
    ]
    with pytest.raises(InputError) as error:
        train(compose(*options))
    assert "task.block_size: 16 there, 8 now" in str(error.value)
    assert "trainer.learning_rate: 0.004 there, 0.5 now" in str(error.value)


def test_what_could_not_start_leaves_nothing_and_keeps_no_name(tmp_path):
    options = language_model(tmp_path, run="mine")
    with pytest.raises(InputError):
        train(compose(*options, "data.columns.text=nothing", f"data.files.train={write_csv(tmp_path)}"))
    assert not (tmp_path / "outputs" / "mine").exists()
    assert train(compose(*options)).folder.name == "mine"


@pytest.mark.parametrize("options", [language_model, classifier])
def test_an_interrupted_run_goes_on_and_ends_with_the_same_weights(tmp_path, monkeypatch, options):
    from transformers import TrainerCallback

    from hf_llm import training

    saved = overrides(trainer__max_steps=6, trainer__save_strategy="steps", trainer__save_steps=2)
    whole = train(compose(*options(tmp_path, run="whole", **saved)))

    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "_callbacks", lambda cfg: [Interrupt()])
        with pytest.raises(KeyboardInterrupt):
            train(compose(*options(tmp_path, run="cut", **saved)))
    assert not (tmp_path / "outputs" / "cut" / "metrics.json").exists()
    resumed = train(compose(*options(tmp_path, run="cut", **saved)))
    first, second = weights(whole), weights(resumed)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_validation_loss_is_the_mean_over_tokens_whatever_the_batch_size(lm):
    folder = lm.folder
    wanted = lm.metrics["validation"]
    for size in (1, 3, 64):
        cfg = compose("evaluate", f"run={folder}", f"trainer.per_device_eval_batch_size={size}")
        found = evaluate(cfg)
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-6)
        assert found["bits_per_byte"] == pytest.approx(wanted["bits_per_byte"], rel=1e-6)


def test_perplexities_equal_a_calculation_by_hand(lm, tmp_path):
    text = "red blue green one two three\nblue green one two three cat\n" * 9
    (tmp_path / "held_out.txt").write_text(text)
    found = evaluate(compose("evaluate", f"run={lm.folder}", f"data.files={tmp_path / 'held_out.txt'}"))

    tokenizer = AutoTokenizer.from_pretrained(lm.folder / "model")
    model = AutoModelForCausalLM.from_pretrained(lm.folder / "model").eval()
    tokens = [tokenizer.eos_token_id, *tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    nll = 0.0
    for start in range(0, len(tokens) - 1, 16):  # block_size 16: a target is predicted from its own block
        block = torch.tensor([tokens[start : start + 17]])
        with torch.no_grad():
            logprobs = model(block[:, :-1]).logits.double().log_softmax(-1)
        nll -= logprobs.gather(-1, block[:, 1:, None]).sum().item()
    count = len(tokens) - 1
    assert found["loss"] == pytest.approx(nll / count, rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(nll / count), rel=1e-5)
    assert found["word_perplexity"] == pytest.approx(math.exp(nll / len(text.split())), rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(nll / math.log(2) / len(text.encode()), rel=1e-6)


def test_gradient_accumulation_gives_the_weights_of_the_large_batch(tmp_path):
    still = overrides(**{"model.config.resid_pdrop": 0, "model.config.embd_pdrop": 0, "model.config.attn_pdrop": 0})
    large = train(compose(*language_model(tmp_path, run="large", **still)))
    small = [*language_model(tmp_path, run="small", **still), "trainer.per_device_train_batch_size=2"]
    split = train(compose(*small, "trainer.gradient_accumulation_steps=2"))
    for name, tensor in weights(large).items():
        torch.testing.assert_close(weights(split)[name], tensor, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("arch", ["gpt2", "bert", "rnn", "fnn"])
def test_a_classifiers_loss_does_not_depend_on_gradient_accumulation(tmp_path, arch):
    once = overrides(trainer__max_steps=1, trainer__logging_steps=1, trainer__train_sampling_strategy="sequential")
    losses = []
    for size, steps in ((8, 1), (2, 4)):
        options = [
            *classifier(tmp_path, arch, run=f"{arch}{steps}", **once),
            f"trainer.per_device_train_batch_size={size}",
        ]
        run = train(compose(*options, f"trainer.gradient_accumulation_steps={steps}"))
        losses.append(run.metrics["train"]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.15)  # dropout differs
    assert losses[0] < 1.2


@pytest.mark.parametrize("toy", [classifier, tagger, role_labeller])
def test_a_classifiers_loss_has_the_models_activation_regularisation_in_it(tmp_path, toy):
    strength = overrides(model__config__activation_regularization=2.0, model__config__dropout=0)
    run = train(compose(*toy(tmp_path, "rnn", run="r", **strength)))
    batch = next(iter(run.trainer.get_train_dataloader()))
    cross_entropy = run.trainer.compute_loss(run.model.eval(), dict(batch))
    whole = run.trainer.compute_loss(run.model.train(), dict(batch))
    penalty = run.model.model(batch["input_ids"], attention_mask=batch["attention_mask"]).penalty
    assert penalty > 0
    torch.testing.assert_close(whole, cross_entropy + penalty)


@pytest.mark.parametrize("arch", ["gpt2", "bert", "rnn", "fnn"])
def test_every_architecture_classifies(tmp_path, arch):
    run = train(compose(*classifier(tmp_path, arch)))
    model = AutoModelForSequenceClassification.from_pretrained(run.folder / "model")
    assert model.config.id2label == {0: "colour", 1: "thing"}
    assert {"confusion_matrix.png", "predictions.jsonl"} <= {path.name for path in run.folder.iterdir()}


def test_classification_metrics_equal_scikit_learns_on_the_written_predictions(spam):
    rows = [json.loads(line) for line in (spam.folder / "predictions.jsonl").read_text().splitlines()]
    true, predicted = [row["reference"] for row in rows], [row["label"] for row in rows]
    metrics = spam.metrics["validation"]
    assert metrics["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(true, predicted), abs=1e-12)
    for label in ("colour", "thing"):
        score = sklearn.metrics.f1_score(true, predicted, pos_label=label, zero_division=0)
        assert metrics[f"f1_{label}"] == pytest.approx(score, abs=1e-12)
    assert np.sum(metrics["confusion_matrix"]) == len(rows)
    assert all(sum(row["scores"].values()) == pytest.approx(1, abs=1e-5) for row in rows)


def test_an_evaluation_keeps_numbers_per_row_and_never_logits(lm, spam):
    output = lm.trainer.predict(lm.trainer.eval_dataset)
    assert output.predictions.shape == (len(lm.trainer.eval_dataset), 1)
    assert output.label_ids.shape == (len(lm.trainer.eval_dataset), 4)
    output = spam.trainer.predict(spam.trainer.eval_dataset)
    assert [kept.shape for kept in output.predictions] == [(len(spam.trainer.eval_dataset),)] * 2


def test_classification_metrics_do_not_depend_on_the_batch_size(spam):
    wanted = spam.metrics["validation"]
    for size in (1, 4, 64):
        found = evaluate(compose("evaluate", f"run={spam.folder}", f"trainer.per_device_eval_batch_size={size}"))
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
        others = found.keys() - {"loss"}
        assert {name: found[name] for name in others} == {name: wanted[name] for name in others}


def test_segment_ids_reach_only_models_that_have_segments(tmp_path):
    pairs = tmp_path / "pairs.csv"
    rows = (f"yes,red cat {n},blue dog\nno,one,two three {n}\n" for n in range(10))
    pairs.write_text("".join(["label,a,b\n", *rows]))
    for arch, wanted in (("bert", True), ("gpt2", False)):
        options = classifier(tmp_path, arch, run=arch)
        run = train(compose(*options, f"data.files.train={pairs}", "data.columns.text=[a,b]"))
        batch = next(iter(run.trainer.get_train_dataloader()))
        assert ("token_type_ids" in batch) is wanted
        if wanted:
            assert batch["token_type_ids"].max() == 1


def test_a_baseline_is_reported_beside_the_model(tmp_path):
    options = classifier(tmp_path)
    run = train(compose(*options, f"data.files.validation={tmp_path / 'train.csv'}", "task.baseline=word"))
    beside = run.metrics["validation, TF-IDF"]
    assert beside["accuracy"] == 1.0  # the colour is in the first word
    assert set(beside) <= set(run.metrics["validation"])


def test_predictions_come_in_the_order_of_the_input_whatever_the_length(spam, tmp_path):
    texts = ["dog", "red blue green one two three cat dog", "blue", "one two three", "green cat dog one two"]
    (tmp_path / "new.txt").write_text("\n".join(texts) + "\n")
    rows = predict(compose("predict", f"run={spam.folder}", f"input={tmp_path / 'new.txt'}"))
    assert [row["text"] for row in rows] == texts
    alone = []
    for text in texts:
        (tmp_path / "one.txt").write_text(text + "\n")
        alone += predict(compose("predict", f"run={spam.folder}", f"input={tmp_path / 'one.txt'}"))
    for row, single in zip(rows, alone, strict=True):
        assert row["label"] == single["label"]
        assert row["score"] == pytest.approx(single["score"], abs=1e-5)


def test_evaluating_another_file_keeps_the_models_label_ids(spam, tmp_path):
    (tmp_path / "b.csv").write_text(
        "text,label\nred cat dog,colour\nblue one two,colour\n"
    )  # one class, other columns
    metrics = evaluate(compose("evaluate", f"run={spam.folder}", f"data.files={tmp_path / 'b.csv'}", "split=test"))
    assert np.array(metrics["confusion_matrix"]).shape == (2, 2)
    assert np.sum(metrics["confusion_matrix"], axis=1).tolist() == [2, 0]


def test_generation_continues_every_prompt_by_itself_as_in_a_batch(lm):
    greedy = ["generation.do_sample=false", "generation.max_new_tokens=8"]
    prompts = lm.folder.parent / "prompts.txt"
    prompts.write_text("red blue\none\n")
    together = generate(compose("generate", f"run={lm.folder}", f"prompts={prompts}", *greedy))
    alone = [
        generate(compose("generate", f"run={lm.folder}", f"prompt={p}", *greedy))[0] for p in ("'red blue'", "one")
    ]
    assert together == alone
    assert all(row["text"] for row in together)


def test_every_row_is_evaluated_even_where_training_drops_the_last_batch(tmp_path):
    options = [*language_model(tmp_path), "trainer.per_device_eval_batch_size=7"]
    kept = train(compose(*options, "run=kept"))
    dropped = train(compose(*options, "run=dropped", "trainer.dataloader_drop_last=true"))
    assert dropped.metrics["validation"] == kept.metrics["validation"]


def test_resuming_on_other_data_is_refused(tmp_path):
    saved = overrides(trainer__save_strategy="steps", trainer__save_steps=2)
    options = language_model(tmp_path, run="r", **saved)
    run = train(compose(*options))
    (run.folder / "metrics.json").unlink()
    (tmp_path / "corpus.txt").write_text("one two three\n" * 300)
    with pytest.raises(InputError, match=r"the data changed since this run began \(splits train, validation\)"):
        train(compose(*options))
    assert (run.folder / "checkpoint-4").is_dir()


def test_a_run_that_only_missed_its_report_says_the_loss_of_all_its_steps(tmp_path):
    saved = overrides(trainer__save_strategy="steps", trainer__save_steps=2, trainer__logging_steps=1)
    options = language_model(tmp_path, run="r", **saved)
    run = train(compose(*options))
    (run.folder / "metrics.json").unlink()
    before = weights(run)
    again = train(compose(*options))
    assert again.trainer.state.global_step == 4  # not a step more
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(again).items())
    assert again.metrics["train"]["loss"] == pytest.approx(run.metrics["train"]["loss"], rel=1e-6)
    assert again.metrics["validation"] == run.metrics["validation"]


def test_metrics_json_is_json_even_for_an_infinite_perplexity(tmp_path):
    from hf_llm import runs

    runs.write_json(tmp_path / "m.json", {"a": [float("inf"), 1.5], "b": {"c": float("nan")}})
    assert json.loads((tmp_path / "m.json").read_text()) == {"a": [None, 1.5], "b": {"c": None}}
    assert "NaN" not in (tmp_path / "m.json").read_text()


def test_unknown_tokens_are_counted_and_said(tmp_path):
    tiny = [option for option in language_model(tmp_path) if not option.startswith("tokenizer")]
    run = train(compose(*tiny, "tokenizer=word", "tokenizer.vocab_size=6"))
    assert 0.3 < run.metrics["validation"]["unknown_share"] < 1


def test_an_evaluation_never_sees_rows_that_were_trained_on(spam):
    wanted = spam.metrics["validation"]["confusion_matrix"]
    found = evaluate(compose("evaluate", f"run={spam.folder}", "trainer.seed=7"))
    assert found["confusion_matrix"] == wanted


def test_a_renamed_label_column_is_of_no_concern_to_a_prediction(tmp_path):
    (tmp_path / "odd.csv").write_text((tmp_path / write_csv(tmp_path).name).read_text().replace("label,text", "y,x"))
    columns = ["data.columns.text=x", "data.columns.label=y", f"data.files.train={tmp_path / 'odd.csv'}"]
    run = train(compose(*classifier(tmp_path), *columns))
    (tmp_path / "new.csv").write_text("x,other\nred cat,1\n")
    (row,) = predict(compose("predict", f"run={run.folder}", f"input={tmp_path / 'new.csv'}"))
    assert row["text"] == "red cat"
    (tmp_path / "b.csv").write_text("z,y\nred cat,colour\n")
    given = [f"data.files={tmp_path / 'b.csv'}", "data.columns.text=z", "split=test"]
    assert np.sum(evaluate(compose("evaluate", f"run={run.folder}", *given))["confusion_matrix"]) == 1


def test_an_interpolated_override_is_saved_as_its_value(tmp_path):
    run = train(compose(*language_model(tmp_path), "trainer.eval_steps=${trainer.max_steps}"))
    assert evaluate(compose("evaluate", f"run={run.folder}"))["loss"] > 0


def test_a_streamed_classifier_with_held_out_rows_is_measured(tmp_path):
    files = [f"data.files.validation={write_csv(tmp_path, 'held.csv')}", "data.streaming=true"]
    given = ["data.labels=[colour,thing]", "tokenizer=wordpiece"]
    run = train(compose(*classifier(tmp_path), *files, *given))
    assert np.sum(run.metrics["validation"]["confusion_matrix"]) == 90


def test_a_run_that_is_being_trained_is_not_started_twice(tmp_path):
    from hf_llm import runs

    cfg = compose(*language_model(tmp_path, run="r"))
    with runs.claimed(tmp_path / "outputs" / "r"), pytest.raises(InputError, match="another process is training"):
        train(cfg)
    assert not (tmp_path / "outputs" / "r").exists()


@pytest.mark.parametrize("stage", ["it reads its data", "it is trained"])
def test_a_second_start_changes_nothing_of_the_first(stage, tmp_path, monkeypatch):
    from hf_llm import data, runs

    first, second = (compose(*language_model(tmp_path, run="r"), f"trainer.seed={seed}") for seed in (1, 2))
    folder, tried = tmp_path / "outputs" / "r", []
    where, name = (data, "load") if stage == "it reads its data" else (runs, "save_model")
    real = getattr(where, name)

    def with_another_start(*args, **kwargs):
        monkeypatch.setattr(where, name, real)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        for cfg in (first, second):
            with pytest.raises(InputError, match="another process is training this run"):
                train(cfg)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        tried.append(stage)
        return real(*args, **kwargs)

    monkeypatch.setattr(where, name, with_another_start)
    run = train(first)
    assert tried
    assert runs.load_raw_config(folder / "config.yaml")["trainer"]["seed"] == 1
    assert {"metrics.json", "environment.json", "train.log", "model"} <= {path.name for path in run.folder.iterdir()}


def test_early_stopping_keeps_the_best_checkpoint(tmp_path):
    every = overrides(
        trainer__max_steps=40, trainer__eval_strategy="steps", trainer__eval_steps=2, trainer__save_strategy="steps",
        trainer__save_steps=2, trainer__learning_rate=0.0, early_stopping_patience=2,
    )  # fmt: skip
    run = train(compose(*language_model(tmp_path, **every)))
    assert run.metrics["train"]["steps"] == 6  # the first evaluation is the best, two are no better


def test_best_model_by_f1_is_chosen_by_override(tmp_path):
    options = overrides(
        trainer__max_steps=8, trainer__eval_strategy="steps", trainer__eval_steps=4, trainer__save_strategy="steps",
        trainer__save_steps=4, trainer__load_best_model_at_end="true", trainer__metric_for_best_model="f1",
    )  # fmt: skip
    run = train(compose(*classifier(tmp_path, **options), "task.positive_label=colour"))
    assert run.trainer.state.best_metric == max(
        entry["eval_f1"] for entry in run.trainer.state.log_history if "eval_f1" in entry
    )


def test_fine_tuning_goes_on_from_a_saved_model(lm, tmp_path):
    run = train(
        compose(
            *[option for option in language_model(tmp_path) if not option.startswith(("model", "tokenizer"))],
            f"model.pretrained={lm.folder / 'model'}",
            "trainer.max_steps=1",
            "trainer.learning_rate=0",
        )
    )
    before, after = weights(lm), weights(run)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_streamed_corpus_trains_on_the_same_blocks(tmp_path):
    options = [*language_model(tmp_path), "tokenizer=byte", "data.streaming=true", "data.validation_fraction=0"]
    run = train(compose(*options))
    assert run.metrics["train"]["steps"] == 4


def test_a_limit_is_on_rows(tmp_path):
    write_csv(tmp_path)
    run = train(compose(*classifier(tmp_path), "data.limits.validation=5"))
    assert np.sum(run.metrics["validation"]["confusion_matrix"]) == 5


@pytest.mark.parametrize("metric", ["bits_per_byte", "eval_perplexity"])
def test_a_lower_perplexity_is_the_better_one(tmp_path, metric):
    from hf_llm import tasks

    args = tasks.get({"name": "causal_lm"}).arguments({"metric_for_best_model": metric}, tmp_path)
    assert args.greater_is_better is False


def test_a_best_metric_that_is_never_reported_is_refused_before_training(tmp_path):
    options = classifier(tmp_path, **overrides(trainer__metric_for_best_model="f1_macr"))
    with pytest.raises(InputError, match="did you mean f1_macro"):
        train(compose(*options))
    with pytest.raises(InputError, match="the labels are colour, thing"):
        train(compose(*classifier(tmp_path, run="b"), "task.positive_label=blue"))
