"""Rows → label space, splits, findings.

    corpus = prepare_corpus(load_rows(recipe.data), recipe.data)
    for finding in corpus.findings:
        print(finding)  # train: 98 rows duplicate an earlier text and label (…): dropped (…)

The rules for single rows are in `row_rules.py`, how labels get their names in `label_space.py`,
how train is cut in `carving.py`, what is compared across splits in `checks.py`.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.config import schema
from finetune.data import checks, number_cells
from finetune.data.carving import (
    NONE,
    apply_rules_of_time,
    carve_missing,
    deal_folds,
    limit_rows,
    note_rare_classes,
    require_cut,
)
from finetune.data.corpus import Corpus, Finding, Split, split_hash
from finetune.data.grouping import note_shared_groups
from finetune.data.id_checks import note_id_problems
from finetune.data.label_levels import check_levels
from finetune.data.label_names import note_label_names, note_unused_labels
from finetune.data.label_order import order_labels
from finetune.data.label_space import NamedLabels, NamedSets, name_label_sets, name_labels
from finetune.data.label_tasks import Tasks, check_task_labels, order_tasks
from finetune.data.number_scale import NumberScale
from finetune.data.row_rules import (
    FindingLog,
    SplitRows,
    apply_given_split_rules,
    apply_repeat_rules,
    assign_labels,
    describe_empty_split,
    require_classes,
)
from finetune.data.rows import Rows
from finetune.data.similar_labels import merge_of
from finetune.data.soft_labels import list_names, read_weights, share_matrix
from finetune.data.sources import Roles, assign_roles
from finetune.data.text_store import hash_text, number_digests
from finetune.runtime.errors import InputError

WHOLE_ORDER = "name all that train has, from the lowest to the highest"
ROLES = Roles._fields  # train, validation, test


def prepare_corpus(
    sources: Mapping[str, Rows],
    data: schema.Data,
    folds: int | None = None,
    stops: list[str] | None = None,
) -> Corpus:
    """Give every split of the source its role, apply the rules, and carve what is missing.

    Args:
        sources: split name in the source → rows, as of `sources.load_rows`
        data: the recipe's section
        folds: train on all rows, and let test be the same, scored in so many parts (`run.folds`).
        stops: where given, takes the problems of rules that say stop, which then stop nothing.

    Raises:
        InputError: where labels are missing or do not fit, a rule says stop, or a split is empty.
    """
    in_folds = folds is not None or data.fold is not None
    if in_folds:
        data = data.model_copy(update={"test": "carve"})  # a part of train, or the whole
    chosen = assign_roles(sources, data)
    log = FindingLog(data, is_lenient=stops is not None)
    _note_unused_splits(sources, chosen, log)
    rows_of = _rows_by_role(sources, chosen, data)
    _note_reading(rows_of, log)
    splits = _compare_documents(rows_of, chosen)
    try:
        space = _apply_row_rules(splits, rows_of, log)
    finally:
        if stops is not None:
            stops += log.problems
    pool = splits["train"]
    class_ids = _strata(pool, space, data)
    if in_folds:
        limit_rows({"train": pool}, data, log)  # first, as folds are of the rows that there are
    # Before validation is cut off, as in the run of each fold.
    dealt = None if folds is None else _Folds.deal(pool, class_ids, folds, data)
    missing = [role for role in ("test", "validation") if role not in splits]
    require_cut(missing, data, folds)
    splits |= carve_missing(pool, class_ids, missing, data, folds)
    if data.split_by_time is not None:
        apply_rules_of_time(splits, missing, log)
    if splits["validation"].origin.startswith(NONE) and folds is None:
        _require_something_scored(splits["test"])
    if data.task != "number":
        note_rare_classes(splits, rows_of, log)
    limit_rows({r: s for r, s in splits.items() if r != "train" or not in_folds}, data, log)
    _require_rows(splits, log)
    numbers = data.task == "number"
    train, validation, test = (_to_split(splits[role], class_ids, numbers) for role in ROLES)
    corpus = Corpus(
        space, train, validation, test, tuple(log.findings), rows_of["train"].multi_label
    )
    corpus = replace(corpus, hierarchy=data.hierarchy, tasks=checked_tasks(space, corpus, data))
    corpus = _speak_of_numbers(note_id_problems(checks.check_corpus(corpus, data, stops)), numbers)
    # Of the rows that are left, where data.on_leak drops some.
    corpus = replace(corpus, number=NumberScale.of(corpus.train.labels))
    if data.group is not None:
        corpus = note_shared_groups(corpus, data.group)
    return corpus if dealt is None else dealt.test_on_train(corpus)


def _speak_of_numbers(corpus: Corpus, are_numbers: bool) -> Corpus:
    """The same, whose findings call labels that are numbers so."""
    findings = tuple(replace(one, of_numbers=are_numbers) for one in corpus.findings)
    return replace(corpus, findings=findings)


def checked_tasks(space: Sequence[str], corpus: Corpus, data: schema.Data) -> Tasks | None:
    """The tasks of a label space; None where there are none.

    Raises:
        InputError: as `check_task_labels` does.
    """
    tasks = Tasks.of(space, data.task_weights())
    if tasks is not None:
        check_task_labels(tasks, {split.name: split.labels for split in corpus.splits()})
    return tasks


def _rows_by_role(sources: Mapping[str, Rows], chosen: Roles, data: schema.Data) -> dict[str, Rows]:
    """The rows of each role that the source has; all of several labels, or none.

    Raises:
        InputError: where train or validation has no label.
    """
    rows_of = {role: sources[name] for role, name in chosen._asdict().items() if name is not None}
    if any(rows.multi_label for rows in rows_of.values()):
        rows_of = {role: rows.as_sets() for role, rows in rows_of.items()}
    problems = _find_one_hot_problems(rows_of)
    if not _has_labels(rows_of["train"]):
        problems.append(
            f"train: no row of the split '{chosen.train}' has a label; training needs them: "
            "set data.label to their column"
        )
    if "validation" in rows_of and not _has_labels(rows_of["validation"], data):
        problems.append(
            f"validation: no row of the split '{chosen.validation}' has a label; tuning needs "
            "them: set data.label to their column, or data.validation=carve"
        )
    if problems:
        raise InputError(problems)
    return rows_of


def _has_labels(rows: Rows, data: schema.Data | None = None) -> bool:
    """Whether any row has a label.

    Args:
        data: counts lists of none, too: the row says that no label applies. A blank cell that
            `label_separator` would divide says nothing.
    """
    lists_count = data is not None and data.label_separator is None
    says_nothing = (None,) if lists_count else (None, ())
    return any(
        label.strip() if isinstance(label, str) else label not in says_nothing
        for label in rows.labels or ()
    )


def _find_one_hot_problems(rows_of: Mapping[str, Rows]) -> list[str]:
    """That lists of 0 and 1 do not tell of the same labels in all splits."""
    widths = {
        role: rows.one_hot
        for role, rows in rows_of.items()
        if rows.multi_label and any(rows.labels or ())
    }
    if len(set(widths.values())) < 2:
        return []
    got = ", ".join(
        f"lists of {'labels' if width is None else f'{width} times 0 or 1'} in {role}"
        for role, width in widths.items()
    )
    return [f"data.label: expected lists of the same kind in all splits, got {got}"]


def _note_unused_splits(sources: Mapping[str, Rows], chosen: Roles, log: FindingLog) -> None:
    unused = tuple(f"{n} ({len(sources[n].texts):,} rows)" for n in sources if n not in chosen)
    if unused:
        log.findings.append(Finding("unused split", "source", len(unused), unused, "ignored"))


def _note_reading(rows_of: Mapping[str, Rows], log: FindingLog) -> None:
    """How the splits were read, and what was not."""
    for role, rows in rows_of.items():
        log.findings += [replace(note, split=note.split or role) for note in rows.notes]


def _compare_documents(rows_of: Mapping[str, Rows], chosen: Roles) -> dict[str, SplitRows]:
    """All rows of each role, their documents compared: white space at the ends is no difference."""
    digests, empty = {}, {}
    for role, rows in rows_of.items():
        count = len(rows.texts)
        digests[role], empty[role] = np.zeros(count, "S16"), np.zeros(count, dtype=bool)
        seconds = itertools.repeat("") if rows.seconds is None else rows.seconds
        for i, pair in enumerate(zip(rows.texts, seconds, strict=False)):
            text, second = ((cell or "").strip() for cell in pair)
            empty[role][i] = not text or (rows.seconds is not None and not second)
            digests[role][i] = hash_text(f"{text}\0{second}")
    document_ids = number_digests([*digests.values()])
    return {
        role: SplitRows(
            role,
            rows,
            rows.origin or str(chosen._asdict()[role]),
            document_ids=ids,
            empty=empty[role],
            keep=np.arange(len(ids)),
        )
        for (role, rows), ids in zip(rows_of.items(), document_ids, strict=True)
    }


def _apply_row_rules(
    splits: Mapping[str, SplitRows], rows_of: Mapping[str, Rows], log: FindingLog
) -> tuple[str, ...]:
    """Apply the rules for rows of the source, and name their labels; the label space.

    Raises:
        InputError: with the problems of all rules that say stop.
    """
    for split in splits.values():
        _apply_encoding_rules(split, log)
        log.apply_rule("empty", "on_empty", split, split.keep[split.empty[split.keep]])
    # A test split without a single label is predicted, not scored.
    labelled = {role: rows for role, rows in rows_of.items() if _has_labels(rows, log.data)}
    names = log.data.given_labels()
    shares = rows_of["train"].shares
    if names is None and shares is not None:
        names = list_names(iter(shares.take(splits["train"].keep)))
    space, named = _name_space(labelled, splits["train"], names, log)
    for role, split in splits.items():
        assign_labels(split, named.get(role), log)
    pool = splits["train"]
    if not log.problems:
        require_classes(pool, log)
    apply_repeat_rules(pool, log)
    are_numbers = log.data.task == "number"
    for role, split in splits.items():
        if role != "train":
            seen = split if are_numbers and split.is_labelled else pool  # no number is unseen
            apply_given_split_rules(split, set(seen.count_labels()), log)
    log.raise_problems()
    if log.data.weight is not None:
        _note_weights(pool, log.data.weight, log)
    if are_numbers:
        return space
    note_label_names(splits, next(iter(named.values())).merged, log)
    note_unused_labels(space, pool, log, has_shares=shares is not None)
    return space


def _name_space(
    labelled: Mapping[str, Rows], pool: SplitRows, names: tuple[str, ...] | None, log: FindingLog
) -> tuple[tuple[str, ...], Mapping[str, NamedLabels | NamedSets]]:
    """The label space, and the labels of each split in it.

    Raises:
        InputError: with the labels that are none, or do not fit the recipe.
    """
    _require_single_labels(pool.rows, log.data)
    name: Callable[..., tuple[tuple[str, ...], Mapping[str, NamedLabels | NamedSets]]]
    name = name_label_sets if pool.rows.multi_label else name_labels
    named: Mapping[str, NamedLabels | NamedSets]
    try:
        if log.data.task == "number":
            space, named = number_cells.name_numbers(labelled, str(log.data.label))
        else:
            space, named = name(labelled, pool.keep, names, merge_of(log.data))
        space = order_labels(space, log.data)
        space = order_tasks(space, log.data.task_weights())
        check_levels(space, log.data)
    except InputError as error:
        key = "data.label_order" if log.data.task == "ordered" else "data.labels"
        problems = [*error.problems]
        if log.data.task == "ordered":  # null takes the labels of train only where they are numbers
            taken = "data.labels=null takes those that train has"
            problems = [one.replace(taken, WHOLE_ORDER) for one in problems]
        log.raise_problems([one.replace("data.labels", key) for one in problems])
        raise  # not reached
    return space, named


def _note_weights(pool: SplitRows, column: str, log: FindingLog) -> None:
    """
    Raises:
        InputError: where train's weights are no weights.
    """
    assert pool.rows.weights is not None, "a train split without the column is refused"
    ids, places = pool.rows.weights.take(pool.keep), pool.rows.places.take(pool.keep)
    weights = read_weights(ids, places, column)
    rule = f"the loss of a step is the mean weighted by them, {weights.sum():,.10g} in all"
    log.note("weighted", pool, pool.keep[weights != 1], f"{rule} (data.weight: {column})")
    log.note("weight of 0", pool, pool.keep[weights == 0], "kept, and nothing is learned from them")


def _require_single_labels(train: Rows, data: schema.Data) -> None:
    """
    Raises:
        InputError: where rows may have several labels, and the task is of one.
    """
    for asked, key, remedy in (
        (data.task != "classes", f"data.task: {data.task}", "data.task=classes"),
        (data.hierarchy is not None, "data.hierarchy", "data.hierarchy=null"),
    ):
        if train.multi_label and asked:
            raise InputError(
                f"{key}: expected rows with one label each, got lists of labels in "
                f"'{data.label}'; name another column by data.label, or set {remedy}"
            )


def _apply_encoding_rules(split: SplitRows, log: FindingLog) -> None:
    """The rule for what is no text: bytes that are not UTF-8, and halves of pairs of escapes.

    In a label, nothing is put in their place.
    """
    likely, halves = split.rows.encoding_hint, np.array(split.rows.halves, np.int64)
    damaged = np.array(split.rows.damaged, np.int64)
    hint = likely and f"; the encoding is {likely} (data.encoding)"
    to_set = f"set data.encoding ({likely})" if likely else "set data.encoding"
    for kind, rows, cause, remedy in (
        ("undecodable", np.setdiff1d(damaged, halves), hint, to_set),
        ("half pair", halves, "", "correct the \\u escapes"),
    ):
        log.apply_rule(kind, "on_undecodable", split, rows, hint=cause)
        of_labels = np.intersect1d(np.array(split.rows.damaged_labels, np.int64), rows)
        why = f"labels are never repaired; {remedy}, or set data.on_undecodable=drop"
        log.refuse(f"{kind} label", split, np.intersect1d(of_labels, split.keep), why)


def _require_something_scored(test: SplitRows) -> None:
    if not test.is_labelled:
        raise InputError(
            "data.validation: none, and no row of test has a label, so that nothing would be "
            "scored; set data.validation=carve"
        )


def _require_rows(splits: Mapping[str, SplitRows], log: FindingLog) -> None:
    """
    Raises:
        InputError: where a split has no row left, or train fewer than two labels.
    """
    problems = [
        describe_empty_split(split, log)
        for split in splits.values()
        if not len(split.keep) and not split.origin.startswith(NONE)
    ]
    if problems:
        raise InputError(problems)
    require_classes(splits["train"], log)


def _strata(pool: SplitRows, space: tuple[str, ...], data: schema.Data) -> dict[str, int]:
    """Each label's class id; each number's group, by which train is cut."""
    if data.task == "number":
        names = [pool.distinct_labels[code] for code in pool.label_codes[pool.keep]]
        return number_cells.bins_by_name(names)
    return {name: i for i, name in enumerate(space)}


def _to_split(split: SplitRows, class_ids: Mapping[str, int], numbers: bool = False) -> Split:
    rows, keep = split.rows, split.keep
    seconds = None if rows.seconds is None else rows.seconds.take(keep)
    labels: NDArray[Any] | None = None
    if split.is_labelled and numbers:
        labels = number_cells.numbers_of(split.distinct_labels, split.label_codes[keep])
    elif split.is_labelled:
        labels = split.class_ids(class_ids)
    places = rows.places.take(keep)
    ids = None if rows.ids is None else rows.ids.take(keep)
    attributes = {name: values.take(keep) for name, values in rows.attributes.items()}
    texts = rows.texts.take(keep)
    made = Split(split.role, texts, labels, places, split.origin, seconds, ids, attributes)
    if split.role == "train":
        made = replace(made, shares=_share_matrix(split, class_ids), weights=_weights(split))
    return made if len(keep) or split.role == "train" else made.without_rows()


def _share_matrix(split: SplitRows, class_ids: Mapping[str, int]) -> NDArray[np.float32] | None:
    shares = split.rows.shares
    return None if shares is None else share_matrix(shares.take(split.keep), class_ids)


def _weights(split: SplitRows) -> NDArray[np.float64] | None:
    """The weights of the rows that are in, where they are not all alike."""
    if split.rows.weights is None:
        return None
    weights = np.array([float(value) for value in split.rows.weights.take(split.keep)])
    return None if (weights == 1).all() else weights


@dataclass(frozen=True)
class _Folds:
    """Which part each row of train is scored in.

    Attributes:
        part_of: place of a row → its part.
        hashes: `split_hash` of each part.
    """

    part_of: Mapping[str, int]
    hashes: tuple[str, ...]

    @classmethod
    def deal(
        cls, pool: SplitRows, class_ids: Mapping[str, int], count: int, data: schema.Data
    ) -> "_Folds":
        parts: NDArray[np.int64] = deal_folds(pool, class_ids, count, data)
        places = (pool.rows.places.place(row) for row in pool.keep)
        of_each = (replace(pool, keep=pool.keep[parts == i]) for i in range(count))
        return cls(
            dict(zip(places, parts, strict=True)),
            tuple(split_hash(_to_split(part, class_ids)) for part in of_each),
        )

    def test_on_train(self, corpus: Corpus) -> Corpus:
        """The corpus with train as its test split, in parts."""
        train = corpus.train  # may have lost rows to validation
        origin = f"train in {len(self.hashes)} parts, each scored by a model that had not seen it"
        return replace(
            corpus,
            test=replace(train.scored_only(), name="test", origin=origin),
            folds=np.array([self.part_of[train.places.place(row)] for row in range(len(train))]),
            fold_hashes=self.hashes,
        )
