"""Semantic roles: how a predicate is marked and found, what a model is measured by, and what it says."""

import io
import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from datasets import Dataset
from rich.console import Console
from toys import role_labeller, write_propositions
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

import hf_llm.models  # noqa: F401  registers rnn and fnn
from hf_llm import compose, evaluate, predict, train
from hf_llm import tokenizer as tokenizers
from hf_llm.config import InputError, TokenizerConfig
from hf_llm.data.predicates import sentences
from hf_llm.metrics.roles import role_report
from hf_llm.tasks.position_rule import PositionRule
from hf_llm.tasks.propositions import MARKERS, NO_PREDICATE, UNREAD, PropositionEncoder, examples, nearest
from hf_llm.tasks.role_table import role_table
from hf_llm.tasks.semantic_role_labelling import SemanticRoleLabelling
from hf_llm.tasks.viterbi import FORBIDDEN, bio_transitions, viterbi

WORDS = ["American", "forces", "killed", "him", "."]
MARKINGS = ("markers", "segment_ids", "sep_predicate")


@pytest.fixture(scope="module")
def bert(shared_data):
    source = TokenizerConfig(pretrained=str(shared_data / "tokenizers" / "bert-base-uncased"))
    tokenizer = tokenizers.load(source, None, special_tokens=SemanticRoleLabelling.special_tokens)
    tokenizer.add_tokens(list(MARKERS), special_tokens=True)
    return tokenizer


@pytest.fixture(scope="module", params=MARKINGS)
def marking(request):
    return request.param


@pytest.fixture(scope="module")
def run(marking, tmp_path_factory):
    """A labeller for each marking."""
    options = {
        "trainer.max_steps": "500" if marking == "sep_predicate" else "250",
        "trainer.learning_rate": "3e-3",
        "trainer.per_device_train_batch_size": "16",
        "task.baseline": "true",
        "task.predicate_marking": marking,
    }
    folder = tmp_path_factory.mktemp(marking)
    options["data.files.validation"] = str(folder / "train.conll")  # few differ: all are to be learnt
    return train(compose(*role_labeller(folder, run="roles", **options)))


@pytest.mark.parametrize(
    ("way", "tokens", "types"),
    [
        ("markers", "[CLS] american forces <V> killed </V> him . [SEP]", None),
        ("segment_ids", "[CLS] american forces killed him . [SEP]", [0, 0, 0, 1, 0, 0, 0]),
        ("sep_predicate", "[CLS] american forces killed him . [SEP] killed [SEP]", [0, 0, 0, 0, 0, 0, 0, 1, 1]),
    ],
)
def test_the_predicate_is_marked(bert, way, tokens, types):
    (example,) = PropositionEncoder(bert, 32, way)([WORDS], [2])
    assert bert.convert_ids_to_tokens(example["input_ids"]) == tokens.split()
    assert example.get("token_type_ids") == types
    assert [tokens.split()[place] for place in example["first"]] == [word.lower() for word in WORDS]


def test_of_a_long_sentence_the_words_nearest_to_the_predicate_are_read(bert, marking):
    words = [f"w{i}" for i in range(100)]
    (example,) = PropositionEncoder(bert, 32, marking)([words], [70])
    assert len(example["input_ids"]) <= 32
    read = [word for word, place in enumerate(example["first"]) if place != UNREAD]
    assert read == list(range(read[0], read[-1] + 1))
    assert abs((70 - read[0]) - (read[-1] - 70)) <= 1
    ids = [example["input_ids"][example["first"][word]] for word in read]
    assert set(bert.convert_ids_to_tokens(ids)) == {"w"}


def test_nearest_words_fit_and_leave_no_room():
    for sizes, middle, room in [([1, 2, 3, 1, 5], 2, 6), ([9, 1, 9], 1, 3), ([1, 1, 1, 1], 3, 2), ([5], 0, 3)]:
        shown = nearest(sizes, middle, room)
        assert middle in shown
        total = sum(sizes[word] for word in shown)
        assert total <= max(room, sizes[middle])
        for word in (shown.start - 1, shown.stop):
            assert not 0 <= word < len(sizes) or total + sizes[word] > room


def test_rows_of_one_sentence_are_put_together():
    words = [["a", "b"], ["a", "b"], ["a", "b"], ["c"], ["c"], ["d"]]
    found = list(sentences(words, [0, 1, 0, None, None, 0]))
    assert [(sentence.row, sentence.predicates) for sentence in found] == [
        (0, [0, 1]),
        (2, [0]),
        (3, []),
        (4, []),
        (5, [0]),
    ]


def test_each_sentence_is_also_an_example_of_its_predicates():
    raw = Dataset.from_dict(
        {"words": [["a", "b"]] * 2 + [["c"]], "predicate": [0, 1, None], "tags": [[1, 2], [2, 1], [0]]}
    )
    found = examples(raw, True, (0, 1))
    assert found["predicate"] == [0, 1, NO_PREDICATE, NO_PREDICATE]
    assert found["tags"] == [[1, 2], [2, 1], [1, 1], [0]]
    assert found["example"] == [0, 1, 3, 5]
    assert examples(raw, False, (0, 1))["example"] == [0, 1]
    assert examples(raw.remove_columns("tags"), True, None)["example"] == [0, 1, 5]


def by_hand(run, marking, path):
    """Tags of each predicate, one at a time with plain transformers; and the mean loss of all that is read."""
    model = AutoModelForTokenClassification.from_pretrained(run.folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "model")
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    encoder = PropositionEncoder(tokenizer, 48, marking)
    start, after = bio_transitions(labels)
    found, true, verbs, losses, count = [], [], [], 0.0, 0
    for block in path.read_text().split("\n\n"):
        rows = [line.split("\t") for line in block.splitlines() if not line.startswith("#")]
        if not rows:
            continue
        words = [row[1] for row in rows]
        predicates = [index for index, row in enumerate(rows) if row[2] != "_"]
        cases = [(p, [row[3 + column] for row in rows]) for column, p in enumerate(predicates)]
        cases.append((None, ["B-V" if index in predicates else "O" for index in range(len(rows))]))
        for predicate, tags in cases:
            if predicate is None:
                ((window,),) = encoder.plain([words])
                inputs, first = {"input_ids": window.input_ids}, window.first
            else:
                (inputs,) = encoder([words], [predicate])
                first = inputs.pop("first")
            with torch.no_grad():
                logits = model(**{name: torch.tensor([value]) for name, value in inputs.items()}).logits[0, first]
            losses += torch.nn.functional.cross_entropy(
                logits, torch.tensor([labels.index(tag) for tag in tags]), reduction="sum"
            ).item()
            count += len(tags)
            if predicate is None:
                both = logits[:, [labels.index("O"), labels.index("B-V")]].argmax(-1)
                verbs.append((set(both.nonzero()[:, 0].tolist()), set(predicates)))
                continue
            scores = logits.log_softmax(-1)
            scores[:, labels.index("B-V")] = FORBIDDEN
            scores[predicate] = FORBIDDEN
            scores[predicate, labels.index("B-V")] = 0
            path_found = viterbi(scores[None], torch.ones(1, len(words), dtype=torch.bool), start, after)[0]
            found.append([labels[tag] for tag in path_found])
            true.append(tags)
    return found, true, verbs, losses / count


@pytest.mark.parametrize("size", [1, 5])
def test_evaluate_and_predict_are_those_of_one_predicate_at_a_time(run, marking, size, tmp_path):
    path = write_propositions(tmp_path, "held_out.conll", sentences=14)
    found, true, verbs, loss = by_hand(run, marking, path)
    asked = [f"run={run.folder}", "trainer.use_cpu=true", f"trainer.per_device_eval_batch_size={size}"]
    metrics = evaluate(compose("evaluate", *asked, f"data.files={path}"))
    assert metrics["loss"] == pytest.approx(loss, rel=1e-4)
    for name, value in role_report(found, true).items():
        assert metrics[name] == pytest.approx(value)
    right = sum(len(ours & theirs) for ours, theirs in verbs)
    assert metrics["predicate_recall"] == pytest.approx(right / sum(len(theirs) for _, theirs in verbs))
    rows = predict(compose("predict", *asked, f"input={path}"))
    assert [own["tags"] for row in rows for own in row["predicates"] if row["words"] != ["one", "two"]] == found


def test_it_learns_and_the_rule_stands_beside_it(run, marking):
    validation, rule = run.metrics["validation"], run.metrics["validation, position rule"]
    assert validation["f1"] > (0.7 if marking == "sep_predicate" else 0.9)
    assert validation["predicate_f1"] > 0.9
    assert 0 < rule["f1"] <= 1
    lines = [json.loads(line) for line in (run.folder / "predictions.jsonl").read_text().splitlines()]
    assert all(len(own["tags"]) == len(row["words"]) for row in lines for own in row["predicates"])


def test_raw_text_is_read_in_two_passes_as_if_the_predicates_were_given(run, tmp_path):
    (tmp_path / "in.txt").write_text("red cat sees two\n\none two\ncat hears one blue dog sees two\n")
    asked = [f"run={run.folder}", "trainer.use_cpu=true"]
    rows = predict(compose("predict", *asked, f"input={tmp_path / 'in.txt'}", "data.bad_rows=skip"))
    assert [[own["predicate"] for own in row["predicates"]] for row in rows] == [[2], [], [1, 5]]
    given = [{"words": row["words"], "predicate": own["predicate"]} for row in rows for own in row["predicates"]]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    again = predict(compose("predict", *asked, f"input={tmp_path / 'in.jsonl'}"))
    assert [row["predicates"][0] for row in again] == [own for row in rows for own in row["predicates"]]
    first = rows[0]["predicates"][0]["arguments"]
    assert first == [
        {"role": "A0", "text": "red cat", "spans": ((0, 2),)},
        {"role": "A1", "text": "two", "spans": ((3, 4),)},
    ]


def test_a_predicate_is_given_by_its_number_or_its_word(run, tmp_path):
    given = [{"text": "red cat sees two.", "predicate": "sees"}]
    given += [{"words": ["red", "cat", "sees", "two", "."], "predicate": 2}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    rows = predict(compose("predict", f"run={run.folder}", "trainer.use_cpu=true", f"input={tmp_path / 'in.jsonl'}"))
    assert rows[0] == rows[1]
    assert rows[0]["predicates"][0]["predicate"] == 2


def test_the_pipeline_of_transformers_says_the_same(run, marking):
    tag = pipeline("token-classification", model=str(run.folder / "model"), ignore_labels=[])
    pieces = tag("red cat sees two")
    assert [piece["entity"] for piece in pieces] == ["O", "O", "B-V", "O"]
    if marking == "markers":
        pieces = {piece["word"]: piece["entity"] for piece in tag("red cat <V> sees </V> two")}
        assert [pieces[word] for word in ("red", "cat", "sees", "two")] == ["B-A0", "I-A0", "B-V", "B-A1"]


def test_a_tag_that_the_model_does_not_know_counts_as_missed(run, tmp_path):
    row = {
        "words": ["red", "cat", "sees", "two", "one"],
        "predicate": 2,
        "tags": ["B-A0", "I-A0", "B-V", "B-A1", "B-AM"],
    }
    (tmp_path / "new.jsonl").write_text(json.dumps(row) + "\n")
    metrics = evaluate(
        compose("evaluate", f"run={run.folder}", "trainer.use_cpu=true", f"data.files={tmp_path / 'new.jsonl'}")
    )
    assert metrics["recall_AM"] == 0
    assert metrics["recall"] == pytest.approx((metrics["recall_A0"] + metrics["recall_A1"]) / 3)
    assert np.isfinite(metrics["loss"])


@pytest.mark.parametrize("arch", ["rnn", "fnn"])
def test_other_architectures_learn_too(arch, tmp_path):
    more = ["model.config.bidirectional=true"] if arch == "rnn" else []
    options = {"trainer.max_steps": "100", "trainer.learning_rate": "1e-2", "run": "roles"}
    run = train(compose(*role_labeller(tmp_path, arch, **options), *more))
    assert run.metrics["validation"]["f1"] > 0.5


def test_without_identification_predicates_have_to_be_given(tmp_path):
    run = train(compose(*role_labeller(tmp_path, run="roles", **{"task.identify_predicates": "false"})))
    assert "predicate_f1" not in run.metrics["validation"]
    (tmp_path / "in.txt").write_text("red cat sees two\n")
    asked = ["predict", f"run={run.folder}", "trainer.use_cpu=true"]
    with pytest.raises(InputError, match=r"no row of the input has a predicate"):
        predict(compose(*asked, f"input={tmp_path / 'in.txt'}"))
    path = write_propositions(tmp_path, "new.conll", sentences=3)  # the first has no predicate, the last has two
    rows = predict(compose(*asked, f"input={path}"))
    assert [len(row["predicates"]) for row in rows] == [0, 1, 1, 1]
    assert evaluate(compose("evaluate", *asked[1:], f"data.files={path}"))["loss"] > 0
    (tmp_path / "in.jsonl").write_text('{"words": ["red"]}\n{"words": ["cat", "sees"], "predicate": 1}\n')
    assert [len(row["predicates"]) for row in predict(compose(*asked, f"input={tmp_path / 'in.jsonl'}"))] == [0, 1]


def test_the_rule_goes_by_positions_and_is_fitted_on_train():
    words = [["he", "saw", "it"], ["she", "saw", "him"], ["was", "gone"], [",", "the", "dog", "barked"]]
    tags = [["B-A0", "B-V", "B-A1"]] * 2 + [["B-V", "O"], ["O", "O", "B-A0", "B-V"]]
    rule = PositionRule.fitted((words, [1, 1, 0, 3], tags))
    assert rule(["now", "they", "saw", "her", ",", "too"], 2) == ["O", "B-A0", "B-V", "B-A1", "O", "O"]
    assert rule(["it", "was", "gone"], 1) == ["O", "B-V", "O"]
    assert rule(["cats", "purr", "loudly"], 1) == ["B-A0", "B-V", "B-A1"]


def test_a_person_reads_a_table_and_no_markup_of_theirs():
    words = ["[red]", "cat", "sees", ":dog:"]
    arguments = [
        {"role": "A0", "text": "[red] cat", "spans": [(0, 2)]},
        {"role": "ARGM-TMP", "text": ":dog:", "spans": [(3, 4)]},
    ]
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    console.print(role_table({"words": words, "predicates": [{"word": "sees", "arguments": arguments}]}))
    shown = console.file.getvalue()
    assert "[red] cat" in shown
    assert ":dog:" in shown
    assert "\x1b[32mA0" in shown  # green
    console.print(role_table({"words": words, "predicates": []}))
    assert "no predicate" in console.file.getvalue()


def test_the_documented_command_names_options_that_there_are():
    page = (ROOT / "docs" / "semantic_role_labelling.md").read_text()
    assert page.splitlines()[2].strip().startswith("hf-llm train task=semantic_role_labelling")
