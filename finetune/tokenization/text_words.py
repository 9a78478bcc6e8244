"""A text → its words, and the words that some tokens make up, by characters.

    words = find_words("The cat's 3 legs.")          # The, cat's, 3, legs, .
    word_of, spans = group_tokens(words, begins, ends)

A word is a run of letters, digits, underscores and the marks on them, with apostrophes inside. Of
scripts that set no space between words, each character is a word, as is every other sign. Words
that share a token are one.
"""

import functools
import re
import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.data.word_triples import UNSPACED

Places = NDArray[np.int64]

# Over a string with a letter for each character's kind (`_kind`).
WORD = re.compile(r"w[wm]*(?:'w[wm]*)*|[ux']m*|m+")


@dataclass(frozen=True)
class Words:
    """Where the words of a text are.

    Attributes:
        begins, ends: characters. (words,)
    """

    begins: Places
    ends: Places


def find_words(text: str) -> Words:
    """The words of a text, in their order."""
    spans = [match.span() for match in WORD.finditer("".join(map(_kind, text)))]
    both = np.array(spans, dtype=np.int64).reshape(-1, 2)
    return Words(both[:, 0], both[:, 1])


def group_tokens(words: Words, begins: Places, ends: Places) -> tuple[Places, list[slice]]:
    """The word that each token is a part of, and where these words are.

    Args:
        begins, ends: of tokens, in characters; one may come several times. (tokens,)

    Returns:
        For each token the index of its word, -1 where it is in none, such as a space. (tokens,)
        And the characters of each word.
    """
    first = np.searchsorted(words.ends, begins, side="right")  # the first that ends behind it
    last = np.searchsorted(words.begins, ends, side="left") - 1
    inside = last >= first
    # A token from one word into another makes them one.
    joined = np.zeros(len(words.begins), dtype=np.bool_)
    for one, other in set(zip(first[inside].tolist(), last[inside].tolist(), strict=True)):
        joined[one + 1 : other + 1] = True
    group = np.cumsum(~joined) - 1
    word_of = np.full(len(begins), -1, dtype=np.int64)
    word_of[inside] = group[first[inside]]
    starts = np.flatnonzero(~joined)
    stops = np.append(starts, len(joined))[1:] - 1
    spans = [
        slice(int(words.begins[one]), int(words.ends[other]))
        for one, other in zip(starts, stops, strict=True)
    ]
    return word_of, spans


@functools.lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    """w: of a word; m: a mark or joiner; u: a word by itself; ': an apostrophe; x: another sign;
    a space."""
    category = unicodedata.category(character)
    if category.startswith("M") or category == "Cf":
        return "m"
    if any(low <= ord(character) <= high for low, high in UNSPACED):
        return "u" if character.isalnum() else _kind_of_sign(character)
    if character.isalnum() or character == "_":
        return "w"
    return _kind_of_sign(character)


def _kind_of_sign(character: str) -> str:
    if character in "'’":
        return "'"
    return " " if character.isspace() or unicodedata.category(character) == "Cc" else "x"
