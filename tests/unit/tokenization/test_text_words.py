"""Words of texts in several scripts, and those that tokens make up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.tokenization.text_words import find_words, group_tokens


def words_of(text):
    words = find_words(text)
    return [text[a:b] for a, b in zip(words.begins, words.ends, strict=True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat's 3 legs.", ["The", "cat's", "3", "legs", "."]),
        ("l’été, déjà", ["l’été", ",", "déjà"]),
        ("e\u0301te\u0301 'quoted'", ["e\u0301te\u0301", "'", "quoted", "'"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("株価が下落", ["株", "価", "が", "下", "落"]),
        ("ดีมาก", ["ดี", "ม", "า", "ก"]),
        ("ok 👍🏽 \u2764\ufe0f", ["ok", "👍", "🏽", "\u2764\ufe0f"]),
        ("a_b\tc-d\u00a0e", ["a_b", "c", "-", "d", "e"]),
        (" \n\x00", []),
    ],
)
def test_words(text, expected):
    assert words_of(text) == expected


@given(st.text())
def test_words_are_in_order_and_leave_out_only_spaces(text):
    words = find_words(text)
    assert (words.begins < words.ends).all()
    assert (words.ends[:-1] <= words.begins[1:]).all()
    left = np.ones(len(text), dtype=bool)
    for a, b in zip(words.begins, words.ends, strict=True):
        left[a:b] = False
    assert not any(char.isalnum() for char, is_left in zip(text, left, strict=True) if is_left)


def grouped(text, tokens):
    begins, ends = np.array(tokens, dtype=np.int64).reshape(-1, 2).T
    word_of, spans = group_tokens(find_words(text), begins, ends)
    return word_of.tolist(), [text[span] for span in spans]


def test_tokens_of_a_word_are_one():
    assert grouped("unfairly so", [(0, 2), (2, 6), (6, 8), (8, 11)]) == (
        [0, 0, 0, 1],
        ["unfairly", "so"],
    )


def test_words_that_share_a_token_are_one():
    # Sentencepiece makes one token of several characters, or of a sign and the word behind it.
    assert grouped("株価が下落", [(0, 2), (2, 3), (3, 5)]) == ([0, 1, 2], ["株価", "が", "下落"])
    assert grouped("a (b", [(0, 1), (1, 4)]) == ([0, 1], ["a", "(b"])


def test_spaces_and_empty_tokens_are_in_no_word():
    assert grouped("a  b", [(0, 0), (0, 1), (1, 3), (3, 4), (4, 4)]) == (
        [-1, 0, -1, 1, -1],
        ["a", "b"],
    )
    assert grouped("", []) == ([], [])
