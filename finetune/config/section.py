"""What every section of a recipe is made of: a frozen model, and the types of its keys."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Weights = dict[str, Annotated[float, Field(gt=0)]]
TaskWeights = dict[str, Annotated[float, Field(ge=0)]]


class Section(BaseModel):
    """A frozen part of the recipe. Unknown keys and values of another type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def conflict(key: str, expected: str) -> PydanticCustomError:
    """A value that is right alone but not with the section's other values."""
    return PydanticCustomError("conflict", "{expected}", {"key": key, "expected": expected})


def is_encoding(name: str) -> bool:
    """Whether Python knows an encoding of text by this name."""
    try:
        b"a".decode(name, "replace")
    except (LookupError, ValueError):
        return False
    return True


DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "auto": "auto"}


def parse_delimiter(word: str) -> str | None:
    """The character that a word means, or auto; None for what can separate no cells."""
    if word.lower() in DELIMITERS:
        return DELIMITERS[word.lower()]
    is_mark = len(word) == 1 and not word.isalnum() and word not in '"\r\n' and word.isascii()
    return word if is_mark else None
