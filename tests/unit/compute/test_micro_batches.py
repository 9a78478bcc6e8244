"""Which process computes which rows of a step, and in which micro-batches."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from finetune.compute import micro_batches

LENGTHS = st.lists(st.integers(1, 600), min_size=1, max_size=80).map(np.array)


@given(LENGTHS, st.integers(1, 5))
def test_processes_share_a_step_without_loss(lengths, processes):
    rows = np.arange(len(lengths))
    assigned = micro_batches.assign_rows(rows, lengths, processes)
    assert len(assigned) == processes
    assert sorted(np.concatenate(assigned)) == list(rows)
    loads = [int(lengths[hand].sum()) for hand in assigned]
    assert max(loads) - min(loads) <= lengths.max()  # longest first keeps them close


@given(LENGTHS, st.integers(1, 2000))
def test_micro_batches_keep_to_the_budget(lengths, budget):
    rows = np.arange(len(lengths))
    parts = micro_batches.micro_batches(rows, lengths, budget)
    assert sorted(np.concatenate(parts)) == list(rows)
    for part in parts:
        assert len(part) == 1 or len(part) * lengths[part].max() <= budget


@given(LENGTHS, st.integers(1, 5), st.integers(1, 2000), st.booleans())
def test_all_processes_together_compute_each_row_once(lengths, processes, budget, sharded):
    rows = np.arange(len(lengths))
    per_process = [
        micro_batches.process_micro_batches(rows, lengths, processes, process, budget, sharded)
        for process in range(processes)
    ]
    counted = [part for parts in per_process for part, weight in parts if weight == 1]
    assert sorted(np.concatenate(counted)) == list(rows)
    assert all(parts for parts in per_process)  # all take part in the sum of the gradients
    if sharded:  # and in every forward pass
        assert len({len(parts) for parts in per_process}) == 1
