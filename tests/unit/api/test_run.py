"""A finished run as Python has it: its numbers, its model, its page."""

import os
from pathlib import Path

import pytest

import finetune
from finetune.api.run import Run
from finetune.config.schema import Recipe


def test_it_has_the_runs_numbers_recipe_and_files(run):
    assert run.test is run.results.test
    assert run.test.accuracy == run.test.metric("accuracy")
    assert run.validation.rows == 13
    assert run.report == run.folder / "report.html"
    assert isinstance(run.recipe, Recipe)
    assert run.recipe.train.batch_size == 8
    assert (run.seeds, run.folds, run.spread) == ((), (), None)
    assert os.fspath(run) == str(run.folder)


def test_its_classifier_is_loaded_once_and_predicts(run):
    assert run.classifier is run.classifier
    assert run.classifier("good team")[0]["label"] in "abc"
    assert finetune.Classifier(run).identity == run.classifier.identity


def test_it_shows_its_score(run):
    value = f"{run.test.accuracy:.4f}"
    assert repr(run).startswith(f"<Run {run.folder}: Test accuracy {value} (95 % interval ")
    assert repr(run).endswith("), 17 documents>")
    page = run._repr_html_()
    assert value in page
    assert 'report.html" target="_blank">' in page
    shown = run.show_report(height=300)._repr_html_()
    assert shown.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert "height:300px" in shown


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "expected the folder of a finished run, found no results.json in it"),
        ({"recipe.yaml": ""}, "the run in it is not finished; to go on, train the same with "),
    ],
)
def test_what_is_no_finished_run_is_refused(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(finetune.InputError, match=message):
        Run(tmp_path)
    with pytest.raises(finetune.InputError, match="expected the folder of a finished run"):
        Run(Path("nowhere"))
