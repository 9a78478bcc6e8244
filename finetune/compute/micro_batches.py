"""A step's rows → which process computes which, in micro-batches of like length.

Everything here is a pure function. How a step's rows are split changes memory and speed, and not
the step's gradient, which is a sum over rows.
"""

import numpy as np

from finetune.tokenization.token_table import Rows


def assign_rows(rows: Rows, lengths: Rows, processes: int) -> list[Rows]:
    """Assign a step's rows to the processes, longest first, each to the one with fewest tokens."""
    assigned: list[list[int]] = [[] for _ in range(processes)]
    tokens = [0] * processes
    for row in rows[np.argsort(-lengths[rows], kind="stable")]:
        lightest = tokens.index(min(tokens))
        assigned[lightest].append(int(row))
        tokens[lightest] += int(lengths[row])
    return [np.array(rows, dtype=np.int64) for rows in assigned]


def micro_batches(rows: Rows, lengths: Rows, budget: int) -> list[Rows]:
    """Split rows, longest first, so that each part's padded size keeps to a budget of tokens.

    A row longer than the budget goes alone. Rows of similar length go together, so that little is
    padded; the step's gradient is a sum over rows, so the split does not change it.
    """
    ordered = rows[np.argsort(-lengths[rows], kind="stable")]
    parts: list[Rows] = []
    start = 0
    while start < len(ordered):
        rows_at_once = max(1, budget // int(lengths[ordered[start]]))
        parts.append(ordered[start : start + rows_at_once])
        start += rows_at_once
    return parts


def process_micro_batches(
    rows: Rows, lengths: Rows, processes: int, process: int, budget: int, sharded: bool
) -> list[tuple[Rows, float]]:
    """A process's part of a step in micro-batches, each with the weight of its losses.

    A process without a row computes one with weight 0, as all must take part in the sum of the
    gradients. Where the model's weights are sharded over the processes, all must take part in
    every forward pass, so that all get as many micro-batches.
    """
    assigned = assign_rows(rows, lengths, processes)
    parts = [(part, 1.0) for part in micro_batches(assigned[process], lengths, budget)]
    count = max(len(micro_batches(rows, lengths, budget)) for rows in assigned) if sharded else 1
    return parts + [(rows[:1], 0.0)] * (count - len(parts))
