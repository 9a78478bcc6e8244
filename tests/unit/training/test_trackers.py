"""Trackers that are not installed are named first; MLflow has the run and, if asked, the model."""

import os
import signal
from types import SimpleNamespace

import pandas
import pytest

from finetune.config import schema
from finetune.inference.classifier import Classifier
from finetune.runtime.errors import InputError
from finetune.training import trackers
from tests.support.runs import in_step, results, run_here


def test_what_is_not_installed_is_named(monkeypatch):
    trackers.validate_trackers([])
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        trackers.validate_trackers(["wandb", "mlflow"])
    assert caught.value.problems == (
        "run.trackers: 'wandb' is not installed here; run: pip install wandb",
        "run.trackers: 'mlflow' is not installed here; run: pip install "
        "'finetune-documents[mlflow]'",
    )


def test_a_name_in_mlflow_s_registry_needs_mlflow():
    with pytest.raises(ValueError, match=r"null unless run\.trackers has mlflow"):
        schema.Run(mlflow_model="news")
    assert schema.Run(mlflow_model="news", trackers=["mlflow"]).mlflow_model == "news"


class DiedError(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def dies_after(call):
    def die(*given):
        call(*given)
        raise DiedError

    return die


def test_mlflow_has_the_run_also_where_it_is_resumed_and_serves_the_model(here, monkeypatch):
    """Its own store, in a file. `constraints.txt` pins what no new release of MLflow takes."""
    mlflow = pytest.importorskip("mlflow", reason="pip install 'finetune-documents[mlflow]'")
    store = f"sqlite:///{here / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    mlflow.set_tracking_uri(store)
    words = ["run.trackers=[mlflow]", "run.mlflow_model=news", "run.dir=run", "run.name=tiny"]
    with monkeypatch.context() as stopped:
        in_step(stopped, 20, lambda: os.kill(os.getpid(), signal.SIGTERM))
        run_here(*words, code=75)
    with monkeypatch.context() as killed:
        killed.setattr(trackers, "_register_in_mlflow", dies_after(trackers._register_in_mlflow))
        with pytest.raises(DiedError):
            run_here(*words, "run.resume=auto")
    run_here(*words, "run.resume=auto")

    [run] = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.info.run_name == "run"
    assert run.info.status == "FINISHED"
    assert run.data.params["optim.lr"] == "0.1"
    found = results(here / "run")
    assert run.data.metrics["test/accuracy"] == pytest.approx(found["test"]["accuracy"])
    client = mlflow.MlflowClient()
    [version] = client.search_model_versions("name = 'news'")  # not a second one after the kill
    assert version.tags[trackers.RUN_TAG] == run.info.run_id
    steps = [one.step for one in client.get_metric_history(run.info.run_id, "train/loss")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 36
    assert {one.path for one in client.list_artifacts(run.info.run_id)} == {
        "report.html", "results.json",
    }  # fmt: skip
    served = mlflow.pyfunc.load_model("models:/news/1")
    texts = ["one two three", "four five"]
    wanted = Classifier(here / "run")(texts)
    assert served.predict(texts) == wanted
    assert served.predict(pandas.DataFrame({"any": texts})) == wanted
    from finetune.inference import mlflow_model  # imports mlflow

    model, context = mlflow_model.DocumentModel(), SimpleNamespace(artifacts={"model": "run"})
    model.load_context(context)
    rows = pandas.DataFrame({"text": texts, "more": ["x", "y"]})
    assert model.predict(context, rows) == wanted
    # A run that goes on has another model, which is the next version.
    run_here(*words, "run.resume=auto", "train.epochs=4")
    assert {one.version for one in client.search_model_versions("name = 'news'")} == {1, 2}


def test_what_a_registry_refuses_is_one_message(monkeypatch, tmp_path):
    def fail(recipe, folder):
        raise RuntimeError("no such\nhost")

    class Alone:
        is_main_process = True

        def log(self, values, step):
            assert (values, step) == ({"test/accuracy": 0.5}, 3)

    recipe = schema.Recipe(
        data=schema.Data(source="x"), run=schema.Run(trackers=["mlflow"], mlflow_model="news")
    )
    monkeypatch.setattr(trackers, "_log_to_mlflow", fail)
    with pytest.raises(InputError) as caught:
        trackers.log_results(Alone(), recipe, tmp_path, {"accuracy": 0.5}, 3)
    assert caught.value.problems == ("run.trackers: no such host",)
