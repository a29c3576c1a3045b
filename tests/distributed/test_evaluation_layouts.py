"""An evaluation has the same figures, and predictions the same bytes, on any number of processes."""

import itertools
import json
from pathlib import Path

import pytest
from launched import launch
from toys import classifier, language_model

from hf_llm import InputError, compose, predict, train

EACH = Path(__file__).parent / "each.py"
SIZES = (1, 2, 5, 7)  # rows, or blocks: fewer than processes, and none that three divides


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of runs, and held-out files of each of `SIZES`."""
    folder = tmp_path_factory.mktemp("trained")
    train(compose(*classifier(folder, "bert", run="bert")))
    for arch in ("gpt2", "rnn", "fnn"):
        train(compose(*classifier(folder, arch, run=arch)))
        train(compose(*language_model(folder, arch, run=f"{arch}_lm")))
    words = ["red cat", "one", "blue dog green three two", "dog", "two blue two", "green", "cat dog red one"]
    for size in SIZES:
        rows = [f"{'colour' if i % 2 == 0 else 'thing'},{words[i]}\n" for i in range(size)]
        (folder / f"{size}.csv").write_text("label,text\n" + "".join(rows))
        (folder / f"{size}.txt").write_text(("red blue green " * 20)[: 16 * size - 5])
    return folder


def every(folder):
    """(verb, overrides) of each evaluation and prediction."""
    for size, batch in itertools.product(SIZES, (1, 3)):
        same = ["trainer.use_cpu=true", f"trainer.per_device_eval_batch_size={batch}"]
        asked = [f"run={folder}/outputs/bert", *same]
        yield "evaluate", [*asked, f"data.files={folder}/{size}.csv"]
        yield "predict", [*asked, f"input={folder}/{size}.csv"]
        for run, streaming in (("gpt2_lm", "false"), ("gpt2_lm", "true"), ("rnn_lm", "false"), ("fnn_lm", "false")):
            source = [f"data.files={folder}/{size}.txt", f"data.streaming={streaming}"]
            yield "evaluate", [f"run={folder}/outputs/{run}", *same, *source]
    for run in ("gpt2", "rnn", "fnn"):
        yield "predict", [f"run={folder}/outputs/{run}", "trainer.use_cpu=true", f"input={folder}/7.csv"]


@pytest.mark.slow
def test_every_figure_is_that_of_one_process(trained):
    calls = trained / "calls.json"
    calls.write_text(json.dumps(list(every(trained))))
    found = {}
    for processes in (1, 2, 3):
        results = trained / f"{processes}.json"
        launch(trained, processes, EACH, calls, results)
        found[processes] = json.loads(results.read_text())
    for number, (verb, asked) in enumerate(every(trained)):
        one = found[1][number]
        assert found[2][number] == one, (verb, asked)
        assert found[3][number] == one, (verb, asked)
        if verb == "predict":
            size = int(Path(asked[-1]).stem)
            texts = [line.split(",")[1] for line in (trained / f"{size}.csv").read_text().splitlines()[1:]]
            assert [row["text"] for row in one] == texts


@pytest.mark.slow
def test_the_verbs_of_three_processes_write_once_what_one_writes(trained):
    asked = [f"run={trained}/outputs/bert", "trainer.use_cpu=true", "trainer.per_device_eval_batch_size=2"]
    said, written = {}, {}
    for processes in (1, 3):
        output = trained / f"by_{processes}"
        verb = ["-m", "hf_llm", "predict", *asked, f"input={trained}/7.csv"]
        said[processes] = launch(trained, processes, *verb)
        launch(trained, processes, *verb, f"output={output}.jsonl")
        where = [f"data.files={trained}/7.csv", f"output={output}.json"]
        table = launch(trained, processes, "-m", "hf_llm", "evaluate", *asked, *where)
        written[processes] = (
            (trained / f"{output}.jsonl").read_bytes(),
            (trained / f"{output}.json").read_bytes(),
            table,
        )
    assert said[3] == said[1]
    assert len(said[1].splitlines()) == 7
    assert written[3] == written[1]
    assert written[1][0].decode() == said[1]


def test_several_processes_do_not_share_standard_input(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"^input=-: several processes cannot share standard input; give input=FILE"):
        predict(compose("predict", f"run={tmp_path}"))
