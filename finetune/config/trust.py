"""What a recipe file cannot allow itself: code from elsewhere, and publishing.

A recipe may come from anyone, and the saved recipe of a run comes from a folder that may, too. The
keys in `GUARDED` count only where the user said so as well: with the option on the command line,
with the key there, or in Python.

    find_unallowed(tree, Path("recipe.yaml"), said={"optim.lr"}, allowed={"--trust"})
    without_grants(recipe)     # what was read from a file, and is to be changed and run again
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from finetune.config.schema import Recipe
from finetune.runtime.errors import InputError

TRUST = "--trust"
PUBLISH = "--publish"

R = TypeVar("R", bound=Recipe)


@dataclass(frozen=True)
class Guard:
    """What a key allows, and the option that says it is wanted."""

    option: str
    does: str


GUARDED = {
    "model.trust_remote_code": Guard(TRUST, "runs Python code that comes with the model"),
    "score.trust_remote_code": Guard(TRUST, "runs the code of metrics from elsewhere"),
    "publish.repo_id": Guard(PUBLISH, "publishes the model"),
}


def find_unallowed(
    tree: Mapping[str, Any],
    path: Path,
    said: Collection[str],
    allowed: Collection[str],
    options: bool = True,
) -> Iterator[str]:
    """The problem of each guarded key that a recipe file sets on its own.

    Args:
        tree: the file's sections of keys.
        said: the keys that the user set beside the file.
        allowed: the options that were given, or that the command does not need.
        options: whether there is a command line that takes them.
    """
    for key, guard in GUARDED.items():
        value = _value(tree, key)
        if value in (None, False) or key in said or guard.option in allowed:
            continue
        written = "true" if value is True else str(value)[:100]
        add = f"add {guard.option} to the command line, or " if options else ""
        where = f"{key}={written}" if options else f"{{'{key}': {value!r:.100}}}"
        refuse = f"{key}={'null' if guard.option == PUBLISH else 'false'}"
        yield (
            f"{path}: {key}: {written}: this {guard.does}, which a recipe file cannot decide by "
            f"itself; {add}say so beside the file: {where} (or {refuse})"
        )


def grant(tree: Mapping[str, Any], path: Path, options: Collection[str]) -> list[str]:
    """The options of a command line as `section.key=value` words, to stand before its others.

    Args:
        tree: the recipe file's sections of keys.

    Raises:
        InputError: for `--publish` where the file does not say where to.
    """
    words = ["model.trust_remote_code=true"] if TRUST in options else []
    for key, guard in GUARDED.items():
        value = _value(tree, key)
        if guard.option in options and value not in (None, False):
            words.append(f"{key}={'true' if value is True else value}")
    if PUBLISH in options and _value(tree, "publish.repo_id") is None:
        raise InputError(
            f"--publish: expected publish.repo_id in {path}, found none; set "
            "publish.repo_id=OWNER/NAME instead"
        )
    return words


def _value(tree: Mapping[str, Any], key: str) -> Any:
    section, name = key.split(".")
    keys = tree.get(section)
    return keys.get(name) if isinstance(keys, dict) else None


def without_grants(recipe: R) -> R:
    """The recipe, in which nothing is trusted and nothing is published."""
    return without_code(recipe).model_copy(
        update={"publish": recipe.publish.model_copy(update={"repo_id": None})}
    )


def without_code(recipe: R) -> R:
    """The recipe, in which no code from elsewhere is run."""
    off = {"trust_remote_code": False}
    return recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update=off),
            "score": recipe.score.model_copy(update=off),
        }
    )
