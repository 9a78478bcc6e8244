"""A corpus → the problems in its texts that would harm training or scores, before weights load.

    corpus = check_corpus(corpus, recipe.data)  # prepare.py does so
    describe_corpus(corpus)                     # preflight.json of a run: all findings and rows

The rules for single rows (empty, unlabelled, repeated, …) are those of `prepare.py`; here texts are
compared across splits, exactly and nearly, and looked into. `finetune inspect` shows it all.
"""

import dataclasses
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from finetune.config import schema
from finetune.data.cells import format_rows
from finetune.data.corpus import Corpus, Finding, Split, class_counts
from finetune.data.overlap import Matches, Overlap
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


def check_corpus(corpus: Corpus, data: schema.Data, stops: list[str] | None = None) -> Corpus:
    """The corpus with what was found, and without the rows that data.on_leak takes out.

    Args:
        stops: where given, takes the problems of leaks, which then stop nothing.

    Raises:
        InputError: where data.on_leak says stop and there are leaks, or dropping leaves no class.
    """
    splits = {split.name: split for split in corpus.splits()}
    documents = {name: split.whole() for name, split in splits.items()}
    findings = [*corpus.findings, *_check_texts(corpus, documents), *_check_class_sizes(corpus)]
    size = sum(len(text) for texts in documents.values() for text in texts)
    store = Texts.of(corpus.train.texts).beside()
    overlap = Overlap(documents, store, find_near=size <= MOST_CHARACTERS)
    findings += note_limits(overlap, sum(map(len, documents.values())))
    findings += _check_near_repeats(overlap, corpus.train)
    dropped = {name: np.zeros(0, dtype=np.int64) for name in splits}
    problems = []
    for later, earlier in (("validation", "train"), ("test", "train"), ("test", "validation")):
        if not {later, earlier} <= splits.keys():
            continue
        leaked = np.setdiff1d(overlap.find_matches(earlier, later).rows, dropped[earlier])
        rule = "kept; the score counts them"
        if data.on_leak == "drop":
            rule = f"{format_rows(len(leaked))} of {earlier} dropped (data.on_leak: drop)"
            dropped[earlier] = np.union1d(dropped[earlier], leaked)
        elif data.on_leak == "stop":
            rule = "a run stops here (data.on_leak: stop)"
        leaks = [*_find_leaks(overlap, splits[later], splits[earlier], rule)]
        if data.on_leak == "stop":
            problems += [
                f"{finding.describe()}: data.on_leak is 'stop'; correct the data, or set "
                "data.on_leak to warn or drop"
                for finding in leaks
            ]
        findings += leaks
    if stops is not None:
        stops += problems
    elif problems:
        raise InputError(problems)
    kept = {split.name: _drop_rows(split, dropped[split.name]) for split in corpus.splits()}
    _require_rows(corpus, kept)
    return dataclasses.replace(corpus, **cast(Any, kept), findings=tuple(findings))


def _find_leaks(overlap: Overlap, later: Split, earlier: Split, rule: str) -> Iterator[Finding]:
    """The rows of a split whose text also appears in an earlier one, exactly and nearly."""
    matches = overlap.find_matches(later.name, earlier.name)
    for kind, mask in (("leak", matches.is_exact), ("near leak", ~matches.is_exact)):
        leaks = matches.select(mask)
        count = len(leaks.rows)
        if not count:
            continue
        places: Sequence[str] = later.places.take(leaks.rows)
        if kind == "near leak":
            places = _pair_places(leaks, later, earlier)
        conflicts = int(_has_other_label(leaks, later, earlier).sum())
        with_rule = f"{conflicts:,} with another label there; {rule}" if conflicts else rule
        yield Finding(kind, later.name, count, places, with_rule, earlier.name)


def note_limits(overlap: Overlap, count: int) -> Iterator[Finding]:
    """That near-duplicates were not looked for, or not among all that share their words."""
    pairs = overlap.pairs
    if pairs is None:
        rule = f"in more than {MOST_CHARACTERS:,} characters"
        yield Finding("not sought", "source", count, (), rule)
    elif pairs.crowded:
        rule = f"each compared with the {pairs.crowd} closest in size only; some pairs are missed"
        yield Finding("crowded", "source", pairs.crowded, (), rule)


def _drop_rows(split: Split, rows: NDArray[np.int64]) -> Split:
    if not len(rows):
        return split
    return split.take(np.setdiff1d(np.arange(len(split)), rows))


def _require_rows(corpus: Corpus, kept: Mapping[str, Split]) -> None:
    """
    Raises:
        InputError: where a split, or a label in train, has lost its last row.
    """
    problems = [
        f"{split.name}: no rows are left; all are also in another split (data.on_leak: drop)"
        for split in kept.values()
        if not len(split)
    ]
    before, after = (class_counts(of, corpus.labels) for of in (corpus.train, kept["train"]))
    lost = [f"'{name}'" for name in before if before[name] and not after[name]]
    if lost and not problems:
        problems.append(
            f"train: no rows are left of {shorten(lost)}; all are also in another split "
            "(data.on_leak: drop)"
        )
    if problems:
        raise InputError(problems)


def describe_corpus(corpus: Corpus) -> dict[str, Any]:
    """All that is known of a corpus before training; each finding with all rows that were listed.

    `splits`: of each its origin, rows, the rows of each label, and quantiles of words and
    characters; `findings`: kind, split, count, what was done, places.
    """
    return {
        "labels": list(corpus.labels),
        "splits": {split.name: _describe_split(split, corpus.labels) for split in corpus.splits()},
        "findings": [finding.as_json() for finding in corpus.findings],
    }


def _describe_split(split: Split, labels: Sequence[str]) -> dict[str, Any]:
    texts = split.whole()
    return {
        "origin": split.origin,
        "rows": len(split),
        "classes": None if split.labels is None else class_counts(split, labels),
        "words": _quantiles(np.fromiter((len(text.split()) for text in texts), int, len(texts))),
        "characters": _quantiles(np.fromiter(map(len, texts), int, len(texts))),
    }


def _quantiles(sizes: np.ndarray) -> dict[str, int]:
    at = {"shortest": 0.0, "median": 0.5, "p95": 0.95, "longest": 1.0}
    return {name: int(np.quantile(sizes, share)) for name, share in at.items()}


def _check_texts(corpus: Corpus, documents: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Rows whose text is damaged, or hardly one."""
    # Where U+FFFD was put in place of bytes, there is a finding already.
    undecodable = [
        one.places for one in corpus.findings if one.kind in ("undecodable", "half pair")
    ]
    for split in corpus.splits():
        rows_of = {kind: array("q") for kind in LOOKS}
        for i, text in enumerate(documents[split.name]):
            for kind, look in LOOKS.items():
                if look(text):
                    rows_of[kind].append(i)
        for kind, rows in rows_of.items():
            places = split.places.take(np.array(rows))
            if kind == "broken character":
                for known in undecodable:
                    if isinstance(known, Places):
                        places = places.without(known)
            if len(places):
                yield Finding(kind, split.name, len(places), places, "kept")


def _check_class_sizes(corpus: Corpus) -> Iterator[Finding]:
    counts = class_counts(corpus.train, corpus.labels)
    few = [f"{name}: {count}" for name, count in counts.items() if 0 < count < FEW]
    if few:
        rule = "kept; too few to learn much from, and their scores are uncertain"
        yield Finding("few rows", "train", len(few), tuple(few), rule)


def _check_near_repeats(overlap: Overlap, train: Split) -> Iterator[Finding]:
    """Rows of train that nearly repeat an earlier one, with its label and with another."""
    matches = overlap.find_earlier("train")
    has_other_label = _has_other_label(matches, train, train)
    for kind, mask in (("near repeat", ~has_other_label), ("near conflict", has_other_label)):
        if mask.any():
            near = matches.select(mask)
            places = _pair_places(near, train, train)
            yield Finding(kind, "train", len(near.rows), places, "kept")


def _has_other_label(matches: Matches, split: Split, other: Split) -> NDArray[np.bool_]:
    """Whether each row of `split` has another label than its match in `other`. (matches,)"""
    if split.labels is None or other.labels is None:
        return np.zeros(len(matches.rows), dtype=bool)
    differ = (
        split.labels[matches.rows] != other.labels[matches.others]
    )  # (matches,) or (…, classes)
    return np.asarray(differ.any(axis=1) if differ.ndim == 2 else differ)


def _pair_places(matches: Matches, split: Split, other: Split) -> PairPlaces:
    places, others = split.places.take(matches.rows), other.places.take(matches.others)
    return PairPlaces(places, others, matches.overlaps)
