"""Few rows: so many of each label, drawn by a seed, and steps as the measure of a run."""

from collections import Counter

import numpy as np
import pytest

from finetune import data, recipe, recipe_file
from finetune.problems import InputError
from finetune.sources import load_rows
from tests.runs import results, run_here


def drawn(most, seed):
    choices = recipe.Data(source="data", rows_per_class=most, split_seed=seed)
    return data.prepare(load_rows(choices), choices)


def test_so_many_rows_of_each_label(here):
    corpus = drawn(8, 0)
    assert Counter(corpus.train.labels.tolist()) == {0: 8, 1: 8, 2: 8}
    assert corpus.train.texts == drawn(8, 0).train.texts
    assert set(corpus.train.texts) != set(drawn(8, 1).train.texts)
    rules = [finding.rule for finding in corpus.findings]
    assert "24 drawn by seed 0 (data.rows_per_class: 8)" in rules
    # A smaller draw is a part of a larger one of the same seed.
    assert set(drawn(4, 0).train.texts) < set(corpus.train.texts)
    assert len(drawn(500, 0).train) == 93
    assert np.bincount(corpus.validation.labels).sum() == 13


def test_steps_are_the_measure(here, capsys):
    run_here("run.dir=run", "data.rows_per_class=4", "train.min_steps=7", "score.every=4")
    assert results(here / "run")["train"]["steps"] == 7
    assert "7 steps of 8 documents, 3 epochs, or as many as 7 steps take; sgd" in (
        " ".join(capsys.readouterr().out.split())
    )
    run_here("run.dir=long", "train.min_steps=7", "train.epochs=1")
    assert results(here / "long")["train"]["steps"] == 12


def test_what_cannot_be(here):
    with pytest.raises(InputError) as caught:
        recipe_file.load(
            "tiny.yaml",
            ["data.rows_per_class=8", "data.max_train_rows=9", "train.min_steps=9"],
        )
    assert str(caught.value) == (
        "command line: data.rows_per_class: expected null with data.max_train_rows, which draws as "
        "well"
    )
    with pytest.raises(InputError) as caught:
        recipe_file.load("tiny.yaml", ["train.min_steps=9", "train.max_steps=3"])
    assert str(caught.value) == (
        "command line: train.min_steps: expected at most train.max_steps (3), got 9"
    )
