"""A text and the words in it that spoke for an answer → its segments, those words marked.

    segments = mark_words(text, [(17, 21, 1.84), …])
    # [Segment("The striker scored a "), Segment("goal", 3), …]: `marked.html` shows them

Of a word's score only its share of the highest one is shown, in three grades.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

GRADES = (1 / 8, 1 / 3, 2 / 3)  # of the highest score: where each begins


@dataclass(frozen=True)
class Segment:
    """A part of a text.

    Attributes:
        grade: 0: not marked; else from 1 to 3, the strongest.
    """

    text: str
    grade: int = 0


def mark_words(
    text: str, words: Iterable[tuple[int, int, float]], highest: float | None = None
) -> list[Segment]:
    """The segments of a text, white space in them collapsed, and none at its ends.

    Args:
        words: the characters of each, and its score; those below 0 or beyond the text's end are
            not marked.
        highest: the score that others are a share of; None: the highest of these.
    """
    inside = sorted(one for one in words if one[2] > 0 and one[1] <= len(text))
    if highest is None:
        highest = max((score for *_, score in inside), default=0.0)
    segments: list[Segment] = []
    at = 0
    for start, end, score in inside:
        grade = sum(score >= share * highest for share in GRADES)
        if start < at or not grade:
            continue
        segments += [Segment(text[at:start]), Segment(text[start:end], grade)]
        at = end
    segments.append(Segment(text[at:]))
    collapsed = [Segment(re.sub(r"\s+", " ", one.text), one.grade) for one in segments]
    collapsed[0] = Segment(collapsed[0].text.lstrip(), collapsed[0].grade)
    collapsed[-1] = Segment(collapsed[-1].text.rstrip(), collapsed[-1].grade)
    return [one for one in collapsed if one.text]


def split_segments(
    segments: Sequence[Segment], characters: int
) -> tuple[list[Segment], list[Segment]]:
    """The first characters of a marked text, and the rest."""
    first: list[Segment] = []
    for i, one in enumerate(segments):
        if len(one.text) > characters:
            head, tail = one.text[:characters], one.text[characters:]
            rest = [Segment(tail, one.grade), *segments[i + 1 :]]
            return [*first, *([Segment(head, one.grade)] if head else [])], rest
        first.append(one)
        characters -= len(one.text)
    return first, []
