"""What a run prints on the terminal: its data, its plan, its scores. Nothing is decided here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetune.compute.hardware_plan import Hardware
from finetune.config.label_tasks import MARK
from finetune.config.schema import LEAST_STEPS, Recipe
from finetune.data.corpus import Corpus, class_counts
from finetune.data.label_tasks import Tasks
from finetune.evaluation.analysis_model import ParentComparison, Slicing
from finetune.reporting import narrative
from finetune.reporting.number_formats import (
    describe_level,
    format_interval,
    format_score,
    percent,
)
from finetune.reporting.parent_text import explain_parent, tabulate_parent
from finetune.reporting.results_model import Results
from finetune.reporting.seeds_report import SeedsSummary, format_seeds
from finetune.reporting.slices_text import explain_slices, tabulate_slices
from finetune.reporting.tasks_text import each_task, tabulate_tasks
from finetune.runtime.console import format_table, print_line, print_wrapped
from finetune.runtime.wording import count_of
from finetune.tokenization import truncation_audit
from finetune.tokenization.token_table import TokenTable
from finetune.training import sampling, schedule, stages
from finetune.training.messages import format_rate

MOST_CLASSES = 12  # that are listed one by one


def print_source(recipe: Recipe) -> None:
    """The source, before it is read: a large file or the Hub may take its time."""
    print_wrapped(recipe.data.source, mark="Data   ")


def print_data(corpus: Corpus, tables: Mapping[str, TokenTable], max_length: int) -> None:
    """The splits, their classes, and the findings in their rows."""
    rows = [("", "rows", "tokens", "median", "longest", f"truncated at {max_length}")]
    for split in corpus.splits():
        tokens = tables[split.name]
        share = f"{tokens.truncated:,} ({100 * tokens.truncated / len(tokens):.0f} %)"
        rows.append(
            (
                split.name,
                f"{len(tokens):,}",
                f"{tokens.lengths.sum():,}",
                f"{int(np.median(tokens.full)):,}",
                f"{tokens.full.max():,}",
                share,
            )
        )
    print_line(format_table(rows))
    _print_splits(corpus)


def print_inspected(corpus: Corpus, statistics: Mapping[str, Any]) -> None:
    """The statistics of data alone.

    Args:
        statistics: of `checks.describe_corpus`.
    """
    rows = [("", "rows", "words: median", "p95", "longest", "characters: longest")]
    for name, split in statistics["splits"].items():
        words, characters = split["words"], split["characters"]
        numbers = split["rows"], words["median"], words["p95"], words["longest"]
        rows.append((name, *(f"{number:,}" for number in (*numbers, characters["longest"]))))
    print_line(format_table(rows))
    _print_splits(corpus)
    if not corpus.findings:
        print_line("  no problems found")


def _print_splits(corpus: Corpus) -> None:
    for split in (corpus.train, corpus.validation, corpus.test):
        if len(split) or split is corpus.validation:
            kept = "" if len(split) else "; the last step's model is kept, without calibration"
            print_wrapped(f"{split.name}: {split.origin}{kept}", mark="  ")
    if corpus.number is not None and corpus.train.labels is not None:
        numbers, scale = corpus.train.labels, corpus.number
        print_wrapped(
            f"numbers in '{corpus.labels[0]}' of train: {numbers.min():g} to {numbers.max():g}, "
            f"mean {scale.mean:.4g}, standard deviation {scale.deviation:.4g}",
            mark="  ",
        )
        _print_findings(corpus)
        return
    if corpus.tasks is not None:
        _print_tasks(corpus, corpus.tasks)
        _print_findings(corpus)
        return
    counts = _quote_numbers(class_counts(corpus.train, corpus.labels))
    _print_counts(counts, "train")
    labels = corpus.train.labelled_only().labels
    if corpus.multi_label and labels is not None:
        per_row = labels.sum(axis=1)
        print_wrapped(
            f"multi-label: {per_row.mean():.2f} labels a row on average, at most {per_row.max()}; "
            f"{(per_row == 0).sum():,} train rows have none",
            mark="  ",
        )
    _print_findings(corpus)


def _print_tasks(corpus: Corpus, tasks: Tasks) -> None:
    total = sum(task.weight for task in tasks)
    counts = class_counts(corpus.train, corpus.labels)
    for task in tasks:
        its = _quote_numbers({label: counts[f"{task.name}{MARK}{label}"] for label in task.labels})
        weight = f"'{task.name}' of train ({percent(task.weight / total, 0)} of the loss)"
        _print_counts(its, weight)


def _print_counts(counts: Mapping[str, int], where: str) -> None:
    """Labels with their rows, or if they are many, the fewest and the most.

    Args:
        where: whose labels.
    """
    if len(counts) <= MOST_CLASSES:
        listed = ": " + ", ".join(f"{name} {count:,}" for name, count in counts.items())
    else:
        least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        listed = f", from {counts[least]:,} rows ({least}) to {counts[most]:,} ({most})"
        if counts[least] == counts[most]:
            listed = f", {counts[most]:,} rows each"
    print_wrapped(f"{len(counts)} labels in {where}{listed}", mark="  ")


def _quote_numbers(counts: Mapping[str, int]) -> dict[str, int]:
    """Rows by label; names without a letter are quoted, so that they are not read as counts."""
    mark = "" if all(any(map(str.isalpha, name)) for name in counts) else "'"
    return {f"{mark}{name}{mark}": count for name, count in counts.items()}


def _print_findings(corpus: Corpus) -> None:
    for finding in corpus.findings:
        print_wrapped(str(finding), mark="  ! ")


def print_audit(options: Sequence[truncation_audit.ReadingOption]) -> None:
    """What each way of reading long documents would truncate, and its estimated cost.

    Prints nothing where no document is long.
    """
    now = next(option for option in options if option.chosen)
    if not now.rows_cut and not now.windows:
        return
    rows = [("long train documents", "truncated", "tokens lost", "time", "memory")]
    for option in options:
        rows.append(
            (
                f"{option}{', as here' * option.chosen}",
                f"{option.rows_cut:,} ({100 * option.rows_cut / option.rows:.0f} %)",
                f"{100 * option.tokens_cut / option.tokens:.0f} %",
                f"× {option.time:.1f}",
                f"× {option.memory:.1f}",
            )
        )
    print_line(format_table(rows))
    ends = truncation_audit.most_truncated(now)
    if ends is not None and now.tokens_cut:
        (most, much), (least, little) = ends
        print_wrapped(
            f"'{most}' loses the largest share of its tokens ({100 * much:.0f} %), '{least}' the "
            f"smallest ({100 * little:.0f} %)",
            mark="  ",
        )


def print_plan(
    recipe: Recipe, plan: Hardware, processes: int, sharded: bool, train: TokenTable
) -> None:
    """The model, the steps of each stage, and the hardware with the reasons for its settings."""
    planned = stages.plan_stages(recipe, len(train))
    frozen = f", {recipe.model.describe_freezing()}" * (len(planned) == 1)
    print_line()
    cut, ordered = (
        recipe.model.describe_cut(),
        " of ordered labels" * (recipe.data.task == "ordered"),
    )
    print_wrapped(
        f"{recipe.model.source}{cut}, head {recipe.model.head}{ordered}{frozen}", mark="Model  "
    )
    for stage in planned:
        print_wrapped(_describe_stage(stage), mark="Train  " if stage.number == 1 else "       ")
    sharing = f"{processes} process{'es' * (processes > 1)}" + ", weights sharded" * sharded
    print_wrapped(f"{plan.name}, {sharing}", mark="On     ")
    for reason in plan.reasons:
        print_wrapped(reason, mark="       ")


def _describe_stage(stage: stages.Stage) -> str:
    """A stage's steps and learning rate; of several stages, also what is frozen."""
    train, optim = stage.recipe.train, stage.recipe.optim
    steps, epochs, note = stage.end - stage.begin, stage.passes, ""
    asked = schedule.resolve_epochs(stage.rows, train)
    per_epoch = sampling.steps_per_epoch(stage.rows, train.batch_size)
    if train.min_steps == steps > asked * per_epoch:
        epochs, note = asked, f", or as many as {train.min_steps:,} steps take"
    elif schedule.epochs_per_round(stage.rows, train) > 1:
        least = min(train.min_steps or LEAST_STEPS, LEAST_STEPS)
        if steps >= least:  # train.max_steps may ask for fewer
            note = f" (at least {least:,} steps)"
    documents, stratified = train.batch_size, ""
    if schedule.resolve_sampling(stage.rows, train) == "stratified":
        documents = -(-stage.rows // per_epoch)
        if documents != train.batch_size:
            stratified = f" ({stage.rows:,} rows in equal batches)"
    size = f"of {count_of(documents, 'document')}{stratified}"
    length = f"{count_of(steps, 'step')} {size}, {epochs:.3g} epoch{'s' * (epochs != 1)}{note}"
    if train.awaits_plan:
        length = f"steps {size} for train.minutes: {train.minutes:g}"
    text = f"{length}; {optim.name}, lr {format_rate(optim.lr)}, {optim.schedule}"
    if stage.count == 1:
        return text
    return f"stage {stage.number}: {text}, {stage.recipe.model.describe_freezing()}"


FILES = (
    ("report.html", "scores, calibration, error analysis, training curves"),
    ("results.json", "all numbers"),
    ("model/", "the classifier with its model card"),
    ("predictions/test.jsonl", "predictions on test"),
    ("metrics.jsonl", "the training log"),
    ("preflight.json", "data quality: every finding"),
    ("recipe.yaml", "all settings: it runs this again"),
)


def print_results(results: Results, folder: Path) -> None:
    """The scores, how certain they are, the files; last of all the score."""
    train, test = results.train, results.test
    print_line(
        f"\nTrained {train.steps:,} steps in {train.seconds:.0f} s, "
        f"{train.rows_per_second:.0f} documents/s"
    )
    print_line(format_table(_score_table(results)))
    if not test.labelled:
        print_line(f"  test has no labels: its {test.rows:,} rows were predicted, not scored")
    if not results.tasks:
        _print_sentences(results)
    for task, alone in each_task(results):
        print_line(f"\n  {task.name}:")
        _print_sentences(alone)
        print_slices(alone.slices, narrative.main_metric(alone))
    for level in results.levels:
        print_line(f"  {describe_level(level)}")
    if results.parent is not None:
        print_parent(results.parent)
    print_slices(results.slices, narrative.main_metric(results))
    print_line(f"\nWritten to {folder}")
    print_line(format_table(FILES, indent=2, left=2))
    print_line()
    print_line(score_line(results), even_if_quiet=True)
    print_line(f"Report: {folder / 'report.html'}", even_if_quiet=True)


def _print_sentences(results: Results) -> None:
    for line in narrative.summarize(results):
        print_wrapped(line, mark="  ")


def print_parent(parent: ParentComparison) -> None:
    """What was forgotten of the labels that the source of a kept head knows."""
    print_line(f"\n  Beside {parent.source}, whose head was kept:")
    for line in explain_parent(parent):
        print_wrapped(line, mark="  ")
    if table := tabulate_parent(parent):
        print_line(format_table(table))


def print_slices(slicings: Sequence[Slicing], metric: str) -> None:
    """The scores of each slice by one metric, and which of them are worse."""
    for slicing in slicings:
        print_line()
        print_line(format_table(tabulate_slices(slicing, metric)))
    for line in explain_slices(slicings):
        print_wrapped(line, mark="  ")


def _score_table(results: Results) -> list[list[str]]:
    """Each metric on validation and test, its interval, the baselines."""
    if results.tasks:
        return tabulate_tasks(results)
    validation, test, baselines = results.validation, results.test, results.baselines
    columns = ["", *["validation"] * results.is_tuned]
    counts = ["rows", *[f"{validation.rows:,}"] * results.is_tuned]
    if baselines is not None:
        constant = "majority" if results.numbers is None else "mean"
        columns += ["test", "95 % interval", "TF-IDF", constant]
        counts += [f"{test.rows:,}", "", "", ""]
    rows = [columns]
    for name in results.scores.intervals:
        row = [name[:32]]
        if results.is_tuned:
            row.append(format_score(validation.metric(name)))
        if baselines is not None:
            row += [
                format_score(test.metric(name)),
                format_interval(test.intervals[name]),
                format_score(baselines.tfidf.metric(name)),
                format_score(baselines.majority.metric(name)),
            ]
        rows.append(row)
    return [*rows, counts]


def score_line(results: Results) -> str:
    """The score in one line: the main metric, on test where it has labels."""
    name, scores = narrative.main_metric(results), results.scores
    interval = scores.intervals[name]
    certainty = "" if interval is None else f" (95 % interval {format_interval(interval)})"
    split = results.analysed.capitalize()
    if results.data.folds is not None:
        split = f"Cross-validated, {results.data.folds} folds:"
    return f"{split} {name} {format_score(scores.metric(name))}{certainty}"


def print_seeds(summary: SeedsSummary, folder: Path) -> None:
    """The scores of several seeds together."""
    print_line(f"\n{format_seeds(summary)}")
    spread = summary.main_spread
    deviation = "" if spread.sd is None else f" ± {spread.sd:.4f}"
    print_line()
    print_line(
        f"{summary.split.capitalize()} {summary.main} {spread.mean:.4f}{deviation} (mean and "
        f"standard deviation of {len(summary.seeds)} seeds)",
        even_if_quiet=True,
    )
    print_line(f"Report: {folder / 'report.html'}", even_if_quiet=True)
