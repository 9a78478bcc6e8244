"""Texts → their word triples, hashed: what two texts that are nearly the same share.

    for block in blocks(texts):
        triples, of = triples_of(block)

A word is a run of letters, digits and underscores, in lower case. Of scripts that set no
space between words, each character is a word, so that a triple is three characters. All of a block
is cut at once, by arrays of its characters.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Hashes = NDArray[np.uint64]

WORDS = 3  # in a triple; a shorter text is one triple, filled up with nothing
CHARACTERS, TEXTS = 2**17, 2**15  # cut into words together: what caches hold, what two bytes count

_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)

# Blocks of scripts written without spaces between words: the classes ID, CJ and SA of Unicode's
# line breaking (UAX 14), where a line may end between any two letters, or only a dictionary knows.
UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x312F),  # radicals, Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA000, 0xA4CF),  # Yi
    (0xAA60, 0xAADF),  # Myanmar, Tai Viet
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # Katakana of half width
    (0x16FE0, 0x1B2FF),  # Tangut, Kana, Nushu
    (0x20000, 0x33FFF),
)
LETTER, WORD = 1, 2  # what a character is: part of a word, or one by itself


def blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    block: list[str] = []
    characters = 0
    for text in texts:
        block.append(text.casefold())
        characters += len(block[-1])
        if characters >= CHARACTERS or len(block) == TEXTS:
            yield block
            block, characters = [], 0
    if block:
        yield block


def triples_of(texts: Sequence[str]) -> tuple[Hashes, Ids]:
    """The hash of each different word triple of each text, by text, and whose it is."""
    words, of = _words(texts)
    lengths = np.bincount(of, minlength=len(texts))
    padded = np.where(lengths > 0, np.maximum(lengths, WORDS), 0)
    flat = np.zeros(padded.sum(), dtype=np.uint64)
    flat[spans(np.cumsum(padded) - padded, lengths)] = words
    many = np.maximum(padded - (WORDS - 1), 0)
    at = spans(np.cumsum(padded) - padded, many)
    hashes = np.zeros(len(at), dtype=np.uint64)
    for i in range(WORDS):
        hashes = mixed(hashes + flat[at + i] * _MIX[i])
    of = np.repeat(np.arange(len(texts)), many)
    order = np.argsort(hashes)
    order = order[np.argsort(of[order].astype(np.uint16), kind="stable")]  # two bytes: radix sort
    hashes, of = hashes[order], of[order]
    new = np.ones(len(of), dtype=bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (of[1:] != of[:-1])
    return hashes[new], of[new]


def _words(texts: Sequence[str]) -> tuple[Hashes, Ids]:
    """The hash of each word, in order, and whose it is."""
    whole = "\0".join(["", *texts]).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(whole, dtype="<u4")
    kinds = _kinds()[codes]
    begins = kinds == WORD
    begins[1:] |= (kinds[1:] == LETTER) & (kinds[:-1] != LETTER)
    inside = np.flatnonzero(kinds)
    at = np.flatnonzero(begins[inside])
    if not len(at):
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    place = np.arange(len(inside)) - np.repeat(at, np.diff(at, append=len(inside)))
    letters = mixed(codes[inside] + place.astype(np.uint64) * _MIX[0])
    ends = np.cumsum([len(text) + 1 for text in texts])
    return np.add.reduceat(letters, at), np.searchsorted(ends, inside[at], side="right")


@functools.cache
def _kinds() -> NDArray[np.uint8]:
    """What each character is: 0, LETTER or WORD. (0x110000,)"""
    kinds = np.zeros(0x110000, dtype=np.uint8)
    for run in re.finditer(r"\w+", "".join(map(chr, range(0x40000)))):  # beyond, none is given out
        kinds[run.start() : run.end()] = LETTER
    for first, last in UNSPACED:
        for code in range(first, last + 1):
            if unicodedata.category(chr(code))[0] in "LMN":  # vowels and tones are marks
                kinds[code] = WORD
    return kinds


def spans(begins: Ids, sizes: Ids) -> Ids:
    """The numbers from each begin on, so many of each, in a row."""
    return np.arange(sizes.sum()) + np.repeat(begins - np.cumsum(sizes) + sizes, sizes)


def mixed(values: Hashes) -> Hashes:
    """The finalizer of splitmix64 (Steele et al. 2014): near numbers become far ones."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: Hashes = values ^ (values >> np.uint64(31))
    return result
