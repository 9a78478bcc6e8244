"""The story of a run: what its steps leave behind, and that it stays short enough to be read."""

import ast
import json
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from finetune import pipeline
from finetune.config import loader, schema
from finetune.reporting.results_model import Results
from finetune.runtime.errors import InputError
from finetune.runtime.signals import SignalListener
from finetune.training.prepared_data import DataCache
from tests.support.runs import contents

PACKAGE = Path(pipeline.__file__).parent
MOST_LINES = 60
MOST_PARAMETERS = 8


def load(*overrides):
    words = ("train.epochs=1", "score.every=epoch", "checkpoint.every=never", *overrides)
    return loader.load("tiny.yaml", words)


def test_a_dry_run_writes_nothing_and_loads_no_weights(here, monkeypatch, capsys):
    monkeypatch.setattr(pipeline.Session, "open", None)
    before = contents(here)
    pipeline.dry_run(load("run.dir=run", "cache.tokens=false"), SignalListener())
    assert contents(here) == before
    assert not (here / "run").exists()
    assert "12 steps" in capsys.readouterr().out


def test_a_run_leaves_results_predictions_and_a_model(here):
    folder = pipeline.run(load("run.dir=run"), SignalListener())
    assert folder.resolve() == here / "run"
    results = Results.model_validate_json((folder / "results.json").read_text())
    assert results.train.steps == 12
    assert results.data.labels == ["a", "b", "c"]
    assert results.test.rows == 17
    predictions = (folder / "predictions/test.jsonl").read_text().splitlines()
    assert len(predictions) == 17
    right = [row["label"] == row["predicted"] for row in map(json.loads, predictions)]
    assert results.test.metric("accuracy") == pytest.approx(sum(right) / 17)
    for name in ("report.html", "model/README.md", "model/model.safetensors"):
        assert (folder / name).is_file()


def test_a_trial_scores_validation_and_never_test(here):
    told = []
    recipe = load("run.dir=trial")
    pipeline.run_trial(recipe, SignalListener(), lambda *score: told.append(score), DataCache())
    assert told
    assert not (here / "trial/results.json").exists()
    assert not (here / "trial/predictions").exists()


def test_a_checkpoint_that_is_begun_before_the_first_step_is_awaited_too():
    """Going back needs one; whatever then ends the run, it is written."""
    done = []

    @contextmanager
    def finishing():
        try:
            yield
        finally:
            done.append("written")

    def begin():
        done.append("begun")
        raise InputError("no space left")

    session = SimpleNamespace(
        begin=begin,
        checkpointer=SimpleNamespace(stopping=nullcontext(), finishing=finishing),
        env=SimpleNamespace(meter=SimpleNamespace(timed=lambda what, call: call)),
    )
    with pytest.raises(InputError, match="no space left"):
        pipeline.train(session)
    assert done == ["begun", "written"]


def test_nothing_is_written_before_the_data_are_known_to_be_right(here):
    with pytest.raises(InputError, match="missing"):
        pipeline.run(load("run.dir=run", "data.source=missing"), SignalListener())
    assert not (here / "run").exists()


def functions():
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield file.relative_to(PACKAGE).as_posix(), node


def test_functions_fit_on_a_screen_and_take_few_parameters():
    found = list(functions())
    assert len(found) > 800
    assert {node.name for _, node in found} >= {"run", "fit"}
    long = {
        (file, node.name)
        for file, node in found
        if (node.end_lineno or 0) - node.lineno + 1 > MOST_LINES
    }
    assert long <= {("training/loop.py", "fit")}
    wide = []
    for file, node in found:
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if len([one for one in given if one.arg not in ("self", "cls")]) > MOST_PARAMETERS:
            wide.append((file, node.name))
    assert wide == []


@pytest.mark.parametrize(
    ("keys", "called"), [({}, "run"), ({"seeds": (0, 1)}, "run_seeds"), ({"folds": 3}, "run_folds")]
)
def test_a_recipe_is_one_run_or_those_of_its_seeds_or_folds(monkeypatch, keys, called):
    for name in ("run", "run_seeds", "run_folds"):
        monkeypatch.setattr(pipeline, name, lambda recipe, listener, name=name: Path(name))
    recipe = schema.Recipe(data=schema.Data(source="x"), run=schema.Run(**keys))
    assert pipeline.run_recipe(recipe, None) == Path(called)
