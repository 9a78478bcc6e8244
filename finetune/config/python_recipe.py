"""A recipe written in Python: sections as keyword arguments, validated as a file is.

Recipe(data={"source": "tickets.csv"}, optim={"lr": 0.1})
compose("recipes/ag_news.yaml", ["train.epochs=3"], {"optim": {"lr": 0.1}}, "finetune.train")
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

from finetune.config import loader, schema
from finetune.config.help import format_value
from finetune.config.key_hints import closest_key
from finetune.config.loader import Given
from finetune.config.schema import SECTIONS
from finetune.config.shipped_recipes import find_recipe
from finetune.config.trust import find_unallowed
from finetune.runtime.errors import InputError, did_you_mean

Overrides = str | Sequence[str] | Mapping[str, Any]
Base = str | os.PathLike[str] | schema.Recipe | None


class Recipe(schema.Recipe):
    """A recipe: `Recipe(data={"source": "tickets.csv"}, train={"epochs": 3})`.

    Each section is a dict of its keys; docs/recipe.md lists them. What is not given has its
    default. A recipe is frozen: `finetune.train(recipe, {"optim.lr": 0.1})` trains another one.

    Raises:
        InputError: with every problem, in the words of a recipe file's.
    """

    def __init__(self, /, **sections: Any) -> None:
        settings, problems = flatten(sections, "Recipe")
        given = Given(settings=settings, origin_of_settings="Recipe")
        loader.from_tree({}, given, "Recipe", "recipe", problems)  # raises what is wrong
        super().__init__(**_as_tree(settings))

    @classmethod
    def load(cls, path: str | os.PathLike[str], overrides: Overrides = ()) -> Self:
        """Read a recipe file. What it cannot decide by itself (publishing, code from elsewhere)
        counts where an override says it too.

        Args:
            overrides: as of `finetune.train`.

        Raises:
            InputError: with every problem of the file and of the overrides.
        """
        return cls.of(compose(path, overrides, {}, "Recipe.load"))

    @classmethod
    def of(cls, recipe: schema.Recipe) -> Self:
        """The same as this class has it."""
        return recipe if isinstance(recipe, cls) else cls(**_dump(recipe))

    def to_yaml(self) -> str:
        """The recipe as the text of a recipe file."""
        return loader.to_yaml(self)


def compose(
    base: Base, overrides: Overrides, sections: Mapping[str, Any], where: str, name: str = "recipe"
) -> schema.Recipe:
    """A recipe file or a recipe, changed by overrides, then by sections; or the sections alone.

    Args:
        overrides: `section.key=value` words as on a command line; or a dict of `section.key` or
            of sections.
        sections: section → its keys, or a part of the recipe.
        where: how messages name what was passed.
        name: the recipe's, where neither a file nor a key names it.

    Raises:
        InputError: with every problem.
    """
    words: Sequence[str] = ()
    settings: dict[str, Any] = {}
    problems: list[str] = []
    if isinstance(overrides, Mapping):
        settings, problems = flatten(overrides, where)
    else:
        words = [overrides] if isinstance(overrides, str) else list(overrides)
        odd = [word for word in words if not isinstance(word, str)]
        if odd:
            raise InputError(
                f"{where}: overrides: expected words such as 'optim.lr=0.1', or a dict such as "
                f"{{'optim.lr': 0.1}}, got {format_value(odd[0])}"
            )
    more, of_sections = flatten(sections, where)
    given = Given(words, f"{where}: overrides", settings | more, where)
    problems += of_sections
    if base is None:
        return loader.from_tree({}, given, where, name, problems)
    if isinstance(base, schema.Recipe):
        return loader.from_tree(_dump(base), given, "Recipe", name, problems)
    if not isinstance(base, str | os.PathLike):
        raise InputError(
            f"{where}: recipe: expected a recipe file or a finetune.Recipe, got "
            f"{type(base).__name__}; data are passed as data=…"
        )
    path = find_recipe(os.fspath(base))
    tree, of_file = loader.read_sections(path)
    of_file += find_unallowed(tree, path, given.keys(), allowed=(), options=False)
    recipe = loader.from_tree(tree, given, str(path), path.stem, [*of_file, *problems])
    return loader.find_beside(recipe, path.parent)


def flatten(sections: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """Sections of keys as `section.key` → value, and what is no section of keys."""
    settings: dict[str, Any] = {}
    problems = []
    for name, value in sections.items():
        if not isinstance(name, str):
            problems.append(f"{where}: expected words as keys, got {format_value(name)}")
        elif "." in name:
            settings[name] = plain(value)
        elif isinstance(value, schema.Section):
            settings |= {f"{name}.{key}": one for key, one in _dump(value).items()}
        elif name in SECTIONS and isinstance(value, Mapping):
            settings |= {f"{name}.{key}": plain(one) for key, one in value.items()}
        elif name in SECTIONS:
            problems.append(f"{where}: {name}: expected a dict of keys, got {format_value(value)}")
        else:
            problems.append(f"{where}: {name}: no such section{_section_hint(name)}")
    return settings, problems


def plain(value: Any) -> Any:
    """A value as a recipe file would hold it: paths as text, numbers of NumPy as Python's."""
    match value:
        case schema.Section():
            return _dump(value)
        case os.PathLike():
            return os.fspath(value)
        case Mapping():
            return {key: plain(one) for key, one in value.items()}
        case list() | tuple():
            return [plain(one) for one in value]
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def _section_hint(name: str) -> str:
    """What was probably meant: a key without its section, as in train(epochs=3)."""
    home = closest_key(name)
    if home is None:
        return did_you_mean(name, list(SECTIONS), "the sections are")
    section, key = home.split(".")
    return f"; did you mean {section}={{'{key}': …}}?"


def _dump(section: schema.Section) -> dict[str, Any]:
    """What was set in it, as a recipe file would hold it."""
    return section.model_dump(mode="json", exclude_unset=True)


def _as_tree(settings: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in settings.items():
        section, _, key = name.partition(".")
        tree.setdefault(section, {})[key] = value
    return tree
