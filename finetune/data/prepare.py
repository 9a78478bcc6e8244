"""Rows → label space, splits, preflight findings.

    corpus = prepare(load_rows(recipe.data), recipe.data)
    for finding in corpus.findings:
        print(finding)  # train: 98 rows repeat an earlier text and label (…): dropped (…)

What is done with rows that are not right stands in `row_rules.py`, how a pool is cut in
`splitting.py`,
how labels get their names in `label_space.py`.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.config import schema
from finetune.data import checks, splitting
from finetune.data.corpus import Corpus, Finding, Split, split_hash
from finetune.data.label_space import Named, NamedSets, name_label_sets, name_labels
from finetune.data.row_rules import (
    Ids,
    Ledger,
    Part,
    counted,
    each,
    nothing_left,
    repeats_in_pool,
    require_classes,
    rows_of_given,
    take_labels,
)
from finetune.data.rows import Rows
from finetune.data.sources import roles
from finetune.data.splitting import STAYS, carve, draw
from finetune.data.text_store import digest, numbered
from finetune.runtime.errors import InputError, shorten

NONE = "none"  # so begins the origin of a validation split that is not there


def prepare_corpus(
    sources: Mapping[str, Rows], data: schema.Data, folds: int | None = None
) -> Corpus:
    """Give every split of the source its role, apply the rules, and carve what is missing.

    Args:
        sources: split name in the source → rows, as of `sources.load_rows`
        data: the recipe's section
        folds: train on all rows, and let test be the same, judged in so many parts (`run.folds`).

    Raises:
        InputError: where labels are missing or do not fit, a rule says stop, or a split is empty.
    """
    if folds is not None or data.fold is not None:
        data = data.model_copy(update={"test": "carve"})  # a part of train, or the whole
    chosen = roles(sources, data)
    rows_of = {role: sources[name] for role, name in chosen._asdict().items() if name is not None}
    if several := any(rows.multi_label for rows in rows_of.values()):
        rows_of = {role: rows.as_sets() for role, rows in rows_of.items()}
    _require_labels(rows_of, chosen._asdict())
    # A test split without a single label is predicted, not scored.
    labelled = {role: rows for role, rows in rows_of.items() if _has_labels(rows)}
    origins = {role: rows.origin or str(chosen._asdict()[role]) for role, rows in rows_of.items()}
    parts = _parts(rows_of, origins)
    ledger = Ledger(data)
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
        take_labels(part, named.get(role), ledger)
    pool = parts["train"]
    if not ledger.problems:
        require_classes(pool, ledger)
    repeats_in_pool(pool, ledger)
    for role, part in parts.items():
        if role != "train":
            rows_of_given(part, set(pool.labels_in()), ledger)
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
    if in_folds := folds is not None or data.fold is not None:
        _limit({"train": pool}, data, ledger)  # first, as folds are of the rows that there are
    if folds is not None:  # before validation is cut off, as in the run of each fold
        dealt = _folds(pool, ids, folds, data)
        part_of = dict(zip((pool.rows.places.place(row) for row in pool.keep), dealt, strict=True))
        hashes = tuple(
            split_hash(_split(replace(pool, keep=pool.keep[dealt == i]), ids)) for i in range(folds)
        )
    parts |= _carved(
        pool, ids, [role for role in ("test", "validation") if role not in parts], data, folds
    )
    if parts["validation"].origin.startswith(NONE) and folds is None:
        _require_something_scored(parts["test"])
    _note_rare_classes(parts, rows_of, ledger)
    _limit({r: p for r, p in parts.items() if r != "train" or not in_folds}, data, ledger)
    without_rows = [
        nothing_left(part, ledger)
        for part in parts.values()
        if not len(part.keep) and not part.origin.startswith(NONE)
    ]
    if without_rows:
        raise InputError(without_rows)
    require_classes(parts["train"], ledger)
    train, validation, test = (_split(parts[role], ids) for role in chosen._fields)
    if not len(validation):
        validation = validation.without_rows()
    if not len(test):
        test = test.without_rows()
    corpus = Corpus(space, train, validation, test, tuple(ledger.findings), several)
    corpus = checks.examine(corpus, data)
    if folds is None:
        return corpus
    train = corpus.train  # may have lost rows to validation
    return replace(
        corpus,
        test=replace(
            train,
            name="test",
            origin=f"train in {folds} parts, each judged by a model that had not seen it",
        ),
        folds=np.array([part_of[train.places.place(row)] for row in range(len(train))]),
        fold_hashes=hashes,
    )


def _parts(rows_of: Mapping[str, Rows], origins: Mapping[str, str]) -> dict[str, Part]:
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
        role: Part(
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


def _carved(
    pool: Part,
    ids: Mapping[str, int],
    missing: Sequence[str],
    data: schema.Data,
    folds: int | None,
) -> dict[str, Part]:
    """Cut the missing roles from the pool, test first; the pool keeps the rest.

    Args:
        folds: where given, nothing is cut for test.
    """
    if not missing:
        return {}
    fractions = {"test": data.test_fraction, "validation": data.validation_fraction}
    # Test is always the first cut and validation the second, so neither moves the other's stream.
    shares = [fractions[role] if role in missing else 0.0 for role in ("test", "validation")]
    parted = data.fold_of()
    if folds is not None or parted is not None:
        shares[0] = 0.0
    labels = _ids(pool, ids)
    side = carve(pool.numbers[pool.keep], labels, shares, data.split_seed)
    if parted is not None:
        part, many = parted
        side[_folds(pool, ids, many, data) == part - 1] = 0
    problems = []
    parts = {}
    if folds is not None:
        parts["test"] = replace(pool, role="test", origin=NONE, keep=pool.keep[:0])
    if "validation" in missing and data.validation != "carve":
        share, cut = data.validation_fraction, int((side == 1).sum())
        why = ""
        if data.validation == "auto" and folds is None and parted is None:
            why = f", as {100 * share:g} % of {counted(len(side))} would be {cut}"
        if data.validation == "none" or not why or cut < schema.LEAST_VALIDATION:
            side[side == 1] = STAYS
            nothing = pool.keep[:0]
            parts["validation"] = replace(
                pool, role="validation", origin=f"{NONE}{why}", keep=nothing
            )
    for role in missing:
        if role in parts:
            continue
        rows = pool.keep[side == ("test", "validation").index(role)]
        share = fractions[role]
        origin = f"carved from {pool.origin}: {100 * share:g} %, stratified, seed {data.split_seed}"
        if role == "test" and parted is not None:
            origin = f"part {data.fold} of {pool.origin}, stratified, seed {data.split_seed}"
        parts[role] = replace(pool, role=role, origin=origin, keep=rows)
        if not len(rows):
            classes = len(pool.labels_in())
            problems.append(
                f"{role}: carving {100 * share:g} % (data.{role}_fraction) of {counted(len(side))} "
                f"gives none; it takes at least {math.ceil(0.5 / share)} different texts, and one "
                f"more than the {classes} classes, each of which keeps one in train"
            )
    if problems:
        raise InputError(problems)
    pool.keep = pool.keep[side == STAYS]
    return parts


def _require_something_scored(test: Part) -> None:
    if not test.kinds:
        raise InputError(
            "data.validation: none, and no row of test has a label, so that nothing would be "
            "scored; set data.validation=carve"
        )


def _folds(part: Part, ids: Mapping[str, int], many: int, data: schema.Data) -> Ids:
    """Which part each row that is in belongs to. (rows,)"""
    documents = len(np.unique(part.numbers[part.keep]))
    if documents < many:
        raise InputError(
            f"run.folds: expected at least {many} different texts in train, found {documents}"
        )
    found: Ids = splitting.assign_folds(
        part.numbers[part.keep], _ids(part, ids), many, data.split_seed
    )
    return found


def _note_rare_classes(
    parts: Mapping[str, Part], given: Mapping[str, Rows], ledger: Ledger
) -> None:
    train = parts["train"].labels_in()
    for role, part in parts.items():
        if role in given or part.origin.startswith(NONE):
            continue
        counts = part.labels_in()
        rare = [f"{name}: {counted(train[name])} in train" for name in train if name not in counts]
        if rare:
            rule = "too few rows to cut one off; the score there says nothing of them"
            if role == "test" and part.origin.startswith("carved"):
                rule += "; run.folds=5 would score every row"
            ledger.findings.append(Finding("rare class", role, len(rare), tuple(rare), rule))


def _limit(parts: Mapping[str, Part], data: schema.Data, ledger: Ledger) -> None:
    limits = {
        "train": data.max_train_rows,
        "validation": data.max_validation_rows,
        "test": data.max_test_rows,
    }
    if data.rows_per_class is not None and "train" in parts:
        _draw_per_class(parts["train"], data.rows_per_class, data.split_seed, ledger)
    for stream, (role, most) in enumerate(limits.items()):
        if role not in parts:
            continue
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
            rule += f"; none is left of {shorten(lost)}"
        ledger.findings.append(Finding("limited", role, len(before) - len(drawn), (), rule))


def _draw_per_class(part: Part, most: int, seed: int, ledger: Ledger) -> None:
    """Keep so many rows of each label, which makes a task of few rows out of a large one."""
    labels = part.labels[part.keep]
    members: dict[str, Ids] = {}
    for name in sorted({name for kind in part.kinds for name in each(kind) or ("",)}):
        has = [k for k, kind in enumerate(part.kinds) if name in (each(kind) or ("",))]
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
        rule += f"; there are fewer of {shorten(fewer)}"
    left = len(part.keep) - len(drawn)
    part.keep = drawn
    if left:
        ledger.findings.append(Finding("limited", part.role, left, (), rule))


def _split(part: Part, ids: Mapping[str, int]) -> Split:
    rows, keep = part.rows, part.keep
    seconds = None if rows.seconds is None else rows.seconds.take(keep)
    labels = _ids(part, ids) if part.kinds else None
    places = rows.places.take(keep)
    return Split(part.role, rows.texts.take(keep), labels, places, part.origin, seconds)


def _ids(part: Part, ids: Mapping[str, int]) -> NDArray[Any]:
    """Of the rows that are in: class ids (rows,); of several labels, 0 and 1 (rows, classes)."""
    if any(isinstance(kind, tuple) for kind in part.kinds):
        of_kind = np.zeros((len(part.kinds), len(ids)), dtype=np.int8)
        for row, kind in zip(of_kind, part.kinds, strict=True):
            row[[ids[name] for name in each(kind) if name in ids]] = 1
    else:  # -1: of rows that are out
        of_kind = np.array([ids.get(str(kind), -1) for kind in part.kinds], dtype=np.int64)
    found: NDArray[Any] = of_kind[part.labels[part.keep]]
    return found
