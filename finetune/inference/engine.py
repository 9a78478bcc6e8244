"""A token table → logits, in batches of like length: the part that all engines share.

Several batches are computed at once, each by a thread of its own: that was faster than all threads
on each, which wait for each other after every product. One engine serves one process.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.compute import micro_batches
from finetune.evaluation.explanations import Attribute
from finetune.runtime.errors import InputError
from finetune.runtime.memory_errors import explain_memory_errors
from finetune.runtime.wording import count_of
from finetune.tokenization.token_table import Rows, TokenTable

Logits = NDArray[np.float32]
LOWER = "lower --tokens (tokens= in Python) or --threads, or end other programs"
MAX_WORKERS = 8  # more would wait for each other's Python


@dataclass
class Engine:
    """Computes the logits of a table.

    Attributes:
        run: table, row numbers, threads → the rows' logits, and behind them their states; on the
            device that computes them. (rows, classes + hidden) float32
        budget: tokens of a batch.
        threads: of a CPU, in all.
        workers: batches that are computed at once, each by its share of the threads; where there
            are fewer rows, each row has its share.
        prepare: what to make of a table first.
        hidden: numbers of a state, what the head reads of a row; 0: there are no states.
        attribute: computes how much each token contributed; None: this engine has no gradients.
        reasons: what it runs on, and why; a line each.
        identity: a hash of the weights and the precision: equal where the logits are.
    """

    run: Callable[[TokenTable, Rows, int], Tensor]
    classes: int
    budget: int
    threads: int
    workers: int
    reasons: tuple[str, ...]
    identity: str
    prepare: Callable[[TokenTable], TokenTable] = field(default=lambda table: table)
    hidden: int = 0
    attribute: Attribute | None = None

    def logits(self, table: TokenTable) -> Logits:
        """The logits of every row, in the table's order. (rows, classes)

        Raises:
            InputError: as `outputs` does.
        """
        return self.outputs(table)[:, : self.classes]

    def outputs(self, table: TokenTable) -> Logits:
        """The logits of every row with its state, in the table's order. (rows, classes + hidden)

        A GPU that runs out of memory gets half as many tokens at once from then on.

        Raises:
            InputError: where not even one row fits.
        """
        with explain_memory_errors("predicting", LOWER):
            return self._outputs(table)

    def _outputs(self, table: TokenTable) -> Logits:
        if table.first is not None:
            return table.pool_windows(self._outputs(table.by_piece()))
        table = self.prepare(table)
        workers, rows = min(self.workers, len(table)), np.arange(len(table))
        if workers > 1:
            batches = micro_batches.split_for_workers(table, rows, self.budget, workers)
            return self._run_in_threads(table, batches, workers)
        return self._run_in_turn(table, micro_batches.split_rows(table, rows, self.budget))

    def _run_in_threads(self, table: TokenTable, batches: Sequence[Rows], workers: int) -> Logits:
        logits = np.zeros((len(table), self.classes + self.hidden), dtype=np.float32)

        def compute(rows: Rows) -> None:
            logits[rows] = self.run(table, rows, self.threads // workers).numpy()

        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(compute, batches):
                pass  # raises what a worker raised
        torch.set_num_threads(self.threads)  # a worker's share is no other thread's
        return logits

    def _run_in_turn(self, table: TokenTable, batches: list[Rows]) -> Logits:
        logits = np.zeros((len(table), self.classes + self.hidden), dtype=np.float32)
        done: list[tuple[Rows, Tensor]] = []
        while batches:
            rows = batches[0]
            try:
                done.append((rows, self.run(table, rows, self.threads)))
                del batches[0]
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise InputError(
                        f"a document of {table.lengths[rows[0]]:,} tokens does not fit into this "
                        "GPU's memory; try --precision bf16"
                    ) from None
                torch.cuda.empty_cache()
                self.budget //= 2
                batches = [
                    smaller
                    for batch in batches
                    for smaller in micro_batches.split_rows(table, batch, self.budget)
                ]
        if done:  # fetched once: a GPU has work for as long as nothing is asked of it
            order, computed = zip(*done, strict=True)
            logits[np.concatenate(order)] = torch.cat(computed).cpu().numpy()
        return logits


def count_workers(threads: int) -> int:
    """The most batches at once that leave hardly a thread idle: of 12 threads 6, with 2 each."""
    some = range(1, min(threads, MAX_WORKERS) + 1)
    return max(many for many in some if threads // many * many >= 0.9 * threads)


def describe_batches(tokens: int, threads: int, workers: int) -> str:
    """What is computed at once, and by how many threads."""
    if workers == 1:
        return f"{tokens:,} tokens at once, {count_of(threads, 'thread')} in each process"
    used = threads // workers * workers
    return f"{workers} batches of {tokens:,} tokens at once, {used} threads in each process"
