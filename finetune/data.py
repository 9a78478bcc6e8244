"""Rows → label space, splits, preflight findings.

    corpus = prepare(load_rows(recipe.data), recipe.data)
    for finding in corpus.findings:
        print(finding)  # train: 98 rows repeat an earlier text and label (…): dropped (…)

Every rule for rows that are not right is applied here; each row it touches is counted and named by
its place. How a pool is cut stands in `splits.py`, how labels get their names in `labels.py`.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np

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

DONE = {"replace": "U+FFFD put in place", "drop": "dropped", "keep": "kept"}


@dataclass
class _Part:
    """The rows of one role while the rules go over them."""

    role: str
    rows: Rows
    names: Sequence[Names] | None  # (all rows,); None: unlabelled
    keep: list[int]  # the rows still in, ascending
    origin: str

    def text(self, i: int) -> str:
        return self.rows.texts[i] or ""

    def second(self, i: int) -> str:
        return (self.rows.seconds or [])[i] or ""

    def is_empty(self, i: int) -> bool:
        """Whether a text is missing; of a pair, one of the two."""
        lacks_second = self.rows.seconds is not None and not self.second(i).strip()
        return not self.text(i).strip() or lacks_second

    def key(self, i: int) -> str:
        """A document as it is compared."""
        key = self.text(i).strip()
        return key if self.rows.seconds is None else f"{key}\0{self.second(i).strip()}"

    def keys(self) -> list[str]:
        """The documents that are in, as they are compared."""
        return [self.key(i) for i in self.keep]

    def labels_in(self) -> Counter[str]:
        assert self.names is not None
        return Counter(name for i in self.keep for name in _each(self.names[i]))


@dataclass
class _Ledger:
    """What was found so far, and the problems of the rules that say stop."""

    data: recipe.Data
    findings: list[Finding] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def note(self, kind: str, part: _Part, rows: Sequence[int], rule: str, other: str = "") -> None:
        if rows:
            places = tuple(part.rows.places.place(i) for i in rows)
            self.findings.append(Finding(kind, part.role, len(rows), places, rule, other))

    def judge(
        self, kind: str, key: str, part: _Part, rows: Sequence[int], details: str = ""
    ) -> None:
        """Do with `rows` what data.<key> says; `stop` collects a problem and goes on without."""
        if not rows:
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
            gone = set(rows)
            part.keep = [i for i in part.keep if i not in gone]


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
    parts = {
        role: _Part(role, rows, None, list(range(len(rows.texts))), rows.origin or str(source))
        for role, source in chosen._asdict().items()
        if (rows := rows_of.get(role)) is not None
    }
    ledger = _Ledger(data)
    unused = tuple(f"{n} ({len(sources[n].texts):,} rows)" for n in sources if n not in chosen)
    if unused:
        ledger.findings.append(Finding("unused split", "source", len(unused), unused, "ignored"))
    for part in parts.values():
        ledger.judge("undecodable", "on_undecodable", part, part.rows.damaged)
        empty = [i for i in part.keep if part.is_empty(i)]
        ledger.judge("empty", "on_empty", part, empty)
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

    unused_labels = tuple(name for name in space if name not in pool.labels_in())
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
    without_rows = [_nothing_left(part, ledger) for part in parts.values() if not part.keep]
    if without_rows:
        raise InputError(without_rows)
    _require_classes(parts["train"], ledger)
    train, validation, test = (_split(parts[role], ids) for role in chosen._fields)
    corpus = Corpus(space, train, validation, test, tuple(ledger.findings), several)
    return preflight.examine(corpus, data)


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
    part.names = named.names
    nameless = [i for i in part.keep if named.names[i] is None]
    ledger.judge("null label", "on_null_label", part, nameless)
    inside = set(part.keep)
    ledger.note("trimmed label", part, [i for i in named.trimmed if i in inside], "trimmed")


def _repeats_in_pool(pool: _Part, ledger: _Ledger) -> None:
    ledger.judge("repeat", "on_repeat", pool, _repeats(pool))
    assert pool.names is not None
    labels_of: dict[str, set[Names]] = {}
    for i, key in zip(pool.keep, pool.keys(), strict=True):
        labels_of.setdefault(key, set()).add(pool.names[i])
    clashes = [i for i, key in zip(pool.keep, pool.keys(), strict=True) if len(labels_of[key]) > 1]
    ledger.note("conflicting labels", pool, clashes, "kept")


def _repeats(part: _Part) -> list[int]:
    seen: set[tuple[str, Names]] = set()
    repeats = []
    for i, key in zip(part.keep, part.keys(), strict=True):
        pair = (key, part.names[i] if part.names is not None else None)
        if pair in seen:
            repeats.append(i)
        seen.add(pair)
    return repeats


def _rows_of_given(part: _Part, seen: set[str], ledger: _Ledger) -> None:
    """The rules for a validation or test split that the source brings along."""
    if part.names is not None:
        unseen = [i for i in part.keep if not seen.issuperset(_each(part.names[i]))]
        counts = Counter(n for i in unseen for n in _each(part.names[i]) if n not in seen)
        listed = [f"'{name}' ({_rows(count)})" for name, count in counts.items()]
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
    assert pool.names is not None
    labels = _ids([pool.names[i] for i in pool.keep], ids)
    side = carve(pool.keys(), labels, shares, data.split_seed)
    problems = []
    parts = {}
    for role in missing:
        rows = [pool.keep[k] for k in np.flatnonzero(side == ("test", "validation").index(role))]
        share = fractions[role]
        origin = f"carved from {pool.origin}: {100 * share:g} %, stratified, seed {data.split_seed}"
        parts[role] = _Part(role, pool.rows, pool.names, rows, origin)
        if not rows:
            classes = len(pool.labels_in())
            problems.append(
                f"{role}: carving {100 * share:g} % (data.{role}_fraction) of {_rows(len(side))} "
                f"gives none; it takes at least {math.ceil(0.5 / share)} different texts, and one "
                f"more than the {classes} classes, each of which keeps one in train"
            )
    if problems:
        raise InputError(problems)
    pool.keep = [pool.keep[k] for k in np.flatnonzero(side == STAYS)]
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
        had = set() if part.names is None else set(part.labels_in())
        part.keep = [before[k] for k in drawn]
        rule = f"{len(drawn):,} drawn by seed {data.split_seed} (data.max_{role}_rows: {most})"
        lost = sorted(had - set(part.labels_in())) if had else []
        if lost:
            rule += f"; none is left of {some(lost)}"
        ledger.findings.append(Finding("limited", role, len(before) - len(drawn), (), rule))


def _draw_per_class(part: _Part, most: int, seed: int, ledger: _Ledger) -> None:
    """Keep so many rows of each label, which makes a task of few rows out of a large one."""
    assert part.names is not None
    members: dict[str, list[int]] = {}
    for i in part.keep:
        members.setdefault(str(part.names[i]), []).append(i)
    kept = [
        rows[k]
        for stream, (_, rows) in enumerate(sorted(members.items()))
        for k in draw(len(rows), most, seed, 1000 + stream)
    ]
    fewer = sorted(name for name, rows in members.items() if len(rows) < most)
    rule = f"{len(kept):,} drawn by seed {seed} (data.rows_per_class: {most})"
    if fewer:
        rule += f"; there are fewer of {some(fewer)}"
    left = len(part.keep) - len(kept)
    part.keep = sorted(kept)
    if left:
        ledger.findings.append(Finding("limited", part.role, left, (), rule))


def _split(part: _Part, ids: Mapping[str, int]) -> Split:
    labels = None
    if part.names is not None:
        labels = _ids([part.names[i] for i in part.keep], ids)
    texts = [part.text(i) for i in part.keep]
    seconds = None if part.rows.seconds is None else [part.second(i) for i in part.keep]
    return Split(part.role, texts, labels, part.rows.places.take(part.keep), part.origin, seconds)


def _ids(names: Sequence[Names], ids: Mapping[str, int]) -> np.ndarray:
    """Class ids (rows,); of several labels a row, 0 and 1 for each class (rows, classes)."""
    if not any(isinstance(name, tuple) for name in names):
        return np.array([ids[str(name)] for name in names], dtype=np.int64)
    sets = np.zeros((len(names), len(ids)), dtype=np.int8)
    for row, of in zip(sets, names, strict=True):
        row[[ids[name] for name in _each(of)]] = 1
    return sets


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"
