"""The tables that a person sees."""

import logging

from hf_llm import console


def test_labels_and_titles_are_printed_as_they_stand(capsys):
    labels = ["[/b]", "[red]", ":cat:", "back\\"]
    metrics = {f"{score}_{label}": 0.5 for label in labels for score in console.SCORES}
    console.show_metrics({"validation": {"accuracy": 0.25, **metrics, "confusion_matrix": []}}, title="runs/[bold]x")
    out = capsys.readouterr().out
    assert all(text in out for text in [*labels, "runs/[bold]x", "0.2500", "0.5000"])


def test_codes_that_a_terminal_obeys_are_not_printed_and_the_scripts_of_the_world_are(capsys):
    label = "\x1b[31mred\x9b2J\u202e 红\u3000👩\u200d🚀"
    metrics = {f"{score}_{label}": 0.5 for score in console.SCORES}
    console.show_metrics({"test\x1b[2J": metrics}, title="runs/\x1b]0;x\x07")
    console.say(f"said: {label}")
    told = capsys.readouterr()
    for text in (told.out, told.err):
        assert "?[31mred?2J? 红\u3000👩\u200d🚀" in text
        assert not {"\x1b", "\x9b", "\x07", "\u202e"} & set(text)


def test_classes_are_shown_of_the_last_split_not_of_its_baseline(capsys):
    figures = {f"{score}_PER": 0.5 for score in console.SCORES}
    baseline = dict.fromkeys(figures, 0.125)
    console.show_metrics({"validation": {"loss": 1.0, **figures}, "validation, names": baseline}, title="x")
    out = capsys.readouterr().out
    assert "validation, by class" in out
    assert "0.5000" in out
    assert "0.1250" not in out


def test_a_hub_that_does_not_answer_is_told_of_once(caplog):
    console.set_up()
    hub = logging.getLogger("huggingface_hub.utils._http")
    for handler in hub.filters:
        handler.told = False
    hub.propagate, before = True, hub.propagate
    for attempt in range(5):
        hub.warning("'[Errno -2] Name or service not known' thrown while requesting HEAD https://hub/x")
        hub.warning(f"Retrying in {2**attempt}s [Retry {attempt}/5].")
    hub.warning("Rate limited. Waiting 3.0s before retry [Retry 1/5].")
    hub.propagate = before
    told = [record.getMessage() for record in caplog.records if record.name == hub.name]
    assert len(told) == 2
    assert told[1].startswith("Rate limited")
