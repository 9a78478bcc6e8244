"""A corpus → what in its texts would spoil a training or a score, before any weights are loaded.

    corpus = examine(corpus, recipe.data)     # data.prepare does so
    as_json(corpus)                           # preflight.json of a run: every finding, every row

The rules for single rows (empty, unlabelled, repeated, …) are those of `prepare.py`; here texts are
compared across splits, exactly and nearly, and looked into. `scripts/inspect_data.py` shows it all.
"""

import dataclasses
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from finetune.config import schema
from finetune.data.corpus import Corpus, Finding, Split, class_counts
from finetune.data.overlap import Alike, Matches
from finetune.data.places import PairPlaces, Places
from finetune.data.text_store import Texts
from finetune.runtime.errors import InputError, shorten

FEW = 10  # rows of a class in train, below which it is named
MOST_CHARACTERS = 100_000_000  # of larger corpora near-duplicates are not sought: see the finding

# Two-byte characters of UTF-8 that were read as one byte each: Ã© for é, â€™ for ’.
MOJIBAKE = re.compile("Ã[\u0080-\u00bf]|â€|Â[\u00a0-\u00bf]|ï»¿")
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

LOOKS: dict[str, Callable[[str], object]] = {
    "one character": lambda text: len(text.strip()) == 1,
    "broken character": lambda text: "\ufffd" in text,
    "mojibake": MOJIBAKE.search,
    "control": CONTROL.search,
}


def examine(corpus: Corpus, data: schema.Data) -> Corpus:
    """The corpus with what was found, and without the rows that data.on_leak takes out.

    Raises:
        InputError: where data.on_leak says stop and there are leaks, or dropping leaves no class.
    """
    splits = {split.name: split for split in corpus.splits()}
    whole = {name: split.whole() for name, split in splits.items()}
    found = [*_in_texts(corpus, whole), *_few_rows(corpus)]
    size = sum(len(text) for texts in whole.values() for text in texts)
    alike = Alike(whole, Texts.of(corpus.train.texts).beside(), seek=size <= MOST_CHARACTERS)
    found += _not_sought(alike, sum(map(len, whole.values())))
    found += _near_in_train(alike, corpus.train)
    gone = {name: np.zeros(0, dtype=np.int64) for name in splits}
    problems = []
    for later, earlier in (("validation", "train"), ("test", "train"), ("test", "validation")):
        if not {later, earlier} <= splits.keys():
            continue
        there = alike.matches(later, earlier)
        held = np.setdiff1d(alike.matches(earlier, later).rows, gone[earlier])
        rule = "kept; the score counts them"
        if data.on_leak == "drop":
            rule = f"{_rows(len(held))} of {earlier} dropped (data.on_leak: drop)"
            gone[earlier] = np.union1d(gone[earlier], held)
        leaks = []
        for kind, rows in (
            ("leak", there.only(there.same)),
            ("near leak", there.only(~there.same)),
        ):
            if not len(rows.rows):
                continue
            of, within = splits[later], splits[earlier]
            places = of.places.take(rows.rows) if kind == "leak" else _likened(rows, of, within)
            clashes = int(_clash(rows, of, within).sum())
            told = f"{clashes:,} with another label there; {rule}" if clashes else rule
            leaks.append(Finding(kind, later, len(rows.rows), places, told, earlier))
        if data.on_leak == "stop":
            problems += [
                f"{finding.what()}: data.on_leak is 'stop'; mend the data, or set data.on_leak to "
                "warn or drop"
                for finding in leaks
            ]
        found += leaks
    if problems:
        raise InputError(problems)
    kept = {split.name: _without(split, gone[split.name]) for split in corpus.splits()}
    _require_rows(corpus, kept)
    findings = (*corpus.findings, *found)
    return dataclasses.replace(corpus, **cast(Any, kept), findings=findings)


def _not_sought(alike: Alike, many: int) -> Iterator[Finding]:
    """That near-duplicates were not sought, or not among all that share their words."""
    if alike.pairs is None:
        rule = f"in more than {MOST_CHARACTERS:,} characters"
        yield Finding("not sought", "source", many, (), rule)
    elif alike.pairs.crowded:
        rule = (
            f"each compared with {alike.pairs.crowd} of likest size, so that some pairs are missed"
        )
        yield Finding("crowded", "source", alike.pairs.crowded, (), rule)


def _without(split: Split, gone: NDArray[np.int64]) -> Split:
    if not len(gone):
        return split
    return split.take(np.setdiff1d(np.arange(len(split)), gone))


def _require_rows(corpus: Corpus, kept: Mapping[str, Split]) -> None:
    """
    Raises:
        InputError: where a split, or a label in train, has lost its last row.
    """
    problems = [
        f"{split.name}: no rows are left; all stand in another split too (data.on_leak: drop)"
        for split in kept.values()
        if not len(split)
    ]
    before, after = (class_counts(of, corpus.labels) for of in (corpus.train, kept["train"]))
    lost = [f"'{name}'" for name in corpus.labels if before[name] and not after[name]]
    if lost and not problems:
        problems.append(
            f"train: no row is left of {shorten(lost)}; all stand in another split too "
            "(data.on_leak: "
            "drop)"
        )
    if problems:
        raise InputError(problems)


def as_json(corpus: Corpus) -> dict[str, Any]:
    """All that is known of a corpus before training; each finding with all rows that were listed.

    `splits`: of each its origin, rows, the rows of each label, and quantiles of words and
    characters; `findings`: kind, split, count, what was done, places.
    """
    return {
        "labels": list(corpus.labels),
        "splits": {split.name: _about(split, corpus.labels) for split in corpus.splits()},
        "findings": [finding.whole() for finding in corpus.findings],
    }


def _about(split: Split, labels: Sequence[str]) -> dict[str, Any]:
    texts = split.whole()
    return {
        "origin": split.origin,
        "rows": len(split),
        "classes": None if split.labels is None else class_counts(split, labels),
        "words": _spread(np.fromiter((len(text.split()) for text in texts), int, len(texts))),
        "characters": _spread(np.fromiter(map(len, texts), int, len(texts))),
    }


def _spread(sizes: np.ndarray) -> dict[str, int]:
    at = {"shortest": 0.0, "median": 0.5, "p95": 0.95, "longest": 1.0}
    return {name: int(np.quantile(sizes, share)) for name, share in at.items()}


def _in_texts(corpus: Corpus, whole: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Rows whose text is damaged, or hardly one."""
    # U+FFFD that was put in place here has been told.
    damaged = (one.places for one in corpus.findings if one.kind == "undecodable")
    told = [places for places in damaged if isinstance(places, Places)]
    for split in corpus.splits():
        rows = {kind: array("q") for kind in LOOKS}
        for i, text in enumerate(whole[split.name]):
            for kind, look in LOOKS.items():
                if look(text):
                    rows[kind].append(i)
        for kind, found in rows.items():
            places = split.places.take(np.array(found))
            if kind == "broken character":
                for others in told:
                    places = places.without(others)
            if len(places):
                yield Finding(kind, split.name, len(places), places, "kept")


def _few_rows(corpus: Corpus) -> Iterator[Finding]:
    counts = class_counts(corpus.train, corpus.labels)
    few = [f"{name}: {count}" for name, count in counts.items() if 0 < count < FEW]
    if few:
        rule = "kept; too few to learn much from, and their scores are uncertain"
        yield Finding("few rows", "train", len(few), tuple(few), rule)


def _near_in_train(alike: Alike, train: Split) -> Iterator[Finding]:
    """Rows of train that nearly repeat an earlier one, with its label and with another."""
    found = alike.earlier("train")
    clash = _clash(found, train, train)
    for kind, which in (("near repeat", ~clash), ("near conflict", clash)):
        if which.any():
            near = found.only(which)
            yield Finding(kind, "train", len(near.rows), _likened(near, train, train), "kept")


def _clash(found: Matches, of: Split, within: Split) -> NDArray[np.bool_]:
    """Whether each row has another label than the one that it is like. (matches,)"""
    if of.labels is None or within.labels is None:
        return np.zeros(len(found.rows), dtype=bool)
    other = of.labels[found.rows] != within.labels[found.others]  # (matches,) or (…, classes)
    return np.asarray(other.any(axis=1) if other.ndim == 2 else other)


def _likened(found: Matches, of: Split, within: Split) -> PairPlaces:
    ones, others = of.places.take(found.rows), within.places.take(found.others)
    return PairPlaces(ones, others, found.overlaps)


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"
