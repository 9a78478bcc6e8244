"""Cross-validation: a run for each part of train, and one on all rows, which the others score."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune import baseline, data, recipe, recipe_file, splits
from finetune.problems import InputError
from finetune.sources import load_rows
from tests.runs import assert_same, results, run_here

WORDS = "data.source=few", "data.validation=none", "train.epochs=2", "run.folds=3"


@pytest.fixture
def few(here):
    """60 documents, without splits."""
    lines = (here / "data" / "train.jsonl").read_text().splitlines(keepends=True)
    (here / "few").mkdir()
    (here / "few" / "train.jsonl").write_text("".join(lines[:60]))
    return here


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), min_size=1, max_size=90),
    st.integers(2, 7),
    st.integers(0, 3),
)
def test_parts_are_alike(rows, many, seed):
    keys = np.array([key for key, _ in rows])
    labels = np.array([label for _, label in rows])
    parts = splits.folds(keys, labels, many, seed)
    assert (parts == splits.folds(keys, labels, many, seed)).all()
    assert set(parts.tolist()) <= set(range(many))
    for key in set(keys.tolist()):  # the same text is never on both sides
        assert len(set(parts[keys == key].tolist())) == 1
    _, first = np.unique(keys, return_index=True)
    sizes = np.bincount(parts[first], minlength=many)
    assert sizes.max() - sizes.min() <= 1
    for label in range(4):
        of_label = np.bincount(parts[first][labels[first] == label], minlength=many)
        assert of_label.max() - of_label.min() <= 1


def test_every_row_is_judged_by_a_run_that_had_not_seen_it(few, capsys):
    run_here("run.dir=run", *WORDS)
    said = " ".join(capsys.readouterr().out.split())
    assert "Fold 1 of 3" in said
    assert "test: train in 3 parts, each judged by a model that had not seen it" in said
    assert "Cross-validated, 3 folds: accuracy 0." in said
    folders = [few / "run" / f"fold-{i}" for i in (1, 2, 3)]
    judged = {}
    for i, folder in enumerate(folders, 1):
        found = results(folder)
        assert found["data"]["splits"]["train"]["rows"] == 40
        assert found["data"]["splits"]["test"]["classes"].keys() == {"a", "b", "c"}
        assert found["data"]["splits"]["test"]["origin"] == (
            f"part {i}/3 of train.jsonl, stratified, seed 0"
        )
        assert "validation" not in found["data"]["splits"]
        for line in (folder / "predictions" / "test.jsonl").read_text().splitlines():
            row = json.loads(line)
            assert row["row"] not in judged
            judged[row["row"]] = row
    whole = results(few / "run" / "all")
    assert whole["data"]["splits"]["train"]["rows"] == 60
    assert whole["data"]["folds"] == 3
    assert whole["train"]["rows"] == 120
    assert len(judged) == whole["test"]["rows"] == 60
    for line in (few / "run" / "all" / "predictions" / "test.jsonl").read_text().splitlines():
        row = json.loads(line)
        then = judged[row["row"]]
        assert (row["label"], row["predicted"]) == (then["label"], then["predicted"])
        assert row["probabilities"] == pytest.approx(then["probabilities"], abs=1e-5)
    right = [row["label"] == row["predicted"] for row in judged.values()]
    assert whole["test"]["accuracy"] == pytest.approx(np.mean(right))
    # TF-IDF is judged in the same way.
    alone = [results(folder)["baselines"]["tfidf"]["accuracy"] for folder in folders]
    assert whole["baselines"]["tfidf"]["accuracy"] == pytest.approx(np.mean(alone))
    page = (few / "run" / "all" / "report.html").read_text()
    assert "each document was judged by the one of 3 models that had not seen its part" in page
    card = (few / "run" / "all" / "model" / "README.md").read_text()
    assert "By cross-validation: each of the 60 documents" in card


def test_a_fold_alone_and_all_of_them_again(few):
    run_here("run.dir=run", *WORDS)
    words = "data.source=few", "data.validation=none", "train.epochs=2"
    run_here("run.dir=second", *words, "data.fold=2/3")
    assert_same(few / "run" / "fold-2", few / "second")
    kept = recipe_file.load(few / "run" / "all" / "recipe.yaml")
    assert kept.run.folds == 3
    # Finished runs stay as they are, and what is missing is done.
    before = (few / "run" / "fold-1" / "results.json").read_bytes()
    (few / "run" / "fold-3" / "results.json").unlink()
    run_here("run.dir=run", *WORDS, "run.resume=auto")
    assert (few / "run" / "fold-1" / "results.json").read_bytes() == before
    assert (few / "run" / "fold-3" / "results.json").is_file()


def test_a_given_test_split_plays_no_role(here):
    choices = recipe.Data(source="data", fold="1/2", validation="none")
    corpus = data.prepare(load_rows(choices), choices)
    assert [len(s) for s in (corpus.train, corpus.validation, corpus.test)] == [46, 0, 47]
    whole = data.prepare(load_rows(choices), choices.model_copy(update={"fold": None}), folds=2)
    assert [len(s) for s in (whole.train, whole.validation, whole.test)] == [93, 0, 93]
    assert [whole.train.texts[i] for i in np.flatnonzero(whole.folds == 0)] == [*corpus.test.texts]
    assert baseline.tfidf(whole).logits.shape == (93, 3)


def test_rows_are_drawn_before_they_are_dealt(here):
    choices = recipe.Data(source="data", fold="1/2", validation="none", rows_per_class=6)
    corpus = data.prepare(load_rows(choices), choices)
    assert [len(corpus.train), len(corpus.test)] == [9, 9]
    assert np.bincount(corpus.test.labels).tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["run.folds=3", "run.seeds=[1,2]"],
            "run.folds: expected one of run.folds and run.seeds alone, got both",
        ),
        (["data.fold=3/2"], "data.fold: expected one of two parts or more, as 2/5, got 3/2"),
        (["data.fold=1/1"], "data.fold: expected one of two parts or more, as 2/5, got 1/1"),
    ],
)
def test_what_cannot_be(here, words, message):
    with pytest.raises(InputError) as caught:
        recipe_file.load("tiny.yaml", words)
    assert str(caught.value) == f"command line: {message}"


def test_more_parts_than_documents(here, capsys):
    run_here("run.folds=30", "data.max_train_rows=20", "run.dir=run", code=2)
    assert capsys.readouterr().err == (
        "error: run.folds: expected at least 30 different texts in train, found 20\n"
    )
    run_here("run.folds=3", "run.resume=auto", code=2)
    assert capsys.readouterr().err.startswith("error: run.resume: expected auto with run.folds")
