"""Run folders of the same test rows → which is better, by how much, and how certain that is.

    runs = [read_run(Path("runs/bbc_news/a")), read_run(Path("runs/bbc_news/b"))]
    comparison = compare_runs(runs)

Rows that are hard for both runs do not show a difference, so runs are compared row by row. The
interval of a difference is that of `confusion.paired_difference`. The p-value is McNemar's exact
test (1947): of the rows that only one of two runs gets right, is each one's share beyond chance?
With more than two runs, p-values are corrected by Holm (1979), as more pairs differ by chance; and
so are those of labels (`label_changes.py`), for all labels of all pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation import confusion, intervals, probabilities
from finetune.evaluation.label_changes import LabelChange, compare_labels
from finetune.reporting.comparison_model import (
    ChangedDocument,
    ComparedLabel,
    ComparedPair,
    ComparedRun,
    Comparison,
    Difference,
)
from finetune.reporting.predictions import FILE, Prediction, read_predictions
from finetune.reporting.results_model import Results, read_results
from finetune.reporting.run_differences import (
    differing_identity,
    differing_settings,
    read_settings,
)
from finetune.reporting.run_progress import describe_left_over
from finetune.runtime.errors import InputError


@dataclass(frozen=True)
class Run:
    """A finished run's predictions on test.

    Attributes:
        name: its folder, as the user gave it.
        results: its `results.json`.
        labels, predictions: true and predicted class ids (rows,); multi-label: 0 and 1 (rows,
            classes).
        certainty: the probability of the true label (multi-label: of the right decisions, on
            average). (rows,)
    """

    name: str
    results: Results
    labels: confusion.Labels
    predictions: confusion.Labels
    certainty: NDArray[np.float64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        return probabilities.is_correct(self.labels, self.predictions)


def read_run(folder: Path) -> Run:
    """A run folder.

    Raises:
        InputError: where it is none, is of an earlier version, or has no labelled test split.
    """
    results = read_results(folder)
    if results.numbers is not None:
        raise InputError(
            f"{folder}: its model predicts numbers, and only runs whose models predict labels are "
            f"compared; its scores are in {folder / 'results.json'}"
        )
    if results.tasks:
        raise InputError(
            f"{folder}: its model has several tasks (data.tasks), and only runs whose models "
            f"predict one kind of label are compared; its scores are in {folder / 'results.json'}"
        )
    if not results.test.labelled:
        raise InputError(f"{folder}: its test split has no labels, so nothing can be compared")
    names = results.data.labels
    ids = {name: i for i, name in enumerate(names)}
    file = folder / FILE
    # Of each row a few numbers are kept, not its line.
    given: list[Any] = []
    predicted: list[Any] = []
    certainty: list[float] = []
    for number, line in enumerate(read_predictions(file, names), 1):
        try:
            given.append(_class_ids(line.label, ids))
            predicted.append(_class_ids(line.predicted, ids))
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{file}: line {number}: expected labels of the run, found {error}"
            ) from None
        certainty.append(_certainty(given[-1], line.probabilities))
    classes = len(names)
    return Run(
        str(folder),
        results,
        _as_array(given, classes, results.data.multi_label),
        _as_array(predicted, classes, results.data.multi_label),
        np.array(certainty),
    )


def _class_ids(names: str | list[str] | None, ids: Mapping[str, int]) -> int | list[int]:
    return [ids[name] for name in names] if isinstance(names, list) else ids[names]  # type: ignore[index]


def _certainty(label: int | list[int], chances: Sequence[float]) -> float:
    if isinstance(label, int):
        return chances[label]
    has = {*label}
    right = sum(chance if i in has else 1 - chance for i, chance in enumerate(chances))
    return right / len(chances)


def _as_array(ids: list[Any], classes: int, multi_label: bool) -> confusion.Labels:
    if not multi_label:
        return np.array(ids, dtype=np.int64)
    sets = np.zeros((len(ids), classes), dtype=np.int64)
    for row, of_row in zip(sets, ids, strict=True):
        row[of_row] = 1
    return sets


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs that were not tested on the same rows.

    Raises:
        InputError: for each that differs from the first, by the hash of its test split.
    """
    first = runs[0]
    problems = []
    for run in runs[1:]:
        same_rows = run.results.hashes.test == first.results.hashes.test
        if not same_rows or run.results.data.labels != first.results.data.labels:
            problems.append(
                f"{run.name}: its test rows are not those of {first.name} ({_test_rows(run)}, "
                f"against {_test_rows(first)}); only predictions of the same rows can be compared"
            )
    if problems:
        raise InputError(problems)


def _test_rows(run: Run) -> str:
    results = run.results
    return f"{len(run.labels):,} rows of {results.data.source}, hash {results.hashes.test[:12]}"


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """What differs between runs, the scores of each, and each pair's differences.

    Raises:
        InputError: where the test rows are not the same, or a recipe cannot be read.
    """
    check_comparable(runs)
    names = runs[0].results.data.labels
    results = [run.results for run in runs]
    recipes = [read_settings(Path(run.name)) for run in runs]
    couples = [*combinations(runs, 2)]
    ps = [intervals.mcnemar_p(*_only_right(*couple)[::-1]) for couple in couples]
    changes = [
        compare_labels(one.labels, one.predictions, other.predictions, len(names))
        for one, other in couples
    ]
    of_labels = iter(
        intervals.correct_p_values([change.p for found in changes for change in found])
    )
    corrected = intervals.correct_p_values(ps)
    pairs = [
        _pair(*couple, (p, p_holm), [_label(change, next(of_labels), names) for change in found])
        for couple, p, p_holm, found in zip(couples, ps, corrected, changes, strict=True)
    ]
    return Comparison(
        rows=len(runs[0].labels),
        test=runs[0].results.hashes.test,
        runs=[_scores(run, len(names)) for run in runs],
        settings=differing_settings(recipes),
        identity=differing_identity(results, recipes),
        pairs=pairs,
    )


def _scores(run: Run, classes: int) -> ComparedRun:
    table = confusion.Confusion.from_labels(run.labels, run.predictions, classes)
    accuracy, results = table.observed("accuracy"), run.results
    return ComparedRun(
        run=run.name,
        recipe=results.recipe,
        model=results.model.source,
        accuracy=accuracy,
        accuracy_interval=intervals.wilson_interval(accuracy, len(run.labels)),
        f1_macro=table.observed("f1_macro"),
        f1_macro_interval=table.interval("f1_macro"),
        ece=results.calibration.on("test").after.ece,
        loss=results.test.loss,
        seconds=results.train.seconds,
        left_over=describe_left_over(Path(run.name)),
    )


def _pair(
    one: Run, other: Run, p: tuple[float, float], labels: Sequence[ComparedLabel]
) -> ComparedPair:
    """
    Args:
        p: of McNemar's test, and corrected.
        labels: in the order of the label space.
    """
    only_one, only_other = _only_right(one, other)
    classes = len(one.results.data.labels)
    gaps = {
        name: Difference.model_validate(
            confusion.paired_difference(
                name, one.labels, other.predictions, one.predictions, classes
            )
        )
        for name in ("accuracy", "f1_macro")
    }
    both_right = int((one.correct & other.correct).sum())
    worsened, improved = _changed_documents(one, other)
    ordered = sorted(labels, key=lambda label: -abs(label.f1.difference))
    return ComparedPair(
        one=one.name,
        other=other.name,
        **gaps,
        monitor=_shared_monitor(one, other),
        both_right=both_right,
        both_wrong=len(one.labels) - both_right - only_one - only_other,
        only_one_right=only_one,
        only_other_right=only_other,
        p=p[0],
        p_holm=p[1],
        gained=[label.label for label in ordered if label.changed and label.f1.difference > 0],
        lost=[label.label for label in ordered if label.changed and label.f1.difference < 0],
        labels=ordered,
        worsened=worsened,
        improved=improved,
    )


def _only_right(one: Run, other: Run) -> tuple[int, int]:
    """The rows that only the first, and that only the second, gets right."""
    ones, others = one.correct, other.correct
    return int((ones & ~others).sum()), int((others & ~ones).sum())


def _label(change: LabelChange, p_holm: float, names: Sequence[str]) -> ComparedLabel:
    gaps = {
        name: Difference(difference=values[1] - values[0], interval=interval)
        for name, values, interval in (
            ("f1", change.f1, change.f1_interval),
            ("recall", change.recall, change.recall_interval),
        )
    }
    return ComparedLabel(
        label=names[change.label],
        support=change.support,
        f1_one=change.f1[0],
        f1_other=change.f1[1],
        recall_one=change.recall[0],
        recall_other=change.recall[1],
        p=change.p,
        p_holm=p_holm,
        **gaps,
    )


def _changed_documents(one: Run, other: Run) -> tuple[list[ChangedDocument], list[ChangedDocument]]:
    """Those that only the first, and that only the second, gets right: the largest change first.

    Both files are read again, so that no text is held but theirs.
    """
    change = other.certainty - one.certainty
    only_one = np.flatnonzero(one.correct & ~other.correct)
    only_other = np.flatnonzero(other.correct & ~one.correct)
    wanted = {*only_one.tolist(), *only_other.tolist()}
    ones, others = (_lines(run, wanted) for run in (one, other))

    def document(i: int) -> ChangedDocument:
        first, second = ones[i], others[i]
        return ChangedDocument(
            row=first.row,
            id=first.id if first.id is not None else second.id,
            text=first.text or second.text,
            label=first.label or [],
            one=first.predicted,
            other=second.predicted,
            probability_one=float(one.certainty[i]),
            probability_other=float(other.certainty[i]),
        )

    falls = only_one[np.argsort(change[only_one], kind="stable")]
    rises = only_other[np.argsort(-change[only_other], kind="stable")]
    return [document(i) for i in falls.tolist()], [document(i) for i in rises.tolist()]


def _lines(run: Run, rows: set[int]) -> dict[int, Prediction]:
    lines = enumerate(read_predictions(Path(run.name) / FILE, run.results.data.labels))
    return {i: line for i, line in lines if i in rows}


def _shared_monitor(one: Run, other: Run) -> str:
    """The metric that picked both models, where they are compared by it; else accuracy."""
    names = {run.results.monitor for run in (one, other)}
    return "f1_macro" if names == {"f1_macro"} else "accuracy"
