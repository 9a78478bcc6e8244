"""What pydantic says of a recipe's keys → messages: where, key, what was expected and found."""

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from finetune.config.help import describe_field, format_value
from finetune.config.key_hints import key_hint
from finetune.config.renames import explain_rename
from finetune.config.schema import SECTIONS, Stage


def take_renamed(tree: dict[str, Any], file: str, origin: dict[str, str]) -> Iterator[str]:
    """Take keys and values by their old names out of the tree, and say what they are called now."""
    for section, keys in tree.items():
        for key, value in [*keys.items()]:
            name = f"{section}.{key}"
            message = explain_rename(name, value)
            if message is not None:
                yield f"{origin.get(name, file)}: {message}"
                del keys[key]


def describe_errors(error: ValidationError, file: str, origin: dict[str, str]) -> list[str]:
    """Each failed key once, in the words of `describe_field`."""
    messages: dict[str, str] = {}
    for item in error.errors():
        section, *path = item["loc"] or ("",)  # the whole recipe's conflicts have no place
        if item["type"] == "conflict":
            key = f"{section}.{item['ctx']['key']}".removeprefix(".")
            message = f"expected {item['msg']}"
        else:
            name = str(path.pop(0)) if path else ""
            key, fields = f"{section}.{name}", SECTIONS[str(section)].model_fields
            hint = key_hint(name, str(section))
            if key == "train.stages" and len(path) > 1:
                name = str(path[1])
                key, fields = f"{key}: stage {int(path[0]) + 1}: {name}", Stage.model_fields
                hint = f"; the keys of a stage are: {', '.join(fields)}"
                path = path[2:]
            if item["type"] == "missing":
                message = (
                    f"missing; expected {describe_field(fields[name])}: {fields[name].description}"
                )
            elif item["type"] == "extra_forbidden":
                message = f"no such key{hint}"
            else:
                found = item["input"]
                index = next((part for part in path if isinstance(part, int)), None)
                at = f" at position {index + 1}" if index is not None else ""
                expected = describe_field(fields[name]).removesuffix(" or null")
                if found in ([], ()):
                    expected = expected.replace("a list, each", "a list of one or more, each")
                message = f"expected {expected}, got {format_value(found)}{at}"
        where = origin.get(key.split(":")[0], file)
        messages.setdefault(key, f"{where}: {key}: {message}")
    return list(messages.values())
