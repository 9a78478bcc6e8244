"""`cross_validation`: the recipes of the folds, their order, and the logits that they held out."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from finetune.config.schema import Recipe
from finetune.runtime.errors import InputError
from finetune.tuning import cross_validation


@pytest.fixture
def recipe():
    return Recipe.model_validate(
        {"data": {"source": "x"}, "run": {"name": "r", "dir": "out", "folds": 3}}
    )


def test_a_recipe_for_each_fold_and_one_for_all_rows(recipe):
    *folds, last = cross_validation.fold_recipes(recipe)
    assert [fold.run.dir for fold in folds] == ["out/fold-1", "out/fold-2", "out/fold-3"]
    assert [fold.data.fold for fold in folds] == ["1/3", "2/3", "3/3"]
    assert {fold.run.folds for fold in folds} == {None}
    assert (last.run.dir, last.run.folds, last.data.fold) == ("out/all", 3, None)
    resumed = recipe.run.model_copy(update={"resume": "out/fold-1"})
    with pytest.raises(InputError, match=r"run.resume: expected auto with run.folds"):
        cross_validation.fold_recipes(recipe.model_copy(update={"run": resumed}))


def test_the_last_run_is_given_the_folds_folders(recipe):
    calls = []

    def run(one, folders, first):
        calls.append((one.run.dir, [str(folder) for folder in folders], first))
        return Path(one.run.dir)

    assert cross_validation.run_folds(recipe, run) == Path("out/all")
    folds = [f"out/fold-{i}" for i in (1, 2, 3)]
    assert calls == [
        *((name, [], name == folds[0]) for name in folds),
        ("out/all", folds, False),
    ]


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """Two folds, of which each held out two of four rows."""
    held_out = {
        1: {"r: line 1": [0.9, 0.1], "r: line 3": [0.0, 1.0]},
        2: {"r: line 2": [0.5, 0.5], "r: line 4\u2028": [0.2, 0.8]},
    }
    for number, rows in held_out.items():
        file = tmp_path / f"fold-{number}" / "predictions" / "test.jsonl"
        file.parent.mkdir(parents=True)
        lines = [
            {"row": row, "predicted": "b", "probabilities": {"b": b, "a": a}}  # in any order
            for row, (a, b) in rows.items()
        ]
        file.write_text(
            "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8"
        )
    monkeypatch.setattr(
        cross_validation,
        "read_results",
        lambda folder: SimpleNamespace(hashes=SimpleNamespace(test=f"hash of {folder.name}")),
    )
    return [tmp_path / "fold-1", tmp_path / "fold-2"]


def corpus(multi_label=False, hashes=("hash of fold-1", "hash of fold-2")):
    names = ["r: line 1", "r: line 2", "r: line 3", "r: line 4\u2028"]

    class Test(list):
        places = SimpleNamespace(place=lambda i: names[i])

    return SimpleNamespace(
        labels=("a", "b"), test=Test(names), multi_label=multi_label, fold_hashes=hashes
    )


def test_held_out_logits_come_in_the_order_of_the_rows(finished):
    logits = cross_validation.held_out_logits(finished, corpus())
    assert logits.dtype == np.float32
    np.testing.assert_allclose(
        np.exp(logits), [[0.9, 0.1], [0.5, 0.5], [0, 1], [0.2, 0.8]], atol=2e-6
    )
    several = cross_validation.held_out_logits(finished, corpus(multi_label=True))
    np.testing.assert_allclose(several[0], [np.log(9), -np.log(9)], rtol=1e-5)
    assert np.isfinite(several).all()
    assert cross_validation.held_out_logits([], corpus()) is None


def test_folds_of_other_rows_are_refused(finished):
    with pytest.raises(InputError, match=r"fold-2 scored other rows than those of fold 2/2"):
        cross_validation.held_out_logits(finished, corpus(hashes=("hash of fold-1", "other")))
