"""A step's rows → which process computes which, in micro-batches of like length.

Everything here is a pure function. How a step's rows are split changes memory and speed, and not
the step's gradient, which is a sum over rows.
"""

import numpy as np

from finetune.tokenization.token_table import MOST_PADDING, Rows, TokenTable

FEW = 128  # tokens that are computed as fast together as in several parts, padding or not
TRIES = 6  # halvings of how much shorter than the longest a padded micro-batch's rows may be


def assign_rows(rows: Rows, lengths: Rows, processes: int) -> list[Rows]:
    """Assign a step's rows to the processes, longest first, each to the one with fewest tokens."""
    assigned: list[list[int]] = [[] for _ in range(processes)]
    tokens = [0] * processes
    for row in rows[np.argsort(-lengths[rows], kind="stable")]:
        lightest = tokens.index(min(tokens))
        assigned[lightest].append(int(row))
        tokens[lightest] += int(lengths[row])
    return [np.array(rows, dtype=np.int64) for rows in assigned]


def split_rows(table: TokenTable, rows: Rows, budget: int) -> list[Rows]:
    """Split rows, longest first, into micro-batches that keep to a budget of tokens.

    Where rows are padded, at most `MOST_PADDING` of what is computed is padding: rows whose lengths
    differ much go apart. (Of a document in windows, the last is padded, however short it is.) Rows
    end to end take as many tokens as they have.
    """
    if table.layout == "end to end":
        return _fill(rows, table.lengths, budget)
    parts = micro_batches(rows, table.padded_tokens, budget)
    if table.layout != "padded" or not parts:
        return parts
    computed, share = measure_padding(table, parts)
    if computed <= FEW or share <= MOST_PADDING:
        return parts
    few, many = 0.0, 1.0  # with rows of one length in each part, nothing is padded
    parts = _split_apart(table, rows, budget, many)
    for _ in range(TRIES):
        like = (few + many) / 2
        tried = _split_apart(table, rows, budget, like)
        if measure_padding(table, tried)[1] <= MOST_PADDING:
            many, parts = like, tried
        else:
            few = like
    return parts


def split_for_workers(table: TokenTable, rows: Rows, budget: int, workers: int) -> list[Rows]:
    """`split_rows` with a part for each worker at least.

    Where few rows without padding are computed, a part for each: of like many tokens, so that no
    worker waits for a small part that is left over.
    """
    tokens = int(table.lengths[rows].sum())
    share = min(budget, -(-tokens // workers))
    if table.layout != "padded" and tokens <= budget * workers:
        ordered = rows[np.argsort(-table.lengths[rows], kind="stable")]
        middles = np.cumsum(table.lengths[ordered]) - table.lengths[ordered] / 2
        cuts = np.searchsorted(middles, tokens * np.arange(1, workers) / workers)
        parts = [part for part in np.split(ordered, cuts) if len(part)]
        if all(len(part) == 1 or table.lengths[part].sum() <= budget for part in parts):
            return parts
    return split_rows(table, rows, share)


def largest_part(table: TokenTable, rows: Rows, budget: int) -> Rows:
    """The longest of some rows, as many as the budget allows."""
    if table.layout == "end to end":
        return _fill(rows, table.lengths, budget)[0]
    return micro_batches(rows, table.padded_tokens, budget)[0]


def measure_padding(table: TokenTable, parts: list[Rows]) -> tuple[int, float]:
    """The tokens that are computed in micro-batches of padded rows, and how much is padding."""
    rows = np.concatenate(parts)
    longest, pieces, tokens = _sizes(table, rows)
    starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
    widths = [table.width(int(size)) for size in np.maximum.reduceat(longest, starts)]
    computed = int((np.add.reduceat(pieces, starts) * widths).sum())
    return computed, 1 - int(tokens.sum()) / computed


def _sizes(table: TokenTable, rows: Rows) -> tuple[Rows, Rows, Rows]:
    """Of each row, tokens of its longest piece, how many pieces it has, and tokens of all."""
    if table.first is None:
        lengths = table.starts[rows + 1] - table.starts[rows]
        return lengths, np.ones(len(rows), dtype=np.int64), lengths
    begin, end = table.first[rows], table.first[rows + 1]
    # A document's first window is its longest.
    longest = table.starts[begin + 1] - table.starts[begin]
    return longest, end - begin, table.starts[end] - table.starts[begin]


def _fill(rows: Rows, lengths: Rows, budget: int) -> list[Rows]:
    """Longest first, each part as many as the sum of their tokens allows; one at least."""
    ordered = rows[np.argsort(-lengths[rows], kind="stable")]
    ends = np.cumsum(lengths[ordered])
    parts: list[Rows] = []
    start = before = 0
    while start < len(ordered):
        end = max(start + 1, int(np.searchsorted(ends, before + budget, side="right")))
        parts.append(ordered[start:end])
        start, before = end, int(ends[end - 1])
    return parts


def _split_apart(table: TokenTable, rows: Rows, budget: int, like: float) -> list[Rows]:
    """Longest first, in parts whose shortest row is `like` times the longest, or longer."""
    longest, pieces, _ = _sizes(table, rows)
    order = np.argsort(-longest, kind="stable")
    ordered, shorter, ends = rows[order], -longest[order], np.cumsum(pieces[order])
    parts: list[Rows] = []
    start = before = 0
    while start < len(ordered):
        size = -int(shorter[start])
        fits = np.searchsorted(ends, before + budget // size, side="right")
        alike = np.searchsorted(shorter, -like * size, side="right")
        end = max(start + 1, int(min(fits, alike)))
        parts.append(ordered[start:end])
        start, before = end, int(ends[end - 1])
    return parts


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
    table: TokenTable, rows: Rows, processes: int, process: int, budget: int, sharded: bool
) -> list[tuple[Rows, float]]:
    """A process's part of a step in micro-batches, each with the weight of its losses.

    A process without a row computes one with weight 0, as all must take part in the sum of the
    gradients. Where the model's weights are sharded over the processes, all must take part in
    every forward pass, so that all get as many micro-batches.
    """
    assigned = assign_rows(rows, table.batch_tokens, processes)
    parts = [(part, 1.0) for part in split_rows(table, assigned[process], budget)]
    count = max(len(split_rows(table, rows, budget)) for rows in assigned) if sharded else 1
    return parts + [(rows[:1], 0.0)] * (count - len(parts))


def shortest_row(table: TokenTable, rows: Rows, count: int) -> list[tuple[Rows, float]]:
    """So many micro-batches of the shortest of some rows, each with the weight 0."""
    shortest = int(np.argmin(table.batch_tokens[rows]))
    return [(rows[shortest : shortest + 1], 0.0)] * count
