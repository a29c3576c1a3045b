"""A run that has learnt nothing says so, while it trains, at its end, in metrics.json and in its card."""

import json
import logging
import math
import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import toys
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, log_loss
from transformers import AutoTokenizer, TrainingArguments

from hf_llm import compose, learnt, tasks, train
from hf_llm.config.declared import tasks as task_names
from hf_llm.hub import card
from hf_llm.metrics.chance import interval
from hf_llm.metrics.question_answering import question_answering_report
from hf_llm.metrics.text_generation import generation_report
from hf_llm.runs import load_config
from hf_llm.tasks.base import Task
from hf_llm.tasks.sentences import first_sentences

TOYS = {
    "causal_lm": toys.language_model,
    "masked_lm": toys.masked_language_model,
    "text_classification": toys.classifier,
    "token_classification": toys.tagger,
    "semantic_role_labelling": toys.role_labeller,
    "question_answering": toys.reader,
    "translation": toys.translator,
    "summarization": lambda folder: [*toys.translator(folder), "task=summarization"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Task -> a run of four steps, which teach it next to nothing; made when asked for."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = train(compose(*TOYS[name](tmp_path_factory.mktemp(name))))
        return made[name]

    return of


def rows(run, name="predictions.jsonl"):
    return [json.loads(line) for line in (run.folder / name).read_text().splitlines()]


@pytest.mark.parametrize("name", task_names())
def test_each_task_states_what_knowing_nothing_scores_and_a_run_is_compared_with_it(name, runs):
    task = tasks._class(name)
    stated = {field for cls in task.__mro__ if cls is not Task for field in vars(cls)}
    assert {"chance", "principal", "compare_with_chance", "chance_loss"} <= stated
    assert task.chance
    run = runs(name)
    found = run.metrics["validation"]
    assert json.loads((run.folder / "metrics.json").read_text())["validation"]["chance"] == found["chance"]
    chance = found["chance"]
    assert set(chance["scores"]) <= set(task.chance)
    assert chance["rows"] > 3
    assert chance["compared"]
    for metric, one in chance["compared"].items():
        assert metric in task.chance
        assert one["interval"][0] <= one["gain"] <= one["interval"][1]
        if metric in found:  # of spans: that of luck; of samples: the sample's
            assert one["value"] == pytest.approx(found[metric], rel=1e-5)
    assert (chance["clearly_better"] is False) == any("knowing nothing" in text for text in found["warnings"])
    level = run.trainer.callback_handler.callbacks
    (callback,) = [each for each in level if isinstance(each, learnt.FlatLoss)]
    assert callback.chance_loss() > 0


def test_a_classifiers_chance_is_that_of_dummy_classifiers(runs):
    run = runs("text_classification")
    labels = [row["reference"] for row in rows(run)]
    nothing = np.zeros((len(labels), 1))
    prior = DummyClassifier(strategy="prior").fit(nothing, labels)
    scores = run.metrics["validation"]["chance"]["scores"]
    assert scores["loss"] == pytest.approx(log_loss(labels, prior.predict_proba(nothing)), rel=1e-9)
    assert scores["accuracy"] == accuracy_score(labels, prior.predict(nothing))


def test_a_taggers_chance_is_that_of_its_words(runs):
    run = runs("token_classification")
    tags = [tag for row in rows(run) for tag in row["reference"]]
    counts = Counter(tags)
    scores = run.metrics["validation"]["chance"]["scores"]
    assert scores["loss"] == pytest.approx(-sum(n / len(tags) * math.log(n / len(tags)) for n in counts.values()))
    assert scores["accuracy"] == max(counts.values()) / len(tags)


def test_a_language_models_chance_is_the_loss_of_the_frequencies_of_its_tokens(runs):
    run = runs("causal_lm")
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "model")
    (train_tokens, held) = (
        [token for text in document for token in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
        for document in documents(run)
    )
    counts, types = Counter(train_tokens), len(set(train_tokens))
    unseen = len(tokenizer) - types
    shares = [
        (counts[t] if t in counts else types / unseen) / (len(train_tokens) + types * (unseen > 0)) for t in held
    ]
    expected = -sum(map(math.log, shares)) / len(held)
    assert run.metrics["validation"]["chance"]["scores"]["loss"] == pytest.approx(expected, rel=1e-9)


def documents(run):
    """The texts of train and of validation, as the run's own blocks have them."""
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "model")
    for blocks in (run.trainer.train_dataset, run.trainer.eval_dataset):
        ids = np.concatenate([block["shift_labels"] for block in blocks]).tolist()
        texts, start = [], 0
        for place, token in enumerate(ids):
            if token == tokenizer.eos_token_id:
                texts.append(tokenizer.decode(ids[start:place]))
                start = place + 1
        yield texts


def test_a_readers_chance_is_the_best_of_no_answer_and_two_sentences(runs):
    run = runs("question_answering")
    answers = [row["reference"] for row in rows(run)]
    contexts = [row["context"] for row in run.trainer.eval_dataset.raw]  # each is one sentence
    best = max(
        question_answering_report([""] * len(answers), answers)["f1"],
        question_answering_report(contexts, answers)["f1"],
    )
    assert run.metrics["validation"]["chance"]["scores"]["f1"] == pytest.approx(best)


def test_a_summarys_chance_is_the_first_sentence(runs):
    run = runs("summarization")
    written = rows(run)
    references = [row["reference"] if isinstance(row["reference"], list) else [row["reference"]] for row in written]
    expected = generation_report([first_sentences(row["source"], 1) for row in written], references, ["rouge1"])
    compared = run.metrics["validation"]["chance"]["compared"]["rouge1"]
    assert compared["chance"] == pytest.approx(expected["rouge1"])
    assert compared["value"] == pytest.approx(run.metrics["validation"]["rouge1"])


def colours(folder, shuffled=False, seed=0, rows=240, share=0.5):
    """Texts with or without a colour in them; `shuffled` labels have nothing to do with it."""
    draw = random.Random(seed)
    labels = ["colour" if i < share * rows else "thing" for i in range(rows)]
    lines = [
        f"{draw.choice(toys.COLOURS if label == 'colour' else ['cat', 'dog', 'two'])} {draw.choice(['one', 'three'])}"
        for label in labels
    ]
    if shuffled:
        draw.shuffle(labels)
    path = folder / "colours.csv"
    path.write_text("label,text\n" + "".join(f"{a},{b}\n" for a, b in zip(labels, lines, strict=True)))
    return path


def learning(folder, *options, **shape):
    """A small RNN that tells colours from things in a second or two, where the labels do."""
    given = [f"data.files.train={colours(folder, **shape)}", f"runs_dir={folder / 'outputs'}", "tokenizer=word"]
    given += ["data.validation_fraction=0.25", "task=text_classification", *toys.SMALL["rnn"], *toys.QUICK]
    given += ["trainer.max_steps=40", "trainer.per_device_train_batch_size=16", "trainer.learning_rate=5e-3"]
    return train(compose(*given, *options))


def test_shuffled_labels_give_a_warning_and_the_labels_themselves_none(tmp_path, caplog):
    (tmp_path / "a").mkdir()
    own = learning(tmp_path / "a")
    assert own.metrics["validation"]["chance"]["clearly_better"] is True
    assert own.metrics["validation"]["warnings"] == []
    assert "Warning" not in (own.folder / "README.md").read_text()
    assert not [record for record in caplog.records if "knowing nothing" in record.getMessage()]
    shuffled = learning(tmp_path, shuffled=True)
    (warning,) = shuffled.metrics["validation"]["warnings"]
    assert warning in caplog.text
    assert "not clearly better than knowing nothing (loss " in warning
    assert "Likely cause:" in warning
    assert "Try " in warning
    assert json.loads((shuffled.folder / "metrics.json").read_text())["validation"]["warnings"] == [warning]
    for language, word in (("en", "**Warning:**"), ("zh", "**警告：**")):
        cfg = load_config(shuffled.folder)
        cfg.card.language = language
        assert f"{word} validation: not clearly better" in card.text(shuffled.folder, cfg, "me/colours")


@pytest.mark.slow
def test_of_twenty_seeds_at_most_one_is_judged_wrongly(tmp_path):
    alarms, comforts = [], []
    for seed in range(20):
        for shuffled, found in ((False, alarms), (True, comforts)):
            folder = tmp_path / f"{seed}{shuffled}"
            folder.mkdir()
            options = [f"trainer.seed={seed}", "trainer.learning_rate=2e-2"]
            run = learning(folder, *options, shuffled=shuffled, seed=seed, rows=120, share=0.25)
            found.append(bool(run.metrics["validation"]["warnings"]) is not shuffled)
    assert sum(alarms) <= 1
    assert sum(comforts) <= 1


def test_one_class_for_every_row_is_named(tmp_path):
    run = learning(tmp_path, "trainer.learning_rate=1e-9", share=0.2)
    (warning,) = run.metrics["validation"]["warnings"]
    assert "thing is all that the model predicts" in warning or "colour is all that the model predicts" in warning
    assert "trainer.learning_rate=1e-09 is too low" in warning
    assert "40 steps are too few" in warning


def test_one_class_for_every_row_warns_although_the_loss_is_clearly_better():
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat([0, 1], [80, 20]))
    losses = np.where(labels == 0, 0.1, 0.8) + random.normal(0, 0.02, 100)  # of probabilities up to 0.45
    trainer = SimpleNamespace(kept=((losses, np.zeros(100, dtype=int)), labels), labels=["ham", "spam"])
    task = tasks.get({"name": "text_classification"})
    found = task.compare_with_chance(trainer, None, None, None, None)
    assert found.same == "ham"
    assert learnt.verdict(found, interval(found.comparisons)) is True


def test_a_result_below_the_baseline_warns(tmp_path):
    run = learning(tmp_path, "task.baseline=word", "trainer.learning_rate=1e-9")
    assert any("is below the 1 of the baseline (TF-IDF)" in text for text in run.metrics["validation"]["warnings"])


def test_cut_texts_and_rows_learnt_by_heart_are_likely_causes(runs):
    run = runs("text_classification")
    task = tasks.get({"name": "text_classification"})
    found = SimpleNamespace(same=None, comparisons=[SimpleNamespace(gains=np.zeros(500), gain=0.0)])
    train_rows = run.trainer.train_dataset.map(lambda row: {"full_length": row["length"] + 1})
    run.trainer.state.log_history.append({"loss": 0.01, "step": 99})
    try:
        cause, advice = learnt.likely_cause(run.trainer, task, {"train": train_rows}, "test", found, [], 1e-3)
    finally:
        run.trainer.state.log_history.pop()
    assert "100% of the rows of train were cut to task.max_length" in cause
    assert "the loss on train fell to" in cause
    assert "check that labels or targets belong to their texts" in advice


def test_a_comparison_that_fails_loses_no_run(caplog):
    trainer = SimpleNamespace(kept=([], []), keeps=None)
    outcome = SimpleNamespace(metrics={"loss": 1.0})
    task = tasks.get({"name": "text_classification"})
    splits = {"train": None, "validation": None}
    assert learnt.judged(trainer, task, splits, splits, "validation", outcome, {}, 1e-3) == {}
    assert "validation could not be compared with knowing nothing" in caplog.text


def test_a_streamed_language_model_is_compared_with_nothing(tmp_path):
    held = toys.write_text(tmp_path, "held.txt", lines=30)
    given = toys.language_model(tmp_path, **{"data.streaming": "true", "data.files.validation": str(held)})
    found = train(compose(*given)).metrics["validation"]
    assert (found["chance"], found["warnings"]) == (None, [])


def test_a_card_takes_a_strangers_warning_for_text(runs):
    run = runs("text_classification")
    path = run.folder / "metrics.json"
    before = path.read_text()
    metrics = json.loads(before)
    metrics["validation"]["warnings"] = ["see [this](http://x)\n<b>now</b>"]
    metrics["validation"]["chance"]["scores"] = {"a|b": 1.0}
    path.write_text(json.dumps(metrics))
    try:
        text = card.text(run.folder, load_config(run.folder), "me/x")
    finally:
        path.write_text(before)
    assert r"see \[this\](http://x) \<b\>now\</b\>" in text
    assert r"a\|b 1.0000" in text


# While training


def flat_loss(tmp_path, losses, level=0.69, **arguments):
    """How often the callback warns, when these losses are logged every ten steps."""
    args = TrainingArguments(str(tmp_path), warmup_steps=10, use_cpu=True, **arguments)
    state = SimpleNamespace(max_steps=1000, log_history=[], is_world_process_zero=True, global_step=0)
    callback = learnt.FlatLoss(lambda: level)
    for number, loss in enumerate(losses, 1):
        state.global_step = 10 * number
        state.log_history.append({"loss": loss, "step": 10 * number})
        callback.on_log(args, state, None, logs={"loss": loss})


NOISE = np.random.default_rng(0).normal(0, 0.04, 60)
CURVES = {
    "flat": (0.69 + NOISE, 1),
    "fallen to chance from above": (np.concatenate([np.linspace(3, 0.69, 20), 0.69 + NOISE[:40]]), 1),
    "diverged": (2.5 + NOISE, 1),
    "learns": (np.linspace(0.69, 0.1, 60) + NOISE, 0),
    "learns slowly": (np.linspace(0.69, 0.6, 60) + NOISE, 0),
    "has learnt": (0.5 + NOISE, 0),
    "still falls from above": (np.linspace(5, 1, 60) + NOISE, 0),
    "not a number": (np.full(60, np.nan), 0),
    "too short to tell": (0.69 + NOISE[:9], 0),
}


@pytest.mark.parametrize("curve", CURVES)
def test_a_loss_that_stays_at_chance_after_warm_up_warns_once(curve, tmp_path, caplog):
    losses, expected = CURVES[curve]
    with caplog.at_level(logging.WARNING):
        flat_loss(tmp_path, losses)
    assert sum("it is not learning" in record.getMessage() for record in caplog.records) == expected


def test_a_smoothed_loss_or_an_unknown_level_is_not_compared(tmp_path, caplog):
    flat_loss(tmp_path, 0.69 + NOISE, label_smoothing_factor=0.1)
    flat_loss(tmp_path, 0.69 + NOISE, level=None)
    assert "not learning" not in caplog.text


def test_a_training_on_shuffled_labels_is_told_of_its_flat_loss(tmp_path, caplog):
    learning(tmp_path, "trainer.max_steps=130", "trainer.logging_steps=5", "trainer.learning_rate=1e-5", shuffled=True)
    assert sum("it is not learning" in record.getMessage() for record in caplog.records) == 1
