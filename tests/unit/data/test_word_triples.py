"""Texts → hashes of their word triples."""

import numpy as np
import pytest

from finetune.data.word_triples import TEXTS, blocks, spans, triples_of


def sets_of(*texts: str) -> list[set[int]]:
    hashes, owners = triples_of([text.casefold() for text in texts])
    return [set(hashes[owners == i].tolist()) for i in range(len(texts))]


def test_three_words_are_one_triple() -> None:
    assert [len(found) for found in sets_of("a b c d", "a b c", "a", "", "?!")] == [2, 1, 1, 0, 0]


def test_case_and_punctuation_do_not_count_but_order_does() -> None:
    one, same, other = sets_of("The cat sat", "the CAT, sat!", "cat the sat")
    assert one == same != other


@pytest.mark.parametrize("text", ["通知要求各", "เฝ้าระวัง"])
def test_without_spaces_each_character_is_a_word(text: str) -> None:
    assert len(sets_of(text)[0]) >= 3


def test_blocks_hold_all_texts() -> None:
    texts = ["a"] * (TEXTS + 1)
    assert [len(block) for block in blocks(texts)] == [TEXTS, 1]
    assert spans(np.array([5, 0]), np.array([2, 3])).tolist() == [5, 6, 0, 1, 2]
