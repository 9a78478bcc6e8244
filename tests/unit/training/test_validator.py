"""Validation decides: which model is kept, and when a run has waited long enough."""

import json

import pytest
import torch
from safetensors.torch import load_file

from finetune.evaluation import metrics
from tests.support.runs import lines, results, run_here


def expected_stop(scores, patience, least):
    """The step at which a run of these validation scores ends, by the definition of patience."""
    mark, waited = None, 0
    for line in scores:
        if mark is None or line["accuracy"] - mark > least:
            mark, waited = line["accuracy"], 0
        else:
            waited += 1
        if waited == patience:
            break
    return line["step"]


@pytest.mark.parametrize(("patience", "least"), [(1, 0.0), (2, 0.0), (3, 0.2)])
def test_patience(here, whole, patience, least, capsys):
    scores = lines(whole, "validation")
    assert len(scores) == 8
    stop = expected_stop(scores, patience, least)
    words = f"score.patience={patience}", f"score.min_improvement={least}", "run.dir=run"
    run_here("score.monitor=accuracy", *words)
    assert lines(here / "run", "validation") == [line for line in scores if line["step"] <= stop]
    assert results(here / "run")["train"]["steps"] == stop
    said = f"  stopped early: {patience} scorings without a better accuracy"
    assert (said in capsys.readouterr().out) == (stop < 36)
    if (patience, least) == (1, 0.0):
        assert stop < 36  # else this would show nothing


def test_the_best_is_kept_and_scored(here, whole):
    scores = lines(whole, "validation")
    best = max(scores, key=lambda line: line["accuracy"])  # the first of equals
    assert best["step"] < 36, "the last is the best"
    run_here("run.dir=run", "score.monitor=accuracy", "checkpoint.every=5", "checkpoint.keep=99")
    found = results(here / "run")
    assert found["validation"]["accuracy"] == best["accuracy"]
    assert found["train"]["best_step"] == best["step"]
    kept = load_file(here / "run" / "model" / "model.safetensors")
    point = here / "run" / "checkpoints" / f"step-{best['step']:08d}" / "state.safetensors"
    then = load_file(point)
    trained = [name for name in kept if f"model/{name}" in then]
    assert len(trained) > 10
    assert all(torch.equal(kept[name], then[f"model/{name}"]) for name in trained)
    answers = (here / "run" / "predictions" / "test.jsonl").read_text().splitlines()
    right = [json.loads(answer)["label"] == json.loads(answer)["predicted"] for answer in answers]
    assert sum(right) / len(right) == pytest.approx(found["test"]["accuracy"])


def test_a_tie_and_nan_are_no_improvement():
    assert not metrics.is_better("accuracy", {"accuracy": 0.5}, {"accuracy": 0.5})
    assert metrics.is_better("loss", {"loss": 0.4}, {"loss": 0.5})
    assert not metrics.is_better("loss", {"loss": 0.45}, {"loss": 0.5}, by_more_than=0.1)
    assert not metrics.is_better("f1_macro", {"f1_macro": float("nan")}, {"f1_macro": 0.1})
    assert metrics.is_better("f1_macro", {"f1_macro": 0.1}, {"f1_macro": float("nan")})
