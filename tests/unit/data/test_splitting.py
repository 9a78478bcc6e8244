"""Cuts by label: their sizes, their classes, and what they never do."""

import numpy as np
import pytest

from finetune.data.splitting import STAYS, assign_folds, carve, draw, rarest_labels


@pytest.mark.parametrize("seed", [0, 1])
def test_a_cut_is_stratified_and_leaves_every_class_in(seed: int) -> None:
    labels = np.repeat([0, 1, 2], [80, 19, 1])
    cut = carve(np.arange(100), labels, [0.2], seed)
    assert np.bincount(labels[cut == 0], minlength=3).tolist() == [16, 4, 0]
    assert set(labels[cut == STAYS]) == {0, 1, 2}


def test_the_same_document_goes_to_one_side() -> None:
    keys = np.arange(50) // 5
    cut = carve(keys, np.zeros(50, dtype=int), [0.3, 0.2], 0)
    assert all(len(set(cut[keys == key])) == 1 for key in range(10))


def test_a_later_cut_does_not_move_an_earlier() -> None:
    labels = np.arange(200) % 4
    one = carve(np.arange(200), labels, [0.1, 0.0], 0)
    two = carve(np.arange(200), labels, [0.1, 0.3], 0)
    assert ((one == 0) == (two == 0)).all()


def test_folds_share_each_class() -> None:
    labels = np.repeat([0, 1], [40, 10])
    folds = assign_folds(np.arange(50), labels, 5, 0)
    assert np.bincount(folds).tolist() == [10] * 5
    assert np.bincount(folds[labels == 1], minlength=5).tolist() == [2] * 5


def test_the_rarest_of_several_labels() -> None:
    labels = np.array([[1, 1], [1, 0], [0, 0]])
    assert rarest_labels(labels).tolist() == [1, 0, 2]


def test_a_draw_is_sorted_and_repeats() -> None:
    drawn = draw(100, 10, 0, 0)
    assert (np.sort(drawn) == drawn).all()
    assert len(set(drawn)) == 10
    assert (draw(100, 10, 0, 0) == drawn).all()
    assert draw(5, None, 0, 0).tolist() == [0, 1, 2, 3, 4]
