"""`engine.Engine` on a made-up network: rows in order, whatever the batches and the workers."""

import threading

import numpy as np
import pytest
import torch

from finetune.inference.engine import Engine, count_workers, describe_batches
from finetune.runtime.errors import InputError
from finetune.tokenization.token_table import TokenTable

LENGTHS = np.array([3, 1, 8, 2, 5])


@pytest.fixture
def table():
    starts = np.concatenate([[0], np.cumsum(LENGTHS)])
    return TokenTable(np.arange(LENGTHS.sum(), dtype=np.int32), starts, LENGTHS, 0)


def make(run=None, **values):
    def sums(table, rows, threads):
        return torch.tensor([[float(table.ids[table.span(row)].sum()), 1.0] for row in rows])

    return Engine(
        **{"run": run or sums, "classes": 2, "budget": 8, "threads": 1, "workers": 1}
        | {"reasons": (), "identity": ""}
        | values
    )


def test_rows_keep_their_order(table):
    expected = [float(table.ids[table.span(row)].sum()) for row in range(5)]
    for values in ({}, {"budget": 1}, {"budget": 100}, {"workers": 3, "threads": 6}):
        logits = make(**values).logits(table)
        assert logits.dtype == np.float32
        assert logits[:, 0].tolist() == expected


def test_workers_share_the_threads(table):
    seen = []

    def run(table, rows, threads):
        seen.append((threading.get_ident(), threads))
        return torch.zeros(len(rows), 2)

    make(run, workers=2, threads=7, budget=4).logits(table)
    assert {threads for _, threads in seen} == {3}
    assert threading.get_ident() not in {thread for thread, _ in seen}


def test_running_out_of_memory_halves_the_batches(table):
    def run(table, rows, threads):
        if table.lengths[rows].sum() > 8:
            raise torch.OutOfMemoryError
        return torch.ones(len(rows), 2)

    engine = make(run, budget=64)
    assert engine.logits(table).sum() == 10
    assert engine.budget <= 16

    def never(table, rows, threads):
        raise torch.OutOfMemoryError

    with pytest.raises(
        InputError, match=r"a document of . tokens does not fit into this GPU's mem"
    ):
        make(never).logits(table)


@pytest.mark.parametrize(
    ("threads", "workers"), [(1, 1), (2, 2), (8, 8), (12, 6), (13, 6), (64, 8)]
)
def test_workers_leave_few_threads_idle(threads, workers):
    assert count_workers(threads) == workers


def test_batches_are_described():
    assert describe_batches(2048, 1, 1) == "2,048 tokens at once, 1 thread in each process"
    assert describe_batches(512, 13, 6) == (
        "6 batches of 512 tokens at once, 12 threads in each process"
    )
