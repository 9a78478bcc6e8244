"""Accelerate's experiment trackers, where they are installed."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from finetune.config.schema import Recipe
from finetune.runtime.errors import InputError, explain_write_errors


def validate_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        InputError: for each of them.
    """
    problems = [
        f"run.trackers: '{name}' is not installed here; run: pip install {name}"
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
    on_resume: dict[str, dict[str, Any]] = {
        "tensorboard": {"purge_step": step + 1},
        "trackio": {"name": run_id, "resume": "allow"},
        "wandb": {"id": run_id, "resume": "allow"},
    }
    with explain_write_errors(folder):
        try:
            accelerator.init_trackers(
                recipe.run.name or "run",
                config=settings,
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
