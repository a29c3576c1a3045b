"""Question answering: windows of contexts, answers of windows, and what a model is measured by."""

import json
import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from toys import classifier, reader, write_questions
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from hf_llm import compose, evaluate, predict, tasks, train
from hf_llm.metrics.question_answering import question_answering_report
from hf_llm.tasks.question_windows import windows
from hf_llm.tasks.sampling import IGNORE_INDEX


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
    assert config["null_score_diff_threshold"] > metrics["best_f1_thresh"] + 1e-5  # and not on a question's own score
    assert metrics["f1"] == pytest.approx(metrics["best_f1"])


def labels_of(context, text, start, tokenizer):
    answers = [{"text": [text], "answer_start": [start]}]
    made = windows({"question": ["why"], "context": [context], "answers": answers}, [0], tokenizer, 24, 4, 8)
    return made["labels"], made["starts"], made["ends"]


def test_an_answer_with_white_space_around_it_is_learnt_as_the_answer(runs):
    tokenizer, context = runs[False].tokenizer, "red blue green one"
    labels, starts, ends = labels_of(context, "blue green", 4, tokenizer)
    assert labels == labels_of(context, " blue green ", 3, tokenizer)[0]
    (first, last), *_ = labels
    assert (starts[0][first], ends[0][last]) == (4, 14)
    assert labels_of(context, "blue", -1, tokenizer)[0] == [[IGNORE_INDEX, IGNORE_INDEX]]  # it is not known where


def test_an_answer_begins_where_its_word_does_with_tokens_that_have_the_space_before_it(tmp_path):
    options = {"tokenizer": "bpe", "trainer.max_steps": "60", "trainer.learning_rate": "3e-3"}
    run = train(compose(*reader(tmp_path, run="bpe", **options)))
    for row in predict(compose("predict", f"run={run.folder}", f"input={tmp_path / 'train.jsonl'}"))[:5]:
        assert all(one["answer"] == one["answer"].strip() != "" for one in row["n_best"])


def test_a_question_that_is_too_long_is_cut_wherever_it_stands(runs):
    """The tokenizer's backend has the truncation of its call for the batch before."""
    task = tasks.get({"name": "question_answering", "max_length": 24, "doc_stride": 4, "max_query_length": 8})
    asked = ["what is before cat"] * 250
    asked[240] = "red " * 60
    raw = Dataset.from_dict({"question": asked, "context": ["red blue green one"] * 250})
    encoded = task.encode({"predicted": raw}, runs[False].tokenizer)["predicted"]
    assert sorted(encoded.encoded["row"]) == list(range(250))
    assert max(encoded.lengths) == 8 + 4 + 3


def test_no_answer_is_among_the_best_where_it_may_be_and_is_measured_while_training(tmp_path):
    options = {"trainer.max_steps": "40", "trainer.eval_strategy": "steps", "trainer.eval_steps": "20"}
    options["trainer.learning_rate"] = "3e-3"
    run = train(compose(*reader(tmp_path, unanswerable=True, run="qa", **options)))
    measured = [entry for entry in run.trainer.state.log_history if "eval_f1" in entry]
    assert any(entry["eval_NoAns_f1"] > 0 for entry in measured)
    for row in map(json.loads, (run.folder / "predictions.jsonl").read_text().splitlines()):
        (none,) = [one for one in row["n_best"] if one["answer"] == ""]
        best = max(one["score"] for one in row["n_best"] if one["answer"])
        assert math.log(none["score"] / best) == pytest.approx(row["no_answer_score"], abs=1e-3)
        assert row["score"] == (none["score"] if row["answer"] == "" else best)


def test_a_classifier_of_many_classes_can_be_the_beginning(tmp_path):
    words = ["a", "b", "c", "d"]
    lines = [f"{word},{word} cat {n}\n" for n, word in enumerate(words * 9)]
    (tmp_path / "c.csv").write_text("".join(["label,text\n", *lines]))
    first = classifier(tmp_path, run="classes", **{"data.files.train": str(tmp_path / "c.csv")})
    model = train(compose(*first)).folder / "model"
    asked = [line for line in reader(tmp_path, run="qa") if not line.startswith(("model", "tokenizer"))]
    run = train(compose(*asked, "task.max_length=24", "model=pretrained", f"model.pretrained={model}"))
    assert run.model.qa_outputs.out_features == 2


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
