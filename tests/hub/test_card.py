"""The model card: its figures are those of the run, its metadata is what the Hub accepts, in both languages."""

import json
import math
import re

import pytest
import toys
import yaml
from huggingface_hub import ModelCard, metadata_load

from hf_llm import compose, train
from hf_llm.hub import card
from hf_llm.hub.words import WORDS
from hf_llm.runs import load_config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    path = toys.write_csv(folder)
    path.write_text(path.read_text() + "colour,\n")  # a row with no text, to be left out
    options = [f"data.files.train={path}", f"runs_dir={folder / 'outputs'}", "data.bad_rows=skip", "run=spam"]
    options += ["task=text_classification", "tokenizer=word", "task.baseline=word", "card.license=apache-2.0"]
    trained = train(compose("train", *options, *toys.SMALL["bert"], *toys.QUICK))
    assert (trained.folder / "README.md").is_file()
    return trained


def edit(run, **values):
    """The card that the run would have with other metrics."""
    text = (run.folder / "metrics.json").read_text()
    metrics = json.loads(text)
    metrics["validation"].update(values)
    try:
        (run.folder / "metrics.json").write_text(json.dumps(metrics))
        return card.text(run.folder, load_config(run.folder), "me/spam")
    finally:
        (run.folder / "metrics.json").write_text(text)


def wilson(found, of, z=1.959963984540054):
    """By the formula of Wilson (1927), written out."""
    p = found / of
    middle, spread = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return (middle - spread) / (1 + z * z / of), (middle + spread) / (1 + z * z / of)


def test_the_metadata_is_what_the_hub_reads_with_the_runs_own_figures(run):
    found = ModelCard.load(run.folder / "README.md").data
    assert (found.license, found.library_name, found.pipeline_tag) == (
        "apache-2.0",
        "transformers",
        "text-classification",
    )
    assert found.tags == ["hf_llm", "bert"]
    results = {result.metric_type: result.metric_value for result in found.eval_results}
    assert {(result.dataset_split, result.dataset_type) for result in found.eval_results} == {("validation", "local")}
    for name in ("accuracy", "precision", "recall", "f1"):
        assert results[name] == run.metrics["validation"][name]
    assert metadata_load(run.folder / "README.md")["model-index"][0]["name"] == "spam"


def test_precision_and_recall_of_each_class_have_the_intervals_of_their_counts(run):
    matrix = [[40, 10], [5, 45]]
    text = edit(run, confusion_matrix=matrix)
    rows = dict(re.findall(r"^\| (colour|thing) \| (.*) \|$", text, re.MULTILINE))
    for label, true, found, said in (("colour", 50, 40, 45), ("thing", 50, 45, 55)):
        (low, high), (low_r, high_r) = wilson(found, said), wilson(found, true)
        precision = f"{found / said:.3f} ({low:.3f}–{high:.3f})"
        assert rows[label] == f"{true} | {precision} | {found / true:.3f} ({low_r:.3f}–{high_r:.3f})"
    low, high = wilson(85, 100)
    assert f"accuracy of validation: 0.8500, 95 % interval {low:.3f} to {high:.3f} (Wilson 1927), 100 rows.\n" in text
    assert "colour | 0 | –" in edit(run, confusion_matrix=[[0, 0], [0, 9]])  # never true, never said


def test_the_data_are_accounted_for(run):
    text = (run.folder / "README.md").read_text()
    record = json.loads((run.folder / "environment.json").read_text())
    assert "| train | 91 | 81 | 1 empty text in column 'text' |" in text
    assert "| validation | taken from train | 9 | 0 |" in text
    assert record["data_fingerprint"] in text
    assert record["parameters"] == run.model.num_parameters()
    assert "| validation | validation, tf-idf |" in text or "validation, " in text  # the baseline beside it


def test_every_phrase_and_heading_is_there_in_both_languages(run):
    assert WORDS["en"].keys() == WORDS["zh"].keys()
    for key, phrase in WORDS["en"].items():
        assert set(re.findall(r"\{\w+\}", phrase)) == set(re.findall(r"\{\w+\}", WORDS["zh"][key])), key
    cfg = load_config(run.folder)
    english = card.text(run.folder, cfg, "me/spam")
    cfg.card.language = "zh"
    chinese = card.text(run.folder, cfg, "me/spam")
    assert "## 使用方法" in chinese
    assert chinese.count("\n## ") == english.count("\n## ") == 5
    code = r"```python\n.*?```"
    assert re.search(code, chinese, re.DOTALL)[0] == re.search(code, english, re.DOTALL)[0]
    assert not re.search(r"\$\w+|\{\w+\}", re.sub(r"```.*?```", "", english + chinese, flags=re.DOTALL))


def test_a_card_that_was_edited_stays_and_another_is_written_anew(run):
    path, cfg = run.folder / "README.md", load_config(run.folder)
    written = path.read_text()
    cfg.card.description = "It finds colours."
    card.write(run.folder, cfg)
    assert "It finds colours." in path.read_text()
    path.write_text(path.read_text().replace("It finds colours.", "By hand."))
    card.write(run.folder, cfg)
    assert "By hand." in path.read_text()
    path.write_text(written)


def test_labels_are_shown_as_they_are_whatever_is_in_them(run, tmp_path):
    path = run.folder / "model" / "config.json"
    text = path.read_text()
    try:
        config = json.loads(text)
        config["id2label"] = {"0": "<img src=x>|*a*", "1": "[b](http://x)"}
        path.write_text(json.dumps(config))
        body = card.text(run.folder, load_config(run.folder), "me/spam")
    finally:
        path.write_text(text)
    assert r"| \<img src=x\>\|\*a\* |" in body
    assert r"| \[b\](http://x) |" in body


def test_a_measurement_of_codecarbon_takes_the_place_of_the_estimate(run):
    cfg = load_config(run.folder)
    assert "Green Algorithms" in card.text(run.folder, cfg, "me/spam")
    path = run.folder / "emissions.csv"
    # two starts of the training, the first of which wrote twice
    path.write_text("timestamp,run_id,energy_consumed\n1,a,0.125\n2,a,0.25\n3,b,0.5\n")
    try:
        body = card.text(run.folder, cfg, "me/spam")
    finally:
        path.unlink()
    assert "0.75 kWh, measured by CodeCarbon" in body
    assert "Green Algorithms" not in body


def test_the_estimate_of_energy_is_power_times_time(run):
    path = run.folder / "environment.json"
    text = path.read_text()
    record = json.loads(text)
    record["hardware"] = {"processor": "x", "threads": 2, "memory_gib": 10.0, "accelerators": ["G"]}
    path.write_text(json.dumps(record))
    metrics_path = run.folder / "metrics.json"
    metrics_text = metrics_path.read_text()
    metrics_path.write_text(json.dumps({**json.loads(metrics_text), "train": {"steps": 1, "runtime": 7200.0}}))
    try:
        body = card.text(run.folder, load_config(run.folder), "me/spam")
    finally:
        path.write_text(text)
        metrics_path.write_text(metrics_text)
    watts = 2 * 12 + 10 * 0.3725 + 200
    assert f"about {watts * 2 / 1000:.2g} kWh: {watts:.0f} W assumed" in body


def test_where_nothing_was_held_out_the_card_says_so(run):
    path = run.folder / "metrics.json"
    text = path.read_text()
    path.write_text(json.dumps({"train": json.loads(text)["train"]}))
    try:
        body = card.text(run.folder, load_config(run.folder), "me/spam")
    finally:
        path.write_text(text)
    assert "## Results\n\nNothing was measured" in body


def test_the_configuration_in_it_is_the_runs_without_its_machine(run):
    body = (run.folder / "README.md").read_text()
    config = yaml.safe_load(re.search(r"```yaml\n(.*?)```", body, re.DOTALL)[1])
    assert config["data"]["files"] == {"train": "train.csv"}
    assert "launcher" not in config
    assert "runs_dir" not in config
    assert str(run.folder.parent) not in body


def test_nothing_of_a_record_is_markup_in_the_card(run):
    """Whoever trained a run that was pulled may have written anything into its records."""
    evil = "1 |<img src=x>\n\n# Buy `x` [b](http://x)"
    path, metrics = run.folder / "environment.json", run.folder / "metrics.json"
    texts = path.read_text(), metrics.read_text()
    record, measured = map(json.loads, texts)
    record |= dict.fromkeys(("git_commit", "python", "hf_llm", "seed", "data_fingerprint"), evil)
    record |= {"command": f"hf-llm train\n```\n{evil}\n````", "packages": {evil: evil}, "rows": {evil: 1}}
    record["read"] = {evil: {"read": 1, "left_out": {evil: 1}}}
    measured[evil] = {**measured["validation"], evil: 1.0}
    config = run.folder / "config.yaml"
    settings = config.read_text()
    try:
        path.write_text(json.dumps(record))
        metrics.write_text(json.dumps(measured))
        config.write_text(yaml.safe_dump({**yaml.safe_load(settings), "run": "a\n```\n# Buy `x`"}))
        body = card.text(run.folder, load_config(run.folder), "me/spam").split("\n---\n", 1)[1]
    finally:
        path.write_text(texts[0])
        metrics.write_text(texts[1])
        config.write_text(settings)
    outside = re.sub(r"^(`{3,})\w+\n.*?^\1$", "", body, flags=re.DOTALL | re.MULTILINE)
    assert "Buy" in outside
    assert not re.search(r"^# Buy|(?<!\\)<img|(?<!\\)\[b\]|(?<!\\)`x|^```", outside, re.MULTILINE)
    assert "git commit" not in outside


def test_a_card_that_is_no_text_was_edited(tmp_path):
    (tmp_path / "README.md").write_bytes(b"\xff\xfe")
    assert card.is_edited(tmp_path / "README.md")
