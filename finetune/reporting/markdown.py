r"""Text from data → Markdown that shows it, and takes nothing in it for markup.

f"| {escape(label)} | {support} |"
f"trained from {code(source)}"
block(recipe, "yaml")
"""

import re

from finetune.runtime.visible_text import visible_line

# Of ASCII's punctuation, what CommonMark or GitHub's dialect give a meaning to within a line: after
# a backslash, each is itself. `$` makes formulas, `@` mentions, `:` links and emoji, `www.` links.
MARKUP = re.compile(r"[\\`*_|\[\]#~$]|@(?=\w)|:(?=//|[\w+-]+:)|(?<=www)\.", re.IGNORECASE)
# What begins a list, a rule or a heading where it begins a line.
BEGINNING = re.compile(r"^[-+=]")
NUMBERED = re.compile(r"^(\d+)([.)])")


def escape(text: str) -> str:
    """A text as text, on one line: in a sentence, a heading, an item of a list or a cell."""
    line = MARKUP.sub(r"\\\g<0>", visible_line(text.strip())).replace("&", "&amp;")
    line = line.replace("<", "&lt;").replace(">", "&gt;")
    return NUMBERED.sub(r"\1\\\2", BEGINNING.sub(r"\\\g<0>", line))


def code(text: str) -> str:
    """A text as code within a line, whatever backticks it has itself. Not in a table."""
    line = visible_line(text.strip())
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def block(text: str, language: str) -> str:
    """Lines of code, whatever backticks they have themselves."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
