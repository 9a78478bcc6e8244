"""Rows → label space, splits, preflight findings.

    corpus = prepare(load_rows(recipe.data), recipe.data)
    for finding in corpus.findings:
        print(finding)  # train: 98 rows repeat an earlier text and label (…): dropped (…)

Every rule for rows that are not right is applied here; each row it touches is counted and named by
its place. How a pool is cut stands in `splits.py`, how labels get their names in `labels.py`.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from finetune import preflight, recipe
from finetune.corpus import (
    Corpus,
    Finding,
    Split,
    class_counts,
    fingerprint,
    split_hash,
)
from finetune.labels import Named, NamedSets, name_label_sets, name_labels
from finetune.problems import InputError, some
from finetune.sources import Rows, roles
from finetune.splits import STAYS, carve, draw
from finetune.texts import digest, numbered

__all__ = [
    "Corpus",
    "Finding",
    "Split",
    "class_counts",
    "fingerprint",
    "prepare",
    "split_hash",
]

# A row's labels by name: one, several in the order of the label space, or None where missing.
Names = str | tuple[str, ...] | None
Ids = NDArray[np.int64]

DONE = {"replace": "U+FFFD put in place", "drop": "dropped", "keep": "kept"}


@dataclass
class _Part:
    """The rows of one role while the rules go over them.

    Attributes:
        numbers: of each document, the same for the same document, in all parts. (all rows,)
        empty: whether a text is missing; of a pair, one of the two. (all rows,)
        kinds: the labels by name that there are, and None where missing; none: unlabelled.
        labels: which of the kinds each row has. (all rows,)
        keep: the rows still in, ascending.
    """

    role: str
    rows: Rows
    origin: str
    numbers: Ids
    empty: NDArray[np.bool_]
    keep: Ids
    kinds: list[Names]
    labels: Ids

    def take_labels(self, names: Sequence[Names]) -> None:
        """Every row's label by name."""
        codes: dict[Names, int] = {}
        coded = (codes.setdefault(name, len(codes)) for name in names)
        self.labels, self.kinds = np.fromiter(coded, np.int64, len(names)), list(codes)

    def labels_in(self) -> Counter[str]:
        """The labels of the rows that are in, in the order in which they come."""
        assert self.kinds
        found, first, counts = np.unique(
            self.labels[self.keep], return_index=True, return_counts=True
        )
        labels: Counter[str] = Counter()
        for k in np.argsort(first):
            for name in _each(self.kinds[found[k]]):
                labels[name] += int(counts[k])
        return labels

    def has(self, kinds: Collection[Names]) -> Ids:
        """The rows that are in and have one of these."""
        of_kind = np.array([kind in kinds for kind in self.kinds])
        there: Ids = self.keep[of_kind[self.labels[self.keep]]]
        return there

    def pairs(self) -> Ids:
        """A number for each row that is in: the same for the same document and labels."""
        pairs: Ids = self.numbers * max(1, len(self.kinds)) + self.labels
        return pairs[self.keep]


@dataclass
class _Ledger:
    """What was found so far, and the problems of the rules that say stop."""

    data: recipe.Data
    findings: list[Finding] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def note(
        self, kind: str, part: _Part, rows: Sequence[int] | Ids, rule: str, other: str = ""
    ) -> None:
        if len(rows):
            places = part.rows.places.take(rows)
            self.findings.append(Finding(kind, part.role, len(rows), places, rule, other))

    def judge(
        self, kind: str, key: str, part: _Part, rows: Sequence[int] | Ids, details: str = ""
    ) -> None:
        """Do with `rows` what data.<key> says; `stop` collects a problem and goes on without."""
        if not len(rows):
            return
        rule = str(getattr(self.data, key))
        self.note(kind, part, rows, f"{DONE.get(rule, '')} (data.{key}: {rule})")
        if rule == "stop":
            finding = self.findings.pop()
            options = get_args(recipe.Data.model_fields[key].annotation)
            others = " or ".join(option for option in options if option != "stop")
            self.problems.append(
                f"{finding.what()}{details}: data.{key} is 'stop'; mend the data, or set "
                f"data.{key} to {others}"
            )
        if rule in ("drop", "stop"):
            part.keep = np.setdiff1d(part.keep, rows, assume_unique=True)


def prepare(sources: Mapping[str, Rows], data: recipe.Data) -> Corpus:
    """Give every split of the source its role, apply the rules, and carve what is missing.

    Args:
        sources: split name in the source → rows, as of `sources.load_rows`
        data: the recipe's section

    Raises:
        InputError: where labels are missing or do not fit, a rule says stop, or a split is empty.
    """
    chosen = roles(sources, data)
    rows_of = {role: sources[name] for role, name in chosen._asdict().items() if name is not None}
    if several := any(rows.several for rows in rows_of.values()):
        rows_of = {role: rows.as_sets() for role, rows in rows_of.items()}
    _require_labels(rows_of, chosen._asdict())
    # A test split without a single label is predicted, not scored.
    labelled = {role: rows for role, rows in rows_of.items() if _has_labels(rows)}
    origins = {role: rows.origin or str(chosen._asdict()[role]) for role, rows in rows_of.items()}
    parts = _parts(rows_of, origins)
    ledger = _Ledger(data)
    unused = tuple(f"{n} ({len(sources[n].texts):,} rows)" for n in sources if n not in chosen)
    if unused:
        ledger.findings.append(Finding("unused split", "source", len(unused), unused, "ignored"))
    for part in parts.values():
        ledger.judge("undecodable", "on_undecodable", part, part.rows.damaged)
        ledger.judge("empty", "on_empty", part, part.keep[part.empty[part.keep]])
    given = data.labels if isinstance(data.label, str) else data.label
    find: Callable[..., tuple[tuple[str, ...], Mapping[str, Named | NamedSets]]]
    find = name_label_sets if several else name_labels
    try:
        space, named = find(labelled, parts["train"].keep, given)
    except InputError as error:
        raise InputError([*ledger.problems, *error.problems]) from None
    for role, part in parts.items():
        _take_labels(part, named.get(role), ledger)
    pool = parts["train"]
    if not ledger.problems:
        _require_classes(pool, ledger)
    _repeats_in_pool(pool, ledger)
    for role, part in parts.items():
        if role != "train":
            _rows_of_given(part, set(pool.labels_in()), ledger)
    if ledger.problems:
        raise InputError(ledger.problems)

    used = pool.labels_in()
    unused_labels = tuple(name for name in space if name not in used)
    if unused_labels:
        rule = "kept in the label space, and never learned"
        ledger.findings.append(
            Finding("unused label", "train", len(unused_labels), unused_labels, rule)
        )
    ids = {name: i for i, name in enumerate(space)}
    parts |= _carved(
        pool, ids, [role for role in ("test", "validation") if role not in parts], data
    )
    _note_rare_classes(parts, rows_of, ledger)
    _limit(parts, data, ledger)
    without_rows = [_nothing_left(part, ledger) for part in parts.values() if not len(part.keep)]
    if without_rows:
        raise InputError(without_rows)
    _require_classes(parts["train"], ledger)
    train, validation, test = (_split(parts[role], ids) for role in chosen._fields)
    corpus = Corpus(space, train, validation, test, tuple(ledger.findings), several)
    return preflight.examine(corpus, data)


def _parts(rows_of: Mapping[str, Rows], origins: Mapping[str, str]) -> dict[str, _Part]:
    """All rows of each role, their documents compared: white space at the ends is no difference."""
    digests, empty = {}, {}
    for role, rows in rows_of.items():
        many = len(rows.texts)
        digests[role], empty[role] = np.zeros(many, "S16"), np.zeros(many, dtype=bool)
        seconds = itertools.repeat("") if rows.seconds is None else rows.seconds
        for i, both in enumerate(zip(rows.texts, seconds, strict=False)):
            text, second = ((cell or "").strip() for cell in both)
            empty[role][i] = not text or (rows.seconds is not None and not second)
            digests[role][i] = digest(f"{text}\0{second}")
    numbers_of = numbered([*digests.values()])
    return {
        role: _Part(
            role, rows, origins[role], numbers, empty[role], np.arange(len(numbers)), [],
            np.zeros(len(numbers), dtype=np.int64),
        )
        for (role, rows), numbers in zip(rows_of.items(), numbers_of, strict=True)
    }  # fmt: skip


def _has_labels(rows: Rows) -> bool:
    return any(
        label.strip() if isinstance(label, str) else label is not None and label != ()
        for label in rows.labels or ()
    )


def _require_labels(rows_of: Mapping[str, Rows], chosen: Mapping[str, str | None]) -> None:
    problems = []
    if not _has_labels(rows_of["train"]):
        problems.append(
            f"train: no row of the split '{chosen['train']}' has a label; training needs them: "
            "set data.label to their column"
        )
    if "validation" in rows_of and not _has_labels(rows_of["validation"]):
        problems.append(
            f"validation: no row of the split '{chosen['validation']}' has a label; tuning needs "
            "them: set data.label to their column, or data.validation=carve"
        )
    if problems:
        raise InputError(problems)


def _nothing_left(part: _Part, ledger: _Ledger) -> str:
    """That a split is empty, and which rules emptied it."""
    message = f"{part.role}: no rows are left of {part.origin} ({_rows(len(part.rows.texts))})"
    causes = [
        str(finding).removeprefix(f"{part.role}: ")
        for finding in ledger.findings
        if finding.split == part.role and finding.rule.startswith(DONE["drop"])
    ]
    return "; ".join([message, *causes])


def _require_classes(train: _Part, ledger: _Ledger) -> None:
    counts = train.labels_in()
    if not counts:
        raise InputError(_nothing_left(train, ledger))
    if len(counts) < 2:
        ((name, count),) = counts.items()
        raise InputError(
            f"train: expected rows of at least two labels, got only '{name}' ({_rows(count)})"
        )


def _each(names: Names) -> tuple[str, ...]:
    return names if isinstance(names, tuple) else () if names is None else (names,)


def _take_labels(part: _Part, named: Named | NamedSets | None, ledger: _Ledger) -> None:
    if named is None:
        ledger.note("unlabelled", part, part.keep, "predicted, not scored")
        return
    part.take_labels(named.names)
    ledger.judge("null label", "on_null_label", part, part.has([None]))
    ledger.note("trimmed label", part, np.intersect1d(named.trimmed, part.keep), "trimmed")


def _repeats_in_pool(pool: _Part, ledger: _Ledger) -> None:
    ledger.judge("repeat", "on_repeat", pool, _repeats(pool))
    documents = np.unique(pool.pairs()) // len(pool.kinds)
    several = documents[1:][documents[1:] == documents[:-1]]  # with more than one label
    clashes = pool.keep[np.isin(pool.numbers[pool.keep], several)]
    ledger.note("conflicting labels", pool, clashes, "kept")


def _repeats(part: _Part) -> Ids:
    again = np.ones(len(part.keep), dtype=bool)
    again[np.unique(part.pairs(), return_index=True)[1]] = False
    return part.keep[again]


def _rows_of_given(part: _Part, seen: set[str], ledger: _Ledger) -> None:
    """The rules for a validation or test split that the source brings along."""
    if part.kinds:
        unseen = part.has({kind for kind in part.kinds if not seen.issuperset(_each(kind))})
        counts = part.labels_in()
        listed = [f"'{name}' ({_rows(counts[name])})" for name in counts if name not in seen]
        details = f", namely {some(listed)}"
        ledger.judge("unseen label", "on_unseen_label", part, unseen, details)
    ledger.note("repeat", part, _repeats(part), "kept, so that scores stay comparable")


def _carved(
    pool: _Part, ids: Mapping[str, int], missing: Sequence[str], data: recipe.Data
) -> dict[str, _Part]:
    """Cut the missing roles from the pool, test first; the pool keeps the rest."""
    if not missing:
        return {}
    fractions = {"test": data.test_fraction, "validation": data.validation_fraction}
    # Test is always the first cut and validation the second, so neither moves the other's stream.
    shares = [fractions[role] if role in missing else 0.0 for role in ("test", "validation")]
    labels = _ids(pool, ids)
    side = carve(pool.numbers[pool.keep], labels, shares, data.split_seed)
    problems = []
    parts = {}
    for role in missing:
        rows = pool.keep[side == ("test", "validation").index(role)]
        share = fractions[role]
        origin = f"carved from {pool.origin}: {100 * share:g} %, stratified, seed {data.split_seed}"
        parts[role] = replace(pool, role=role, origin=origin, keep=rows)
        if not len(rows):
            classes = len(pool.labels_in())
            problems.append(
                f"{role}: carving {100 * share:g} % (data.{role}_fraction) of {_rows(len(side))} "
                f"gives none; it takes at least {math.ceil(0.5 / share)} different texts, and one "
                f"more than the {classes} classes, each of which keeps one in train"
            )
    if problems:
        raise InputError(problems)
    pool.keep = pool.keep[side == STAYS]
    return parts


def _note_rare_classes(
    parts: Mapping[str, _Part], given: Mapping[str, Rows], ledger: _Ledger
) -> None:
    train = parts["train"].labels_in()
    for role, part in parts.items():
        if role in given:
            continue
        counts = part.labels_in()
        rare = [f"{name}: {_rows(train[name])} in train" for name in train if name not in counts]
        if rare:
            rule = "too few rows to cut one off; the score there says nothing of them"
            ledger.findings.append(Finding("rare class", role, len(rare), tuple(rare), rule))


def _limit(parts: Mapping[str, _Part], data: recipe.Data, ledger: _Ledger) -> None:
    limits = {
        "train": data.max_train_rows,
        "validation": data.max_validation_rows,
        "test": data.max_test_rows,
    }
    if data.rows_per_class is not None:
        _draw_per_class(parts["train"], data.rows_per_class, data.split_seed, ledger)
    for stream, (role, most) in enumerate(limits.items()):
        part = parts[role]
        before = part.keep
        drawn = draw(len(before), most, data.split_seed, stream)
        if len(drawn) == len(before):
            continue
        had = set(part.labels_in()) if part.kinds else set()
        part.keep = before[drawn]
        rule = f"{len(drawn):,} drawn by seed {data.split_seed} (data.max_{role}_rows: {most})"
        lost = sorted(had - set(part.labels_in())) if had else []
        if lost:
            rule += f"; none is left of {some(lost)}"
        ledger.findings.append(Finding("limited", role, len(before) - len(drawn), (), rule))


def _draw_per_class(part: _Part, most: int, seed: int, ledger: _Ledger) -> None:
    """Keep so many rows of each label, which makes a task of few rows out of a large one."""
    labels = part.labels[part.keep]
    members: dict[str, Ids] = {}
    for name in sorted({name for kind in part.kinds for name in _each(kind) or ("",)}):
        has = [k for k, kind in enumerate(part.kinds) if name in (_each(kind) or ("",))]
        if len(rows := part.keep[np.isin(labels, has)]):
            members[name] = rows
    kept = [
        rows[draw(len(rows), most, seed, 1000 + stream)]
        for stream, (_, rows) in enumerate(sorted(members.items()))
    ]
    fewer = sorted(name for name, rows in members.items() if len(rows) < most)
    drawn = np.unique(np.concatenate(kept))  # of several labels, a row may be drawn for each
    rule = f"{len(drawn):,} drawn by seed {seed} (data.rows_per_class: {most})"
    if fewer:
        rule += f"; there are fewer of {some(fewer)}"
    left = len(part.keep) - len(drawn)
    part.keep = drawn
    if left:
        ledger.findings.append(Finding("limited", part.role, left, (), rule))


def _split(part: _Part, ids: Mapping[str, int]) -> Split:
    rows, keep = part.rows, part.keep
    seconds = None if rows.seconds is None else rows.seconds.take(keep)
    labels = _ids(part, ids) if part.kinds else None
    places = rows.places.take(keep)
    return Split(part.role, rows.texts.take(keep), labels, places, part.origin, seconds)


def _ids(part: _Part, ids: Mapping[str, int]) -> NDArray[Any]:
    """Of the rows that are in: class ids (rows,); of several labels, 0 and 1 (rows, classes)."""
    if any(isinstance(kind, tuple) for kind in part.kinds):
        of_kind = np.zeros((len(part.kinds), len(ids)), dtype=np.int8)
        for row, kind in zip(of_kind, part.kinds, strict=True):
            row[[ids[name] for name in _each(kind) if name in ids]] = 1
    else:  # -1: of rows that are out
        of_kind = np.array([ids.get(str(kind), -1) for kind in part.kinds], dtype=np.int64)
    found: NDArray[Any] = of_kind[part.labels[part.keep]]
    return found


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"
