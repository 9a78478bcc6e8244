"""Accelerate's experiment trackers, where they are installed, and MLflow's model registry."""

import hashlib
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from finetune import __version__
from finetune.config.schema import Recipe
from finetune.runtime.errors import InputError, explain_write_errors
from finetune.training.event_log import tracked_name

PACKAGES = {"mlflow": "'finetune-documents[mlflow]'"}  # what to install, where not the name
# What a tracker writes into the run's folder, in a folder of the run's name: TensorBoard alone. The
# others have homes of their own (mlruns, wandb, trackio's cache).
FILES = re.compile(
    r"[^/]+/(\d+(\.\d+)?/)?(hparams\.yml|events\.out\.tfevents\.\d+\.[^/]+\.\d+\.\d+)"
)
RUN_TAG = "finetune.run_id"  # by which a run of MLflow is found when it is taken up again
MODEL_TAG = "finetune.identity"  # the SHA-256 of the model's identity.json, on its version


def validate_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        InputError: for each of them.
    """
    problems = [
        f"run.trackers: '{name}' is not installed here; run: pip install {PACKAGES.get(name, name)}"
        for name in names
        if find_spec(name) is None
    ]
    if problems:
        raise InputError(problems)


def finish(accelerator: Accelerator) -> None:
    """Close the trackers. The processes stay together: another seed's run may follow."""
    for tracker in accelerator.trackers:
        tracker.finish()


def start(accelerator: Accelerator, recipe: Recipe, folder: Path, run_id: str, step: int) -> None:
    """Open the trackers that the recipe names, with the recipe as their settings.

    Args:
        run_id: the run's, the same whenever it is taken up.
        step: the steps done; what a tracker holds of later ones is void.

    Raises:
        InputError: where their folder cannot be written, or one does not start.
    """
    settings = {
        f"{section}.{key}": value if isinstance(value, (int, float, str, bool)) else str(value)
        for section, keys in recipe.model_dump(mode="json").items()
        for key, value in keys.items()
    }
    name = recipe.run.name or "run"
    on_resume: dict[str, dict[str, Any]] = {
        "tensorboard": {"purge_step": step + 1},
        "trackio": {"name": run_id, "resume": "allow"},
        "wandb": {"id": run_id, "resume": "allow"},
    }
    uses_mlflow = "mlflow" in recipe.run.trackers
    with explain_write_errors(folder):
        try:
            if uses_mlflow:
                on_resume["mlflow"] = _mlflow_run(accelerator, name, run_id, step, folder)
            accelerator.init_trackers(
                name,
                # MLflow has them already, and refuses others, such as another run.resume.
                config=None if uses_mlflow and step > 0 else settings,
                init_kwargs={
                    name: on_resume[name]
                    for name in recipe.run.trackers
                    if step > 0 or name != "tensorboard"
                },
            )
        except OSError:
            raise
        except Exception as error:  # wandb without a login, for one, raises an error of its own
            raise InputError(f"run.trackers: {str(error).splitlines()[0]}") from error


def _mlflow_run(
    accelerator: Accelerator, experiment: str, run_id: str, step: int, folder: Path
) -> dict[str, Any]:
    """What accelerate's tracker needs to begin a run of MLflow, or to go on with this one's."""
    begun = {"run_name": folder.parent.name, "tags": {RUN_TAG: run_id}}
    if not accelerator.is_main_process:
        return begun
    import mlflow

    active = mlflow.active_run()
    if active is not None and RUN_TAG in active.data.tags:
        mlflow.end_run("KILLED")  # of a run of this process that was stopped
    if step == 0:
        return begun
    found = mlflow.search_runs(
        experiment_names=[os.environ.get("MLFLOW_EXPERIMENT_NAME", experiment)],
        filter_string=f"tags.`{RUN_TAG}` = '{run_id}'",
        output_format="list",
        max_results=1,
    )
    return {"run_id": found[0].info.run_id} if found else begun


def log_results(
    accelerator: Accelerator, recipe: Recipe, folder: Path, scores: Mapping[str, float], step: int
) -> None:
    """Give the trackers the scores on test, and MLflow the report and, if asked, the model.

    The main process alone calls this.

    Args:
        folder: the run's, which is complete.
        step: the steps of the run.

    Raises:
        InputError: where a tracker refuses them.
    """
    try:
        numbers = {tracked_name("test", name): value for name, value in scores.items()}
        accelerator.log(numbers, step)
        if "mlflow" in recipe.run.trackers:
            _log_to_mlflow(recipe, folder)
    except Exception as error:  # each tracker has errors of its own
        raise InputError(f"run.trackers: {' '.join(str(error).split())[:300]}") from error


def _log_to_mlflow(recipe: Recipe, folder: Path) -> None:
    import mlflow

    for name in ("results.json", "report.html"):
        mlflow.log_artifact(str(folder / name))
    if recipe.run.mlflow_model is not None:
        _register_in_mlflow(recipe.run.mlflow_model, folder / "model")


def _register_in_mlflow(name: str, model: Path) -> None:
    """Register a model as the next version of a name, unless it is one, of before a kill.

    A run that was trained on since has other weights, and registers them as another version.
    """
    import mlflow

    run, identity = mlflow.active_run(), (model / "identity.json").read_bytes()
    tags = {
        RUN_TAG: "" if run is None else run.info.run_id,
        MODEL_TAG: hashlib.sha256(identity).hexdigest(),
    }
    quote = '"' if "'" in name else "'"
    versions = mlflow.MlflowClient().search_model_versions(f"name = {quote}{name}{quote}")
    if any(tags.items() <= version.tags.items() for version in versions):
        return
    with warnings.catch_warnings(action="ignore"):  # it advises type hints, which pairs lack
        logged = mlflow.pyfunc.log_model(
            name="model",
            # Its source: no pickle is written, and none is read.
            python_model=str(Path(__file__).parents[1] / "inference" / "mlflow_model.py"),
            artifacts={"model": str(model)},
            pip_requirements=[f"finetune-documents=={__version__}"],
        )
        mlflow.register_model(logged.model_uri, name, tags=tags)
