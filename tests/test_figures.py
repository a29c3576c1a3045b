"""Each split is logged under its own name: in the loss curve, by the trackers, by the callbacks."""

import pytest
from toys import (
    classifier,
    language_model,
    masked_language_model,
    reader,
    role_labeller,
    tagger,
    translator,
    write_conll,
    write_csv,
    write_pairs,
    write_propositions,
    write_questions,
    write_text,
)
from transformers import TrainerCallback

from hf_llm import compose, evaluate, plots, train, training

TASKS = {
    "causal_lm": (language_model, lambda folder: write_text(folder, "test.txt", 90)),
    "masked_lm": (masked_language_model, lambda folder: write_text(folder, "test.txt", 90)),
    "text_classification": (classifier, lambda folder: write_csv(folder, "test.csv", 30)),
    "token_classification": (tagger, lambda folder: write_conll(folder, "test.conll", 20)),
    "question_answering": (reader, lambda folder: write_questions(folder, "test.jsonl", 20)),
    "semantic_role_labelling": (role_labeller, lambda folder: write_propositions(folder, "test.conll", 20)),
    "translation": (translator, lambda folder: write_pairs(folder, "test.jsonl", 9, "test")),
}
MEASURED_TWICE = {"trainer.eval_strategy": "steps", "trainer.eval_steps": "2"}


class Evaluations(TrainerCallback):
    """What the notebook's table, early stopping and the trackers are told."""

    def __init__(self):
        self.evaluated, self.predicted = [], []

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        self.evaluated.append((state.global_step, metrics["eval_loss"]))

    def on_predict(self, args, state, control, metrics, **kwargs):
        self.predicted.append({name.partition("_")[0] for name in metrics if name.endswith("_loss")})


@pytest.fixture
def told(monkeypatch):
    callback, original = Evaluations(), training._callbacks
    monkeypatch.setattr(training, "_callbacks", lambda cfg: [*original(cfg), callback])
    return callback


def points(run, name):
    return [(entry["step"], entry[name]) for entry in run.trainer.state.log_history if name in entry]


@pytest.mark.parametrize("task", TASKS)
def test_each_split_is_logged_under_its_own_name(tmp_path, told, task):
    overrides_of, write_test = TASKS[task]
    run = train(compose(*overrides_of(tmp_path, **{"data.files.test": write_test(tmp_path), **MEASURED_TWICE})))
    assert [step for step, _ in points(run, "eval_loss")] == [2, 4]
    assert points(run, "eval_loss")[-1][1] == pytest.approx(run.metrics["validation"]["loss"])
    assert points(run, "test_loss") == [(4, run.metrics["test"]["loss"])]
    assert told.evaluated == points(run, "eval_loss")
    assert [names for names in told.predicted if names][-2:] == [{"validation"}, {"test"}]
    assert not any(name.startswith(("eval_", "test_", "validation_")) for name in run.metrics["test"])


def test_without_evaluations_the_final_one_is_the_only_point(tmp_path):
    run = train(compose(*language_model(tmp_path)))
    assert points(run, "eval_loss") == [(4, run.metrics["validation"]["loss"])]


def test_the_best_earlier_model_adds_no_point_at_the_last_step(tmp_path):
    best = {"trainer.load_best_model_at_end": "true", "trainer.save_strategy": "steps", "trainer.save_steps": "2"}
    first = {"trainer.greater_is_better": "true", "trainer.metric_for_best_model": "loss", "trainer.max_steps": "5"}
    run = train(compose(*language_model(tmp_path, **MEASURED_TWICE, **best, **first)))
    assert [step for step, _ in points(run, "eval_loss")] == [2, 4, 5]
    assert run.trainer.state.best_global_step == 2
    assert run.metrics["validation"]["loss"] == pytest.approx(points(run, "eval_loss")[0][1])


def test_the_loss_curve_draws_validation_alone_as_validation(tmp_path, monkeypatch):
    monkeypatch.setattr(plots.plt, "close", lambda figure: figures.append(figure))
    figures = []
    train(
        compose(
            *language_model(tmp_path, **{"data.files.test": write_text(tmp_path, "test.txt", 90)}, **MEASURED_TWICE)
        )
    )
    lines = {line.get_label(): list(line.get_xdata()) for line in figures[0].axes[0].lines}
    assert lines["validation"] == [2, 4]
    monkeypatch.undo()
    plots.plt.close("all")


def test_tensorboard_has_test_as_test(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader").EventFileLoader
    test = {"data.files.test": write_text(tmp_path, "test.txt", 90), "trainer.report_to": "tensorboard"}
    run = train(compose(*language_model(tmp_path, **test, **MEASURED_TWICE)))
    events = [event for path in run.folder.rglob("events.out*") for event in loader(str(path)).Load()]
    found = [(value.tag, event.step) for event in events for value in event.summary.value]
    assert sorted(step for tag, step in found if tag == "eval/loss") == [2, 4]
    assert [step for tag, step in found if tag == "test/loss"] == [4]
    assert not any("validation" in tag or "test" in tag for tag, _ in found if tag.startswith("train/"))


def test_an_evaluation_of_a_run_is_no_evaluation_of_a_training(tmp_path, told, monkeypatch):
    run = train(compose(*language_model(tmp_path, run="mine")))
    from hf_llm.tasks.resumable_trainer import ResumableTrainer

    logged = []
    monkeypatch.setattr(ResumableTrainer, "log", lambda self, logs, *rest: logged.append(logs))
    metrics = evaluate(compose("evaluate", f"run={run.folder}"))
    assert not logged
    assert metrics["loss"] == pytest.approx(run.metrics["validation"]["loss"])
