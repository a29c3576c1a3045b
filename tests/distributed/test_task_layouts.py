"""Tags, answers and masks have the same figures, and predictions, on two processes as on one."""

import json
from pathlib import Path

import pytest
from launched import launch
from toys import masked_language_model, reader, tagger, write_conll, write_questions, write_text

from hf_llm import compose, train

EACH = Path(__file__).parent / "each.py"


@pytest.mark.slow
def test_two_processes_measure_and_predict_what_one_does(tmp_path):
    write_text(tmp_path, "held.txt", lines=23)
    held = {
        "tags": write_conll(tmp_path, "held.conll", sentences=7),
        "qa": write_questions(tmp_path, "held.jsonl", rows=7, unanswerable=True),
        "masked": tmp_path / "held.txt",
    }
    train(compose(*tagger(tmp_path, run="tags")))
    train(compose(*reader(tmp_path, unanswerable=True, run="qa")))
    train(compose(*masked_language_model(tmp_path, run="masked")))
    asked = []
    for run, path in held.items():
        same = [f"run={tmp_path}/outputs/{run}", "trainer.use_cpu=true", "trainer.per_device_eval_batch_size=2"]
        asked.append(["evaluate", [*same, f"data.files={path}"]])
        if run != "masked":  # which predicts with transformers' pipeline
            asked.append(["predict", [*same, f"input={path}"]])
    calls = tmp_path / "calls.json"
    calls.write_text(json.dumps(asked))
    for processes in (1, 2):
        launch(tmp_path, processes, EACH, calls, tmp_path / f"{processes}.json")
    one, two = (json.loads((tmp_path / f"{processes}.json").read_text()) for processes in (1, 2))
    for call, alone, together in zip(asked, one, two, strict=True):
        assert together == alone, call
