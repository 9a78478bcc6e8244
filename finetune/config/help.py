"""Every recipe key with its type, default and meaning, from the schema."""

import inspect
import textwrap
import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from finetune.config.schema import SECTIONS, Section, Stage


def recipe_help() -> str:
    """Every field of every section: key, type, default, meaning."""
    lines = []
    for name, section in SECTIONS.items():
        lines += ["", f"{name}: {(section.__doc__ or '').strip()}"]
        lines += _help_of(section, f"{name}.")
    lines += ["", *_wrapped(f"Each of train.stages: {inspect.getdoc(Stage)}", 90, "")]
    return "\n".join(lines[1:] + _help_of(Stage, ""))


def _help_of(section: type[Section], prefix: str) -> list[str]:
    lines = []
    for key, field in section.model_fields.items():
        default = "required" if field.is_required() else f"default {format_value(field.default)}"
        lines.append(f"  {prefix}{key}  ({describe_field(field)}; {default})")
        lines += _wrapped(field.description or "", 90, "      ")
    return lines


def describe_field(field: FieldInfo) -> str:
    """What a field takes, in words: `a number above 0`."""
    return _describe(field.annotation, field.metadata)


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
        return "an OWNER/NAME word" if any(hasattr(m, "pattern") for m in metadata) else "a word"
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
