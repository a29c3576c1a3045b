"""The pictures, for data of any size and labels of any text."""

import pytest
from matplotlib import pyplot as plt

from hf_llm import plots


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn, kept open."""
    figures = []
    monkeypatch.setattr(plots.plt, "close", figures.append)
    yield figures
    monkeypatch.undo()
    plt.close("all")


def texts(axes):
    return [text.get_text() for text in axes.texts]


def names(axes):
    return [tick.get_text() for tick in axes.get_yticklabels()]


def test_a_small_confusion_matrix_names_its_classes_and_counts(tmp_path, drawn):
    plots.confusion_matrix([[3, 1], [0, 0]], ["ham", "spam"], tmp_path / "c.png", title="test")
    (axes,) = drawn[0].axes
    assert texts(axes) == ["3", "1", "0", "0"]
    assert names(axes) == ["ham", "spam"]
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25], [0, 0]]


@pytest.mark.parametrize(("classes", "numbered", "named"), [(30, True, True), (31, False, True), (1000, False, False)])
def test_a_large_confusion_matrix_fits_a_page(classes, numbered, named, tmp_path, drawn):
    labels = [f"class {i}" for i in range(classes)]
    plots.confusion_matrix([[1] * classes] * classes, labels, tmp_path / "c.png")
    (axes,) = drawn[0].axes
    assert max(drawn[0].get_size_inches()) <= 20
    assert bool(texts(axes)) == numbered
    assert (names(axes) == labels) == named


def test_a_dollar_sign_is_no_formula(tmp_path):
    labels = ["$x^$", "$5", r"\$", "50 % of $5_$"]
    plots.confusion_matrix([[1] * 4] * 4, labels, tmp_path / "c.png", title="$^$")
    assert (tmp_path / "c.png").stat().st_size > 0
