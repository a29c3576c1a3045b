"""What knowing nothing scores, and the verdict, are those of one process on two, and of any evaluation batch."""

import json

import pytest
from launched import launch
from toys import classifier, language_model, masked_language_model, reader, tagger, translator

from hf_llm import compose, train

KINDS = {
    "classes": classifier,
    "text": language_model,
    "masked": masked_language_model,
    "tags": tagger,
    "qa": reader,
    "pairs": translator,
}


def judged(folder):
    found = json.loads((folder / "metrics.json").read_text())["validation"]
    return found["chance"], [warning.split(" (")[0] for warning in found["warnings"]]


def same(found, expected):
    """Nested figures, equal but for rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            same(found[name], value)
    else:
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_say_of_a_run_what_one_says(kind, tmp_path):
    options = [option for option in KINDS[kind](tmp_path) if not option.startswith("trainer.per_device_train")]
    for processes in (1, 2):
        own = [
            "trainer.learning_rate=1e-9",
            f"run={processes}",
            f"trainer.per_device_train_batch_size={4 // processes}",
        ]  # dropout differs by process: next to nothing is learnt
        launch(tmp_path, processes, "-m", "hf_llm", "train", *options, *own)
    (one, said), (two, also) = (judged(tmp_path / "outputs" / str(processes)) for processes in (1, 2))
    same(two, one)
    assert also == said
    logged = (tmp_path / "outputs" / "2" / "train.log").read_text()
    assert logged.count("not clearly better") == len(said)  # rank 0 alone


def test_the_evaluation_batch_changes_no_verdict(tmp_path):
    for size in (1, 64):
        train(compose(*classifier(tmp_path, run=str(size)), f"trainer.per_device_eval_batch_size={size}"))
    same(*(judged(tmp_path / "outputs" / str(size))[0] for size in (1, 64)))
