"""Question answering: windows of contexts, answers of windows, and what a model is measured by."""

import json

import numpy as np
import pytest
import torch
from toys import reader, write_questions
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from hf_llm import compose, evaluate, predict, train
from hf_llm.metrics.question_answering import question_answering_report


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on questions that all have an answer, and one on some that have none."""
    trained = {}
    for unanswerable in (False, True):
        folder = tmp_path_factory.mktemp("questions")
        options = {"trainer.max_steps": "60", "trainer.learning_rate": "3e-3", "task.baseline": "true"}
        trained[unanswerable] = train(compose(*reader(folder, unanswerable=unanswerable, run="qa", **options)))
    return trained


def by_hand(run, path):
    """The best answer to each question in one window, and how much likelier none is: every pair of tokens is tried."""
    model = AutoModelForQuestionAnswering.from_pretrained(run.folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "model")
    answers, none, losses = [], [], []
    for row in map(json.loads, path.read_text().splitlines()):
        encoded = tokenizer(row["question"], row["context"], return_tensors="pt", return_offsets_mapping=True)
        offsets = encoded.pop("offset_mapping")[0].tolist()
        inside = [i for i, part in enumerate(encoded.sequence_ids(0)) if part == 1]
        with torch.no_grad():
            output = model(**encoded)
        start, end = output.start_logits[0], output.end_logits[0]
        pairs = [(float(start[i] + end[j]), i, j) for i in inside for j in inside if i <= j]
        best, i, j = max(pairs)
        answers.append(row["context"][offsets[i][0] : offsets[j][1]])
        none.append(float(start[0] + end[0]) - best)
        first, last = 0, 0
        if row["answers"]["text"]:
            a = row["answers"]["answer_start"][0]
            b = a + len(row["answers"]["text"][0])
            first = next(i for i in inside if offsets[i][0] == a)
            last = next(i for i in inside if offsets[i][1] == b)
        places = torch.tensor([first, last])
        losses.append(torch.nn.functional.cross_entropy(torch.stack([start, end]), places).item())
    return answers, none, float(np.mean(losses))


@pytest.mark.parametrize("unanswerable", [False, True])
def test_evaluate_and_predict_are_those_of_one_question_at_a_time(runs, unanswerable, tmp_path):
    run = runs[unanswerable]
    path = write_questions(tmp_path, "held_out.jsonl", rows=17, unanswerable=unanswerable)
    answers, none, loss = by_hand(run, path)
    threshold = run.model.config.null_score_diff_threshold
    assert (threshold is not None) is unanswerable
    chosen = [
        "" if threshold is not None and score > threshold else answer
        for answer, score in zip(answers, none, strict=True)
    ]
    references = [json.loads(line)["answers"]["text"] for line in path.read_text().splitlines()]
    expected = question_answering_report(chosen, references)
    asked = [f"run={run.folder}", "trainer.use_cpu=true"]
    for size in (1, 5):
        batch = f"trainer.per_device_eval_batch_size={size}"
        rows = predict(compose("predict", *asked, batch, f"input={path}"))
        assert [row["answer"] for row in rows] == chosen
        assert [row["id"] for row in rows] == [str(i) for i in range(17)]
        metrics = evaluate(compose("evaluate", *asked, batch, f"data.files={path}"))
        assert {name: metrics[name] for name in expected} == pytest.approx(expected)
        assert metrics["loss"] == pytest.approx(loss, rel=1e-4)
        if unanswerable:
            assert [row["no_answer_score"] for row in rows] == pytest.approx(none, abs=1e-4)
            assert metrics["best_f1"] >= metrics["f1"] - 1e-9
    for row in rows:
        assert sum(one["score"] for one in row["n_best"]) == pytest.approx(1, abs=1e-4)


def test_the_threshold_is_the_best_of_the_validation_split_and_travels_with_the_model(runs):
    run = runs[True]
    config = json.loads((run.folder / "model" / "config.json").read_text())
    metrics = run.metrics["validation"]
    assert config["null_score_diff_threshold"] == pytest.approx(metrics["best_f1_thresh"])
    assert metrics["f1"] == pytest.approx(metrics["best_f1"])


def test_a_long_context_is_read_in_windows_and_the_answer_is_a_place_of_the_whole(runs, tmp_path):
    context = " ".join(["red blue green one two three cat dog"] * 10)
    (tmp_path / "in.jsonl").write_text(json.dumps({"question": "what is before cat", "context": context}))
    (row,) = predict(compose("predict", f"run={runs[False].folder}", f"input={tmp_path / 'in.jsonl'}"))
    assert len({one["start"] for one in row["n_best"]}) == len(row["n_best"]) or len(row["n_best"]) > 1
    for one in row["n_best"]:
        assert context[one["start"] : one["end"]] == one["answer"]
    assert max(one["start"] for one in row["n_best"]) > 40  # beyond the first window


def test_both_baselines_are_reported(runs):
    names = [name for name in runs[False].metrics if name.startswith("validation, ")]
    assert names == ["validation, first sentence", "validation, most like the question"]
    lines = (runs[False].folder / "predictions.jsonl").read_text().splitlines()
    assert all("reference" in json.loads(line) for line in lines)
