"""The recipe's schema as JSON Schema (draft 2020-12), for editors."""

from typing import Any

from finetune.config.help import describe_field
from finetune.config.schema import SECTIONS, Recipe, Section, Stage


def recipe_schema() -> dict[str, Any]:
    """Every section and key: its type, range, default and meaning; unknown keys are refused."""
    schema = Recipe.model_json_schema()
    definitions = schema["$defs"]
    sections: list[type[Section]] = [*SECTIONS.values(), Stage]
    for section in sections:
        keys = definitions[section.__name__]["properties"]
        for key, field in section.model_fields.items():
            # What help and messages say: editors show it where a value is wrong.
            keys[key]["description"] = f"{field.description} ({describe_field(field)})"
    _drop_titles(schema)
    for name, part in schema["properties"].items():
        part["description"] = (SECTIONS[name].__doc__ or "").strip()
        part.pop("default", None)  # each key has its own
        if name not in schema["required"]:  # a section whose keys are all left out is null
            reference = part.pop("$ref")
            part["anyOf"] = [{"$ref": reference}, {"type": "null"}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A recipe of finetune",
        **schema,
        "description": "A run that fine-tunes an encoder into a document classifier.",
    }


def _drop_titles(part: Any) -> None:
    """Remove the titles that repeat each key's name, but for keys that are called title."""
    if isinstance(part, list):
        for inner in part:
            _drop_titles(inner)
    elif isinstance(part, dict):
        if isinstance(part.get("title"), str):
            del part["title"]
        for inner in part.values():
            _drop_titles(inner)
