"""The code of a model card runs as it stands and says what the model says, for every task and kind of model."""

import contextlib
import io
import json
import re

import pytest
import toys

from hf_llm import compose, train
from hf_llm.config.declared import tasks
from hf_llm.hub.card import PIPELINES
from hf_llm.hub.words import WORDS

RUNS = {
    "causal_lm": lambda folder: toys.language_model(folder, "gpt2"),
    "causal_lm, rnn": lambda folder: toys.language_model(folder, "rnn"),
    "masked_lm": toys.masked_language_model,
    "text_classification": toys.classifier,
    "text_classification, fnn": lambda folder: toys.classifier(folder, "fnn"),
    "token_classification": toys.tagger,
    "semantic_role_labelling": toys.role_labeller,
    "question_answering": toys.reader,
    "translation": toys.translator,
    "translation, gpt2": lambda folder: toys.translator(folder, "gpt2"),
    "translation, fnn": lambda folder: toys.translator(folder, "fnn"),
    "summarization": lambda folder: [*toys.translator(folder, "t5"), "task=summarization"],
}
SAID = {
    "causal_lm": "'generated_text'",
    "masked_lm": "'token_str'",
    "text_classification": "'label'",
    "token_classification": "'entity'",
    "semantic_role_labelling": "'[CLS]'",
}


def test_every_task_is_here():
    assert {name.split(",")[0] for name in RUNS} == set(tasks()) == set(PIPELINES)
    assert set(tasks()) <= set(WORDS["en"])


@pytest.mark.parametrize("name", RUNS)
def test_the_code_of_its_card_runs(name, tmp_path):
    run = train(compose("train", *RUNS[name](tmp_path), "run=card", "preflight=off"))
    card = (run.folder / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    assert '"card"' in code
    assert ("trust_remote_code=True" in code) == (
        "auto_map" in json.loads((run.folder / "model/config.json").read_text())
    )
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code.replace('"card"', repr(str(run.folder / "model"))), {})
    assert SAID.get(name.split(",")[0], "") in said.getvalue()
    assert said.getvalue()
