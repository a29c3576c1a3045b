"""The tables that a person sees."""

from hf_llm import console


def test_labels_and_titles_are_printed_as_they_stand(capsys):
    labels = ["[/b]", "[red]", ":cat:", "back\\"]
    metrics = {f"{score}_{label}": 0.5 for label in labels for score in console.SCORES}
    console.show_metrics({"validation": {"accuracy": 0.25, **metrics, "confusion_matrix": []}}, title="runs/[bold]x")
    out = capsys.readouterr().out
    assert all(text in out for text in [*labels, "runs/[bold]x", "0.2500", "0.5000"])
