"""Near-duplicates are all found, in whatever script, in one list of texts and across splits."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data import near_duplicates as near_duplicates_module
from finetune.data import text_store, word_triples
from finetune.data.near_duplicates import THRESHOLD, find_near_duplicates
from finetune.data.overlap import Overlap
from finetune.data.text_store import Store

# Words and characters that are words by themselves: Han, Kana, Thai with its tone mark.
UNSPACED = "天地人あア\u0e01\u0e48"
WORD = st.sampled_from([*"abcdef", "天地", *UNSPACED])
TEXT = st.lists(WORD, max_size=14).map(" ".join)
GLUED = st.lists(st.sampled_from([*"ab .", *UNSPACED]), max_size=14).map("".join)
TEXTS = st.lists(TEXT | GLUED, max_size=14)
FEW = st.lists(st.lists(st.sampled_from("ab"), max_size=14).map(" ".join), min_size=1, max_size=8)


def triples(text):
    words = re.findall(f"[{UNSPACED}]|[a-z]+", text)
    padded = words + [""] * (3 - len(words)) if words else []
    return {tuple(padded[i : i + 3]) for i in range(len(padded) - 2)}


def overlap_of(one, other):
    return len(one & other) / len(one | other) if one and other else 0


def pairs_of(found):
    found = (part.tolist() for part in (found.first, found.second, found.overlap))
    return {(i, j): overlap for i, j, overlap in zip(*found, strict=True)}


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_just_the_pairs_that_are_alike(texts, alike):
    sets = [triples(text) for text in texts]
    firsts = [min(j for j in range(len(sets)) if sets[j] == sets[i]) for i in range(len(sets))]
    wanted = {}
    for j, later in enumerate(sets):
        for i, earlier in enumerate(sets[:j]):
            overlap = overlap_of(earlier, later)
            as_twin = overlap == 1 and firsts[j] == i
            if as_twin or (alike <= overlap < 1 and firsts[i] == i and firsts[j] == j):
                wanted[i, j] = overlap
    assert pairs_of(find_near_duplicates(texts, alike)) == pytest.approx(wanted)


@settings(max_examples=100, deadline=None)
@given(FEW, FEW, FEW)
def test_the_likest_row_of_another_split_and_before(train, validation, test):
    splits = {"train": train, "validation": validation, "test": test}
    finder = Overlap(splits, Store(), find_near=True)
    for of in splits:
        for within in splits:
            found = finder.find_earlier(of) if of == within else finder.find_matches(of, within)
            got = {
                int(row): (int(other), pytest.approx(overlap), bool(same))
                for row, other, overlap, same in zip(*found, strict=True)
            }
            wanted = {}
            for row, text in enumerate(splits[of]):
                others = splits[within][:row] if of == within else splits[within]
                ranked = [
                    (other == text, overlap_of(triples(other), triples(text)), -i)
                    for i, other in enumerate(others)
                ]
                if of == within:  # a repeat is none that is near
                    ranked = [(False, *rest) for _, *rest in ranked]
                same, overlap, i = max(ranked, default=(False, 0, 0))
                repeats = of == within and ranked and others[-i] == text
                if (same or overlap >= THRESHOLD) and not repeats:
                    wanted[row] = (-i, 1 if same else overlap, same)
            assert got == wanted, (of, within)


@pytest.mark.parametrize(
    "text",
    [
        "国务院办公厅昨日发布通知要求各地区各部门认真贯彻落实有关规定切实做好节假日期间安全生产工作",
        "東京の気象庁はきのう関東地方に強い雨が降るおそれがあるとして住民に早めの避難を呼びかけました",
        "กรมอุตุนิยมวิทยาประกาศเตือนประชาชนในภาคใต้ให้ระวังฝนตกหนักและน้ำท่วมฉับพลันในช่วงสองสามวันนี้",
        "ກົມອຸຕຸນິຍົມວິທະຍາປະກາດເຕືອນປະຊາຊົນໃຫ້ລະວັງຝົນຕົກໜັກ",
    ],
)
def test_without_spaces_between_words(text):
    middle = len(text) // 2
    near = text[:middle] + text[middle + 1 :]
    other = text[::-1]
    found = find_near_duplicates([text, other, near, f"「{text}」!"])
    assert pairs_of(found).keys() == {(0, 2), (0, 3)}
    assert found.overlap[0] > 0.8
    assert found.overlap[1] == 1


def test_case_white_space_and_punctuation_do_not_count():
    found = find_near_duplicates(["The cat, it sat.", "the CAT it\n sat!", "!!!", "???", "a", "A."])
    assert pairs_of(found) == {(0, 1): 1.0, (4, 5): 1.0}


def drawn(many):
    """Texts of which some are nearly the same."""
    random = np.random.default_rng(0)
    texts = [random.integers(40, size=12) for _ in range(many)]
    return [
        " ".join(f"w{word}" for word in texts[random.integers(i + 1)]) + " x" * int(i % 3 == 0)
        for i in range(many)
    ]


def test_blocks_and_disk_change_nothing(tmp_path, monkeypatch):
    texts = drawn(300)
    wanted = find_near_duplicates(texts)
    assert (wanted.overlap < 1).sum() > 20
    monkeypatch.setattr(word_triples, "CHARACTERS", 100)
    monkeypatch.setattr(near_duplicates_module, "AT_ONCE", 50)
    monkeypatch.setattr(
        near_duplicates_module, "MOST_SLOTS", 16
    )  # so that many triples share a count
    monkeypatch.setattr(text_store, "IN_MEMORY", 2**10)
    found = find_near_duplicates(iter(texts), store=Store(tmp_path))
    assert pairs_of(found) == pairs_of(wanted)


def test_of_too_many_pairs_the_likest_in_size_are_compared(monkeypatch):
    random = np.random.default_rng(0)
    common = [f"c{i}" for i in range(30)]
    texts = [" ".join([*common, *(["y"] * int(random.integers(3))), f"e{i}"]) for i in range(60)]
    whole = find_near_duplicates(texts)
    assert (len(whole.first), whole.crowd, whole.crowded) == (60 * 59 // 2, 100, 0)
    monkeypatch.setattr(near_duplicates_module, "MOST_PAIRS", 1000)
    some = find_near_duplicates(texts)
    assert 1 <= some.crowd < 59
    assert some.crowded == 60
    assert {*pairs_of(some)} < {*pairs_of(whole)}
    assert {*some.first.tolist(), *some.second.tolist()} == {*range(60)}  # each has its like
