"""Keys with their values and comments → the text of a recipe, for a person to go on from.

    write_recipe([RecipeLine("data.label", "queue", "5 labels in 1,200 rows")], header="…")

Comments stand above their key. A key that is not `active` is a comment itself, ready to be switched
on. Whatever text from data is in them, `loader.load` reads the file back to these values.
"""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune.config.schema import SECTIONS

WIDTH = 100
# Text that means the same without quotes, in YAML 1.1 and 1.2, in and outside of lists.
PLAIN = re.compile(r"(/|\./|(\.\./)+)?[A-Za-z_][A-Za-z0-9_./-]*(:[A-Za-z0-9_./-]+)?")
WORDS = {"true", "false", "yes", "no", "on", "off", "y", "n", "null"}


@dataclass(frozen=True)
class RecipeLine:
    """A key of a recipe.

    Attributes:
        name: `section.key`.
        value: as the schema takes it.
        comment: what stands above it.
        active: whether it is set, or only proposed.
    """

    name: str
    value: Any
    comment: str = ""
    active: bool = True


def write_recipe(lines: Sequence[RecipeLine], header: Sequence[str] = ()) -> str:
    """The text of a recipe.

    Args:
        lines: grouped by section here, else in their order.
        header: comments at the top; those that are indented are not wrapped.
    """
    text: list[str] = []
    for note in header:
        is_whole = not note or note.startswith(" ")
        text += [f"# {printable(note)}".rstrip()] if is_whole else _comment(note, "# ")
    for section in SECTIONS:
        own = [line for line in lines if line.name.split(".")[0] == section]
        if not own:
            continue
        # A section without a key would be null, which an editor's schema refuses.
        mark = "" if any(line.active for line in own) else "# "
        text.append(f"{mark}{section}:")
        for line in own:
            text += _comment(line.comment, "  # ")
            key = line.name.split(".")[1]
            text.append(f"  {'' if line.active else '# '}{key}: {format_yaml(line.value)}")
    return "\n".join(text) + "\n"


def format_yaml(value: Any) -> str:
    """A value on one line of YAML."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(format_yaml, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str):
        return repr(value)
    if PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    return f'"{"".join(map(_escape, value))}"'


def _escape(mark: str) -> str:
    if mark in '"\\':
        return f"\\{mark}"
    if mark.isprintable():
        return mark
    code = ord(mark)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable(text: str) -> str:
    """Text that stays on its line of a comment."""
    return "".join(mark if mark.isprintable() else "\ufffd" for mark in text)


def _comment(text: str, mark: str) -> list[str]:
    return textwrap.wrap(
        printable(text),
        WIDTH,
        initial_indent=mark,
        subsequent_indent=mark,
        break_on_hyphens=False,
        break_long_words=False,
    )
