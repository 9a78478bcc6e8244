"""Which rows make each step of an epoch."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from finetune.training import sampling


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_visits_every_row_once(rows, batch_size, seed, epoch):
    order = sampling.epoch_order(rows, seed, epoch)
    steps = sampling.steps_per_epoch(rows, batch_size)
    parts = [sampling.step_rows(order, batch_size, step) for step in range(steps)]
    assert sorted(np.concatenate(parts)) == list(range(rows))
    assert [len(part) for part in parts[:-1]] == [batch_size] * (steps - 1)
    assert 1 <= len(parts[-1]) <= batch_size


def test_order_depends_on_seed_and_epoch_alone():
    assert (sampling.epoch_order(50, 1, 2) == sampling.epoch_order(50, 1, 2)).all()
    orders = {tuple(sampling.epoch_order(50, s, e)) for s in range(3) for e in range(3)}
    assert len(orders) == 9


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60).map(np.array),
    st.integers(1, 16),
    st.integers(0, 3),
)
def test_a_stratified_epoch_deals_each_class_evenly(labels, batch_size, epoch):
    steps = sampling.epoch_steps(labels, "stratified", batch_size, 0, epoch)
    assert sorted(np.concatenate(steps)) == list(range(len(labels)))
    for c in np.unique(labels):
        counts = [int((labels[rows] == c).sum()) for rows in steps]
        assert max(counts) - min(counts) <= 1


def test_a_balanced_epoch_gives_each_class_the_same_share():
    labels = np.array([0] * 90 + [1] * 10)
    steps = sampling.epoch_steps(labels, "balanced", 10, 0, 0)
    taken = labels[np.concatenate(steps)]
    assert np.bincount(taken).tolist() == [50, 50]
