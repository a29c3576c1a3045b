"""The notebooks run from top to bottom, offline, and are committed without outputs."""

import json
import os

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# What each is to have made in the end: an expression that holds.
MADE = {
    "train_gpt2_on_your_own_text": "len(samples) == 3 and all(samples.values()) and another['bits_per_byte'] > 0",
    "fine_tune_bert_and_read_precision_and_recall": "new.label[0] == 'Letter' and len(worst) and len(table) == 7",
    "write_an_rnn_of_your_own_and_publish_it": "same and 'tiny_gru.py' in set(files.file) and len(comparison) == 3",
}


def test_each_is_here():
    assert [path.stem for path in NOTEBOOKS] == sorted(MADE)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_clean_with_badge_and_one_install_cell(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    assert f"/notebooks/{path.name})" in notebook.cells[0].source
    assert "colab-badge" in notebook.cells[0].source
    assert sum("%pip install" in cell.source for cell in cells) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "2"))
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(f"print('made:', bool({MADE[path.stem]}))"))
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = {kind for output in outputs for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= shown  # a picture, and a table
    assert "made: True" in json.dumps(notebook.cells[-1].outputs)
    assert not any(output.output_type == "error" for output in outputs)
