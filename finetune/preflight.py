"""A corpus → what in its texts would spoil a training or a score, before any weights are loaded.

    corpus = examine(corpus, recipe.data)     # data.prepare does so
    as_json(corpus)                           # preflight.json of a run: every finding, every row

The rules for single rows (empty, unlabelled, repeated, …) are those of `data.py`; here texts are
compared across splits, exactly and nearly, and looked into. `scripts/inspect_data.py` shows it all.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from finetune import recipe
from finetune.corpus import Corpus, Finding, Split, class_counts
from finetune.near_duplicates import near_duplicates
from finetune.problems import InputError, some
from finetune.texts import digest, numbered

FEW = 10  # rows of a class in train, below which it is named
MOST_CHARACTERS = 100_000_000  # about a minute; of larger corpora near-duplicates are not sought

# Two-byte characters of UTF-8 that were read as one byte each: Ã© for é, â€™ for ’.
MOJIBAKE = re.compile("Ã[\u0080-\u00bf]|â€|Â[\u00a0-\u00bf]|ï»¿")
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

LOOKS: dict[str, Callable[[str], object]] = {
    "one character": lambda text: len(text.strip()) == 1,
    "broken character": lambda text: "\ufffd" in text,
    "mojibake": MOJIBAKE.search,
    "control": CONTROL.search,
}


def examine(corpus: Corpus, data: recipe.Data) -> Corpus:
    """The corpus with what was found, and without the rows that data.on_leak takes out.

    Raises:
        InputError: where data.on_leak says stop and there are leaks, or dropping leaves no class.
    """
    whole = {split.name: split.whole() for split in corpus.splits()}
    found = [*_in_texts(corpus, whole), *_few_rows(corpus)]
    size = sum(len(text) for texts in whole.values() for text in texts)
    alike = _Alike(corpus, whole, seek=size <= MOST_CHARACTERS)
    if size > MOST_CHARACTERS:
        rule = f"in more than {MOST_CHARACTERS:,} characters"
        found.append(Finding("not sought", "source", sum(map(len, corpus.splits())), (), rule))
    found += alike.in_train()
    gone: dict[str, set[int]] = {split.name: set() for split in corpus.splits()}
    problems = []
    for later, earlier in (("validation", "train"), ("test", "train"), ("test", "validation")):
        exact, near = alike.leaks(later, earlier)
        held = {*alike.matches(earlier, later)} - gone[earlier]
        rule = "kept; the score counts them"
        if data.on_leak == "drop":
            rule = f"{_rows(len(held))} of {earlier} dropped (data.on_leak: drop)"
            gone[earlier] |= held
        leaks = []
        for kind, rows in (("leak", exact), ("near leak", near)):
            if rows:
                clashes = sum(alike.clash(later, row, earlier, match) for row, match in rows)
                places = tuple(alike.place(later, row, earlier, match) for row, match in rows)
                told = f"{clashes:,} with another label there; {rule}" if clashes else rule
                leaks.append(Finding(kind, later, len(rows), places, told, earlier))
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


def _without(split: Split, gone: set[int]) -> Split:
    if not gone:
        return split
    return split.take(np.setdiff1d(np.arange(len(split)), [*gone]))


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
            f"train: no row is left of {some(lost)}; all stand in another split too (data.on_leak: "
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
        "findings": [
            dataclasses.asdict(finding) | {"says": str(finding)} for finding in corpus.findings
        ],
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
    told = {place for one in corpus.findings if one.kind == "undecodable" for place in one.places}
    for split in corpus.splits():
        for kind, look in LOOKS.items():
            rows = [i for i, text in enumerate(whole[split.name]) if look(text)]
            places = [split.places.place(i) for i in rows]
            if kind == "broken character":
                places = [place for place in places if place not in told]
            if places:
                yield Finding(kind, split.name, len(places), tuple(places), "kept")


def _few_rows(corpus: Corpus) -> Iterator[Finding]:
    counts = class_counts(corpus.train, corpus.labels)
    few = [f"{name}: {count}" for name, count in counts.items() if 0 < count < FEW]
    if few:
        rule = "kept; too few to learn much from, and their scores are uncertain"
        yield Finding("few rows", "train", len(few), tuple(few), rule)


class _Match(NamedTuple):
    row: int
    overlap: float
    same: bool  # to the letter, but for white space around it


_Leak = tuple[int, _Match]  # a row, and what it is like


class _Alike:
    """Which documents are like which, of all splits."""

    def __init__(self, corpus: Corpus, whole: Mapping[str, Sequence[str]], seek: bool) -> None:
        self.splits = {split.name: split for split in corpus.splits()}
        digests = [
            np.fromiter((digest(text.strip()) for text in texts), "S16", len(texts))
            for texts in whole.values()
        ]
        self.keys = dict(zip(whole, numbered(digests), strict=True))
        self.seek = seek
        if not seek:
            return
        pairs = near_duplicates([text for texts in whole.values() for text in texts])
        # Documents of the same words are one cluster, by its first; clusters have neighbours.
        clusters = np.arange(sum(map(len, whole.values())))
        same = pairs.overlap == 1
        clusters[pairs.second[same]] = pairs.first[same]
        self.near: dict[int, list[tuple[int, float]]] = {}
        for one, other, overlap in zip(*(part[~same].tolist() for part in pairs), strict=True):
            self.near.setdefault(one, []).append((other, overlap))
            self.near.setdefault(other, []).append((one, overlap))
        self.cluster: dict[str, list[int]] = {}
        self.first: dict[str, dict[int, int]] = {}  # the first row of each cluster in a split
        start = 0
        for name, keys in self.keys.items():
            own = clusters[start : start + len(keys)].tolist()
            start += len(keys)
            self.cluster[name] = own
            self.first[name] = {c: i for i, c in reversed([*enumerate(own)])}

    def matches(self, of: str, within: str) -> dict[int, _Match]:
        """The rows of a split that have their like in another, with the one most alike."""
        there, first = np.unique(self.keys[within], return_index=True)
        at = np.minimum(np.searchsorted(there, self.keys[of]), len(there) - 1)
        same = there[at] == self.keys[of]
        found = {int(row): _Match(int(first[at[row]]), 1.0, True) for row in np.flatnonzero(same)}
        for row in np.flatnonzero(~same).tolist() if self.seek else ():
            if (match := self._near(of, row, within)) is not None:
                found[row] = match
        return found

    def _near(self, of: str, row: int, within: str) -> _Match | None:
        cluster, first = self.cluster[of][row], self.first[within]
        if cluster in first:
            return _Match(first[cluster], 1.0, False)
        there = [(o, first[c]) for c, o in self.near.get(cluster, ()) if c in first]
        if not there:
            return None
        overlap, other = max(there, key=lambda pair: (pair[0], -pair[1]))
        return _Match(other, overlap, False)

    def leaks(self, later: str, earlier: str) -> tuple[list[_Leak], list[_Leak]]:
        """A split's rows that stand in another: to the letter, and nearly."""
        found = self.matches(later, earlier).items()
        return [one for one in found if one[1].same], [one for one in found if not one[1].same]

    def clash(self, of: str, row: int, within: str, match: _Match) -> bool:
        """Whether a row has another label than the first one that is most like it."""
        one, other = self.splits[of].labels, self.splits[within].labels
        if one is None or other is None:
            return False
        return not np.array_equal(one[row], other[match.row])

    def place(self, of: str, row: int, within: str, match: _Match) -> str:
        if match.same:
            return self.splits[of].places.place(row)
        return self._named(of, row, within, match)

    def in_train(self) -> Iterator[Finding]:
        """Rows of train that nearly repeat an earlier one, with its label and with another."""
        if not self.seek:
            return
        labels = self.splits["train"].labels
        found: dict[str, list[str]] = {"near repeat": [], "near conflict": []}
        first = self.first["train"]
        for row, cluster in enumerate(self.cluster["train"]):
            earlier = [(1.0, first[cluster])]
            earlier += [(o, first[c]) for c, o in self.near.get(cluster, ()) if c in first]
            earlier = [(o, other) for o, other in earlier if other < row]
            if not earlier:
                continue
            overlap, other = max(earlier, key=lambda pair: (pair[0], -pair[1]))
            if self.keys["train"][row] == self.keys["train"][other]:
                continue  # a repeat, of which data.py speaks
            agree = labels is None or np.array_equal(labels[row], labels[other])
            place = self._named("train", row, "train", _Match(other, overlap, False))
            found["near repeat" if agree else "near conflict"].append(place)
        for kind, places in found.items():
            if places:
                yield Finding(kind, "train", len(places), tuple(places), "kept")

    def _named(self, of: str, row: int, within: str, match: _Match) -> str:
        one, other = self.splits[of].places.place(row), self.splits[within].places.place(match.row)
        return f"{one} ≈ {other} ({match.overlap:.2f})"


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"
