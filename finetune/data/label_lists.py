"""Lists in cells of labels: of 0 and 1, one for each label; or written as text, as in a csv file.

read_one_hot([[0, 1, 0], [1, 0, 1]], str)     # rows of the labels 1; 0 and 2
parse_list("['joy', 'anger']")                # ["joy", "anger"]
"""

import ast
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from finetune.data.cells import clip
from finetune.data.columns import ColumnSpec
from finetune.data.corpus import Finding
from finetune.data.places import Places
from finetune.runtime.errors import shorten

SHOWN = 3  # cells named in a message
BRACKETS = {"[": "]", "(": ")", "{": "}"}
QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
BARE = re.compile(r"[^,'\"\[\](){}]+")
WORDS = {"true": True, "false": False}


class OneHot(NamedTuple):
    """Lists of 0 and 1 as the places of their ones.

    Attributes:
        sets: of each row a tuple, or None where it is missing. (rows,)
        width: the length of the lists, which is how many labels there are.
        problem: what is wrong with them.
    """

    sets: list[tuple[int, ...] | None]
    width: int
    problem: str | None


def read_one_hot(
    cells: Sequence[Any], place: Callable[[int], str], are_ids: bool = False
) -> OneHot | None:
    """Lists of 0 and 1, or of false and true, where they cannot be lists of labels; else None.

    A list of labels holds no label twice. So lists of 0 and 1 are one-hot if one holds 0 or 1
    twice, or if all have the same length of 2 or more: else each row would have the same labels.

    Args:
        cells: (rows,)
        place: names a row in messages.
        are_ids: whether the source itself says that the numbers are ids of labels: then only a
            list that holds one twice is evidence.
    """
    lists = [(i, cell) for i, cell in enumerate(cells) if cell is not None]
    if not lists or not all(isinstance(cell, list) for _, cell in lists):
        return None
    if not all(isinstance(v, int | float) and v in (0, 1) for _, cell in lists for v in cell):
        return None
    first_of = {len(cell): i for i, cell in reversed(lists)}
    has_repeat = any(len(cell) > len(set(cell)) for _, cell in lists)
    if not has_repeat and (are_ids or len(first_of) > 1 or max(first_of) < 2):
        return None
    problem = None
    if len(first_of) > 1:
        got = [f"{size} at {place(i)}" for size, i in sorted(first_of.items(), key=lambda p: p[1])]
        problem = f"expected lists of 0 and 1 of one length, got {shorten(got, SHOWN)}"
    sets = [None if c is None else tuple(i for i, v in enumerate(c) if v) for c in cells]
    return OneHot(sets, max(first_of), problem)


def read_text_lists(
    cells: Sequence[Any], spec: ColumnSpec, places: Places
) -> tuple[list[Any], list[str], tuple[Finding, ...]]:
    """The cells with lists that are written as text made lists, if `spec.lists` says so.

    Returns: the cells; what is wrong with them; and what is to be known of them.
    """
    key = f"'{spec.label}' (data.label)"
    texts = {cell for cell in cells if isinstance(cell, str) and cell.strip()}
    lists = {text: items for text in texts if (items := parse_list(text)) is not None}
    if not spec.lists:
        like = {text for text in lists if looks_like_list(text)}
        rows = [i for i, cell in enumerate(cells) if isinstance(cell, str) and cell in like]
        if spec.lists is False or not rows:
            return [*cells], [], ()
        if like == texts:
            got = f"{cells[rows[0]]!r} at {places.short(rows[0])}"
            remedy = "to read the labels in them, or false to read each text as one label"
            if spec.separator is not None:
                remedy = (
                    "and data.label_separator=null to read the labels in them, or "
                    "data.label_lists=false to split each text at its separator"
                )
            return [], [
                f"{key}: all labels look like lists that are written as text, such as {got}; set "
                f"data.label_lists=true {remedy}"
            ], ()  # fmt: skip
        if spec.separator is not None:
            return [*cells], [], ()
        rule = "read as text (data.label_lists=true reads them as lists)"
        return [*cells], [], (Finding("list as text", "", len(rows), places.take(rows), rule),)
    begun = [
        i
        for i, c in enumerate(cells)
        if isinstance(c, str) and c in texts and c not in lists and c.strip()[0] in "[({"
    ]
    problems = []
    if begun:
        got = shorten([f"{clip(repr(cells[i]))} at {places.short(i)}" for i in begun], SHOWN)
        problems = [f"{key}: expected lists written as text (data.label_lists), got {got}"]
    return [lists.get(c, c) if isinstance(c, str) else c for c in cells], problems, ()


def looks_like_list(text: str) -> bool:
    """Whether a text is a list as Python, JSON or NumPy write it; names in brackets are none."""
    return parse_list(text) is not None and (
        text.lstrip()[:1] == "[" or QUOTED.search(text) is not None
    )


def parse_list(text: str) -> list[str | int | bool] | None:
    """The items of a list that is written as text; None where it is none.

    Items are in quotes, or are bare numbers or words; between them are commas or, as NumPy writes
    them, blanks.
    """
    text = text.strip()
    if len(text) < 2 or BRACKETS.get(text[0]) != text[-1]:
        return None
    inner = text[1:-1].strip()
    by_commas = "," in QUOTED.sub("", inner)
    items: list[str | int | bool] = []
    at, separated = 0, True
    while at < len(inner):
        if inner[at].isspace() or (inner[at] == "," and not separated):
            separated = separated or inner[at] == "," or not by_commas
            at += 1
            continue
        match = QUOTED.match(inner, at)
        if match is None and (match := BARE.match(inner, at)) is None:
            return None
        if not separated and (by_commas or match[0][0] not in "'\""):
            return None
        words = [match[0]] if by_commas or match[0][0] in "'\"" else match[0].split()
        for word in words:
            item = _read_item(word.strip())
            if item is None:
                return None
            items.append(item)
        at, separated = match.end(), not by_commas and match[0][-1:].isspace()
    return items


def _read_item(word: str) -> str | int | bool | None:
    if word[:1] not in ("'", '"'):
        if re.fullmatch(r"-?\d{1,18}", word):
            return int(word)
        return WORDS.get(word.lower(), word or None)
    for read in (json.loads, ast.literal_eval):  # of one quoted text, which neither can run
        try:
            return str(read(word))
        except (ValueError, SyntaxError):
            continue
    return None
