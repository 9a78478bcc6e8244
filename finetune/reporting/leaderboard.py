"""Folders with runs in them → a leaderboard: the runs by their validation score, in groups.

    rank_runs([Path("runs")])

The rank follows validation, which is what models are chosen by. The test score is beside it with
its interval: who chooses by it has no test split any more. Runs that were tested on other rows
cannot be compared at all, so each set of test rows is a group of its own.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.data.cells import natural_order
from finetune.evaluation.analysis_model import SplitScores
from finetune.evaluation.metrics import LOWER_IS_BETTER
from finetune.reporting.leaderboard_model import Group, Leaderboard, OtherRun, RankedRun
from finetune.reporting.number_formats import short_names
from finetune.reporting.results_model import FILE, Results, read_results
from finetune.reporting.run_differences import differing_settings, read_settings
from finetune.reporting.run_progress import (
    describe_left_over,
    describe_progress,
    describe_unfinished,
    find_run_around,
    is_run,
)
from finetune.runtime.errors import InputError, ProblemList, shorten
from finetune.runtime.folder_lock import is_unlocked
from finetune.runtime.wording import count_of

SWEEP = "study.db"  # in the folder of a sweep, whose trials are scored on validation alone


@dataclass(frozen=True)
class FinishedRun:
    """A run with its results.

    Attributes:
        settings: of `read_settings`.
    """

    folder: Path
    results: Results
    settings: dict[str, Any]


def find_runs(folder: Path) -> Iterator[Path]:
    """The runs in a folder, however deep, in natural order; or the folder, if it is one itself.

    Of a cross-validation, the run on all rows stands for its folds; of a sweep, the winner for its
    trials.

    Raises:
        InputError: where there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    if is_run(folder):
        yield folder
        return
    inside = [
        child
        for child in sorted(folder.iterdir(), key=lambda child: natural_order(child.name))
        if child.is_dir() and not child.name.startswith(".")
    ]
    names = {child.name for child in inside}
    for child in inside:
        is_fold = child.name.startswith("fold-") and "all" in names
        is_trials = child.name == "trials" and (folder / SWEEP).exists()
        # A linked run counts; a linked folder of runs may hold this one.
        if not (is_fold or is_trials) and (is_run(child) or not child.is_symlink()):
            yield from find_runs(child)


def rank_runs(folders: Sequence[Path]) -> Leaderboard:
    """All runs in some folders: those with results ranked, the others named.

    Raises:
        InputError: for each folder that does not exist, or has no run in it.
    """
    problems = ProblemList()
    runs: dict[Path, None] = {}
    for folder in folders:
        with problems.collect():
            found = [*find_runs(folder)]
            if not found:
                raise InputError(f"{folder}: {_explain_no_run(folder)}")
            runs |= dict.fromkeys(found)
    problems.raise_if_any()
    finished: list[FinishedRun] = []
    others: list[OtherRun] = []
    for folder in runs:
        try:
            if not (folder / FILE).is_file():
                others.append(_describe_unfinished(folder))
                continue
            finished.append(FinishedRun(folder, read_results(folder), read_settings(folder)))
        except InputError as error:
            why = "; ".join(error.problems).removeprefix(f"{folder / FILE}: ")
            others.append(OtherRun(run=str(folder), state="broken", why=why))
    return Leaderboard(
        folders=[str(folder) for folder in folders], groups=_groups(finished), others=others
    )


def _explain_no_run(folder: Path) -> str:
    if (run := find_run_around(folder)) is not None:
        return f"no run in it; its run is {run}"
    return f"no run in there; expected folders with recipe.yaml and {FILE}, as runs write them"


def _describe_unfinished(folder: Path) -> OtherRun:
    if not is_unlocked(folder):
        return OtherRun(run=str(folder), state="running", why=describe_progress(folder))
    return OtherRun(run=str(folder), state="unfinished", why=describe_unfinished(folder))


def _groups(runs: Sequence[FinishedRun]) -> list[Group]:
    """Those of the same test rows together, the largest group first."""
    grouped: dict[tuple[str, ...], list[FinishedRun]] = {}
    for run in runs:
        grouped.setdefault((run.results.hashes.test, *run.results.data.labels), []).append(run)
    ordered = sorted(grouped.values(), key=lambda group: -len(group))
    keys = [_differing_keys(group) for group in ordered]
    union = [*dict.fromkeys(key for some in keys for key in some)]
    return [_group(group, some, union) for group, some in zip(ordered, keys, strict=True)]


def _differing_keys(runs: Sequence[FinishedRun]) -> list[str]:
    return [setting.key for setting in differing_settings([run.settings for run in runs])]


def _group(runs: Sequence[FinishedRun], keys: list[str], shown: Sequence[str]) -> Group:
    """
    Args:
        keys: that differ in this group.
        shown: that differ in some group.
    """
    metric = _shared_metric(runs)
    newest = max(runs, key=lambda run: run.results.started).results
    ranked = [_ranked(run, metric, shown) for run in runs]
    sign = 1 if metric in LOWER_IS_BETTER else -1
    scores = sorted(sign * run.validation for run in ranked if run.validation is not None)
    placed = [
        run.model_copy(update={"rank": scores.index(sign * run.validation) + 1})
        if run.validation is not None
        else run
        for run in ranked
    ]
    last = len(placed) + 1
    return Group(
        test=newest.hashes.test,
        source=newest.data.source,
        labels=len(newest.data.labels),
        test_rows=newest.test.rows,
        metric=metric,
        keys=keys,
        notes=[*_notes(runs, metric)],
        runs=sorted(placed, key=lambda run: (run.rank or last, run.started, run.run)),
    )


def _ranked(run: FinishedRun, metric: str, shown: Sequence[str]) -> RankedRun:
    results = run.results
    validation, test = results.validation, results.test
    left_over = describe_left_over(run.folder)
    return RankedRun(
        run=str(run.folder),
        rank=None,
        recipe=results.recipe,
        started=results.started,
        encoder=results.model.source,
        train_rows=results.data.splits["train"].rows,
        validation_rows=validation.rows,
        validation=_score(validation, metric),
        validation_interval=validation.intervals.get(metric),
        test=_score(test, metric),
        test_interval=test.intervals.get(metric),
        minutes=results.train.seconds / 60,
        settings={key: run.settings.get(key) for key in shown},
        failures=[*results.failures, *([left_over] if left_over else [])],
    )


def _score(scores: SplitScores, metric: str) -> float | None:
    return scores.metric(metric) if scores.labelled and scores.has(metric) else None


def _picking_metric(results: Results) -> str:
    """What picked the model; of runs of earlier versions, the default."""
    return results.monitor or ("f1_micro" if results.data.multi_label else "accuracy")


def _shared_metric(runs: Sequence[FinishedRun]) -> str:
    """What picks most of the models, of the metrics that most runs measured on validation."""
    votes = Counter(_picking_metric(run.results) for run in runs)
    measured = {
        metric: sum(_score(run.results.validation, metric) is not None for run in runs)
        for metric in votes
    }
    return max(votes, key=lambda metric: (measured[metric], votes[metric]))


def _notes(runs: Sequence[FinishedRun], metric: str) -> Iterator[str]:
    names = short_names([str(run.folder) for run in runs], 40)
    scored = [
        (name, run.results)
        for name, run in zip(names, runs, strict=True)
        if _score(run.results.validation, metric) is not None
    ]
    if len({_validation_identity(results) for _, results in scored}) > 1:
        yield (
            "Validation is not the same rows in all runs, so a difference in validation may be one "
            "of rows: compare such runs with finetune compare, on test."
        )
    others = [
        f"{name} ({_picking_metric(results)})"
        for name, results in scored
        if _picking_metric(results) != metric
    ]
    if others:
        yield f"Another metric picked the model of {shorten(others, 5)}."
    if missing := len(runs) - len(scored):
        yield f"{count_of(missing, 'run')} without a validation score of {metric}: not ranked."


def _validation_identity(results: Results) -> tuple[Any, ...]:
    """What tells whether two runs have the same validation rows."""
    return results.hashes.validation, results.validation.rows
