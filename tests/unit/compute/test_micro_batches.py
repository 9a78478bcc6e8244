"""Which rows make a step, who computes them, in which parts."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from finetune.compute import micro_batches

LENGTHS = st.lists(st.integers(1, 600), min_size=1, max_size=80).map(np.array)


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_visits_every_row_once(rows, batch_size, seed, epoch):
    order = micro_batches.epoch_order(rows, seed, epoch)
    steps = micro_batches.steps_per_epoch(rows, batch_size)
    parts = [micro_batches.step_rows(order, batch_size, step) for step in range(steps)]
    assert sorted(np.concatenate(parts)) == list(range(rows))
    assert [len(part) for part in parts[:-1]] == [batch_size] * (steps - 1)
    assert 1 <= len(parts[-1]) <= batch_size


def test_order_depends_on_seed_and_epoch_alone():
    assert (micro_batches.epoch_order(50, 1, 2) == micro_batches.epoch_order(50, 1, 2)).all()
    orders = {tuple(micro_batches.epoch_order(50, s, e)) for s in range(3) for e in range(3)}
    assert len(orders) == 9


@given(LENGTHS, st.integers(1, 5))
def test_processes_share_a_step_without_loss(lengths, processes):
    rows = np.arange(len(lengths))
    hands = micro_batches.share(rows, lengths, processes)
    assert len(hands) == processes
    assert sorted(np.concatenate(hands)) == list(rows)
    loads = [int(lengths[hand].sum()) for hand in hands]
    assert max(loads) - min(loads) <= lengths.max()  # longest first keeps them close


@given(LENGTHS, st.integers(1, 2000))
def test_micro_batches_keep_to_the_budget(lengths, budget):
    rows = np.arange(len(lengths))
    parts = micro_batches.micro_batches(rows, lengths, budget)
    assert sorted(np.concatenate(parts)) == list(rows)
    for part in parts:
        assert len(part) == 1 or len(part) * lengths[part].max() <= budget
