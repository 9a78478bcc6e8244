"""The recipes that come with the package: in a checkout and in an installed wheel.

    find_recipe("bbc_news")        → recipes/bbc_news.yaml
    find_recipe("my_recipe.yaml")  → my_recipe.yaml

A recipe's header says in prose what it is and what it scored; `describe` reads what a list shows.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from finetune.runtime.commands import command, relative_path
from finetune.runtime.errors import InputError, did_you_mean

PACKAGE = Path(__file__).parents[1]
# In a wheel they are in the package; in a checkout, beside it.
HOMES = (PACKAGE / "recipes", PACKAGE.parent / "recipes")


class ShippedRecipe(NamedTuple):
    """What a list shows of a recipe.

    Attributes:
        about: the first sentence of its header.
        labels: how many there are.
        score: what its header measured on test, such as "accuracy 97.4 %"; None: see the header.
        interval: of that score, such as "95.4 to 98.5"; None where the header has none.
        offline: whether documents and encoder come from Python packages.
    """

    name: str
    file: Path
    about: str
    labels: int
    score: str | None
    interval: str | None
    offline: bool


def folder() -> Path:
    """The folder of the shipped recipes.

    Raises:
        InputError: where the installation lacks it.
    """
    for home in HOMES:
        if (home / "bbc_news.yaml").is_file():
            return home
    raise InputError(f"{HOMES[0]}: the shipped recipes are missing; install the package again")


def recipe_files() -> dict[str, Path]:
    """The file of each shipped recipe, by name."""
    return {file.stem: file for file in sorted(folder().glob("*.yaml"))}


def launch_configs() -> dict[str, Path]:
    """The shipped configurations of `accelerate launch`, by name."""
    files = sorted((folder() / "accelerate").glob("*.yaml"))
    return {f"accelerate/{file.stem}": file for file in files}


def accelerate_config() -> Path:
    """The configuration of `accelerate launch` that shards a model over processes."""
    return relative_path(launch_configs()["accelerate/fsdp2"])


def find_recipe(word: str | os.PathLike[str]) -> Path:
    """A recipe's file: a path, or else the name of a shipped recipe.

    Raises:
        InputError: where there is neither.
    """
    path = Path(word)
    if path.is_file():
        return path
    files = recipe_files()
    if str(word) in files:
        return relative_path(files[str(word)])
    if path.suffix == "" and path.name == str(word) and not path.exists():
        hint = did_you_mean(str(word), list(files), "the shipped recipes are")
        raise InputError(f"{word}: no such file, and no shipped recipe of that name{hint}")
    if path.suffix == ".yaml" and path.stem in files:
        shown = command("recipes", path.stem)
        raise InputError(
            f"{word}: no such recipe file; the shipped recipe is called {path.stem} ({shown} "
            "prints it)"
        )
    return path  # reading it says what is wrong


def read_recipe(name: str) -> str:
    """The text of a shipped recipe, or of a configuration of `accelerate launch`.

    Raises:
        InputError: where there is none of that name, naming the closest.
    """
    files = recipe_files() | launch_configs()
    if name not in files:
        hint = did_you_mean(name, list(files), "they are")
        raise InputError(f"{name}: no shipped recipe of that name{hint}")
    return files[name].read_text(encoding="utf-8")


def describe(name: str, file: Path) -> ShippedRecipe:
    """What a list shows of a recipe."""
    text = file.read_text(encoding="utf-8")
    header = re.match(r"(?:#.*\n)+", text)
    paragraphs = [
        " ".join(part.replace("\n# ", "\n").split())
        for part in re.split(r"\n#\n", (header[0] if header else "").removeprefix("# "))
    ]
    labels = re.search(r"Labels: (\d+)\.", " ".join(paragraphs))
    measured = next((part for part in paragraphs if part.startswith("# Measured")), "")
    score = re.search(
        r"\b(accuracy|micro-F1) (\d[\d.]*)(?: %)?(?: \(95 % interval ([\d.]+ to [\d.]+)\))?",
        measured,
    )
    return ShippedRecipe(
        name,
        file,
        about=re.split(r"(?<=\?)\s|\.(?:\s|$)", paragraphs[0])[0],
        labels=int(labels[1]) if labels else 0,
        score=f"{score[1]} {score[2]} %" if score else None,
        interval=score[3] if score else None,
        offline=len(re.findall(r"^  source: package:", text, re.MULTILINE)) == 2,
    )
