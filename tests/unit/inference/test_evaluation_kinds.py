"""Every kind of model on the rows of its run's test split: the very numbers of the run."""

import json

import pytest

import finetune
from finetune.cli.main import main
from finetune.inference.engines import ModelSource
from finetune.inference.evaluation_job import EvaluationOptions, evaluate_rows
from finetune.inference.labelled_input import LabelledInput
from finetune.reporting.results_model import read_results
from tests.unit.api.conftest import SHORT

# How the rows are written, and the keys of a recipe that read them.
KINDS = {
    "several labels": (
        lambda text, label: {"text": text, "label": [label, *["d"] * (len(text) % 3 == 0)]},
        {},
    ),
    "several labels in a cell": (
        lambda text, label: {"text": text, "label": label + "|d" * (len(text) % 3 == 0)},
        {"data": {"source": "rows", "label_separator": "|"}},
    ),
    "a column for each label": (
        lambda text, label: {"text": text, **{one: int(one == label) for one in "abc"}},
        {"data": {"source": "rows", "label": ["a", "b", "c"]}},
    ),
    "pairs": (
        lambda text, label: {"one": text[:20], "two": text[20:], "label": label},
        {"data": {"source": "rows", "text": "one", "text_pair": "two"}},
    ),
    "a template": (
        lambda text, label: {"title": text[:9], "body": text[9:], "label": label},
        {"data": {"source": "rows", "template": "{title}: {body}"}},
    ),
    "windows": (
        lambda text, label: {"text": f"{text} {text}", "label": label},
        {
            "data": {
                "source": "rows",
                "truncation": "windows",
                "max_length": 12,
                "window_pooling": "max",
            }
        },
    ),
    "abstention": (
        lambda text, label: {"text": text, "label": label},
        {"score": {"target_accuracy": 0.9}},
    ),
    "a native head": (
        lambda text, label: {"text": text, "label": label},
        {"model": {"source": "encoder", "head": "native"}},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_test_split_of_every_kind_of_run(here, kind):
    make_row, keys = KINDS[kind]
    write_splits(here, make_row)
    run = finetune.train(**{"model": "encoder", "data": "rows", **SHORT, **keys})
    results = read_results(run.folder)
    found = evaluate(run.folder)
    assert found.is_test_of_run
    for key in ("test", "classes", "confusion", "truncation", "mistakes"):
        assert getattr(found, key) == getattr(results, key)
    if results.abstention is not None:
        assert found.abstention.test == results.abstention.test


def test_a_folder_for_onnx_runtime(whole, here):
    words = ["export", str(whole), "onnx", "--data", "data/test.jsonl", "--threads", "1"]
    assert main(words) == 0
    found = evaluate(here / "onnx", here / "data" / "test.jsonl")
    assert found.model.run is None
    assert found.test.metric("accuracy") == read_results(whole).test.metric("accuracy")


def evaluate(model, source="rows"):
    given = LabelledInput(str(source), split=None)
    return evaluate_rows(EvaluationOptions(ModelSource(str(model)), given)).evaluation


def write_splits(folder, make_row):
    """The documents' splits, each row written as its kind has it."""
    (folder / "rows").mkdir()
    for file in (folder / "data").iterdir():
        rows = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
        made = (json.dumps(make_row(**row)) + "\n" for row in rows)
        (folder / "rows" / file.name).write_text("".join(made), encoding="utf-8")
