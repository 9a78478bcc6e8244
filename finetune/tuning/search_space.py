"""A YAML file of distributions → which recipe keys a sweep varies, and over which values.

    optim.lr: {log: [1e-3, 0.3]}           # evenly over orders of magnitude
    optim.warmup: {uniform: [0, 0.2]}
    train.epochs: {int: [2, 6]}
    train.batch_size: {log_int: [8, 64]}
    optim.schedule: {choice: [linear, cosine]}

Every value in the file is tried on the recipe before the first trial.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.config import help, loader
from finetune.config.key_hints import closest_key
from finetune.config.renames import explain_rename
from finetune.config.schema import SECTIONS, Recipe
from finetune.config.trust import GUARDED
from finetune.config.yaml_files import read_yaml
from finetune.runtime.errors import InputError, did_you_mean

KINDS = ("log", "uniform", "int", "log_int", "choice")
FORMS = "{log: [low, high]}, {uniform: [low, high]}, {int: …}, {log_int: …} or {choice: [a, b, …]}"
PRUNERS = ("median", "hyperband", "off")  # how `study.py` ends hopeless trials early
# Trials are compared by one metric on the same validation rows, and write where the sweep says.
FIXED = {
    **dict.fromkeys(("run", "publish", "checkpoint", "cache"), "it decides nothing that is scored"),
    "run.seed": "it decides by luck alone, and several seeds train the winner (--seeds)",
    **dict.fromkeys(
        ("score.monitor", "score.metrics", "data.task", "data.label_order", "data.hierarchy"),
        "trials are compared by it",
    ),
    **dict.fromkeys(GUARDED, "a file cannot decide it"),
    **dict.fromkeys(
        (
            *("data.source", "data.config", "data.revision", "data.train", "data.validation"),
            *("data.validation_fraction", "data.max_validation_rows", "data.split_seed"),
            *("data.test", "data.test_fraction", "data.max_test_rows", "data.labels", "data.fold"),
        ),
        "it decides which rows trials are compared on",
    ),
}
MAX_COMBINATIONS = 64  # of other keys' choices, with which one value is tried


@dataclass(frozen=True)
class BaseRecipe:
    """The recipe that a sweep varies.

    Attributes:
        file: the YAML file.
        overrides: `section.key=value` words, set on top of it.
        recipe: the result.
    """

    file: Path
    overrides: tuple[str, ...]
    recipe: Recipe

    def with_settings(self, settings: dict[str, Any]) -> Recipe:
        """The recipe with some more keys set.

        Raises:
            InputError: where they do not go together.
        """
        return loader.load(self.file, self.overrides, settings, "the sweep")


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

    def describe(self) -> str:
        return f"{self.key} {self.kind} [{', '.join(self.names)}]"


def load_space(path: Path, base: Path, words: Sequence[str] = ()) -> tuple[Dimension, ...]:
    """Read a space, and try its values on a recipe.

    Args:
        base, words: the recipe's file, and what is set beside it.

    Raises:
        InputError: with every problem of the space.
    """
    tree, problems = read_yaml(path, "space")
    if not isinstance(tree, dict) or not tree:
        found = "nothing" if not tree else help.format_value(tree)
        raise InputError(
            f"{path}: expected keys of the recipe, each with its values, such as "
            f"'optim.lr: {{log: [1e-3, 0.3]}}', got {found}"
        )
    valid: list[Dimension] = []
    for key, given in tree.items():
        renamed = explain_rename(str(key))
        if renamed is not None:
            problems.append(f"{path}: {renamed}")
            continue
        made = _parse_dimension(key, given)
        if isinstance(made, str):
            problems.append(f"{path}: {key}: {made}")
        else:
            valid.append(made)
    dimensions = tuple(valid)
    problems += _find_invalid_values(dimensions, str(path), base, words)
    if problems:
        raise InputError(problems)
    return dimensions


def _parse_dimension(key: Any, given: Any) -> Dimension | str:
    """The dimension, or what is wrong with it."""
    name = str(key)
    problem = _find_key_problem(name, given)
    if problem is not None:
        return problem
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
    integers = kind.endswith("int")
    numbers = (int,) if integers else (int, float)
    right = len(values) == 2 and all(
        isinstance(value, numbers) and not isinstance(value, bool) for value in values
    )
    if not right or not values[0] < values[1] or (kind.startswith("log") and values[0] <= 0):
        noun = "whole numbers" if integers else "numbers"
        above = " above 0" if kind.startswith("log") else ""
        return (
            f"expected two {noun}{above} after {kind}, the lower first, got "
            f"{help.format_value(values)}"
        )
    return Dimension(name, kind, tuple(values if integers else map(float, values)))


def _find_key_problem(name: str, given: Any) -> str | None:
    """Why a sweep cannot vary this key; None where it can."""
    section = name.split(".")[0]
    if name.count(".") != 1 or section not in SECTIONS:
        closest = closest_key(name)
        hint = f"; did you mean {closest}?" if closest is not None else ""
        if section not in SECTIONS and not hint:
            hint = did_you_mean(section, list(SECTIONS), "the sections are")
        if name in SECTIONS and isinstance(given, dict) and name not in FIXED:
            inner = [key for key in given if key in SECTIONS[name].model_fields]
            meant = [f"{name}.{key}: …" for key in inner if f"{name}.{key}" not in FIXED]
            hint = f"; write {', '.join(meant)}" if meant else ""
        return f"expected a key of the recipe such as optim.lr{hint}"
    why = FIXED.get(name, FIXED.get(section))
    if why is not None:
        return f"a sweep cannot vary this, as {why}; set it in the recipe"
    return None


def _find_invalid_values(
    dimensions: Sequence[Dimension], path: str, base: Path, words: Sequence[str]
) -> Iterator[str]:
    """The schema's problem with each value that is valid with none of the other keys' choices.

    Raises:
        InputError: for the recipe's own problems.
    """
    loader.load(base, words)
    for dimension in dimensions:
        others = [
            [(other.key, value) for value in other.values]
            for other in dimensions
            if other.kind == "choice" and other is not dimension
        ]
        for value in dimension.values:
            problem = _find_problem({dimension.key: value}, path, base, words)
            if problem is None:
                continue
            combined = itertools.islice(itertools.product(*others), MAX_COMBINATIONS)
            if others and any(
                _find_problem({**dict(more), dimension.key: value}, path, base, words) is None
                for more in combined
            ):
                continue
            yield problem
            break


def _find_problem(
    settings: dict[str, Any], path: str, base: Path, words: Sequence[str]
) -> str | None:
    try:
        loader.load(base, words, settings, path)
    except InputError as error:
        return error.problems[0]
    return None
