"""Which rows must be on one side of every split: those of a group, and near-duplicates.

    keys = group_rows(pool, recipe.data)        # the same number for rows that stay together

The same documents always do. `data.group` adds the rows of one value of a column, such as an author
or a customer, and `data.near_duplicates: together` those that are nearly the same; what hangs
together by any of these is one group.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from finetune.config import schema
from finetune.data.corpus import Corpus, Finding, Split
from finetune.data.identifiers import Ids
from finetune.data.moments import read_moments
from finetune.data.near_duplicates import find_near_duplicates
from finetune.data.row_rules import SplitRows
from finetune.data.text_store import Pairs, number_digests
from finetune.runtime.errors import InputError, shorten

Numbers = NDArray[np.int64]
EXPECTED = (
    "a date or time as ISO 8601 writes it (2024-05-31, 2024-05-31T14:00:00+02:00), or a number, in "
    "every row"
)


def group_rows(pool: SplitRows, data: schema.Data) -> Numbers:
    """The same number for rows that must stay together, of those that are in. (rows,)"""
    documents: Numbers = pool.document_ids[pool.keep]
    links = [*_find_links(pool, data)]
    if not links:
        return documents
    rows = len(documents)
    _, same = np.unique(documents, return_inverse=True)
    links.append((np.arange(rows), rows + same.reshape(-1)))
    one, other = (np.concatenate(ends) for ends in zip(*links, strict=True))
    size = int(max(rows, other.max(initial=0) + 1))
    graph = sparse.coo_array((np.ones(len(one), np.int8), (one, other)), (size, size))
    components: Numbers = sparse.csgraph.connected_components(graph, directed=False)[1]
    return components[:rows].astype(np.int64)


def _find_links(pool: SplitRows, data: schema.Data) -> Iterator[tuple[Numbers, Numbers]]:
    """Pairs that belong together: of two rows, or of a row and a number beyond all rows' own."""
    rows = len(pool.keep)
    if data.group is not None:
        values = pool.rows.attributes[data.group].take(pool.keep)
        (numbers,) = number_digests([values.digests()])
        named = np.flatnonzero(~values.missing())
        yield named, 2 * rows + numbers[named]
    if data.near_duplicates == "together":
        texts: Sequence[Any] = pool.rows.texts.take(pool.keep)
        if pool.rows.seconds is not None:
            texts = Pairs(texts, pool.rows.seconds.take(pool.keep))
        store = pool.rows.texts.beside()
        pairs = find_near_duplicates((text or "" for text in texts), store=store)
        yield pairs.first, pairs.second


def read_times(pool: SplitRows, column: str) -> NDArray[np.float64]:
    """When each row that is in is of, as numbers in their order. (rows,)

    Raises:
        InputError: naming the rows that have no time.
    """
    values = pool.rows.attributes[column].take(pool.keep)
    numbers, odd = read_moments([*values])
    if odd:
        places = pool.rows.places.take(pool.keep)
        got = [f"{_describe(values, row)} at {places.place(row)}" for row in odd]
        raise InputError(
            f"'{column}' (data.split_by_time): expected {EXPECTED}, got {shorten(got)}"
        )
    return numbers


def _describe(values: Ids, row: int) -> str:
    value = values[row]
    return "nothing" if value is None else repr(value)


def note_shared_groups(corpus: Corpus, column: str) -> Corpus:
    """The corpus with findings on groups that stand in two splits, as those of the source may."""
    found = tuple(_find_shared(corpus.splits(), column))
    return replace(corpus, findings=(*corpus.findings, *found)) if found else corpus


def _find_shared(splits: Sequence[Split], column: str) -> Iterator[Finding]:
    of_each = [split.attributes[column] for split in splits]
    numbers = number_digests([values.digests() for values in of_each])
    for at, (split, values) in enumerate(zip(splits, of_each, strict=True)):
        named = ~values.missing()
        for other, known, theirs in zip(splits[:at], of_each[:at], numbers[:at], strict=True):
            shared = np.flatnonzero(named & np.isin(numbers[at], theirs[~known.missing()]))
            if len(shared):
                rule = f"kept; the source divides them so, whatever data.group ({column}) says"
                places = split.places.take(shared)
                yield Finding("shared group", split.name, len(shared), places, rule, other.name)
