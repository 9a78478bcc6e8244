"""Runs → what differs between them: keys of their recipes, and what else may move a number.

A recipe is that of the run's folder, in which every key has a value: also those that nobody set,
and those that the hardware or the encoder decided.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from finetune.config import loader
from finetune.config.help import format_value
from finetune.evaluation.analysis_model import Section
from finetune.reporting.results_model import Results
from finetune.runtime.errors import InputError
from finetune.training.run_identity import flat_keys, format_key

# Where a run is and how it was begun: no two runs have these alike.
OF_A_PLACE = {"run.dir", "run.resume", "run.overwrite"}
MISSING = "–"  # of a key that a run does not have


class Setting(Section):
    """What is not the same in some runs."""

    key: str = Field(description="section.key of the recipe, or a key of results.json")
    values: list[Any] = Field(description="of each run, in the order of the runs")
    meaning: str = Field("", description="what the difference means, where the key does not say it")

    def __str__(self) -> str:
        """`0.1 → 0.05`, or of more runs than two `0.1, 0.05, 0.1`."""
        said = [format_setting(value) for value in self.values]
        return (" → " if len(said) == 2 else ", ").join(said)


def read_settings(folder: Path) -> dict[str, Any]:
    """The recipe of a run, `section.key` → value.

    Raises:
        InputError: where it is not there, or cannot be read.
    """
    if not (folder / "recipe.yaml").is_file():
        raise InputError(f"{folder}: expected a run's recipe.yaml in it, found none")
    return flat_keys(loader.load_saved(folder).model_dump(mode="json"))


def differing_settings(recipes: Sequence[Mapping[str, Any]]) -> list[Setting]:
    """The keys that not all recipes have alike, in the order of the recipe.

    Args:
        recipes: of `read_settings`.
    """
    keys = dict.fromkeys(key for recipe in recipes for key in recipe if key not in OF_A_PLACE)
    found = (Setting(key=key, values=[recipe.get(key) for recipe in recipes]) for key in keys)
    return [setting for setting in found if _differ(setting.values)]


def differing_identity(
    results: Sequence[Results], recipes: Sequence[Mapping[str, Any]]
) -> list[Setting]:
    """What differs beside the recipes: documents, tokens, the encoder's weights, the machine."""
    found = [*_documents(results)]
    same_start = not _differ([_start(recipe) for recipe in recipes])
    weights = [one.hashes.first_weights[:12] for one in results]
    if same_start and _differ(weights):
        meaning = "model.source names other weights: a folder or a branch that has changed since"
        found.append(Setting(key="hashes.first_weights", values=weights, meaning=meaning))
    for key in ("device", "precision", "attention", "packed"):
        values = [getattr(one.hardware, key) for one in results]
        found.append(Setting(key=f"hardware.{key}", values=values))
    found.append(Setting(key="num_processes", values=[one.num_processes for one in results]))
    for library in dict.fromkeys(name for one in results for name in one.versions):
        values = [one.versions.get(library, MISSING) for one in results]
        found.append(Setting(key=f"versions.{library}", values=values))
    return [setting for setting in found if _differ(setting.values)]


def _documents(results: Sequence[Results]) -> Iterator[Setting]:
    """Other documents than those of test, which are the same where runs are compared."""
    for name in ("train", "validation"):
        rows = [one.data.splits[name].rows if name in one.data.splits else 0 for one in results]
        yield Setting(key=f"data.splits.{name}.rows", values=rows)
    documents = [one.hashes.data[:12] for one in results]
    meaning = "documents or labels of train or validation are not the same"
    yield Setting(key="hashes.data", values=documents, meaning=meaning)
    if not _differ(documents):
        tokens = [one.hashes.tokens[:12] for one in results]
        meaning = "the same documents became other tokens: another tokenizer, or another length"
        yield Setting(key="hashes.tokens", values=tokens, meaning=meaning)


def _start(recipe: Mapping[str, Any]) -> list[Any]:
    """What the weights before the first step follow from."""
    keys = sorted(key for key in recipe if key.startswith("model.") or key == "run.seed")
    return [recipe[key] for key in keys]


def _differ(values: Sequence[Any]) -> bool:
    """Whether not all are equal: 1 is not true."""
    return len({json.dumps(value, sort_keys=True, default=str) for value in values}) > 1


def format_setting(value: Any) -> str:
    """A value as a person reads it: text without quotes, unless it would be read as another."""
    if isinstance(value, str):
        return value if value.strip() and value not in ("null", "true", "false") else repr(value)
    return format_key(value) if isinstance(value, list) else format_value(value)
