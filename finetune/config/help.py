"""Every recipe key with its type, default and meaning, from the schema: `--help KEYS`."""

import inspect
import textwrap
import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from finetune.config.key_hints import NAMES_ELSEWHERE
from finetune.config.schema import SECTIONS, Stage
from finetune.runtime.errors import InputError, closest_match


def list_keys() -> str:
    """The names of all keys, by section."""
    lines = ["recipe keys, by section (--help SECTION, --help KEY or --help all explains them):"]
    for name, section in SECTIONS.items():
        keys = ", ".join(section.model_fields)
        lines += textwrap.wrap(keys, 90, initial_indent=f"  {name:<12}", subsequent_indent=" " * 14)
    return "\n".join(lines)


def explain_keys(topic: str) -> str:
    """The keys of a section, or one key (`optim.lr`, or `lr`), or all: type, default, meaning.

    Raises:
        InputError: where the topic is none of these, naming the closest.
    """
    if topic == "all":
        return recipe_help()
    if topic in SECTIONS:
        return "\n".join(_help_of_section(topic))
    named = [
        (section, key)
        for section, model in SECTIONS.items()
        for key in model.model_fields
        if topic in (key, f"{section}.{key}")
    ]
    if not named:
        raise InputError(f"{topic}: no such section or key of a recipe{_topic_hint(topic)}")
    return "\n".join(line for section, key in named for line in _help_of_key(section, key))


def recipe_help() -> str:
    """Every field of every section: key, type, default, meaning."""
    return "\n\n".join("\n".join(_help_of_section(name)) for name in SECTIONS)


def _topic_hint(topic: str) -> str:
    """`; did you mean 'optim.lr'?`, also for what other trainers call it."""
    names = NAMES_ELSEWHERE | {name: name for name in SECTIONS}
    for name, section in SECTIONS.items():
        names |= {key if "." not in topic else f"{name}.{key}": f"{name}.{key}"
                  for key in section.model_fields}  # fmt: skip
    guess = closest_match(topic.replace("-", "_"), names)
    if guess is None:
        return f"; the sections are: {', '.join(SECTIONS)}"
    return f"; did you mean '{names[guess]}'?"


def _help_of_section(name: str) -> list[str]:
    section = SECTIONS[name]
    keys = [line for key in section.model_fields for line in _help_of_key(name, key)]
    return [f"{name}: {(section.__doc__ or '').strip()}", *keys]


def _help_of_key(section: str, key: str) -> list[str]:
    lines = _help_of_field(f"{section}.{key}", SECTIONS[section].model_fields[key])
    if (section, key) == ("train", "stages"):
        about = " ".join((inspect.getdoc(Stage) or "").split())
        lines += _wrapped(f"Each stage: {about}", 90, "      ")
        for name, field in Stage.model_fields.items():
            lines += (f"    {line}" for line in _help_of_field(name, field))
    return lines


def _help_of_field(name: str, field: FieldInfo) -> list[str]:
    default = "required" if field.is_required() else f"default {format_value(field.default)}"
    return [
        f"  {name}  ({describe_field(field)}; {default})",
        *_wrapped(field.description or "", 90, "      "),
    ]


def describe_field(field: FieldInfo) -> str:
    """What a field takes, in words: `a number above 0`."""
    words = _describe(field.annotation, field.metadata)
    if field.examples:
        words = words.replace("a word", f"a word such as {field.examples[0]}")
    return words


def _describe(annotation: Any, metadata: Sequence[Any]) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        constraints = [c for m in more for c in (m.metadata if isinstance(m, FieldInfo) else [m])]
        return _describe(inner, [*metadata, *constraints])
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(part, metadata) for part in get_args(annotation))
    if origin is Literal:
        words = [str(word) for word in get_args(annotation)]
        return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
    if origin is tuple:
        return f"a list, each {_describe(get_args(annotation)[0], [])}"
    if annotation is Stage:
        return f"a mapping with any of {', '.join(Stage.model_fields)}"
    if origin is dict:
        return f"a mapping of words, each to {_describe(get_args(annotation)[1], [])}"
    if annotation is type(None):
        return "null"
    if annotation is bool:
        return "true or false"
    if annotation is str:
        return "a word"
    noun = "a whole number" if annotation is int else "a number"
    bounds = []
    for mark in metadata:
        match mark:
            case Gt(gt=low):
                bounds.append(f"above {low}")
            case Ge(ge=low):
                bounds.append(f"of at least {low}")
            case Lt(lt=high):
                bounds.append(f"below {high}")
            case Le(le=high):
                bounds.append(f"of at most {high}")
    return " ".join([noun, " and ".join(bounds)]).strip()


def format_value(value: Any) -> str:
    """A value as messages write it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    return repr(value)


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)
