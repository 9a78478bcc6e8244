r"""Text from data → text that shows what it holds, and does nothing to who reads it.

    visible("a\x1b[2Jb")    # r"a\x1b[2Jb"

A terminal obeys escape sequences, also in a log that is read with `cat`. Controls of the direction
of text (Trojan Source, Boucher and Anderson 2021) have a line read as another. Both may stand in a
label, a file's name, a value of a recipe, or the message of an error that quotes one.
"""

import re

# Control characters (C0 but for tabs and line feeds, DEL, C1), what changes a text's direction,
# line ends that only some programs know, the tags, which nothing shows, and halves of pairs.
_UNSAFE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f"
    "\U000e0000-\U000e007f\ud800-\udfff"
)
UNSAFE = re.compile(f"[{_UNSAFE}]")
UNSAFE_OR_BREAK = re.compile(f"[{_UNSAFE}\n\t]")


def visible(text: str) -> str:
    """The text in the notation of Python's literals where a terminal would do something else."""
    return UNSAFE.sub(_escape, text)


def visible_line(text: str) -> str:
    """The same on one line: line feeds and tabs are shown as well."""
    return UNSAFE_OR_BREAK.sub(_escape, text)


def visible_json(text: str) -> str:
    """JSON that says the same, in which those characters are JSON's own escapes."""
    return UNSAFE.sub(_escape_in_json, text)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def _escape_in_json(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
