"""YAML file + `section.key=value` words → a recipe, and back.

    load("recipes/ag_news.yaml", ["optim.lr=0.1", "run.seed=1"])

Defaults < file < words. Every problem is reported at once, each with its file, its key, what was
expected and what was found.
"""

import io
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from finetune.config.help import format_value
from finetune.config.key_hints import closest_key
from finetune.config.problems import describe_errors, take_renamed
from finetune.config.schema import DEFAULT_LR, SECTIONS, Recipe
from finetune.config.trust import PUBLISH, TRUST, find_unallowed
from finetune.config.yaml_files import YAMLLimitError, parse_value, read_yaml
from finetune.runtime.commands import command
from finetune.runtime.errors import InputError, did_you_mean
from finetune.runtime.visible_text import UNSAFE

OF_A_RUN = ("results.json", "metrics.jsonl", "preflight.json", "checkpoints")
DATA_SUFFIXES = {".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt", ".gz"}


def load(
    path: str | Path,
    words: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    origin_of_settings: str = "",
    allowed: Collection[str] = (),
) -> Recipe:
    """Read a recipe file, apply `section.key=value` words, and resolve what defaults leave open.

    Args:
        settings: `section.key` → value, applied last.
        origin_of_settings: how messages name where they come from.
        allowed: the options of `config.trust` that were given, for what a file cannot decide.

    Raises:
        InputError: with every problem of the file, of the words and of the settings.
    """
    tree, problems = read_sections(Path(path))
    given = Given(words, "command line", settings or {}, origin_of_settings)
    problems += find_unallowed(tree, Path(path), given.keys(), allowed)
    recipe = from_tree(tree, given, str(path), Path(path).stem, problems)
    return find_beside(recipe, Path(path).parent)


def load_saved(folder: Path) -> Recipe:
    """The recipe of a run's folder, as what was run; nothing in it is allowed, nor done, by that.

    Raises:
        InputError: where it cannot be read.
    """
    return load(folder / "recipe.yaml", allowed=(TRUST, PUBLISH))


@dataclass(frozen=True)
class Given:
    """What is set beside a file or on top of a tree, in this order.

    Attributes:
        words: `section.key=value`.
        origin_of_words, origin_of_settings: how messages name where they come from.
        settings: `section.key` → value.
    """

    words: Sequence[str] = ()
    origin_of_words: str = "command line"
    settings: Mapping[str, Any] = field(default_factory=dict)
    origin_of_settings: str = ""

    def keys(self) -> set[str]:
        """`section.key` of all that is set."""
        words = (word.lstrip("-").partition("=")[0] for word in _flags_joined(self.words))
        return {*words, *self.settings}


def from_tree(
    tree: dict[str, Any], given: Given, where: str, name: str, problems: Sequence[str] = ()
) -> Recipe:
    """Sections of keys → a recipe, with what defaults leave open resolved. The tree is changed.

    Args:
        given: set on top of the tree.
        where: how messages name the tree.
        name: the recipe's, where it has none of its own.
        problems: raised together with those that are found here.

    Raises:
        InputError: with every problem.
    """
    problems = [*problems]
    origin: dict[str, str] = {}
    for word in _flags_joined(given.words):
        problem = _apply(word, tree, origin, given.origin_of_words)
        if problem is not None:
            problems.append(problem)
    for key, value in given.settings.items():
        section, _, inner = key.partition(".")
        tree.setdefault(section, {})[inner] = value
        origin[key] = given.origin_of_settings
        if section not in SECTIONS:
            origin[section] = given.origin_of_settings
    for section in tree:
        if section not in SECTIONS:
            from_here = origin.get(str(section), where)
            problems.append(f"{from_here}: {section}: no such section{_section_hint(section)}")
    known = {name: value for name, value in tree.items() if name in SECTIONS}
    problems += take_renamed(known, where, origin)
    known.setdefault("data", {})
    try:
        recipe = Recipe.model_validate(known)
    except ValidationError as error:
        problems += describe_errors(error, where, origin)
    if problems:
        raise InputError(problems)
    return _resolve(recipe, name)


def to_yaml(recipe: Recipe, whole: bool = True) -> str:
    """The recipe as YAML that `load` reads back to an equal recipe; or what is not by default."""
    tree = recipe.model_dump(mode="json", exclude_defaults=not whole)
    for key in recipe.score.model_fields_set & {
        "metrics",
        "monitor",
    }:  # unset, they may mean others
        tree.setdefault("score", {})[key] = recipe.score.model_dump(mode="json")[key]
    text = _dump(tree, unicode=True)
    # Some characters, such as U+0085, are line breaks to YAML 1.1 and come back as spaces. Others
    # turn the direction of a line. YAML's escapes show them all.
    is_safe = not UNSAFE.search(text) and YAML(typ="safe", pure=True).load(text) == tree
    return text if is_safe else _dump(tree, unicode=False)


def _dump(tree: dict[str, Any], unicode: bool) -> str:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = unicode
    yaml.width = 100 if unicode else 2**30  # an escaped text may get a space where it is folded
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    out = io.StringIO()
    yaml.dump(tree, out)
    return out.getvalue()


def _resolve(recipe: Recipe, stem: str) -> Recipe:
    """Fill in what depends on other fields, so that the saved recipe says it in numbers."""
    lr = recipe.optim.lr if recipe.optim.lr is not None else DEFAULT_LR[recipe.optim.name]
    freeze = recipe.model.freeze
    if freeze == "auto":
        freeze = recipe.freezes_by_default()
    return recipe.model_copy(
        update={
            "optim": recipe.optim.model_copy(update={"lr": lr}),
            "model": recipe.model.model_copy(update={"freeze": freeze}),
            "run": recipe.run.model_copy(update={"name": recipe.run.name or stem}),
        }
    )


def find_beside(recipe: Recipe, folder: Path) -> Recipe:
    """Relative paths that are not in the current folder, but in the recipe's.

    A run's folder holds its own recipe beside what it wrote, such as `model`, which is not meant.
    """
    if any((folder / name).exists() for name in OF_A_RUN):
        return recipe
    found = {}
    for name, key in (("data", "source"), ("model", "source"), ("score", "out_of_scope")):
        section = getattr(recipe, name)
        source = getattr(section, key)
        is_word = key == "out_of_scope" and source in ("auto", "off")
        if isinstance(source, str) and source and ":" not in source and source[0] != "~":
            beside = folder / source
            is_there = os.path.exists(source)  # noqa: PTH110
            if not is_word and not is_there and os.path.exists(beside):  # noqa: PTH110
                found[name] = section.model_copy(update={key: str(beside)})
    return recipe.model_copy(update=found) if found else recipe


def read_sections(path: Path) -> tuple[dict[str, Any], list[str]]:
    """A recipe file as sections of keys, and the problems of its form.

    Raises:
        InputError: if it does not exist, or is not a recipe at all.
    """
    no_recipe = f"{path}: this is not a recipe (YAML with sections such as data:)"
    is_data = path.suffix.lower() in DATA_SUFFIXES and path.is_file()
    writes = command("new", path)
    data_file = f"{no_recipe}; a recipe names a data file as data.source ({writes} writes one)"
    try:
        tree, problems = read_yaml(path, "recipe")
    except InputError as error:
        raise InputError(data_file if is_data else error.problems) from None
    if tree is None:
        raise InputError(f"{path}: the recipe is empty; it needs at least data.source")
    if not isinstance(tree, dict):
        if is_data:
            raise InputError(data_file)
        found = format_value(tree)
        begin = found if len(found) <= 60 else f"{found[:60]}…"
        raise InputError(f"{no_recipe}; it begins with {begin}")
    for name, section in list(tree.items()):
        if name in SECTIONS and not isinstance(section, dict):
            if section is not None:
                problems.append(
                    f"{path}: {name}: expected a section of keys, got {format_value(section)}"
                )
            tree[name] = section = {}
        if name not in SECTIONS:
            continue  # whatever it holds, `from_tree` names it
        for key in [key for key in section if not isinstance(key, str)]:
            problems.append(f"{path}: {name}: expected words as keys, got {format_value(key)}")
            del section[key]
    return tree, problems


def _section_hint(name: object) -> str:
    """What was probably meant by a section that there is not: a key of one, such as `seed: 5`."""
    home = closest_key(str(name)) if str(name) not in SECTIONS else None
    if home is None:
        return did_you_mean(str(name), list(SECTIONS), "the sections are")
    section, key = home.split(".")
    return f"; {key} is a key of the section {section}: write it under {section}:"


def _flags_joined(words: Sequence[str]) -> list[str]:
    """`--optim.lr 3` as the one word that it was meant to be."""
    joined: list[str] = []
    for word in words:
        if joined and re.fullmatch(r"--?[A-Za-z_.-]+", joined[-1]) and not re.search("^-|=", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _apply(
    word: str, tree: dict[str, Any], origin: dict[str, str], origin_of_words: str
) -> str | None:
    """Set one `section.key=value` word in the tree; return the problem where it is none."""
    match = re.fullmatch(r"([A-Za-z_]+)\.([A-Za-z_]+)=(.*)", word, re.DOTALL)
    if match is None:
        flag = re.fullmatch(r"--?([A-Za-z_]+\.[A-Za-z_]+)(?:=(.*))?", word, re.DOTALL)
        if flag is not None:
            value = flag[2] if flag[2] is not None else "VALUE"
            return f"{word}: expected section.key=value; write {flag[1]}={value}"
        bare = re.fullmatch(r"-*([A-Za-z_-]+)(?:=(.*))?", word, re.DOTALL)
        home = closest_key(bare[1].replace("-", "_")) if bare is not None else None
        if bare is not None and home is not None:
            value = bare[2] if bare[2] is not None else "VALUE"
            return f"{word}: expected section.key=value; write {home}={value}"
        option = "no such option (--help lists them); " if word.startswith("--") else ""
        return f"{word}: {option}expected section.key=value, for example optim.lr=0.03"
    section, key, text = match.groups()
    if section not in SECTIONS:
        hint = did_you_mean(section, list(SECTIONS), "the sections are")
        return f"{word}: no section '{section}'{hint}"
    field = SECTIONS[section].model_fields.get(key)
    if field is not None and not text:  # as of a variable of a shell that is not set
        return f"{word}: expected a value after '='; {section}.{key}=null sets none"
    kinds = () if field is None else (field.annotation, *get_args(field.annotation))
    takes_list = any(tuple in (kind, get_origin(kind)) for k in kinds for kind in (k, *get_args(k)))
    try:
        value = parse_value(text) if text else None
    except YAMLLimitError as error:
        if str not in kinds:
            return f"{section}.{key}={text[:20]}…: not a value of a recipe: {error}"
        value = text
    except (YAMLError, ValueError) as error:
        if (
            takes_list
            and text.startswith("[")
            and "]" not in text
            and isinstance(error, MarkedYAMLError)
        ):
            return f"{word}: not valid YAML: {error.problem}"
        value = text  # a path or a sentence that happens not to be YAML
    # A list of words is written as YAML, also where one word is allowed.
    takes_words = str in kinds and not (takes_list and (... in kinds or isinstance(value, list)))
    takes_keys = any(get_origin(kind) is dict for kind in kinds)
    if (isinstance(value, dict) and not takes_keys) or (takes_words and value is not None):
        value = text  # `data.revision=12` and `data.text=a: b` mean the text as it is
    tree.setdefault(section, {})
    tree[section][key] = value
    origin[f"{section}.{key}"] = origin_of_words
    return None
