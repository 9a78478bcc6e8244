"""Files of documents without labels → more rows of train, for a teacher to label.

    corpus = add_unlabelled(corpus, recipe.data, recipe.distil.files())
    corpus.train.is_labelled      # False of the rows that were added, after all others

What would be learned twice or is scored stays out: documents that repeat a row of train or an
earlier one, and those that validation or test has too, exactly or nearly.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.config import schema
from finetune.data.cells import format_rows
from finetune.data.checks import MOST_CHARACTERS, note_limits
from finetune.data.columns import ColumnSpec
from finetune.data.corpus import Corpus, Finding, Split
from finetune.data.local_paths import resolve_local_path
from finetune.data.overlap import Overlap
from finetune.data.places import Places, Shards
from finetune.data.read_rows import read_file
from finetune.data.rows import Rows
from finetune.data.text_store import Texts
from finetune.runtime.errors import InputError, shorten

KEY = "distil.unlabelled"
NAME = "unlabelled"


def add_unlabelled(corpus: Corpus, data: schema.Data, files: Sequence[str]) -> Corpus:
    """The corpus whose train goes on with the documents of these files.

    Raises:
        InputError: with every problem of the files, or where no document is left.
    """
    parts = _read_files(corpus, data, files)
    store = Texts.of(corpus.train.texts).beside()
    findings: list[Finding] = []
    added: list[Split] = []
    for rows in parts:
        split = Split(NAME, rows.texts, None, rows.places, rows.origin, rows.seconds)
        kept = np.flatnonzero(~rows.find_empty())
        _note(findings, "empty", split, np.setdiff1d(np.arange(len(split)), kept), "left out")
        added.append(split.take(kept))
    whole = _join(added)
    keep = np.ones(len(whole), dtype=bool)
    if len(whole):
        documents = {one.name: one.whole() for one in (*corpus.splits(), whole)}
        size = sum(len(text) for texts in documents.values() for text in texts)
        overlap = Overlap(documents, store, find_near=size <= MOST_CHARACTERS)
        limits = note_limits(overlap, sum(map(len, documents.values())))
        findings += [one for one in limits if one not in corpus.findings]
        for name in ("validation", "test"):
            if name not in documents:
                continue
            matches = overlap.find_matches(NAME, name)
            for kind, mask in (("leak", matches.is_exact), ("near leak", ~matches.is_exact)):
                found = matches.rows[mask & keep[matches.rows]]
                _note(findings, kind, whole, found, f"left out ({KEY})", name)
                keep[found] = False
        repeats = np.flatnonzero(keep & _repeats(corpus.train.whole(), whole.whole()))
        _note(findings, "unlabelled repeat", whole, repeats, f"left out ({KEY})")
        keep[repeats] = False
    taken = whole.take(np.flatnonzero(keep))
    if not len(taken):
        causes = "; ".join(map(str, findings)) or "the files have no rows"
        raise InputError(f"{KEY}: no document of {shorten(files)} is left: {causes}")
    rule = f"learned from the teacher alone ({KEY})"
    _note(findings, "taught", taken, np.arange(len(taken)), rule)
    train = _extend(corpus.train, taken, len(corpus.labels))
    return replace(corpus, train=train, findings=(*corpus.findings, *findings))


def _read_files(corpus: Corpus, data: schema.Data, files: Sequence[str]) -> list[Rows]:
    """The rows of each file, their texts beside those of train."""
    spec = ColumnSpec(
        data.columns(),
        "",
        False,
        data.text_pair,
        data.template,
        store=Texts.of(corpus.train.texts).store,
        encoding=data.encoding,
        delimiter=data.delimiter,
    )
    parts: list[Rows] = []
    problems: list[str] = []
    for name in files:
        try:
            path = resolve_local_path(name, KEY)
            if path is None or not path.is_file():
                raise InputError(f"{KEY}: expected a file of documents, got {name}")
            parts.append(read_file(Path(path), spec))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return parts


def _repeats(train: Sequence[str], texts: Sequence[str]) -> NDArray[np.bool_]:
    """Which texts are in train, or earlier among them, white space at the ends aside. (rows,)"""
    known = {text.strip() for text in train}
    repeats = np.zeros(len(texts), dtype=bool)
    for i, text in enumerate(texts):
        repeats[i] = text.strip() in known
        known.add(text.strip())
    return repeats


def _join(parts: Sequence[Split]) -> Split:
    """Splits from one store, one after the other."""
    names = [part.origin for part in parts]
    places = Shards([part.places for part in parts])
    seconds = None
    if parts[0].seconds is not None:
        seconds = Texts.joined([Texts.of(part.seconds or ()) for part in parts])
    return Split(
        NAME,
        Texts.joined([Texts.of(part.texts) for part in parts]),
        None,
        Places(", ".join(names), places),
        ", ".join(names),
        seconds,
    )


def _extend(train: Split, more: Split, classes: int) -> Split:
    """Train with more rows, whose label nobody knows yet."""
    assert train.labels is not None, "train rows without labels are refused"

    def grow(values: NDArray[Any] | None, fill: float) -> NDArray[Any] | None:
        if values is None:
            return None
        shape = (len(more), *values.shape[1:])
        return np.concatenate([values, np.full(shape, fill, values.dtype)])

    is_labelled = np.ones(len(train), dtype=bool)
    seconds = None
    if train.seconds is not None and more.seconds is not None:
        seconds = Texts.joined([Texts.of(train.seconds), Texts.of(more.seconds)])
    places = Shards([train.places, more.places])
    return replace(
        train,
        texts=Texts.joined([Texts.of(train.texts), Texts.of(more.texts)]),
        seconds=seconds,
        labels=grow(train.labels, 0),
        places=Places(train.places.name, places),
        origin=f"{train.origin}, and {format_rows(len(more))} without a label of {more.origin}",
        ids=None,
        attributes={},
        shares=grow(train.shares, 1 / classes),
        weights=grow(train.weights, 1.0),
        is_labelled=grow(is_labelled, 0),
    )


def _note(
    findings: list[Finding],
    kind: str,
    split: Split,
    rows: NDArray[np.int64],
    rule: str,
    other: str = "",
) -> None:
    if len(rows):
        findings.append(Finding(kind, NAME, len(rows), split.places.take(rows), rule, other))
