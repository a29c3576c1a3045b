"""Semantic roles: the same figures, and in two passes the same arguments, on any number of processes."""

import json
from pathlib import Path

import pytest
from launched import launch
from toys import role_labeller, write_propositions

from hf_llm import compose, train

EACH = Path(__file__).parent / "each.py"


@pytest.mark.slow
def test_roles_and_predicates_are_those_of_one_process(tmp_path):
    options = {
        "trainer.max_steps": "120",
        "trainer.learning_rate": "3e-3",
        "trainer.per_device_train_batch_size": "16",
    }
    train(compose(*role_labeller(tmp_path, run="roles", **options)))
    calls = []
    for size in (2, 5):
        path = write_propositions(tmp_path, f"{size}.conll", sentences=size)
        (tmp_path / f"{size}.txt").write_text("red cat sees two\none two\ncat hears one dog sees two\n"[: 12 * size])
        for batch in (1, 3):
            asked = [f"run={tmp_path}/outputs/roles", "trainer.use_cpu=true"]
            asked.append(f"trainer.per_device_eval_batch_size={batch}")
            calls += [("evaluate", [*asked, f"data.files={path}"]), ("predict", [*asked, f"input={path}"])]
            calls.append(("predict", [*asked, f"input={tmp_path}/{size}.txt"]))
    (tmp_path / "calls.json").write_text(json.dumps(calls))
    found = {}
    for processes in (1, 3):
        launch(tmp_path, processes, EACH, tmp_path / "calls.json", tmp_path / f"{processes}.json")
        found[processes] = json.loads((tmp_path / f"{processes}.json").read_text())
    for call, three, one in zip(calls, found[3], found[1], strict=True):
        assert three == one, call
    assert sum(len(row["predicates"]) for answer in found[1] if isinstance(answer, list) for row in answer) > 10
