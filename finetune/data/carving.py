"""Roles → rows for those that the source lacks: cut from train, dealt in folds, limited by number.

`splitting.py` draws the rows, stratified by label.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from finetune.config import schema
from finetune.data import splitting
from finetune.data.cells import format_rows
from finetune.data.corpus import Finding
from finetune.data.grouping import group_rows, read_times
from finetune.data.row_rules import (
    FindingLog,
    Ids,
    SplitRows,
    apply_given_split_rules,
    split_names,
)
from finetune.data.splitting import STAYS, carve, draw
from finetune.runtime.errors import InputError, shorten

NONE = "none"  # so begins the origin of a validation split that is not there


def carve_missing(
    pool: SplitRows,
    class_ids: Mapping[str, int],
    missing: Sequence[str],
    data: schema.Data,
    folds: int | None,
) -> dict[str, SplitRows]:
    """Cut the missing roles from the pool, test first; the pool keeps the rest.

    Args:
        folds: where given, nothing is cut for test.

    Raises:
        InputError: where a cut would be empty.
    """
    if not missing:
        return {}
    side = _cut(pool, class_ids, missing, data, folds)
    splits: dict[str, SplitRows] = {}
    if folds is not None:
        splits["test"] = replace(pool, role="test", origin=NONE, keep=pool.keep[:0])
    if "validation" in missing and data.validation != "carve":
        origin = _origin_without_validation(side, data, folds)
        if origin is not None:
            side[side == 1] = STAYS
            splits["validation"] = replace(
                pool, role="validation", origin=origin, keep=pool.keep[:0]
            )
    problems = []
    for role in missing:
        if role in splits:
            continue
        rows = pool.keep[side == ("test", "validation").index(role)]
        share = data.test_fraction if role == "test" else data.validation_fraction
        origin = _describe_cut(pool, rows, share, data)
        if role == "test" and data.fold is not None:
            origin = f"part {data.fold} of {pool.origin}, {_describe_drawing(data)}"
        splits[role] = replace(pool, role=role, origin=origin, keep=rows)
        if not len(rows):
            problems.append(_describe_empty_cut(role, pool, share, data))
    if problems:
        raise InputError(problems)
    pool.keep = pool.keep[side == STAYS]
    return splits


def _cut(
    pool: SplitRows,
    class_ids: Mapping[str, int],
    missing: Sequence[str],
    data: schema.Data,
    folds: int | None,
) -> Ids:
    """0 of rows for test, 1 of rows for validation, STAYS of the others. (rows,)"""
    fold = data.fold_of()
    # Test is always the first cut and validation the second, so neither moves the other's stream.
    fractions = {"test": data.test_fraction, "validation": data.validation_fraction}
    shares = [fractions[role] if role in missing else 0.0 for role in ("test", "validation")]
    if folds is not None or fold is not None:
        shares[0] = 0.0
    labels = pool.class_ids(class_ids)
    if data.split_by_time is not None:
        by_time: Ids = splitting.cut_latest(read_times(pool, data.split_by_time), shares)
        return by_time
    cut = splitting.carve_groups if _differ_in_size(data) else carve
    side: Ids = cut(group_rows(pool, data), labels, shares, data.split_seed)
    if fold is not None:
        part, count = fold
        side[deal_folds(pool, class_ids, count, data) == part - 1] = 0
    return side


def _differ_in_size(data: schema.Data) -> bool:
    """Whether what stays together may be of very different sizes, so that rows are counted."""
    return data.group is not None or data.near_duplicates == "together"


def _describe_cut(pool: SplitRows, rows: Ids, share: float, data: schema.Data) -> str:
    """Where the rows of a split that was cut from the pool are from."""
    if data.split_by_time is None:
        return f"split off from {pool.origin}: {100 * share:g} %, {_describe_drawing(data)}"
    text = f"split off from {pool.origin}: the latest {100 * share:g} % by '{data.split_by_time}'"
    if not len(rows):
        return text
    part = replace(pool, keep=rows)
    first = int(read_times(part, data.split_by_time).argmin())
    return f"{text}, from {pool.rows.attributes[data.split_by_time].take(rows)[first]} on"


def _describe_drawing(data: schema.Data) -> str:
    whole = "" if data.group is None else f", groups of '{data.group}' whole"
    if data.near_duplicates == "together":
        whole += ", near-duplicates together"
    if data.task == "number":
        return f"stratified by tenths of the numbers, seed {data.split_seed}{whole}"
    return f"stratified, seed {data.split_seed}{whole}"


def _describe_empty_cut(role: str, pool: SplitRows, share: float, data: schema.Data) -> str:
    """That a cut has no row, and what it takes."""
    what = (
        f"{role}: carving {100 * share:g} % (data.{role}_fraction) of "
        f"{format_rows(len(pool.keep))} gives none; it takes "
    )
    if data.split_by_time is not None:
        return f"{what}rows of at least three times in '{data.split_by_time}' (data.split_by_time)"
    if data.task == "number":
        return f"{what}more different texts, or a larger share"
    classes = len(pool.count_labels())
    if data.group is not None:
        groups = len(np.unique(group_rows(pool, data)))
        return (
            f"{what}smaller groups, or more of them than the {groups} of '{data.group}' "
            f"(data.group), of which the {classes} classes keep one each in train"
        )
    return (
        f"{what}at least {math.ceil(0.5 / share)} different texts, and one more than the {classes} "
        "classes, each of which keeps one in train"
    )


def apply_rules_of_time(
    splits: Mapping[str, SplitRows], cut: Sequence[str], log: FindingLog
) -> None:
    """What a later split may have that train has not: labels that came up since.

    Raises:
        InputError: where there are such and data.on_unseen_label says stop.
    """
    seen = set(splits["train"].count_labels())
    if log.data.task == "number":  # none is unseen
        seen |= {name for role in cut for name in splits[role].count_labels()}
    later: dict[str, None] = {}
    for role in cut:
        if not splits[role].origin.startswith(NONE):
            later |= dict.fromkeys(splits[role].count_labels())
            apply_given_split_rules(splits[role], seen, log)
    log.raise_problems()
    if unused := tuple(name for name in later if name not in seen):
        rule = "kept in the label space, and never learned"
        log.findings.append(Finding("unused label", "train", len(unused), unused, rule))


def require_cut(missing: Sequence[str], data: schema.Data, folds: int | None) -> None:
    """
    Raises:
        InputError: where a key says how train is cut, and nothing is cut from it.
    """
    if folds is not None or data.fold is not None or {*missing} - {"validation"}:
        return
    if "validation" in missing and data.validation != "none":
        return
    problems = [
        f"{key}: nothing is cut from train, as the source has its splits; leave it out, or set "
        "data.test=carve"
        for key, is_set in (
            ("data.split_by_time", data.split_by_time is not None),
            ("data.near_duplicates", data.near_duplicates == "together"),
        )
        if is_set
    ]
    if problems:
        raise InputError(problems)


def _origin_without_validation(side: Ids, data: schema.Data, folds: int | None) -> str | None:
    """Why no validation split is cut; None where one is."""
    if data.validation == "none" or folds is not None or data.fold is not None:
        return NONE
    cut = int((side == 1).sum())
    if cut >= schema.LEAST_VALIDATION:
        return None
    share = f"{100 * data.validation_fraction:g} %"
    return (
        f"{NONE}, as {share} of {format_rows(len(side))} is {cut}, fewer than the "
        f"{schema.LEAST_VALIDATION} needed"
    )


def deal_folds(pool: SplitRows, class_ids: Mapping[str, int], count: int, data: schema.Data) -> Ids:
    """Which fold each row that is in belongs to. (rows,)

    Raises:
        InputError: where there are fewer different texts than folds.
    """
    keys = group_rows(pool, data)
    documents, what = len(np.unique(keys)), "different texts"
    if data.group is not None:
        what = f"groups of '{data.group}' (data.group)"
    if documents < count:
        raise InputError(f"run.folds: expected at least {count} {what} in train, found {documents}")
    deal = splitting.deal_groups if _differ_in_size(data) else splitting.assign_folds
    folds: Ids = deal(keys, pool.class_ids(class_ids), count, data.split_seed)
    return folds


def note_rare_classes(
    splits: Mapping[str, SplitRows], given: Collection[str], log: FindingLog
) -> None:
    """Note the classes of train that a split cut from it does not have.

    Args:
        given: the roles that the source has.
    """
    train = splits["train"].count_labels()
    for role, split in splits.items():
        if role in given or split.origin.startswith(NONE):
            continue
        counts = split.count_labels()
        rare = [
            f"{name}: {format_rows(train[name])} in train" for name in train if name not in counts
        ]
        if rare:
            rule = "they have too few rows to split one off, so this score does not cover them"
            if role == "test" and split.origin.startswith("split off"):
                rule += "; run.folds=5 would score every row"
            log.findings.append(Finding("rare class", role, len(rare), tuple(rare), rule))


def limit_rows(splits: Mapping[str, SplitRows], data: schema.Data, log: FindingLog) -> None:
    """Draw as many rows of each split, and of each class of train, as the recipe allows."""
    limits = {
        "train": data.max_train_rows,
        "validation": data.max_validation_rows,
        "test": data.max_test_rows,
    }
    if data.rows_per_class is not None and "train" in splits:
        _draw_per_class(splits["train"], data.rows_per_class, data.split_seed, log)
    for stream, (role, most) in enumerate(limits.items()):
        if role not in splits:
            continue
        split = splits[role]
        before = split.keep
        drawn = draw(len(before), most, data.split_seed, stream)
        if len(drawn) == len(before):
            continue
        had = {*split.count_labels()} if split.is_labelled and data.task != "number" else set()
        split.keep = before[drawn]
        rule = f"{len(drawn):,} drawn by seed {data.split_seed} (data.max_{role}_rows: {most})"
        lost = sorted(had - set(split.count_labels())) if had else []
        if lost:
            rule += f"; none is left of {shorten(lost)}"
        log.findings.append(Finding("limited", role, len(before) - len(drawn), (), rule))


def _draw_per_class(split: SplitRows, most: int, seed: int, log: FindingLog) -> None:
    """Keep so many rows of each label, which makes a task of few rows out of a large one."""
    codes = split.label_codes[split.keep]
    names_of_code = [split_names(names) or ("",) for names in split.distinct_labels]
    members: dict[str, Ids] = {}
    for name in sorted({name for names in names_of_code for name in names}):
        with_name = [code for code, names in enumerate(names_of_code) if name in names]
        if len(rows := split.keep[np.isin(codes, with_name)]):
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
    left_out = len(split.keep) - len(drawn)
    split.keep = drawn
    if left_out:
        log.findings.append(Finding("limited", split.role, left_out, (), rule))
