"""A YAML file of distributions → which recipe keys a sweep varies, and over which values.

    optim.lr: {log: [1e-3, 0.3]}           # evenly over orders of magnitude
    optim.warmup: {uniform: [0, 0.2]}
    train.epochs: {int: [2, 6]}
    train.batch_size: {log_int: [8, 64]}
    optim.schedule: {choice: [linear, cosine]}

Every value that stands in the file is tried on the recipe before the first trial.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.config import help, loader
from finetune.config.renames import explain_rename
from finetune.config.schema import SECTIONS, Recipe
from finetune.runtime.errors import InputError, did_you_mean

KINDS = ("log", "uniform", "int", "log_int", "choice")
FORMS = "{log: [low, high]}, {uniform: [low, high]}, {int: …}, {log_int: …} or {choice: [a, b, …]}"
# Trials are compared by one metric on the same validation rows, and write where the sweep says.
FIXED = {
    **dict.fromkeys(("run", "publish", "checkpoint", "cache"), "it decides nothing that is scored"),
    "run.seed": "it decides by luck alone, and several seeds train the winner (--seeds)",
    **dict.fromkeys(("score.monitor", "score.metrics"), "trials are compared by it"),
    **dict.fromkeys(
        (
            *("data.source", "data.config", "data.revision", "data.train", "data.validation"),
            *("data.validation_fraction", "data.max_validation_rows", "data.split_seed"),
            *("data.test", "data.test_fraction", "data.max_test_rows", "data.labels", "data.fold"),
        ),
        "it decides which rows trials are compared on",
    ),
}
MOST_COMBINED = 64  # choices of other keys that one value is tried with


@dataclass(frozen=True)
class Dimension:
    """A recipe key and what it may be.

    Attributes:
        kind: one of KINDS.
        values: the two ends, or all choices.
    """

    key: str
    kind: str
    values: tuple[Any, ...]

    @property
    def log(self) -> bool:
        return self.kind.startswith("log")

    @property
    def names(self) -> tuple[str, ...]:
        """Of a choice: how each is written, which is how studies store it."""
        return tuple(v if isinstance(v, str) else help.format_value(v) for v in self.values)

    def said(self) -> str:
        return f"{self.key} {self.kind} [{', '.join(self.names)}]"


def load_space(path: Path, base: Path, words: Sequence[str] = ()) -> tuple[Dimension, ...]:
    """Read a space, and try its values on a recipe.

    Args:
        base, words: the recipe's file, and what is set beside it.

    Raises:
        InputError: with every problem of the space.
    """
    tree, problems = loader.read_yaml(path, "space")
    if not isinstance(tree, dict) or not tree:
        found = "nothing" if not tree else help.format_value(tree)
        raise InputError(
            f"{path}: expected keys of the recipe, each with its values, such as "
            f"'optim.lr: {{log: [1e-3, 0.3]}}', got {found}"
        )
    found_dimensions = []
    for key, given in tree.items():
        renamed = explain_rename(str(key))
        if renamed is not None:
            problems.append(f"{path}: {renamed}")
            continue
        made = _dimension(key, given)
        if isinstance(made, str):
            problems.append(f"{path}: {key}: {made}")
        else:
            found_dimensions.append(made)
    dimensions = tuple(found_dimensions)
    problems += _untypical(dimensions, str(path), base, words)
    if problems:
        raise InputError(problems)
    return dimensions


def recipe_of(
    base: Path, words: Sequence[str], settings: dict[str, Any], said: str = "the sweep"
) -> Recipe:
    """The recipe with some keys set.

    Raises:
        InputError: where they do not go together.
    """
    return loader.load(base, words, settings, said)


def _dimension(key: Any, given: Any) -> Dimension | str:
    """The dimension, or what is wrong with it."""
    name = str(key)
    section = name.split(".")[0]
    if name.count(".") != 1 or section not in SECTIONS:
        home = loader.closest_key(name)
        guess = f"; did you mean {home}?" if home is not None else ""
        if section not in SECTIONS and not guess:
            guess = did_you_mean(section, list(SECTIONS), "the sections are")
        if name in SECTIONS and isinstance(given, dict) and name not in FIXED:
            inner = [key for key in given if key in SECTIONS[name].model_fields]
            meant = [f"{name}.{key}: …" for key in inner if f"{name}.{key}" not in FIXED]
            guess = f"; write {', '.join(meant)}" if meant else ""
        return f"expected a key of the recipe such as optim.lr{guess}"
    why = FIXED.get(name, FIXED.get(section))
    if why is not None:
        return f"a sweep cannot vary this, as {why}; set it in the recipe"
    if not isinstance(given, dict) or len(given) != 1 or next(iter(given)) not in KINDS:
        return f"expected {FORMS}, got {help.format_value(given)}"
    [(kind, values)] = given.items()
    if not isinstance(values, list):
        return f"expected a list after {kind}, got {help.format_value(values)}"
    if kind == "choice":
        made = Dimension(name, kind, tuple(values))
        if len(set(made.names)) < max(2, len(values)):
            return f"expected two choices or more, each once, got {help.format_value(values)}"
        return made
    whole = kind.endswith("int")
    numbers = (int,) if whole else (int, float)
    right = len(values) == 2 and all(
        isinstance(value, numbers) and not isinstance(value, bool) for value in values
    )
    if not right or not values[0] < values[1] or (kind.startswith("log") and values[0] <= 0):
        noun = "whole numbers" if whole else "numbers"
        above = " above 0" if kind.startswith("log") else ""
        return (
            f"expected two {noun}{above} after {kind}, the lower first, got "
            f"{help.format_value(values)}"
        )
    return Dimension(name, kind, tuple(values if whole else map(float, values)))


def _untypical(
    dimensions: Sequence[Dimension], path: str, base: Path, words: Sequence[str]
) -> Iterator[str]:
    """What the recipe's types say of each value, or of all its combinations with others' choices.

    Raises:
        InputError: for the recipe's own problems.
    """
    loader.load(base, words)
    for one in dimensions:
        others = [
            [(other.key, value) for value in other.values]
            for other in dimensions
            if other.kind == "choice" and other is not one
        ]
        for value in one.values:
            problem = _problem({one.key: value}, path, base, words)
            if problem is None:
                continue
            combined = itertools.islice(itertools.product(*others), MOST_COMBINED)
            if others and any(
                _problem({**dict(more), one.key: value}, path, base, words) is None
                for more in combined
            ):
                continue
            yield problem
            break


def _problem(settings: dict[str, Any], path: str, base: Path, words: Sequence[str]) -> str | None:
    try:
        recipe_of(base, words, settings, path)
    except InputError as error:
        return error.problems[0]
    return None
