"""What a run says on the terminal: its data, its plan, its scores. Nothing is decided here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetune.compute.hardware_plan import Hardware
from finetune.config import loader
from finetune.config.schema import Recipe
from finetune.data.corpus import Corpus, class_counts
from finetune.reporting import narrative, results_model, seeds_report
from finetune.runtime.console import format_table, print_line, print_wrapped
from finetune.tokenization import truncation_audit
from finetune.tokenization.token_table import TokenTable
from finetune.training import sampling, schedule, stages
from finetune.training.messages import (
    _rate,
)
from finetune.training.run_folder import Start

MOST_CLASSES = 12  # that are listed one by one


def print_source(choices: Recipe) -> None:
    """Said before it is read: a large file or the Hub may take its time."""
    print_wrapped(choices.data.source, mark="Data   ")


def print_data(corpus: Corpus, tables: Mapping[str, TokenTable], max_length: int) -> None:
    """The splits, their classes, and what was found in the rows."""
    rows = [("", "rows", "tokens", "median", "longest", f"cut at {max_length}")]
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
    _say_splits(corpus)


def print_inspected(corpus: Corpus, found: Mapping[str, Any]) -> None:
    """What can be said of data alone, as of `checks.describe_corpus`."""
    rows = [("", "rows", "words: median", "p95", "longest", "characters: longest")]
    for name, split in found["splits"].items():
        words, characters = split["words"], split["characters"]
        numbers = split["rows"], words["median"], words["p95"], words["longest"]
        rows.append((name, *(f"{number:,}" for number in (*numbers, characters["longest"]))))
    print_line(format_table(rows))
    _say_splits(corpus)
    if not corpus.findings:
        print_line("  nothing was found wrong with them")


def _say_splits(corpus: Corpus) -> None:
    for split in (corpus.train, corpus.validation, corpus.test):
        if len(split) or split is corpus.validation:
            print_wrapped(f"{split.name}: {split.origin}", mark="  ")
    counts = class_counts(corpus.train, corpus.labels)
    if len(counts) <= MOST_CLASSES:
        listed = ": " + ", ".join(f"{name} {count:,}" for name, count in counts.items())
    else:
        least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        listed = f", from {counts[least]:,} rows ({least}) to {counts[most]:,} ({most})"
        if counts[least] == counts[most]:
            listed = f", {counts[most]:,} rows each"
    print_wrapped(f"{len(counts)} labels in train{listed}", mark="  ")
    if corpus.multi_label and corpus.train.labels is not None:
        many = corpus.train.labels.sum(axis=1)
        print_wrapped(
            f"several labels a row: {many.mean():.2f} on average, at most {many.max()}; "
            f"{(many == 0).sum():,} train rows have none",
            mark="  ",
        )
    for finding in corpus.findings:
        print_wrapped(str(finding), mark="  ! ")


def print_audit(choices: Sequence[truncation_audit.ReadingOption]) -> None:
    """What each way of reading long documents would cut, and cost; nothing where none is long."""
    now = next(choice for choice in choices if choice.chosen)
    if not now.rows_cut and not now.windows:
        return
    rows = [("long documents of train", "cut", "tokens cut", "time", "memory")]
    for choice in choices:
        rows.append(
            (
                f"{choice}{', as here' * choice.chosen}",
                f"{choice.rows_cut:,} ({100 * choice.rows_cut / choice.rows:.0f} %)",
                f"{100 * choice.tokens_cut / choice.tokens:.0f} %",
                f"× {choice.time:.1f}",
                f"× {choice.memory:.1f}",
            )
        )
    print_line(format_table(rows))
    ends = truncation_audit.most_truncated(now)
    if ends is not None and now.tokens_cut:
        (most, much), (least, little) = ends
        print_wrapped(
            f"most is cut from '{most}' ({100 * much:.0f} % of its tokens), least from '{least}' "
            f"({100 * little:.0f} %)",
            mark="  ",
        )


def print_plan(
    choices: Recipe, plan: Hardware, processes: int, sharded: bool, train: TokenTable
) -> None:
    """What will be computed, on what."""
    found = stages.plan_stages(choices, len(train))
    frozen = f", frozen {choices.model.freeze}" * (len(found) == 1)
    print_line()
    print_wrapped(f"{choices.model.source}, head {choices.model.head}{frozen}", mark="Model  ")
    for stage in found:
        print_wrapped(_planned(stage), mark="Train  " if stage.number == 1 else "       ")
    sharing = f"{processes} process{'es' * (processes > 1)}" + ", weights sharded" * sharded
    print_wrapped(f"{plan.name}, {sharing}", mark="On     ")
    for reason in plan.reasons:
        print_wrapped(reason, mark="       ")


def _planned(stage: stages.Stage) -> str:
    """A stage's steps and rate; of several, what it freezes too."""
    choices, steps = stage.recipe, stage.end - stage.begin
    of, least, passes = choices.optim, choices.train.min_steps, stage.passes
    more, whole = "", schedule.resolve_epochs(stage.rows, choices.train)
    if least == steps > whole * sampling.steps_per_epoch(stage.rows, choices.train.batch_size):
        passes = whole
        more = f", or as many as {least:,} steps take"
    elif schedule.epochs_per_round(stage.rows, choices.train) > 1:
        more = ", as rows are few"
    documents, dealt = choices.train.batch_size, ""
    if schedule.resolve_sampling(stage.rows, choices.train) == "stratified":
        documents = -(-stage.rows // sampling.steps_per_epoch(stage.rows, documents))
        if documents != choices.train.batch_size:
            dealt = f" (of {stage.rows:,}, dealt evenly)"
    said = (
        f"{steps:,} steps of {documents} documents{dealt}, {passes:.3g} "
        f"epoch{'s' * (passes != 1)}{more}; {of.name}, lr {_rate(of.lr)}, {of.schedule}"
    )
    if stage.count == 1:
        return said
    return f"stage {stage.number}: {said}, frozen {choices.model.freeze}"


def print_dry_run(choices: Recipe, train: TokenTable, start: Start) -> None:
    """The resolved recipe and the learning-rate table; and where it would be taken up."""
    per_epoch = sampling.steps_per_epoch(len(train), choices.train.batch_size)
    found = stages.plan_stages(choices, len(train))
    rows = [["stage", "step", "epoch", "lr"]]
    print_line("\nLearning rate")
    for stage in found:
        steps = stage.end - stage.begin
        if stage.recipe.optim.lr == "auto":
            of = f" of stage {stage.number}" if len(found) > 1 else ""
            print_line(f"  a range test on train rows finds it before the first step{of}")
            continue
        for step in sorted({0, *(round(i * (steps - 1) / 10) for i in range(11))}):
            done = stage.begin + step + 1
            rate = schedule.learning_rate(step, steps, per_epoch, stage.recipe.optim)
            rows.append([f"{stage.number}", f"{done:,}", f"{done / per_epoch:.2f}", f"{rate:.3e}"])
    if len(rows) > 1:
        print_line(format_table(row[len(found) == 1 :] for row in rows))
    print_line(f"\nThe recipe, resolved\n\n{loader.to_yaml(choices)}")
    if start.finished:
        print_wrapped(f"The run in {start.folder} is finished: only a longer one goes on.", mark="")
    elif start.point is not None:
        print_wrapped(f"It would go on from {start.point}, if that is of this recipe.", mark="")
    print_line("A dry run: no weights were loaded, nothing was written.")


FILES = (
    ("report.html", "all of this to look at, and where it fails"),
    ("results.json", "all numbers"),
    ("model/", "the classifier, and its model card"),
    ("predictions/test.jsonl", "every answer on test"),
    ("metrics.jsonl", "how it trained"),
    ("preflight.json", "what was found in the documents"),
    ("recipe.yaml", "runs this again"),
)


def print_results(run_results: results_model.Results, folder: Path) -> None:
    """The scores, what is behind them, where everything is; last of all the score."""
    results = run_results.as_json()
    train, test = results["train"], results["test"]
    print_line(
        f"\nTrained {train['steps']:,} steps in {train['seconds']:.0f} s, "
        f"{train['rows_per_second']:.0f} documents/s"
    )
    print_line(format_table(_scores(results)))
    if not test["labelled"]:
        print_line(f"  test has no labels: its {test['rows']:,} rows were predicted, not scored")
    for line in narrative.summary_lines(results):
        print_wrapped(line, mark="  ")
    print_line(f"\nWritten to {folder}")
    print_line(format_table(FILES, indent=2, left=2))
    print_line()
    print_line(headline(results), even_if_quiet=True)
    print_line(f"Report: {folder / 'report.html'}", even_if_quiet=True)


def _scores(results: Mapping[str, Any]) -> list[list[str]]:
    """Rows of the closing table: each metric on validation and test, its interval, baselines."""
    validation, test, plain = results["validation"], results["test"], results["baselines"]
    labelled, tuned = test["labelled"], narrative.is_tuned(results)
    head = ["", *["validation"] * tuned]
    head += ["test", "95 % interval", "TF-IDF", "majority"] * labelled
    rows = [head]
    for name in results[results["analysed"]]["intervals"]:
        row = [name[:22], *[f"{validation[name]:.4f}" for _ in range(tuned)]]
        if labelled:
            pair = test["intervals"][name]
            row += [
                f"{test[name]:.4f}",
                "" if pair is None else f"{pair[0]:.4f} to {pair[1]:.4f}",
                *(f"{plain[of][name]:.4f}" for of in ("tfidf", "majority")),
            ]
        rows.append(row)
    counts = ["rows", *[f"{validation['rows']:,}"] * tuned]
    counts += [f"{test['rows']:,}", "", "", ""] * labelled
    return [*rows, counts]


def headline(results: Mapping[str, Any]) -> str:
    """The score in one line: the metric that picked the model, on test where it has labels."""
    split = "test" if results["test"]["labelled"] else "validation"
    name = narrative.main_metric(results)
    value, pair = results[split][name], results[split]["intervals"][name]
    sure = "" if pair is None else f" (95 % interval {pair[0]:.4f} to {pair[1]:.4f})"
    folds = results["data"].get("folds")
    said = split.capitalize() if folds is None else f"Cross-validated, {folds} folds:"
    return f"{said} {name} {value:.4f}{sure}"


def print_seeds(found: Mapping[str, Any], folder: Path) -> None:
    """The scores of several seeds together."""
    print_line(f"\n{seeds_report.format_seeds(found)}")
    split = "test" if found["test"] else "validation"
    name = found["main"]
    one = found[split].get(name) or found[split]["loss"]
    spread = "" if one["sd"] is None else f" ± {one['sd']:.4f}"
    count = len(found["seeds"])
    print_line()
    print_line(
        f"{split.capitalize()} {name} {one['mean']:.4f}{spread} (mean and sd of {count} seeds)",
        even_if_quiet=True,
    )
    print_line(f"Report: {folder / 'report.html'}", even_if_quiet=True)
