"""Paths of a command line that do not exist are told before anything that takes seconds to load.

    check_all(partial(check_model, known.model), partial(is_local, known.data, "DATA"))

What a path holds is looked at later, by what reads it, with the same messages.
"""

import glob
from collections.abc import Callable
from functools import partial
from pathlib import Path

from finetune.config.schema import Recipe
from finetune.data.local_paths import resolve_local_path
from finetune.modeling.model_folder import find_model
from finetune.runtime.errors import InputError, ProblemList


def check_all(*checks: Callable[[], object]) -> None:
    """Make every check, and raise the problems of all together.

    Raises:
        InputError: where one of them did.
    """
    problems = ProblemList()
    for check in checks:
        with problems.collect():
            check()
    problems.raise_if_any()


def check_recipe(recipe: Recipe) -> None:
    """The sources of a recipe.

    Raises:
        InputError: where one is a path that does not exist.
    """
    check_all(
        partial(resolve_local_path, recipe.data.source),
        partial(find_model, recipe.model.source, "model.source"),
    )


def check_model(source: str, key: str = "MODEL") -> None:
    """A run folder, a model folder or a Hub id.

    Raises:
        InputError: naming `key`, where it is a path that does not exist, or holds no model.
    """
    find_model(source, key)


def is_local(source: str, key: str) -> bool:
    """Whether files are meant, be it by a pattern, and no Hub id and no standard input.

    Raises:
        InputError: naming `key`, where it is a path that does not exist.
    """
    if source == "-" or (glob.has_magic(source) and not Path(source).exists()):
        return source != "-"
    return resolve_local_path(source, key) is not None


def check_run(folder: Path) -> None:
    """The folder of a run.

    Raises:
        InputError: where there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected the folder of a finished run, found no such folder")
