"""Which process computes which rows of a step, and in which micro-batches."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from finetune.compute import micro_batches
from finetune.compute.flat_table import FlatTable
from finetune.compute.packed_table import PackedTable
from finetune.tokenization.token_table import MOST_PADDING, TokenTable, range_starts

LENGTHS = st.lists(st.integers(1, 600), min_size=1, max_size=80).map(np.array)


def table_of(lengths, kind=TokenTable, **more):
    ids = np.zeros(lengths.sum(), dtype=np.int32)
    return kind(ids, range_starts(lengths), lengths, 0, **more)


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
    rows, table = np.arange(len(lengths)), table_of(lengths)
    per_process = [
        micro_batches.process_micro_batches(table, rows, processes, process, budget, sharded)
        for process in range(processes)
    ]
    counted = [part for parts in per_process for part, weight in parts if weight == 1]
    assert sorted(np.concatenate(counted)) == list(rows)
    assert all(parts for parts in per_process)  # all take part in the sum of the gradients
    if sharded:  # and in every forward pass
        assert len({len(parts) for parts in per_process}) == 1


@given(LENGTHS, st.integers(1, 20_000), st.sampled_from([1, 8]))
def test_padded_rows_of_any_lengths_hold_little_padding(lengths, budget, multiple):
    """By the plan, on any device: at most 15 in 100 of the tokens that are computed."""
    rows, table = np.arange(len(lengths)), table_of(lengths, multiple=multiple, longest=600)
    parts = micro_batches.split_rows(table, rows, budget)
    assert sorted(np.concatenate(parts)) == list(rows)
    computed, share = micro_batches.measure_padding(table, parts)
    assert share <= MOST_PADDING or computed <= micro_batches.FEW
    for part in parts:
        assert len(part) == 1 or len(part) * lengths[part].max() <= budget


def test_news_go_in_few_padded_micro_batches():
    """Of a GPU's size, in lengths that are multiples of 8; trained by 32 and 256, and scored."""
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(3.9, 0.4, 1024).astype(int), 8, 512)
    table = table_of(lengths, multiple=8, longest=512)
    for size, most in ((32, 9), (256, 12), (1024, 15)):
        for rows in np.split(np.arange(1024), range(size, 1024, size)):
            parts = micro_batches.split_rows(table, rows, 16_384)
            assert micro_batches.measure_padding(table, parts)[1] <= MOST_PADDING
            assert len(parts) <= most
            for part in parts:  # very short ones would be padding for the most part
                longest = int(lengths[part].max())
                assert table.width(longest) % 8 == 0 or longest < 48


@given(LENGTHS, st.integers(1, 2000))
def test_rows_end_to_end_take_what_they_have(lengths, budget):
    rows, table = np.arange(len(lengths)), table_of(lengths, FlatTable)
    parts = micro_batches.split_rows(table, rows, budget)
    assert list(np.concatenate(parts)) == list(rows[np.argsort(-lengths, kind="stable")])
    for part, after in zip(parts, [*parts[1:], None], strict=True):
        assert len(part) == 1 or lengths[part].sum() <= budget
        if after is not None:  # not one more would fit
            assert lengths[part].sum() + lengths[after[0]] > budget
    assert np.array_equal(micro_batches.largest_part(table, rows, budget), parts[0])


def test_rows_in_groups_stay_together_whatever_their_lengths():
    lengths = np.array([3, 500, 7, 60])
    packed = table_of(lengths, PackedTable)
    assert len(micro_batches.split_rows(packed, np.arange(4), 4096)) == 1
    assert len(micro_batches.split_rows(table_of(lengths), np.arange(4), 4096)) > 1


@given(LENGTHS, st.integers(1, 3000), st.integers(2, 5), st.booleans())
def test_workers_compute_each_row_once_and_few_rows_in_a_part_each(lengths, budget, workers, flat):
    rows, kind = np.arange(len(lengths)), PackedTable if flat else TokenTable
    table = table_of(lengths, kind)
    parts = micro_batches.split_for_workers(table, rows, budget, workers)
    assert sorted(np.concatenate(parts)) == list(rows)
    for part in parts:
        assert len(part) == 1 or lengths[part].sum() <= budget
    if flat and lengths.sum() + lengths.max() * workers <= budget * workers:
        assert len(parts) <= workers
        tokens = [int(lengths[part].sum()) for part in parts]
        assert max(tokens) <= lengths.sum() / workers + lengths.max()
