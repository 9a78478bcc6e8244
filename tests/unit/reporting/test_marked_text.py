"""Texts with words marked: what is marked, how strongly, and that nothing is lost or run."""

from hypothesis import given
from hypothesis import strategies as st

from finetune.reporting.html_report import template_environment
from finetune.reporting.marked_text import Segment, mark_words, split_segments


def test_the_strongest_words_are_marked_by_their_share():
    text = "a goal  in the\ncup final now"
    words = [(0, 1, 0.1), (2, 6, 3.0), (8, 10, -2.0), (15, 18, 1.0), (19, 24, 2.0), (25, 99, 9.0)]
    assert mark_words(text, words) == [
        Segment("a "),
        Segment("goal", 3),
        Segment(" in the "),
        Segment("cup", 2),
        Segment(" "),
        Segment("final", 3),
        Segment(" now"),
    ]
    assert mark_words(text, words, highest=9.0)[1] == Segment("goal", 2)
    assert mark_words("", []) == []


@given(st.text(), st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.floats(-9, 9))))
def test_all_of_the_text_is_there(text, words):
    segments = mark_words(text, [(a, a + 1 + n, score) for a, n, score in words])
    assert "".join("".join(one.text for one in segments).split()) == "".join(text.split())


def test_a_marked_text_is_split():
    segments = [Segment("ab"), Segment("cdef", 2), Segment("g")]
    assert split_segments(segments, 4) == (
        [Segment("ab"), Segment("cd", 2)],
        [Segment("ef", 2), Segment("g")],
    )
    assert split_segments(segments, 2) == ([Segment("ab")], segments[1:])
    assert split_segments(segments, 9) == (segments, [])


def test_text_is_escaped():
    template = template_environment().from_string(
        '{% from "marked.html" import marked %}{{ marked(segments) }}'
    )
    page = template.render(segments=[Segment("<b>"), Segment("&x", 1)])
    assert page == '&lt;b&gt;<mark class="grade1">&amp;x</mark>'
